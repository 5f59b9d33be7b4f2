"""The grid: what it makes once it does not make again, whatever stops it; and no bit depends on who computes it."""

import errno
import json
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from PIL import Image, ImageChops, ImageStat

from creativelib.cli import main
from creativelib.comparison import answers, grid, plan, report, table, work
from creativelib.comparison.plan import Cell, Settings
from creativelib.generator import load_generator
from creativelib.methods import METHODS
from creativelib.methods.rates import RATES
from creativelib.sources import Settings as ModelSettings
from creativelib.storage import data_folder, read_tensors, write_tensors
from creativelib.weights import folder_digest

ROOT = Path(__file__).resolve().parents[1]
SMALL = {"results": 1, "samples": 60, "dims": 6, "plain": 20}


@pytest.fixture(scope="module")
def settings(miniature_folders, checker_folder):
    return Settings(str(miniature_folders["2.2"]), str(checker_folder), **SMALL)


CELLS = plan.grid([("plain", 1), ("creative[checked=false]", 1)], ["vehicle"], [0, 1])


@pytest.fixture(scope="module")
def finished(settings, tmp_path_factory):
    """A folder with the four cells, computed in this process, and the weights that made them."""
    out = tmp_path_factory.mktemp("comparison")
    return out, grid.run(CELLS, out, settings, progress=False)


def never(*arguments):
    raise AssertionError("computed again")


def test_a_grid_is_every_cell_seed_by_seed():
    cells = plan.grid([("plain", 1), ("tail", 50)], ["vehicle", "pet"], [0, 1])
    assert len(cells) == 8 and cells[0] == Cell("plain", "vehicle", 0, 1) and {cell.seed for cell in cells[:4]} == {0}
    assert len({cell.file for cell in [*cells, Cell("tail[checked=false]", "pet", 0, 50)]}) == 9


def test_what_was_asked_beforehand_can_be_answered():
    asked = plan.hypotheses()
    assert len(asked) >= 10 and len({one.id for one in asked}) == len(asked)
    assert {"within-50-steps", "conceptlab-later", "embedding-degrades", "tail-does-as-well"} <= {one.id for one in asked}
    assert ("creative", 50) in plan.stated_sides(asked)


@pytest.mark.parametrize(
    ("line", "message"),
    [('measure = "luck"', "measure 'luck'"), ('says = "maybe"', "says 'maybe'"), ('a = "magic"', "^method: got 'magic'")]
    + [("surprise = 3", "is not understood"), ("a b", "is not understood")],
)
def test_a_question_that_is_not_understood_is_named(tmp_path, line, message):
    fields = {"id": "x", "source": "", "a": "plain", "b": "tail", "measure": "novelty", "says": "more"}
    lines = [f'{name} = "{value}"' for name, value in fields.items() if not line.startswith(f"{name} =")]
    (tmp_path / "h.toml").write_text("\n".join(["[[hypothesis]]", "budget = 1", *lines, line]))
    with pytest.raises(ValueError, match=message):
        plan.hypotheses(tmp_path / "h.toml")


def test_every_cell_is_measured(finished, settings):
    out, weights = finished
    frame = table.table(CELLS, out, settings, weights)
    assert len(frame) == 4 and set(plan.MEASURES) <= set(frame)
    assert frame[["novelty", "structure", "colour", "surprise", "structure_change"]].notna().all().all()
    plain = frame[frame["method"] == "plain"]
    assert plain["structure_change"].abs().max() < 1e-6 and plain["colour_distance"].max() < 1e-6  # each is its own default
    assert (frame["cost_decodes"] == 1).all() and (plain["cost_prior"] == 6).all()
    page = table.sheet(
        CELLS, out, settings, weights, results=2, side=16
    )  # each delivered one of two: its second place stays white
    assert page.size == (2 * 2 * 16, 2 * 16) and page.getextrema()[0][0] < 255
    places = [page.crop((left, top, left + 16, top + 16)).getextrema()[0][0] for top in (0, 16) for left in (0, 16, 32, 48)]
    assert [least == 255 for least in places] == [False, True] * 4


def test_a_folder_of_a_comparison_is_opened_again(finished, settings, tmp_path):
    out, weights = finished
    made = report.write(out, CELLS, plan.hypotheses(), weights, settings)
    opened = report.Comparison(out)
    assert opened.weights == weights and opened.settings.facts == settings.facts and opened.cells == CELLS
    assert opened.sides == [("plain", 1), ("creative[checked=false]", 1)] and opened.seeds == [0, 1]
    assert (opened.variety["seeds"] == 2).all() and opened.variety["variety"].between(1, 2).all() and len(opened.variety) == 2
    assert len(opened.results) == 4 and len(opened.answers) == len(plan.hypotheses()) and opened.subjects == ["vehicle"]
    (picture,) = opened.pictures("vehicle", opened.sides[1], 1)
    away = []  # of each cell's picture, but for WebP
    for cell in CELLS:
        (drawn,) = read_tensors(grid.cell_path(out, cell))[0]["images"].numpy()
        scaled = Image.fromarray(drawn).resize(picture.size, Image.Resampling.LANCZOS)
        away.append(ImageStat.Stat(ImageChops.difference(picture, scaled)).mean[0])
    assert away.index(min(away)) == 3
    with pytest.raises(ValueError, match="there is no such cell"):
        made.pictures("vehicle", ("tail", 1), 0)
    with pytest.raises(FileNotFoundError, match="creativelib compare --out"):
        report.Comparison(tmp_path)
    (tmp_path / "made_with.json").write_text("{}")
    with pytest.raises(ValueError, match="made_with.json is not understood"):
        report.Comparison(tmp_path)


def test_the_shipped_comparison_is_taken_if_it_is_of_these_weights(finished, settings, tmp_path, monkeypatch):
    out, weights = finished
    report.write(out, CELLS, plan.hypotheses(), weights, settings)
    small = ([("plain", 1)], ["vehicle"], [0], settings)
    found = report.shipped_or_small(weights, *small, tmp_path / "new", shipped=out)
    assert found.comparison.folder == out and "that ships" in found.said and not (tmp_path / "new").exists()
    monkeypatch.setattr(grid, "prepare", lambda *arguments: kept(grid.subject_path(out, "vehicle")))
    other = report.shipped_or_small(weights | {"prior": "sha256:0"}, *small, tmp_path / "new", shipped=out)
    assert "was made with other weights (prior)" in other.said and "computed now: 1 subjects, 1 seeds" in other.said
    assert len(other.comparison.results) == 1 and other.comparison.weights == weights
    none = report.shipped_or_small(weights, *small, tmp_path / "new", shipped=tmp_path / "nothing")
    assert none.said.startswith("no comparison ships")


def test_the_shipped_comparison_is_not_taken_if_rates_or_options_are_others(finished, settings, tmp_path, monkeypatch):
    out, weights = finished
    opened = report.write(out, CELLS, [], weights, settings)
    assert opened.differences(weights) == []
    monkeypatch.setattr(grid, "run", lambda *arguments, **options: raise_(KeyboardInterrupt))
    taken = partial(report.shipped_or_small, weights, [("plain", 1)], ["vehicle"], [0], settings, tmp_path, shipped=out)
    assert taken().comparison.folder == out
    with monkeypatch.context() as changed:  # measured anew on these weights, say
        changed.setitem(RATES, "lora", 2.0)
        assert opened.differences(weights) == ["rates (lora)"]
        with pytest.raises(KeyboardInterrupt):  # so a small one is computed
            taken()
    monkeypatch.setattr(METHODS["creative"].__init__, "__defaults__", ("embedding", None, None, True, None, ()))
    wanted = [f"weights ({', '.join(sorted([*weights, 'x']))})", "options (creative[checked=false])"]
    assert opened.differences(dict.fromkeys([*weights, "x"], "")) == wanted
    facts = json.loads((out / "made_with.json").read_text())
    old = {name: value for name, value in facts.items() if name not in ("options", "rates")}  # as it was written before
    (tmp_path / "made_with.json").write_text(json.dumps(old))
    assert report.Comparison(tmp_path).differences(weights)[1] == f"rates ({', '.join(sorted(RATES))})"


def test_a_small_comparison_leaves_out_what_failed_and_says_so(finished, settings, tmp_path, monkeypatch):
    write_tensors(grid.subject_path(tmp_path, "vehicle"), *kept(grid.subject_path(finished[0], "vehicle")))

    def fails(settings, cell, *rest):
        return kept(grid.cell_path(finished[0], cell)) if cell in good else raise_(RuntimeError("embeddings: 1 row holds NaN"))

    monkeypatch.setattr(grid, "compute", fails)
    small = (finished[1], [("plain", 1), ("creative[checked=false]", 1)], ["vehicle"], [0, 1], settings, tmp_path)
    good = []
    with pytest.raises(grid.CellsFailed, match="^cells: 4 failed"):
        report.shipped_or_small(*small, shipped=tmp_path / "nothing")
    good = CELLS[:3]
    found = report.shipped_or_small(*small, shipped=tmp_path / "nothing")
    assert "cells: 1 failed and the others are kept; the first is creative[checked=false] of vehicle, seed 1" in found.said
    assert len(found.comparison.results) == 3 and len(found.comparison.cells) == 4
    assert found.comparison.pictures("vehicle", ("creative[checked=false]", 1), 1) == []
    assert set(answers.summary(found.comparison.results, ("novelty",))["cells"]) == {1, 2}


def test_finished_cells_are_not_made_again(finished, settings, monkeypatch):
    monkeypatch.setattr(grid, "compute", never)
    monkeypatch.setattr(grid, "prepare", never)
    assert grid.run(CELLS, finished[0], settings, progress=False) == finished[1]


def test_cells_of_other_settings_or_damaged_ones_are_made_anew(finished, settings):
    out, weights = finished
    path = grid.cell_path(out, CELLS[0])
    head = grid.cell_header(CELLS[0], settings, weights)
    assert grid.is_finished(path, head)
    for other in (
        {"settings": {**settings.facts, "samples": 61}},
        {"weights": {**weights, "prior": "sha256:0"}},
        {"format": 0},
    ):
        assert not grid.is_finished(path, head | other)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert not grid.is_finished(path, head) and len(table.table(CELLS, out, settings, weights)) == 3
    variety = table.variety(CELLS, out, settings, weights)["variety"]
    assert variety.isna().tolist() == [True, False]  # of plain a seed is missing
    assert table.sheet(CELLS[:1], out, settings, weights, results=1, side=16).getextrema() == ((255, 255),) * 3
    grid.run(CELLS, out, settings, progress=False)
    assert path.read_bytes() == whole  # and bit-equal


def test_cells_of_other_settings_are_not_replaced_unasked(finished, settings, tmp_path, monkeypatch):
    out = tmp_path / "copy"
    shutil.copytree(finished[0], out)
    kept = {path: path.read_bytes() for path in out.rglob("*.safetensors")}
    other = replace(settings, samples=61)
    with pytest.raises(FileExistsError, match=r"5 of its files were made with .*settings.samples is 60, not 61.* --force$"):
        grid.run(CELLS, out, other, progress=False)
    monkeypatch.setitem(RATES, "lora", 2.0)
    with pytest.raises(FileExistsError, match=r"4 of its files were made with other settings \(rates.lora is "):
        grid.run(CELLS, out, settings, progress=False)
    assert {path: path.read_bytes() for path in out.rglob("*.safetensors")} == kept
    grid.run(CELLS[:1], out, other, progress=False, force=True)
    assert sum(path.read_bytes() != kept[path] for path in kept) == 2  # the subject and the cell


@pytest.mark.parametrize("name", ["results.csv", "vehicle.webp"])
def test_files_that_a_comparison_would_overwrite_are_refused(tmp_path, monkeypatch, capsys, name):
    (tmp_path / name).write_text("mine")
    monkeypatch.setattr(grid, "run", never)
    assert main(["compare", "--subjects", "vehicle", "--methods", "plain", "--out", str(tmp_path), "--quiet"]) == 2
    assert f"holds files that would be overwritten ({name}), but no comparison" in capsys.readouterr().err
    assert (tmp_path / name).read_text() == "mine"


def test_two_comparisons_do_not_share_a_folder(tmp_path, monkeypatch, capsys):
    holder = "import sys; from creativelib.run_folder import hold\nwith hold(sys.argv[1]): print(flush=True); sys.stdin.read()"
    monkeypatch.setattr(grid, "run", never)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", holder, tmp_path], **pipes) as process:
        process.stdout.readline()
        assert main(["compare", "--subjects", "vehicle", "--methods", "plain", "--out", str(tmp_path), "--quiet"]) == 2
        process.stdin.close()
    assert "is in use by another program" in capsys.readouterr().err


def test_a_cell_depends_on_options_and_rates_that_its_name_leaves_open(settings, finished, monkeypatch):
    out, weights = finished
    cell = CELLS[1]
    assert len(table.table([cell], out, settings, weights)) == 1
    with monkeypatch.context() as changed:  # measured anew on other weights, say
        changed.setitem(RATES, "lora", 2.0)
        assert table.table([cell], out, settings, weights).empty
    monkeypatch.setattr(METHODS["creative"].__init__, "__defaults__", ("embedding", None, None, True, None, ()))
    assert table.table([cell], out, settings, weights).empty
    assert table.sheet([cell], out, settings, weights, results=1, side=16).getextrema() == ((255, 255),) * 3


def raise_(error):
    raise error


def test_one_cell_that_fails_stops_no_other_one(settings, finished, tmp_path, monkeypatch, capsys):
    write_tensors(grid.subject_path(tmp_path, "vehicle"), *kept(grid.subject_path(finished[0], "vehicle")))
    numbers = {0: float("nan"), 3: 1.0}

    def fails(settings, cell, *rest):
        number = CELLS.index(cell)
        if number == 1:
            raise RuntimeError("embeddings: 1 of 4 rows hold NaN")
        tensors, facts = kept(grid.cell_path(finished[0], cell))
        return tensors, {name: facts[name] for name in ("pictures", "provenance")} | {"accepted_from": numbers.get(number, 0.5)}

    monkeypatch.setattr(grid, "compute", fails)
    with pytest.raises(
        grid.CellsFailed, match="^cells: 2 failed and the others are kept; the first is plain of vehicle"
    ) as told:
        grid.run(CELLS, tmp_path, settings, progress=False)
    assert list(told.value.failed) == CELLS[:2] and "RuntimeError: embeddings" in told.value.failed[CELLS[1]]
    assert len(table.table(CELLS, tmp_path, settings, told.value.weights)) == 2
    monkeypatch.setattr(plan, "Settings", lambda *names, **numbers: settings)
    words = ["--methods", "plain,creative[checked=false]", "--subjects", "vehicle,vehicle", "--seeds", "2", "--budgets", "1,1"]
    assert main(["compare", *words, "--out", str(tmp_path), "--quiet"]) == 2  # after the tables of the others were written
    assert capsys.readouterr().err.startswith("creativelib: cells: 2 failed") and len(report.Comparison(tmp_path).cells) == 4
    with pytest.raises(ValueError, match="^out: no cell of this comparison is finished"):
        report.write(tmp_path, CELLS, [], {}, settings)
    monkeypatch.setattr(grid, "run", lambda cells, *_, **__: raise_(grid.CellsFailed(dict.fromkeys(cells, "none"), {})))
    assert main(["compare", *words, "--out", str(tmp_path / "none"), "--quiet"]) == 2  # and the reason is not lost
    assert "the first is plain of vehicle, seed 0, budget 1: none" in capsys.readouterr().err


def test_a_report_is_replaced_as_a_whole(finished, settings, monkeypatch):
    out, weights = finished
    report.write(out, CELLS, [], weights, settings)
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}

    def full(self, file, **options):
        open(file, "w").close()
        raise OSError(errno.ENOSPC, "No space left on device")

    for kind, writer in ((pd.DataFrame, "to_csv"), (Image.Image, "save")):
        with monkeypatch.context() as changed:
            changed.setattr(kind, writer, full)
            with pytest.raises(OSError, match="cannot be written .No space left"):
                report.write(out, CELLS, [], weights, settings)
        assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == before


def test_weights_are_those_of_files_or_of_the_hub(monkeypatch):
    generator = SimpleNamespace(weights={"prior": "sha256:1"}, settings=ModelSettings())
    names = {name: work.weights_of(generator, name) for name in ("some/checker@abc", "other/checker", "pocket")}
    assert names["some/checker@abc"]["checker"] == "hub:abc" and names["other/checker"]["checker"] == "hub:main"
    assert names["pocket"]["checker"].startswith("sha256:") and names["pocket"]["prior"] == "sha256:1"
    assert names["pocket"]["judge"] == folder_digest(data_folder() / "pocket" / "judge")


@pytest.mark.parametrize(
    "other",
    [{"decoder_steps": 7}, {"decoder_guidance": 2.5}, {"prior_steps": 7}, {"prior_guidance": 1.1}, {"learning_rate": 0.1}],
)
def test_a_comparison_drawn_in_other_steps_of_the_decoder_is_another(finished, settings, other):
    """The same weights draw, and the judge accepts, other pictures."""
    out, weights = finished
    report.write(out, CELLS, plan.hypotheses(), weights, settings)
    generator = load_generator(settings.model, device="cpu")
    assert work.weights_of(generator, settings.checker) == weights
    generator.settings = replace(generator.settings, **other)
    now = work.weights_of(generator, settings.checker)
    assert report.Comparison(out).differences(now) == ["weights (settings)"]


def test_the_subjects_are_the_paper_s():
    assert {"building", "chair"} | {"building", "handbag", "alien", "vehicle", "pet", "fruit"} == set(plan.SUBJECTS)
    cells = plan.grid([("plain", 1), ("plain", 1)], ["pet", "pet"], [0, 0])
    assert cells == [Cell("plain", "pet", 0, 1)]


def test_nothing_is_set_twice_in_the_makefile():
    lines = (ROOT / "Makefile").read_text().splitlines()
    names = [line.split("?=")[0].strip() for line in lines if "?=" in line and line[0].isupper()]
    assert len(names) == len(set(names)) and "JOBS" in names


def test_what_was_finished_is_kept_when_it_is_stopped(settings, finished, tmp_path, monkeypatch):
    calls = []

    def stops(*arguments):
        calls.append(arguments[1])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return {"x": torch.zeros(1)}, {}

    write_tensors(grid.subject_path(tmp_path, "vehicle"), *kept(grid.subject_path(finished[0], "vehicle")))
    monkeypatch.setattr(grid, "compute", stops)
    with pytest.raises(KeyboardInterrupt):
        grid.run(CELLS, tmp_path, settings, progress=False)
    assert [path.stem for path in (tmp_path / "cells").glob("*.safetensors")] == [CELLS[0].file]
    grid.run(CELLS, tmp_path, settings, progress=False)
    assert calls == [CELLS[0], CELLS[1], *CELLS[1:]]


def kept(path):
    return read_tensors(path)


class TerminatedWorkerError(RuntimeError):
    """As joblib names it."""


FULL = r"^jobs: the memory is full \({}\); close other programs, or give fewer jobs; 1 of 4 cells are kept"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (TerminatedWorkerError("gone"), r"^jobs: a worker ended before its time.*1 of 4 cells are kept"),
        (OSError(errno.ENOSPC, "No space left on device"), r"^out: .*No space left.*MiB are free; 1 of 4 cells are kept"),
        (
            OSError(errno.EACCES, "Permission denied", "model"),
            r"^\[Errno 13\] Permission denied: 'model'; 1 of 4 cells are kept",
        ),
        (
            RuntimeError("unable to write: No space left on device (28)\n..."),
            r"^unable to write.* \(28\); 1 of 4 cells are kept",
        ),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.\n..."), FULL.format(r"CUDA out of .*9 GiB\.")),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling ..."), FULL.format("CUDA error.*")),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes"), FULL.format(".enforce.*9 bytes")),
        (MemoryError(), FULL.format("MemoryError")),
        (
            RuntimeError("CUDA error: device-side assert triggered\nFor debugging ..."),
            "^CUDA error: .* triggered; 1 of 4 cells",
        ),
    ],
)
def test_what_the_machine_lacks_stops_the_grid_in_one_line(settings, finished, tmp_path, monkeypatch, error, message):
    write_tensors(grid.subject_path(tmp_path, "vehicle"), *kept(grid.subject_path(finished[0], "vehicle")))

    def fails(settings, cell, *rest):
        if cell != CELLS[0]:
            raise error
        return {"x": torch.zeros(1)}, {}

    monkeypatch.setattr(grid, "compute", fails)
    with pytest.raises(OSError, match=message) as told:
        grid.run(CELLS, tmp_path, settings, progress=False)
    assert "\n" not in str(told.value) and str(told.value).endswith("run the same command again")
    assert [path.stem for path in (tmp_path / "cells").glob("*.safetensors")] == [CELLS[0].file]


def test_a_memory_that_is_full_before_the_first_cell_is_one_line(settings, tmp_path, monkeypatch):
    monkeypatch.setattr(grid, "prepare", lambda *_: raise_(torch.OutOfMemoryError("CUDA out of memory.")))
    with pytest.raises(OSError, match=r"^jobs: the memory is full \(CUDA out of memory\.\).*; 0 of 1 subjects are kept"):
        grid.run(CELLS, tmp_path, settings, progress=False)


def test_a_worker_of_other_weights_stops_the_grid(settings, finished, tmp_path, monkeypatch):
    write_tensors(grid.subject_path(tmp_path, "vehicle"), *kept(grid.subject_path(finished[0], "vehicle")))
    monkeypatch.setattr(grid, "compute", lambda *_: work.require_weights(settings, {"prior": "sha256:1"}))
    monkeypatch.setattr(work, "identity", lambda settings: {"prior": "sha256:0"})
    with pytest.raises(work.OtherWeights, match="^weights: a worker has another prior"):
        grid.run(CELLS, tmp_path, settings, progress=False)


def test_what_cannot_be_compared_is_refused_at_once(settings, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="^subject: got 'unicorn', which the judge does not know"):
        grid.run([Cell("plain", "unicorn", 0, 1)], tmp_path, settings, progress=False)
    with pytest.raises(ValueError, match=r"^budget: one result of 'minority\[iterations=500\]' costs"):
        grid.run([Cell("minority[iterations=500]", "vehicle", 0, 1)], tmp_path, settings, progress=False)
    monkeypatch.setattr(grid, "CONNECT_SECONDS", 1)
    pytest.importorskip("distributed", reason="pip install 'creativelib[cluster]'")
    with pytest.raises(OSError, match="^cluster: no Dask scheduler answers at tcp://127.0.0.1:9"):
        grid.run(CELLS, tmp_path, settings, cluster="tcp://127.0.0.1:9", progress=False)
    with pytest.raises(ValueError, match="^weights: a worker has another prior"):
        work.require_weights(settings, work.identity(settings) | {"prior": "sha256:0"})
    for bad in ({"results": 0}, {"samples": 50}, {"plain": 10}, {"plain": 100, "samples": 60}):
        with pytest.raises(ValueError, match=f"^{next(iter(bad))}: got"):
            Settings(**{**{"dims": 50}, **bad})


def test_the_command_reports_what_is_finished(finished, settings, monkeypatch, capsys):
    out, _ = finished
    monkeypatch.setattr(grid, "compute", never)
    monkeypatch.setattr(plan, "Settings", lambda *names, **numbers: settings)
    methods = "plain,creative[checked=false]"
    words = ["compare", "--methods", methods, "--subjects", "vehicle", "--seeds", "2", "--budgets", "1", "--out", str(out)]
    assert main([*words, "--quiet"]) == 0
    shown = capsys.readouterr().out
    assert "creative[checked=false]" in shown and "novelty" in shown
    results = pd.read_csv(out / "results.csv")
    assert len(results) == 4 and json.loads((out / "made_with.json").read_text())["cells"] == 4
    assert set(pd.read_csv(out / "answers.csv")["verdict"]) == {"not run"} and (out / "vehicle.webp").stat().st_size > 500

    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(grid, "run", interrupted)
    assert main(words) == 130 and "the same command goes on" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_refused_in_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["compare", "--out", str(tmp_path / "file")]) == 2
    assert capsys.readouterr().err.startswith(f"creativelib: out: cannot write to {tmp_path / 'file'} (File exists); choose")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--methods", "plain,magic"], "creativelib: method: got 'magic'; choose among plain"),
        (["--methods", "creative[space=outer]"], "creativelib: space: got 'outer'"),
        (["--budgets", "50,x"], "creativelib: budgets: got '50,x'; give whole numbers"),
        (["--methods="], "creativelib: methods: got '', which names none"),
        (["--subjects", " ,"], "creativelib: subjects: got ' ,', which names none"),
    ],
)
def test_the_command_refuses_in_one_line(words, message, tmp_path, capsys):
    assert main(["compare", "--out", str(tmp_path), *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith(message) and error.count("\n") == 1


def test_two_workers_of_a_cluster_give_the_same_bits_as_one_process(finished, settings, tmp_path):
    distributed = pytest.importorskip("distributed", reason="pip install 'creativelib[cluster]'")
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(**options, local_directory=str(tmp_path)) as cluster:
        weights = grid.run(CELLS, tmp_path / "out", settings, cluster=cluster.scheduler_address, progress=False)
    assert weights == finished[1]
    same_bits(finished[0], tmp_path / "out")


def same_bits(folder, other):
    for cell in CELLS:
        here, there = kept(grid.cell_path(folder, cell)), kept(grid.cell_path(other, cell))
        assert here[1] == there[1] and here[0].keys() == there[0].keys()
        assert all(torch.equal(tensor, there[0][name]) for name, tensor in here[0].items())


KILLED = """
import os, signal, sys
from pathlib import Path
from creativelib import storage
from creativelib.comparison import grid, plan
save, written = storage.save_file, []

def dies(tensors, path, **options):
    written.append(path)
    if len(written) == 3:  # a subject and a cell are whole, the next one is half written
        Path(path).write_bytes(b"half of it")
        os.kill(os.getpid(), signal.SIGKILL)
    save(tensors, path, **options)

storage.save_file = dies
cells = plan.grid([("plain", 1), ("creative[checked=false]", 1)], ["vehicle"], [0, 1])
grid.run(cells, sys.argv[1], plan.Settings(*sys.argv[2:], results=1, samples=60, dims=6, plain=20), progress=False)
"""


def test_killed_while_it_writes_it_goes_on_in_two_processes_and_no_bit_is_another(finished, settings, tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), settings.model, settings.checker, "cpu"], cwd=ROOT)
    assert done.returncode == -signal.SIGKILL
    cells = tmp_path / "cells"
    assert [path.stem for path in cells.glob("*.safetensors")] == [CELLS[0].file] and len(list(cells.iterdir())) == 2
    first = grid.cell_path(tmp_path, CELLS[0])
    written = first.stat().st_mtime_ns
    assert grid.run(CELLS, tmp_path, settings, jobs=2, progress=False) == finished[1]
    assert first.stat().st_mtime_ns == written  # it was not made again
    same_bits(finished[0], tmp_path)


def test_the_comparison_that_ships_is_of_the_weights_that_ship_and_small():
    shipped = report.Comparison()
    now = work.weights_of(load_generator("pocket", device="cpu"), "pocket")
    pocket = data_folder() / "pocket"
    assert all(now[part] == folder_digest(pocket / part) for part in ("prior", "decoder", "checker", "judge"))
    assert "decoder_steps 6, decoder_guidance 4," in now["settings"]
    assert shipped.differences(now) == [] and len(shipped.results) == len(shipped.cells) == 525
    assert sum(path.stat().st_size for path in shipped.folder.iterdir()) < 4 * 2**20
    assert {path.stem for path in shipped.folder.glob("*.webp")} == set(plan.SUBJECTS)


def test_what_notebook_08_says_of_the_comparison_that_ships():
    shipped = report.Comparison()
    names = [f"creative[space={space},target=40,checked=false]" for space in ("subject-token", "adjective-token", "lora")]
    shares = shipped.results.groupby("method")["novel_and_valid"].mean()
    assert [round(100 * shares[name]) for name in names] == [39, 40, 9]
    ideas = shipped.variety.groupby("method")["variety"].mean()
    assert [round(ideas[name], 1) for name in names] == [2.9, 2.9, 3.4]
    pictures = shipped.nearest
    far = pictures[pictures["outside"] & pictures["judge"]].assign(of="others")
    far.loc[far["method"].str.contains("token"), "of"] = "words"
    far.loc[far["method"] == names[2], "of"] = "lora"
    counts = far.groupby("of")["beyond"].agg(["size", "sum"])
    assert {name: (row["size"], row["sum"]) for name, row in counts.iterrows()} == {
        "words": (110, 10), "lora": (13, 1), "others": (70, 14)
    }  # fmt: skip
    beyond = far[far["beyond"]]
    assert len(pictures) == 1995 and len(far) == 193 and (beyond["subject"] == "handbag").sum() == 10
    assert (beyond["method"] == "plain").sum() == 3
    plain = pictures[(pictures["method"] == "plain") & (pictures["subject"] == "vehicle")]
    assert len(plain) == 20 and "bellhop bell" in set(plain["nearest"])
    means = answers.summary(shipped.results, ["explored_new"])
    assert (means["explored_new_low"].fillna(0) == 0).all() and 1 / 60 < means["explored_new"][
        0
    ] < 1 / 40  # plain: one in fifty
    verdicts = shipped.answers.set_index("id")["verdict"]
    assert verdicts.pop("adjective-goes-to-colour") == "contradicted" and set(verdicts) == {"undecided"}
