"""How many runs and raters a study needs: simulated studies, analysed by ``rise_and_fall`` like real ones."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from creativelib.study.choices import share_interval
from creativelib.study.contrasts import difference_of
from creativelib.study.ratings import checked_count
from creativelib.study.simulation import People, checked_stimuli
from creativelib.study.stimuli import CONDITIONS
from creativelib.study.taste import berlyne


def power(
    stimuli: pd.DataFrame,
    runs: Sequence[int] = (8, 16, 24),
    raters: Sequence[int] = (30,),
    *,
    seed: int,
    each: int | None = None,
    names: Sequence[str] = CONDITIONS,
    repeats: int = 200,
    alpha: float = 0.05,
    level: float = 0.95,
    **options,
) -> pd.DataFrame:
    """The share of simulated studies in which both one-sided tests of ``rise_and_fall`` are significant.

    Every study has other runs, other pictures and other raters: runs are drawn with replacement from those given, and each
    picture gets a merit of its own besides (``image_noise``, 0.5 points). Pictures held fixed would promise too much.

    Args:
        stimuli: as for ``simulate_class``, and seed (of the run) and condition: one picture of each condition in each run.
        runs, raters: numbers to try. each: how many whole runs a rater sees; all by default.
        names: the three conditions in order. repeats: simulated studies for each. options: of ``People``; ``curve`` is by
            default ``berlyne`` over the range of what is perceived in all ``stimuli``.

    Returns:
        runs, raters, detected, low, high (exact interval of that share).

    Raises:
        TypeError, ValueError: as ``simulate_class``; runs that lack a picture, numbers that make no sense.
    """
    stimuli = checked_stimuli(stimuli)
    checked_count("repeats", repeats, 1)
    missing = [column for column in ("seed", "condition") if column not in stimuli]
    table = None if missing else stimuli.reset_index().pivot_table("index", "seed", "condition", aggfunc=["first", "size"])
    if missing or set(names) - set(stimuli["condition"]) or not (table["size"][list(names)] == 1).all(axis=None):
        raise ValueError(f"stimuli: give one picture of each of {tuple(names)} in each run (columns seed and condition)")
    pictures = table["first"][list(names)].to_numpy(int)  # (runs, 3), rows of stimuli
    perceived = stimuli["perceived" if "perceived" in stimuli else "surprise"].to_numpy(float)[pictures]
    low, width = perceived.min(), float(np.ptp(perceived))
    defaults = {"peak_spread": 0.08 * width} | ({} if "curve" in options else {"curve": berlyne(low, low + width)})
    found = []
    for number in runs:
        checked_count("runs", number, 2)
        seen = number if each is None else checked_count("each", each, 1)
        if seen > number:
            raise ValueError(f"each: got {each} of {number} runs; give at most {number}, or None for all")
        for people in raters:
            checked_count("raters", people, 2)
            source = np.random.default_rng([checked_count("seed", seed, 0), number, people])
            unseen = (np.arange(number) - seen * np.arange(people)[:, None]) % number >= seen  # dealt in turn, (raters, runs)
            detected = 0
            for _ in range(repeats):
                drawn = pictures[source.integers(len(pictures), size=number)]
                rows = stimuli.iloc[drawn.ravel()].assign(seed=np.repeat(np.arange(number), 3))
                crowd = People(rows, people, source, **(defaults | options))
                value = crowd.answers(np.tile(np.arange(3 * number), (people, 1))).reshape(people, number, 3).astype(float)
                value[unseen] = np.nan
                both = [difference_of(value[:, :, 1] - value[:, :, other]).p_greater for other in (0, 2)]
                detected += max(both) < alpha
            share = share_interval(detected, repeats, level=level)
            found.append({"runs": number, "raters": people, "detected": share.share, "low": share.low, "high": share.high})
    return pd.DataFrame(found)
