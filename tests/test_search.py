"""The search: rules that can be followed and kept, how it ends, and what a caller may give."""

from copy import copy
from dataclasses import dataclass, make_dataclass

import numpy as np
import pytest
import torch
from runs import Checker

from creativelib.directions import NegativeCluster
from creativelib.generator import positive_prompt
from creativelib.prior_sampling import sample_prior
from creativelib.pullback import SumRule
from creativelib.run import CreativeRun
from creativelib.run_folder import find_run
from creativelib.spaces import make_space
from creativelib.target import FEWEST, TARGET_WINDOW, has_reached, present_surprise

# --- rules ------------------------------------------------------------------------------------------------------------


@dataclass
class Odd:
    decision: str

    def __call__(self, creative, anchor):
        return {
            "slash": (creative, "a/b", False),
            "number": (creative, 3, False),
            "empty": (creative, "", False),
            "half a character": (creative, "\ud800", False),
            "two": (creative, "creative"),
            "nothing": None,
            "float": (float(creative.detach()), "creative", False),
            "many": (torch.stack([creative, anchor]), "creative", False),
        }[self.decision]


@pytest.mark.parametrize("decision", ["slash", "number", "empty", "half a character", "two", "nothing", "float", "many"])
def test_a_decision_that_cannot_be_followed_or_kept_is_refused_at_once(make, tmp_path, decision):
    run = make(rule=Odd(decision))
    with pytest.raises(ValueError, match="^rule: (its decision is|the loss of its decision is) .*; give ") as raised:
        run.run(3, progress=False, folder=tmp_path)
    assert "\n" not in str(raised.value) and run.steps == 0
    assert CreativeRun.load(tmp_path, generator=run.generator).steps == 0


def test_a_rule_that_a_file_takes_for_another_is_refused(make):
    Named = make_dataclass("Named", [("name", str)], namespace={"__call__": SumRule.__call__})
    Same = make_dataclass("SumRule", [("weight", float)], namespace={"__call__": SumRule.__call__})
    for rule in (Named("mine"), Same(1.0)):
        with pytest.raises(ValueError, match="^rule: got .*, which a file cannot tell from another rule"):
            make(rule=rule)


# --- ends -------------------------------------------------------------------------------------------------------------


def test_a_rising_surprise_is_read_where_it_is_and_not_where_it_was():
    rows = [{"step": step, "surprise": 70.0 + 6 * step, "held": False} for step in range(TARGET_WINDOW + 4)]
    assert present_surprise(rows) == pytest.approx(70 + 6 * len(rows))  # what the next sample will have
    repeats = [{"step": len(rows) + i, "surprise": 0.0, "held": True} for i in range(3)]  # an anchor step repeats its sample
    assert present_surprise([*rows, *repeats]) == pytest.approx(70 + 6 * (len(rows) + 3))
    assert np.isnan(present_surprise(rows[: FEWEST - 1])) and present_surprise(rows[:FEWEST]) == pytest.approx(70 + 6 * FEWEST)


def test_samples_far_off_end_no_run_before_its_target():
    """Heavy tails, as single samples have: at most 3 of 200 runs to 100 nats end below 70, and half end within 12 of it."""
    noise, ends = np.random.default_rng(0), []
    for _ in range(200):
        rows = [{"step": i, "surprise": 2.0 * i + 15 * noise.standard_t(2), "held": False} for i in range(120)]
        ends.append(next(2 * steps for steps in range(1, len(rows) + 1) if has_reached(rows[:steps], 100)))
    off = np.array(ends) - 100
    assert (off < -30).sum() <= 3 and np.median(abs(off)) <= 12 and abs(np.median(off)) <= 6


@pytest.mark.parametrize("stopped", ["target", "not finite"])
def test_whatever_ends_a_run_step_by_step_is_followed_by_a_check(make, monkeypatch, stopped):
    checker = Checker(0.1)
    run = make(checker=checker, check_every=100, target=-1e6 if stopped == "target" else None)
    while not run.stopped:
        if stopped == "not finite" and run.steps == 3:
            monkeypatch.setattr(run, "rule", Infinite())
        run.step()
    assert checker.asked == run.check_images and run.history[-1]["check"] == 0.1
    assert (run.stopped, run.result_step) == ("checker" if stopped == "target" else stopped, 0)


@dataclass
class Infinite:
    def __call__(self, creative, anchor):
        return creative * torch.inf, "infinite", False


def test_after_a_loss_that_is_not_finite_the_result_is_a_finite_snapshot(make, tmp_path):
    run = make(snapshot_every=2)
    for _ in range(3):
        run.step()
    with torch.no_grad():
        run.space.parameters()[0].fill_(torch.nan)
    run.run(6, progress=False, folder=tmp_path)
    assert (run.stopped, run.steps, run.result_step) == ("not finite", 3, 2)
    assert run.sample([1, 2]).isfinite().all() and not run.sample([1], 3).isfinite().all()
    again = CreativeRun.load(tmp_path, generator=run.generator)
    assert again.result_step == 2 and find_run(tmp_path)["result_step"] == 2


# --- what a caller gave -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seeds", [np.int64(3), 3, "3", torch.tensor(3), [], None, [[1, 2]], [-1]])
def test_seeds_that_are_no_list_are_refused_in_one_line(make, seeds):
    run = make("embedding")
    for look in (run.sample, run.default):
        with pytest.raises(ValueError, match="^seeds: got "):
            look(seeds)
    assert len(run.sample(np.arange(2))) == 2


def test_more_steps_of_the_prior_than_it_was_trained_with_are_refused(make, small_generator):
    assert make(prior_steps=1000).sampling["steps"] == 1000
    with pytest.raises(ValueError, match="^prior_steps: got 1001; give a whole number from 2 to 1000"):
        make(prior_steps=1001)
    with pytest.raises(ValueError, match="^steps: got 1001; give a whole number from 2 to 1000"):
        sample_prior(small_generator, "a vehicle", n=1, steps=1001)


def test_a_typicality_model_that_does_not_say_what_it_is_of(small_generator, typicality):
    """It is tried: one of something else is refused, one that may be of a subject nearby is remarked on."""
    silent, far, space = copy(typicality), copy(typicality), make_space("embedding", small_generator, "vehicle")
    silent.provenance = far.provenance = {}
    with pytest.warns(UserWarning, match="^typicality: it does not say what it was fitted to"):
        CreativeRun(small_generator, "vehicle", space, silent, rule=SumRule(0.0))
    far.mean = far.mean + 6 * far.components.T @ far.variances.sqrt()
    with pytest.raises(
        ValueError, match="^typicality: plain samples of '.*a vehicle.*' are at a squared distance of .* another"
    ):
        CreativeRun(small_generator, "vehicle", space, far, rule=SumRule(0.0))


def test_clusters_of_any_iterable_count(make, typicality):
    cluster = NegativeCluster.fit(typicality, typicality.sample(5, torch.Generator().manual_seed(0)))
    run = make(clusters=(one for one in [cluster]))
    assert run.clusters == (cluster,) and len(run.settings["clusters"]) == 1


@pytest.mark.parametrize("name", ["learning_rate", "guidance", "target"])
def test_numbers_beyond_what_is_computed_with_are_refused(make, name):
    with pytest.raises(ValueError, match=rf"^{name}: got 1e\+31; give a (positive|finite) number of at most 1e\+30"):
        make(**{name: 1e31})
    run = make(**{name: 1e30}).run(3, progress=False)
    assert run.stopped == ("not finite" if name == "learning_rate" else run.stopped)


@pytest.mark.parametrize("subject", ["caf\udce9", "?!", "", None, 3])
def test_a_subject_that_is_no_text_is_refused(small_generator, subject):
    for call in (positive_prompt, lambda words: make_space("subject-token", small_generator, words)):
        with pytest.raises(ValueError, match="^subject: got"):
            call(subject)
    for name in ("lora", "adjective-token"):
        options = {"adjective": subject} if name == "adjective-token" else {"subject": subject}
        with pytest.raises(ValueError, match="^(subject|adjective): got"):
            make_space(name, small_generator, **{"subject": "vehicle", **options})
