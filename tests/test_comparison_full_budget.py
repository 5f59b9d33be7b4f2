"""ConceptLab's full budget, one run that ships: of the weights that ship, small, and what notebook 08 says of it."""

import json
from pathlib import Path

import full_budget
import nbformat
import numpy as np
import pytest

from creativelib.comparison import grid, plan, report, work
from creativelib.generator import load_generator
from creativelib.storage import data_folder

ROOT = Path(__file__).resolve().parents[1]
FOLDER = data_folder() / "comparison" / "full_budget"


@pytest.fixture(scope="module")
def shipped() -> tuple[report.Comparison, list[dict]]:
    return report.Comparison(FOLDER), json.loads((FOLDER / full_budget.RUNS).read_text(encoding="utf-8"))


def test_a_comparison_is_shipped_with_what_happened_in_its_runs(miniature_folders, checker_folder, tmp_path):
    settings = plan.Settings(str(miniature_folders["2.2"]), str(checker_folder), results=2, samples=60, dims=6, plain=20)
    cells = plan.grid([("plain", 1), ("creative[checked=false]", 2)], ["vehicle"], [0])
    weights = grid.run(cells, tmp_path, settings, progress=False)
    report.write(tmp_path, cells, (), weights, settings)
    out = tmp_path / "kept" / "here"
    full_budget.ship(tmp_path, out)
    kept, runs = report.Comparison(out), json.loads((out / full_budget.RUNS).read_text(encoding="utf-8"))
    assert kept.cells == cells and kept.differences(weights) == [] and not (out / "summary.csv").exists()
    assert [len(kept.pictures("vehicle", side, 0)) for side in kept.sides] == [2, 2] and len(kept.results) == 2
    assert [run["method"] for run in runs] == ["plain", "creative[checked=false]"]
    assert runs[1]["facts"]["steps"] == kept.results["steps"][1] > 0 and "surprise" not in runs[1]["facts"]  # of every step
    for run, surprise in zip(runs, kept.results["surprise"], strict=True):
        assert set(run["pictures"]) == {"surprise", "judge", "checker"} and len(run["pictures"]["checker"]) == 2
        assert np.mean(run["pictures"]["surprise"]) == pytest.approx(surprise, abs=1e-3)


def test_it_is_of_the_weights_that_ship_and_small(shipped):
    full, runs = shipped
    now = work.weights_of(load_generator("pocket", device="cpu"), "pocket")
    assert full.differences(now) == [] and full.weights == report.Comparison().weights
    files = {path.name: path.stat().st_size for path in FOLDER.iterdir()}
    assert set(files) == {"made_with.json", "results.csv", "nearest.csv.gz", "runs.json", "vehicle.webp"}
    assert files["vehicle.webp"] <= 60_000 and sum(files.values()) <= 100_000
    assert sum(path.stat().st_size for path in FOLDER.parent.rglob("*")) < 4 * 2**20
    everywhere = report.Comparison().settings.facts
    assert full.settings.facts == everywhere | {"results": 8}  # the rest as in the whole comparison
    assert full.subjects == ["vehicle"] and full.seeds == [0] and {cell.budget for cell in full.cells} == {2500}
    assert [(run["method"], run["subject"], run["seed"], run["budget"]) for run in runs] == [
        (cell.method, cell.subject, cell.seed, cell.budget) for cell in full.cells
    ]


def test_its_runs_are_those_of_its_table(shipped):
    full, runs = shipped
    for run, row in zip(runs, full.results.to_dict("records"), strict=True):
        assert run["facts"]["steps"] == row["steps"] and len(run["pictures"]["judge"]) == row["results"] == 8
        assert run["cost"] == {name: row[f"cost_{name}"] for name in ("prior", "decodes", "questions")}
        seen = {name: np.array(values) for name, values in run["pictures"].items()}
        assert seen["surprise"].mean() == pytest.approx(row["surprise"], abs=1e-3)
        assert (seen["checker"] >= run["accepted_from"] - 1e-4).mean() == row["checker"]
        assert seen["judge"].mean() == pytest.approx(row["judge"], abs=1e-3)
    facts = runs[0]["facts"]
    assert facts["steps"] == 2500 and facts["asked_at"] == list(range(0, 2501, 250)) and len(facts["negatives"]) == 11


def test_what_notebook_08_says_of_it(shipped):
    cells = {cell.id: cell.source for cell in nbformat.read(ROOT / "notebooks" / "08_conceptlab_and_rivals.ipynb", 4).cells}
    said = " ".join(cells["08-full-seen"].partition("\n\n## ")[0].split())
    runs = shipped[1]
    (theirs, ours), usual = runs, runs[1]["facts"]["expected_surprise"]
    above = [round(np.mean(run["pictures"]["surprise"]) - usual) for run in runs]
    known = [sum(run["pictures"]["judge"]) for run in runs]
    accepted = [sum(yes >= run["accepted_from"] for yes in run["pictures"]["checker"]) for run in runs]
    assert (above, known, accepted, len(set(theirs["facts"]["negatives"]))) == ([58, 347], [0, 0], [0, 5], 4)
    assert ours["facts"]["stopped"] == "checker"
    share = ours["cost"]["prior"] / theirs["cost"]["prior"]
    for words in (
        "in the eleven times that ConceptLab asked, of which four are different",
        f"walked its {theirs['facts']['steps']:,} steps, {above[0]} nats above plain",
        f"the judge recognises {known[0]:.0f} of 8",
        f"would accept {accepted[0]} of 8",
        f"ended it after {ours['facts']['steps']} steps; shown is step {ours['facts']['result_step']}",
        f"after {100 * share:.0f} % of ConceptLab's evaluations of the prior, {above[1]} nats above plain",
        f"of these eight the checker accepts {accepted[1]}, the judge {known[1]:.0f}.",
    ):
        assert words in said, words
