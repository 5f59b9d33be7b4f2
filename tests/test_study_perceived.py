"""What other people find surprising, and whether nats say the same."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from creativelib.study.perceived import agreement_of_surprise, perceived_surprise


def test_only_the_second_scale_counts():
    rows = [("a", "s", 5, "creative"), ("b", "s", 1, "surprising"), ("c", "s", 2, "surprising"), ("b", "t", 4, "surprising")]
    ratings = pd.DataFrame(rows, columns=["rater", "stimulus", "value", "scale"])
    assert perceived_surprise(ratings).to_dict() == {"s": 1.5, "t": 4}
    assert perceived_surprise(ratings[1:].drop(columns="scale")).to_dict() == {"s": 1.5, "t": 4}
    with pytest.raises(ValueError, match="^ratings: got 1 rows, none on the scale 'surprising'"):
        perceived_surprise(ratings[:1])


def pictures(noise, seed=0):
    source = np.random.default_rng(seed)
    run = np.repeat(np.arange(16), 3)
    nats = 60 + 40 * np.tile([0, 1, 2], 16) + source.normal(0, 5, 48)
    return pd.DataFrame({"seed": run, "surprise": nats, "perceived": nats / 40 + source.normal(0, noise, 48)})


def test_rank_correlation_with_an_interval_over_runs():
    table = pictures(0.5)
    found = agreement_of_surprise(table, resamples=200)
    assert found.correlation == pytest.approx(spearmanr(table["surprise"], table["perceived"])[0])
    assert found.low < found.correlation < found.high and (found.pictures, found.runs) == (48, 16)
    none = agreement_of_surprise(table.assign(perceived=np.random.default_rng(1).normal(size=48)), resamples=200)
    assert none.low < 0 < none.high and found.low > 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.drop(columns="perceived"), r"pictures: got the columns .*\['perceived'\] are missing"),
        (lambda f: f.query("seed < 2"), r"pictures: got 2 run\(s\); give those of at least 3"),
    ],
)
def test_bad_tables_are_named(change, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        agreement_of_surprise(change(pictures(1.0)))
