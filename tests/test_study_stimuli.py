"""Stimuli: three pictures of each run under blinded ids, repeatable, with checks among them; what is handed out says
nothing."""

import io
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from creativelib.pullback import Verdict
from creativelib.study.orders import rating_order
from creativelib.study.rounds import Searches, dial_stimuli, make_stimuli, trajectory_stimuli
from creativelib.study.schema import KINDS
from creativelib.study.stimuli import CONDITIONS, Stimulus, conditions, load_stimuli, save_stimuli
from creativelib.study.store import Store

SETTINGS = {"n": 60, "dims": 6, "progress": False}
STUDY = {"runs": 3, "steps": 6, "last": 4, "every": 1, "reach": None, **SETTINGS}


class Checker:
    """Affirms plain pictures, and of others those of these runs and steps."""

    threshold = 0.5

    def __init__(self, searches=None, yes=()):
        self.yes = {searches.pictures(run, [step])[0].png for run, step in yes}
        self.known = (
            None
            if searches is None
            else {one.png for run in range(len(searches)) for one in searches.pictures(run, range(1, 7))}
        )

    def check(self, image, subject):
        picture = Stimulus.blinded("image", image).png
        yes = self.known is None or picture not in self.known or picture in self.yes
        return Verdict(yes, 0.9 if yes else 0.1)


@pytest.fixture(scope="module")
def searches(small_generator):
    return Searches(small_generator, "alien", runs=3, steps=6, every=1, **SETTINGS)


@pytest.fixture(scope="module")
def stimuli(small_generator):
    return make_stimuli(small_generator, "alien", checker=Checker(), **STUDY)


def test_three_pictures_of_each_run_and_the_checks(stimuli):
    kinds = Counter(one.kind for one in stimuli)
    assert kinds == {"image": 9, "repeat": 3, "outsider": 2} and set(kinds) <= set(KINDS)  # no default stands for 1
    images = [one for one in stimuli if one.kind == "image"]
    assert [(one.seed, one.iteration) for one in images] == [(run, step) for run in range(3) for step in (0, 4, 6)]
    assert all(one.surprise is not None for one in images)
    by_id = {one.id: one for one in images}
    again = [one for one in stimuli if one.kind == "repeat"]
    for one in again:
        assert one.png == by_id[one.of].png and one.surprise == by_id[one.of].surprise and one.id != one.of
    assert [one.seed for one in again] == [0, 1, 2]  # one of each run: whoever sees a run can meet a repeat
    condition = conditions(stimuli)
    assert [condition[one.id] for one in images] == list(CONDITIONS) * 3


def test_the_creative_picture_is_the_last_that_the_checker_still_recognises(searches):
    yes = [(0, 2), (0, 3), (1, 4), (1, 6)]  # of the third run nothing
    assert searches.accepted(Checker(searches, yes), [2, 3, 4]) == [3, 4, 2]
    study = searches.study(Checker(searches, yes), last=4, reach=None, outsiders=0, repeats=0)
    assert [one.iteration for one in study] == [0, 3, 6, 0, 4, 6, 0, 2, 6]  # the earliest: no run is left out for how it looks


def test_the_creative_picture_is_not_beyond_a_number_of_nats(searches, tmp_path):
    nats = [[one.surprise for one in searches.pictures(run, [2, 3, 4])] for run in range(3)]
    mean = float(searches.scene.typicality.surprise(searches.scene.plain).mean())
    reach = max(run[2] for run in nats) - mean - 0.01  # one run is further out than that at its last step
    study = searches.study(Checker(), last=4, reach=reach, outsiders=0, repeats=0)
    chosen = [one.iteration for one in study if one.iteration not in (0, 6)]
    expected = [max([step for step, one in zip((2, 3, 4), run, strict=True) if one <= mean + reach], default=2) for run in nats]
    assert chosen == expected and min(chosen) < 4
    assert [one.iteration for one in searches.study(Checker(), last=4, reach=None)[:9]] == [0, 4, 6] * 3
    assert study.design["reach"] == reach and study.design["most nats"] == pytest.approx(mean + reach)
    assert {"subject": "alien", "candidates": [2, 3, 4], "overshoot": 6, "pullback": False}.items() <= study.design.items()
    folder = save_stimuli(study, tmp_path / "stimuli")
    assert load_stimuli(folder).design == study.design == json.loads((folder / "key.json").read_text())["design"]


def test_the_default_is_the_frozen_models_own(searches, stimuli):
    plain = searches.pictures(0, [0])[0]
    untouched = searches._runs[0].default([searches._runs[0].seed])
    assert plain.surprise == pytest.approx(float(searches.scene.typicality.surprise(untouched)), rel=1e-4)
    one, other = (np.asarray(Image.open(io.BytesIO(stimulus.png))).astype(int) for stimulus in (plain, stimuli[0]))
    assert np.abs(one - other).max() <= 2  # drawn alone and among others: float noise


def test_the_paper_s_anchor_stands_first_where_it_is_wanted(small_generator):
    with_anchor = make_stimuli(small_generator, "alien", checker=Checker(), anchor=True, **(STUDY | {"runs": 1}))
    assert [one.kind for one in with_anchor][:2] == ["anchor", "image"]
    assert with_anchor[0].id not in rating_order(with_anchor, 0)


def test_the_design_of_fig_4(small_generator):
    few = trajectory_stimuli(small_generator, "alien", runs=2, iterations=(0, 2, 4), **SETTINGS)
    assert Counter(one.kind for one in few) == {"image": 6, "repeat": 2, "outsider": 2}
    images = [one for one in few if one.kind == "image"]
    assert [(one.seed, one.iteration) for one in images] == [(run, step) for run in (0, 1) for step in (0, 2, 4)]
    assert set(conditions(few, (0, 2, 4)).values()) == {0, 2, 4}


def test_ids_say_nothing_and_are_repeatable(stimuli, small_generator):
    assert all(len(one.id) == 12 and int(one.id, 16) >= 0 for one in stimuli)
    again = make_stimuli(small_generator, "alien", checker=Checker(), **STUDY)
    assert [one.facts for one in again] == [one.facts for one in stimuli]
    other = make_stimuli(small_generator, "alien", checker=Checker(), **STUDY, seed=1)
    assert not {one.id for one in other} & {one.id for one in stimuli}


def test_pullback_is_another_course(stimuli, small_generator):
    pulled = make_stimuli(small_generator, "alien", checker=Checker(), **STUDY, pullback=True)
    assert [one.kind for one in pulled] == [one.kind for one in stimuli]
    assert pulled[0].surprise == pytest.approx(stimuli[0].surprise)  # iteration 0


def test_numbers_of_numpy_become_plain():
    one = Stimulus.blinded("image", b"", seed=np.int64(3), iteration=np.int64(40), surprise=np.float32(1.5))
    assert json.dumps(one.facts) and (type(one.seed), type(one.iteration), type(one.surprise)) == (int, int, float)


def test_what_is_handed_out_holds_pixels_and_nothing_else(stimuli, tmp_path):
    folder = save_stimuli(stimuli, tmp_path / "study")
    assert sorted(path.name for path in folder.iterdir()) == ["key.json", "pictures"]
    files = sorted((folder / "pictures").iterdir())
    assert [path.stem for path in files] == sorted(one.id for one in stimuli)
    assert all(not Image.open(path).info for path in files)  # no text, no settings inside


def test_the_times_of_files_do_not_say_what_is_what(tmp_path, monkeypatch):
    """A ZIP keeps them: pictures that are written run by run stand in it as default, creative, overshoot."""
    pictures = [
        Stimulus.blinded("image", bytes([run, step]), seed=run, iteration=step) for run in range(6) for step in range(3)
    ]
    written, write = [], Path.write_bytes
    monkeypatch.setattr(Path, "write_bytes", lambda path, data: (written.append(path.stem), write(path, data)))
    save_stimuli(pictures, tmp_path / "study")
    assert written == sorted(one.id for one in pictures) != [one.id for one in pictures]


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
    (folder / "pictures" / f"{stimuli[0].id}.png").write_bytes(b"changed")
    with pytest.raises(ValueError, match="was changed"):
        load_stimuli(folder)
    (folder / "pictures" / f"{stimuli[0].id}.png").unlink()
    with pytest.raises(FileNotFoundError, match="is missing"):
        load_stimuli(folder)
    (folder / "key.json").write_text("[]")
    with pytest.raises(ValueError, match="is no list of stimuli"):
        load_stimuli(folder)
    (folder / "key.json").rename(folder / "stimuli.json")
    with pytest.raises(FileNotFoundError, match="but stimuli.json of an older version: make the pictures anew"):
        load_stimuli(folder)


@pytest.mark.parametrize(
    ("make", "settings", "match"),
    [
        (trajectory_stimuli, {"iterations": ()}, "^iterations: got"),
        (trajectory_stimuli, {"iterations": (-1, 2)}, "^iterations: got"),
        (trajectory_stimuli, {"iterations": (0,)}, "^iterations: got"),
        (make_stimuli, {"runs": 0}, "^runs: got 0"),
        (make_stimuli, {"runs": 1, "steps": 4, "last": 4, "every": 2}, "^last: got 4; give a step .* before the last, 4"),
        (make_stimuli, {"runs": 1, "steps": 4, "last": 1, "every": 2}, "^last: got 1"),
        (make_stimuli, {"runs": 1, "steps": 4, "last": 2, "every": 2, "reach": 0}, "^reach: got 0; give nats above"),
        (make_stimuli, {"runs": 1, "steps": 4, "last": 2, "every": 2, "repeats": 4}, "^repeats: got 4; give .* from 0 to 3"),
        (make_stimuli, {"runs": 1, "steps": 4, "last": 2, "every": 2, "outsiders": -1}, "^outsiders: got -1"),
    ],
)
def test_bad_numbers_are_refused(small_generator, make, settings, match):
    checker = {"checker": Checker()} if make is make_stimuli else {}
    with pytest.raises(ValueError, match=match):
        make(small_generator, "alien", **checker, **(SETTINGS | settings))


# --- the second round -------------------------------------------------------------------------------------------------


def dial(generator, **changes):
    return dial_stimuli(
        generator, "alien", **({"peak": 30.0, "runs": 2, "steps": 400, "n": 60, "dims": 6, "progress": False} | changes)
    )


@pytest.fixture(scope="module")
def second(small_generator):
    return dial(small_generator)


def test_the_dial_makes_three_pictures_a_run(second):
    assert Counter(one.kind for one in second) == {"image": 6, "outsider": 2}
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


def test_conditions_are_of_whole_runs_only(stimuli):
    second_has = "stimuli: got .* images of each run; give those of make_stimuli or dial_stimuli"
    with pytest.raises(ValueError, match=second_has):
        conditions(stimuli[:2])


def test_rating_needs_neither_torch_nor_a_model():
    """A rater's machine, and the panel's first appearance, wait for none of them."""
    slow = {"torch", "diffusers", "transformers", "sklearn"}
    code = f"import sys, creativelib.study.panel; sys.exit(bool({slow} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
