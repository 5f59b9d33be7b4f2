"""Runs by their surprise: when a level is reached, and which rate brings a space there as fast as another."""

import pytest
import torch

from creativelib.generator import positive_prompt
from creativelib.prior_sampling import sample_prior
from creativelib.run import CreativeRun
from creativelib.spaces import make_space
from creativelib.trajectory import first_reaching, next_rate, steps_to, surprises
from creativelib.typicality import TypicalityModel


def rows(*values, held=()):
    return [{"step": step, "surprise": value, "held": step in held} for step, value in enumerate(values)]


def test_a_level_is_reached_where_a_run_would_end_at_it_as_its_target():
    rising = rows(*range(0, 60, 2), held=(3, 4))  # two nats a step
    assert steps_to(rising, 45) == 24 and steps_to(rising, 46) == 24 and steps_to(rising, 47) == 25  # two readings in a row
    assert steps_to(rising, 5) == 13  # after eleven fresh samples at the soonest
    assert steps_to(rising, 70) is None and steps_to(rows(1, 2, 3), 1) is None and steps_to([], 9) is None


def test_the_first_step_of_each_level():
    assert first_reaching({0: 5.0, 20: 9.0, 10: 7.0, 30: 8.0}, (4, 7, 9, 10)) == {4: 0, 7: 10, 9: 20, 10: None}


def test_a_better_rate_is_in_proportion_and_not_far():
    assert next_rate(1.0, 30, 15) == 2 and next_rate(1.0, 15, 30) == 0.5
    assert next_rate(2.0, None, 30) == 8 and next_rate(1.0, 1, 60) == 1 / 8


def test_surprise_is_that_of_the_same_noise_at_every_snapshot(small_generator):
    samples = sample_prior(small_generator, positive_prompt("vehicle"), n=40, progress=False)
    typicality = TypicalityModel.fit(samples.embeddings, dims=5)
    space = make_space("subject-token", small_generator, "vehicle")
    run = CreativeRun(small_generator, "vehicle", space, typicality, snapshot_every=2).run(4, progress=False)
    found = surprises(run, [3, 4])
    assert list(found) == [0, 2, 4]
    assert found[4] == pytest.approx(float(typicality.surprise(run.sample([3, 4], 4)).mean()))
    assert torch.isfinite(torch.tensor(list(found.values()))).all()
