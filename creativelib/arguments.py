"""Numbers that a caller gave: taken from Python, NumPy or torch, or refused in one sentence. Below everything."""

import math
import operator
import re
from collections.abc import Iterable

MOST_SEED = 2**64 - 1  # what torch takes
MOST_NUMBER = 1e30  # of a size: products with it stay within single precision, which ends at 3.4e38


def whole_number(name: str, value, least: int, most: int | None = None, hint: str = "") -> int:
    """``value`` as an ``int`` from ``least`` to ``most``: any whole number of Python, NumPy or torch, but no truth value.

    Raises:
        ValueError: names the argument, what came and what is allowed; ``hint`` follows in brackets.
    """
    try:
        number = None if isinstance(value, bool) or str(getattr(value, "dtype", "")).endswith("bool") else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < least or (most is not None and number > most):
        allowed = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"{name}: got {value!r}; give a whole number {allowed}{hint and f' ({hint})'}")
    return number


def seed_number(name: str, value) -> int:
    """``value`` as a seed that torch takes, 0 to 2**64 - 1.

    Raises:
        ValueError: as ``whole_number``.
    """
    return whole_number(name, value, 0, MOST_SEED, "2**64 - 1, the most that torch takes")


def seed_numbers(name: str, values) -> list[int]:
    """Several seeds, of a list, an array or a range.

    Raises:
        ValueError: a single number, none at all, or as ``seed_number``.
    """
    if not isinstance(values, Iterable) or isinstance(values, str | bytes) or getattr(values, "ndim", 1) != 1:
        raise ValueError(f"{name}: got {values!r}; give a list of seeds, for example [1, 2, 3]")
    found = [seed_number(name, value) for value in values]
    if not found:
        raise ValueError(f"{name}: got none; give at least one seed")
    return found


def finite_number(name: str, value, above: float = -math.inf, hint: str = "") -> float:
    """``value`` as a finite ``float`` greater than ``above``: any number of Python, NumPy or torch, but no truth value or text.

    ``MOST_NUMBER`` is the largest: from there on what is computed with it is not finite.

    Raises:
        ValueError: names the argument, what came and what is allowed; ``hint`` follows in brackets.
    """
    try:
        number = math.nan if isinstance(value, bool | str | bytes) else float(value)
    except (TypeError, ValueError, RuntimeError):  # the last: a tensor of several numbers
        number = math.nan
    if not abs(number) <= MOST_NUMBER or number <= above:
        allowed = {-math.inf: "a finite number", 0: "a positive number"}.get(above, f"a finite number above {above:g}")
        allowed += f" of at most {MOST_NUMBER:g}" if MOST_NUMBER < abs(number) < math.inf else ""
        raise ValueError(f"{name}: got {value!r}; give {allowed}{hint and f' ({hint})'}")
    return number


def plain_words(name: str, value, example: str) -> str:
    """``value`` if it is a text with a letter or a digit that can be written in UTF-8.

    Raises:
        ValueError: names the argument, what came, and gives ``example``.
    """
    if not (_is_text(value) and re.search(r"\w", value)):
        raise ValueError(f"{name}: got {value!r}; give a word or words, for example {example!r}")
    return value


def any_words(name: str, value) -> str:
    """``value`` if it is a text that can be written in UTF-8; it may be empty.

    Raises:
        ValueError: names the argument and what came.
    """
    if not _is_text(value):
        raise ValueError(f"{name}: got {value!r}; give words as one text, for example 'a photo of a vehicle'")
    return value


def _is_text(value) -> bool:
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:  # the terminal wrote in another encoding than Python reads
        return False
