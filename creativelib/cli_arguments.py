"""What the commands share: one line for a mistake, and the kinds of values that options take. Needs no torch: help is quick."""

import argparse
import math
import re
from collections.abc import Callable
from pathlib import Path

from creativelib.arguments import MOST_NUMBER, MOST_SEED

MOST_SEEDS = 1000  # at once
# what argparse does not take for an option; its own has no exponents, and what is no finite number is for the type to refuse
NEGATIVE_NUMBER = re.compile(r"-((\d+\.?\d*|\.\d+)(e[-+]?\d+)?|inf|infinity|nan)$", re.IGNORECASE)


class Parser(argparse.ArgumentParser):
    """Reports a mistake as one line, without the usage block, and takes ``-1e5`` for a number, as it does ``-7``."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self._negative_number_matcher = NEGATIVE_NUMBER

    def error(self, message: str):
        self.exit(2, f"creativelib: {message}\n")


def whole(least: int, most: int | None = None) -> Callable[[str], int]:
    """An argparse type: a whole number from ``least`` to ``most`` (``None``: without end)."""
    allowed = f"of at least {least}" if most is None else f"from {least} to {most}"

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = None
        if number is None or number < least or (most is not None and number > most):
            raise argparse.ArgumentTypeError(f"got {text!r}; give a whole number {allowed}")
        return number

    return parse


def real(least: float = -math.inf, *, above: bool = False) -> Callable[[str], float]:
    """An argparse type: a finite number of at least ``least``, or more than it if ``above``."""
    limits = "" if least == -math.inf else f" {'above' if above else 'of at least'} {least:g}"
    limits += f", at most {MOST_NUMBER:g}" if limits else f" of at most {MOST_NUMBER:g}"

    def parse(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not abs(number) <= MOST_NUMBER or number < least or (above and number == least):
            raise argparse.ArgumentTypeError(f"got {text!r}; give a number{limits}")
        return number

    return parse


def seed(text: str) -> int:
    """An argparse type: a seed."""
    return whole(0, MOST_SEED)(text)


def path(text: str) -> Path:
    """An argparse type: a file or folder, where ``~`` is the home folder also after ``--out=``, which no shell expands."""
    if not text.strip():  # a variable of the shell that is not set; to pathlib it is the working directory
        raise argparse.ArgumentTypeError(f"got {text!r}; give a folder, for example creative")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:  # ~somebody
        raise argparse.ArgumentTypeError(f"got {text!r}; there is no such home folder") from error


def seeds(text: str) -> tuple[int, ...]:
    """An argparse type: several seeds, as ``0-4`` or ``1,5,9`` or both."""
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        between = range(seed(first), seed(last if dash else first) + 1)
        found += between[: MOST_SEEDS + 1]
    if not 0 < len(found) <= MOST_SEEDS or len(set(found)) < len(found):
        allowed = f"different seeds, at most {MOST_SEEDS}, for example 0-4 or 1,5,9"
        raise argparse.ArgumentTypeError(f"got {text!r}; give {allowed}")
    return tuple(found)


def named_number(names: tuple[str, ...]) -> Callable[[str], tuple[str, float | None]]:
    """An argparse type: one of ``names``, alone or with a number: ``sum`` or ``sum=0.5``."""

    def parse(text: str) -> tuple[str, float | None]:
        name, equals, number = text.partition("=")
        if name not in names:
            raise argparse.ArgumentTypeError(f"got {text!r}; choose one of {', '.join(names)}, or {names[0]}=NUMBER and so on")
        return name, real(0)(number) if equals else None

    return parse
