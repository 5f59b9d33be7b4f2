"""The one switch for how long the notebooks run: ``CREATIVELIB_QUICK=1`` gives short settings, as automatic checks do."""

import os
from typing import TypeVar

Setting = TypeVar("Setting")
SWITCH = "CREATIVELIB_QUICK"


def is_quick() -> bool:
    """Whether short settings were asked for. Raises ValueError where the variable is neither 0 nor 1."""
    value = os.environ.get(SWITCH, "")
    if value not in ("", "0", "1"):
        raise ValueError(f"{SWITCH}: got {value!r}; allowed are 1 (short settings) and 0, or leave it out")
    return value == "1"


def setting(full: Setting, *, quick: Setting) -> Setting:
    """``full``, or ``quick`` where short settings were asked for.

    What a notebook claims must hold with both, and what it prints in a cell that is compared must be the same.

    Raises:
        ValueError: the variable is neither 0 nor 1.
    """
    return quick if is_quick() else full
