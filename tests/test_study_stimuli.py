"""Stimuli: blinded, repeatable, with checks among them."""

import subprocess
import sys
from collections import Counter

import pytest

from creativelib.study.orders import rating_order
from creativelib.study.rounds import dial_stimuli, make_stimuli
from creativelib.study.stimuli import CONDITIONS, conditions, load_stimuli, save_stimuli
from creativelib.study.store import KINDS, Store

SETTINGS = {"seeds": 2, "iterations": (0, 2, 4), "n": 60, "dims": 6, "progress": False}


@pytest.fixture(scope="module")
def stimuli(small_generator):
    return make_stimuli(small_generator, "alien", **SETTINGS)


def test_runs_by_iterations_and_the_checks(stimuli):
    kinds = Counter(one.kind for one in stimuli)
    assert kinds == {"anchor": 1, "image": 6, "repeat": 2, "outsider": 2} and set(kinds) <= set(KINDS)
    images = [one for one in stimuli if one.kind == "image"]
    assert [(one.seed, one.iteration) for one in images] == [(run, step) for run in (0, 1) for step in (0, 2, 4)]
    assert all(one.surprise is not None for one in images)
    by_id = {one.id: one for one in images}
    for one in stimuli:
        if one.kind == "repeat":
            assert one.png == by_id[one.of].png and one.surprise == by_id[one.of].surprise and one.id != one.of
    assert stimuli[0].kind == "anchor" and stimuli[0].image.size == images[0].image.size


def test_ids_say_nothing_and_are_repeatable(stimuli, small_generator):
    assert all(len(one.id) == 12 and int(one.id, 16) >= 0 for one in stimuli)
    again = make_stimuli(small_generator, "alien", **SETTINGS)
    assert [one.facts for one in again] == [one.facts for one in stimuli]
    other = make_stimuli(small_generator, "alien", **SETTINGS, seed=1)
    assert not {one.id for one in other} & {one.id for one in stimuli}


def test_pullback_is_another_course(stimuli, small_generator):
    pulled = make_stimuli(small_generator, "alien", **SETTINGS, pullback=True)
    assert [one.kind for one in pulled] == [one.kind for one in stimuli]
    assert pulled[1].surprise == pytest.approx(stimuli[1].surprise)  # iteration 0


def test_saved_and_loaded_they_go_into_a_store(stimuli, tmp_path):
    assert load_stimuli(save_stimuli(stimuli, tmp_path / "stimuli")) == stimuli
    store = Store(tmp_path / "study.sqlite")
    for _ in range(2):
        store.add_stimuli(one.facts for one in stimuli)
    session = store.begin(store.rater("blue-fox", consent=True), rating_order(stimuli, 0))
    store.rate(session, store.next(session), 3)
    assert set(store.ratings()) >= {"rater", "stimulus", "value", "seed", "iteration", "surprise", "kind"}
    store.close()


def test_folders_that_are_not_whole_are_refused(stimuli, tmp_path):
    with pytest.raises(FileNotFoundError, match="^folder: there is no"):
        load_stimuli(tmp_path)
    folder = save_stimuli(stimuli, tmp_path / "stimuli")
    (folder / f"{stimuli[0].id}.png").write_bytes(b"changed")
    with pytest.raises(ValueError, match="was changed"):
        load_stimuli(folder)
    (folder / f"{stimuli[0].id}.png").unlink()
    with pytest.raises(FileNotFoundError, match="is missing"):
        load_stimuli(folder)
    (folder / "stimuli.json").write_text("[]")
    with pytest.raises(ValueError, match="is no list of stimuli"):
        load_stimuli(folder)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"iterations": ()}, "^iterations: got"),
        ({"iterations": (-1, 2)}, "^iterations: got"),
        ({"iterations": (0,)}, "^iterations: got"),
        ({"seeds": 0}, "^seeds: got 0"),
        ({"repeats": 7}, "^repeats: got 7; there are only 6"),
        ({"outsiders": -1}, "^outsiders: got -1"),
    ],
)
def test_bad_numbers_are_refused(small_generator, settings, match):
    with pytest.raises(ValueError, match=match):
        make_stimuli(small_generator, "alien", **(SETTINGS | settings))


# --- the second round -------------------------------------------------------------------------------------------------


def dial(generator, **changes):
    return dial_stimuli(
        generator, "alien", **({"peak": 30.0, "runs": 2, "steps": 400, "n": 60, "dims": 6, "progress": False} | changes)
    )


@pytest.fixture(scope="module")
def second(small_generator):
    return dial(small_generator)


def test_the_dial_makes_three_pictures_a_run(second):
    assert Counter(one.kind for one in second) == {"anchor": 1, "image": 6, "outsider": 2}
    condition = conditions(second)
    assert Counter(condition.values()) == dict.fromkeys(CONDITIONS, 2)
    nats = {name: [one.surprise for one in second if condition.get(one.id) == name] for name in CONDITIONS}
    assert max(nats["default"]) < min(nats["creative"]) < max(nats["creative"]) < min(nats["overshoot"])
    assert all(abs(value - 30) < 12 for value in nats["creative"])
    assert all(one.iteration == 0 for one in second if condition.get(one.id) == "default")


def test_its_conditions_survive_a_folder(second, tmp_path):
    assert conditions(load_stimuli(save_stimuli(second, tmp_path / "second"))) == conditions(second)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peak": -1e6}, "peak: got -1000000.0 nats; give more than a plain sample has"),  # a density may well exceed 1
        ({"peak": 1e6, "steps": 12}, "peak: run 0 came to .* of 1000000 nats in 12 steps; give more steps"),
        ({"overshoot": 1.0}, "overshoot: got 1.0; give a factor above 1"),
        ({"runs": 0}, "runs: got 0; give a whole number of at least 1"),
    ],
)
def test_a_dial_that_cannot_be_set(small_generator, changes, message):
    with pytest.raises(ValueError, match=message):
        dial(small_generator, **changes)


def test_conditions_are_of_dial_stimuli_only(stimuli):
    second_has = "stimuli: got .* images of each run; give those of dial_stimuli"
    with pytest.raises(ValueError, match=second_has):
        conditions(stimuli[:3])


def test_rating_needs_neither_torch_nor_a_model():
    """A rater's machine, and the panel's first appearance, wait for none of them."""
    slow = {"torch", "diffusers", "transformers", "sklearn"}
    code = f"import sys, creativelib.study.panel; sys.exit(bool({slow} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
