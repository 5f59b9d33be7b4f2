"""What the commands share: one line for a mistake, and the kinds of values that options take. Needs no torch: help is quick."""

import argparse
import math
from collections.abc import Callable
from pathlib import Path

LARGEST_SEED = 2**32 - 1  # torch's CPU generator keeps 32 bits of a seed: larger ones would repeat smaller ones


class Parser(argparse.ArgumentParser):
    """Reports a mistake as one line, without the usage block."""

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

    def parse(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number) or number < least or (above and number == least):
            raise argparse.ArgumentTypeError(f"got {text!r}; give a number{limits}")
        return number

    return parse


def seed(text: str) -> int:
    """An argparse type: a seed."""
    return whole(0, LARGEST_SEED)(text)


def path(text: str) -> Path:
    """An argparse type: a file or folder, where ``~`` is the home folder also after ``--out=``, which no shell expands."""
    try:
        return Path(text).expanduser()
    except RuntimeError as error:  # ~somebody
        raise argparse.ArgumentTypeError(f"got {text!r}; there is no such home folder") from error
