"""Rare or new: the training picture nearest to each result, counted by hand; nothing is said of a model of other weights."""

import numpy as np
import pandas as pd
import pytest
import torch

from creativelib.comparison import answers, grid, plan, report, training
from creativelib.comparison.plan import Hypothesis, Settings
from creativelib.metrics.memory import Memory
from creativelib.storage import write_tensors

CELLS = plan.grid([("plain", 1), ("tail", 1)], ["vehicle"], [0, 1])
SETTINGS, WEIGHTS = Settings(results=2), {"prior": "sha256:1", "decoder": "sha256:2"}
AXES = np.eye(8)


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """Four cells of two pictures. Training pictures lie along two axes, plain ones near the first; the judge knows most."""
    records = [{"label": f"number {place}", "set": "noto", "split": "train"} for place in range(20)]
    records[19] = {"label": "held out", "set": "noto", "split": "held-out concept"}
    source = np.random.default_rng(0)
    corpus = np.concatenate([np.repeat(AXES[:2], 9, axis=0), AXES[4:6]]) + 0.01 * source.normal(size=(20, 8))
    memory = Memory.fit(corpus, records, dims=6)
    monkeypatch.setattr(training, "memories", lambda weights: {"picture": memory, "structure": memory} if weights else {})
    plain = AXES[0] + 0.2 * source.normal(size=(60, 8))
    head = grid.header("comparison subject", SETTINGS, WEIGHTS, subject="vehicle")
    tensors = {f"plain/{view}": torch.from_numpy(plain) for view in ("picture", "structure", "colour")}
    write_tensors(grid.subject_path(tmp_path, "vehicle"), tensors, head, readable=False)
    rare, new = AXES[1], AXES[5]  # of the second kind of training pictures; where only one lies that was held out
    for cell in CELLS:
        rows = torch.from_numpy(np.stack([rare, new]) if cell.method == "tail" else plain[:2])
        facts = {"pictures": {"judge": [True, cell.seed == 0]}}
        tensors = {"picture": rows, "structure": rows[[0, 0]], "images": torch.zeros(2, 4, 4, 3, dtype=torch.uint8)}
        head = grid.cell_header(cell, SETTINGS, WEIGHTS)
        write_tensors(grid.cell_path(tmp_path, cell), tensors, {**head, **facts}, readable=False)
    return tmp_path


def test_what_is_rare_and_exists_is_not_called_new(kept):
    pictures = training.nearest(CELLS, kept, SETTINGS, WEIGHTS)
    assert len(pictures) == 8 and list(pictures) == [*training.CELL, *training.SEEN, *training.NEAREST]
    tail = pictures[pictures["method"] == "tail"]
    assert tail["outside"].all() and tail["beyond"].tolist() == [False, True] * 2 and not tail["beyond_structure"].any()
    assert tail["distance"].iloc[0] < 0.5 < 1 < tail["distance"].iloc[1]
    assert int(tail["nearest"].iloc[0].removeprefix("number ")) in range(9, 18) and "held out" not in set(pictures["nearest"])
    cells = training.explored(pd.DataFrame([vars(cell) for cell in CELLS]), pictures).set_index(["method", "seed"])
    assert set(plan.EXPLORED) < set(cells) and cells["explored_new"].to_dict() == {
        ("plain", 0): 0, ("tail", 0): 0.5, ("plain", 1): 0, ("tail", 1): 0
    }  # fmt: skip
    assert (cells["explored_new_structure"] == 0).all()


def test_nothing_is_said_where_it_is_not_known_what_was_learned(kept):
    pictures = training.nearest(CELLS, kept, SETTINGS, {})
    frame = training.explored(pd.DataFrame([vars(cell) for cell in CELLS]), pictures)
    assert pictures.empty and len(frame) == 4 and frame[[*plan.EXPLORED]].isna().all(axis=None)
    assert answers.summary(frame, plan.EXPLORED)["explored_new"].isna().all()


def test_only_the_weights_that_ship_are_known_to_have_learned_from_the_corpus():
    weights = report.Comparison().weights
    found = training.memories(weights)
    assert list(found) == ["picture", "structure"] and len(found["picture"].records) == len(found["structure"].records)
    assert training.memories(weights | {"prior": "sha256:0"}) == {} == training.memories({})


def test_what_was_explored_cannot_be_asked_as_if_it_had_been_stated():
    assert not set(plan.EXPLORED) & set(plan.MEASURES) and all(name.startswith("explored_") for name in plan.EXPLORED)
    with pytest.raises(ValueError, match="got the measure 'explored_new'"):
        Hypothesis("x", "", "plain", "tail", 50, "explored_new", "more")


def test_the_table_of_nearest_pictures_that_ships_is_that_of_its_results():
    shipped = report.Comparison()
    pictures, frame = shipped.nearest, shipped.results
    assert len(pictures) == frame["results"].sum() == 1995
    again = training.explored(frame[training.CELL], pictures)
    assert np.allclose(again[[*plan.EXPLORED]], frame[[*plan.EXPLORED]], atol=1e-3)
    stated = pictures.assign(both=pictures["outside"] & pictures["judge"]).groupby(training.CELL)["both"].mean()
    assert np.allclose(stated, frame.groupby(training.CELL)["novel_and_valid"].mean(), atol=1e-4)
