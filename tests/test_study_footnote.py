"""A default whose score is set draws a rise where there is none; one that is rated like the others does not."""

import numpy as np
import pandas as pd
import pytest

from creativelib.study.footnote import default_set_to_one
from creativelib.study.inverted_u import two_lines
from creativelib.study.means import mean_by_iteration
from creativelib.study.simulation import simulate_class

RUNS, ITERATIONS = 5, range(0, 97, 12)
FLAT_THEN_LOST = pd.DataFrame(  # the paper's design in a world where pictures please alike until the subject is lost
    [
        {"stimulus": f"{run}-{step}", "seed": run, "iteration": step, "surprise": 60.0 + step + run, "judged": step < 72}
        for run in range(RUNS)
        for step in ITERATIONS
    ]
)


def study(seed):
    return simulate_class(FLAT_THEN_LOST, 20, seed=seed, curve=lambda x: 2 + 0 * x, peak_spread=0, image_noise=0.3)


def test_only_default_pictures_are_touched():
    ratings = study(0)
    literal = default_set_to_one(ratings)
    default = literal["iteration"] == 0
    assert (literal.loc[default, "value"] == 1).all() and len(literal) == len(ratings)
    assert literal.loc[~default, "value"].tolist() == ratings.loc[~default, "value"].tolist()
    with pytest.raises(ValueError, match="^ratings: got none of iteration 0"):
        default_set_to_one(ratings[ratings["iteration"] > 0])


def test_without_any_rise_the_footnote_draws_fig_4():
    means = mean_by_iteration(default_set_to_one(study(0)), resamples=2).set_index("iteration")["mean"]
    assert means[0] == 1 and means.loc[12:60].min() > 1.6 and means[96] < 1.2
    rated = mean_by_iteration(study(0), resamples=2).set_index("iteration")["mean"]
    assert abs(rated[0] - rated.loc[12:60].mean()) < 0.4
    falls = [(two_lines(default_set_to_one(study(seed))).p_value, two_lines(study(seed)).p_value) for seed in range(20)]
    literal, honest = (np.array(falls) < 0.05).mean(0)
    assert literal > honest + 0.15 and honest <= 0.1
