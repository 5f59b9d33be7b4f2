"""Power counts other runs, other pictures and other raters: runs help, raters hardly, nothing is promised for nothing."""

import numpy as np
import pandas as pd
import pytest

from creativelib.study.power import power
from creativelib.study.stimuli import CONDITIONS

OPTIONS = {"seed": 0, "repeats": 60, "peak_spread": 0}


def stimuli(runs: int = 12) -> pd.DataFrame:
    condition = np.tile(CONDITIONS, runs)
    return pd.DataFrame(
        {
            "stimulus": range(3 * runs),
            "seed": np.arange(3 * runs) // 3,
            "condition": condition,
            "surprise": pd.Series(condition).map({"default": 0.0, "creative": 1.0, "overshoot": 2.0}),
        }
    )


def tent(height):
    return lambda x: 2 + height * (1 - abs(x - 1))


def test_runs_help_more_than_raters():
    found = power(stimuli(), [6, 18], [10, 40], curve=tent(0.6), **OPTIONS)
    assert list(found) == ["runs", "raters", "detected", "low", "high"]
    detected = found.set_index(["runs", "raters"])["detected"]
    assert detected[18, 10] > detected[6, 40] + 0.1 and detected[18, 40] > 0.7
    assert ((found["low"] <= found["detected"]) & (found["detected"] <= found["high"])).all()
    assert power(stimuli(), [18], [40], curve=tent(0.6), **OPTIONS)["detected"].item() == detected[18, 40]  # seeded


def test_pictures_that_differ_cost_power():
    """Held fixed they cost nothing, and a study is promised that fails."""
    held, differing = (
        power(stimuli(), [8], [10], curve=tent(0.6), image_noise=noise, **OPTIONS)["detected"].item() for noise in (0, 0.6)
    )
    assert held > differing + 0.2


def test_nothing_is_found_where_nothing_is_and_parts_of_runs_will_do():
    assert power(stimuli(), [12], [20], curve=tent(0), **OPTIONS)["detected"].item() <= 0.05
    parts = power(stimuli(), [12], [40], each=4, curve=tent(1.2), **OPTIONS)["detected"].item()
    assert parts > 0.8


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (([1],), {}, "runs: got 1; give a whole number of at least 2"),
        (([4], [1]), {}, "raters: got 1; give a whole number of at least 2"),
        (([4],), {"repeats": 0}, "repeats: got 0"),
        (([4],), {"each": 5}, "each: got 5 of 4 runs; give at most 4"),
        (([4],), {"names": ("default", "peak", "overshoot")}, "stimuli: give one picture of each of .*'peak'"),
        (([4],), {"noise": -1}, "noise: got -1; give 0 or more"),
    ],
)
def test_bad_arguments_are_named(arguments, options, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        power(stimuli(), *arguments, **({"seed": 0, "repeats": 2} | options))
    with pytest.raises(ValueError, match="^stimuli: give one picture of each"):
        power(stimuli().drop(columns="condition"), seed=0)
    with pytest.raises(ValueError, match="^stimuli: give one picture of each"):
        power(stimuli().iloc[1:], seed=0)
