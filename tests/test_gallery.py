"""The gallery: each picture with what is known of it, runs that are found again, and the page that make gallery writes."""

import json
from types import SimpleNamespace

import make_gallery
import numpy as np
import pytest
import torch
from PIL import Image

from creativelib import creation, gallery
from creativelib.metrics.memory import Memory
from creativelib.run import CreativeRun
from creativelib.typicality import TypicalityModel


class Remembers:
    """A memory of three pictures; the nearest is the next one in turn."""

    records = [{"label": f"a very long label of picture {number}", "set": "noto", "split": "train"} for number in range(3)]

    def nearest(self, rows):
        return np.arange(len(rows)) % 3, np.linspace(0.5, 0.9, len(rows))


@pytest.fixture
def small(monkeypatch, miniature_folders):
    """A studio of a miniature; features are the mean colours."""
    monkeypatch.setattr(gallery, "features", lambda images: images.reshape(len(images), -1, 3).mean(1))
    monkeypatch.setattr(creation, "DIMS", 6)
    return creation.Studio(str(miniature_folders["2.2"]), "cpu", progress=False)


def test_every_picture_has_its_facts(small, tmp_path):
    run = gallery.find_run(small, "vehicle", tmp_path / "vehicle", 3, n=40)
    assert run.steps == 3 and run.folder == (tmp_path / "vehicle").resolve()
    shown = gallery.exhibits(run, Remembers(), 4)
    assert [one.number for one in shown] == [1, 2, 3, 4] and len({one.id for one in shown}) == 4
    seeds = [one.noise_seed for one in shown]
    nats = run.typicality.surprise(run.sample(seeds)).tolist()
    assert [one.nats for one in shown] == pytest.approx(nats, abs=1e-3)
    first = shown[0]
    assert first.above == pytest.approx(first.nats - run.typicality.expected_surprise()) and first.accepted is None
    assert (first.nearest, first.source, first.cosine) == (Remembers.records[0]["label"], "noto", 0.5)
    assert first.note.splitlines()[1] == "a very long la… 0.50" and first.id == "vehicle-seed0-step3-1"
    assert json.loads(json.dumps(first.facts))["folder"] == str(run.folder)
    (image,) = run.generator.decode(run.default(seeds[:1]), prompt="", seed=seeds[:1])
    assert np.abs(np.asarray(image, int) - np.asarray(first.default, int)).max() <= 2  # drawn alone, but for float noise
    figure = gallery.wall(shown, title="vehicle")
    assert [len(axis.images) for axis in figure.axes] == [1] * 8 and figure.axes[4].get_xlabel() == first.note
    assert len(gallery.table(shown)) == 6 and "not asked" in gallery.table(shown)[2]


def test_the_threshold_of_the_checker_is_said():
    assert gallery.counts_as_yes(SimpleNamespace(checker=None)) == "not checked"
    checker = SimpleNamespace(threshold=0.0625)
    assert gallery.counts_as_yes(SimpleNamespace(checker=checker)) == "the checker's yes counts from 6.2% on"


def test_a_run_is_found_again_and_another_replaced(small, tmp_path, monkeypatch):
    folder = tmp_path / "vehicle"
    first = gallery.find_run(small, "vehicle", folder, 2, n=40)
    monkeypatch.setattr(CreativeRun, "step", lambda self: (_ for _ in ()).throw(AssertionError("searched again")))
    again = gallery.find_run(small, "vehicle", folder, 2, n=40)
    assert again.steps == 2 and torch.equal(again.sample([1]), first.sample([1]))
    monkeypatch.undo()
    monkeypatch.setattr(creation, "DIMS", 6)
    other = gallery.find_run(small, "vehicle", folder, 2, n=40, seed=1)
    assert other.seed == 1 and CreativeRun.load(folder, generator=small.generator).seed == 1


def test_the_page_is_written(small, tmp_path, monkeypatch, miniature_folders, capsys):
    monkeypatch.setattr(Memory, "load", lambda: Remembers())
    words = ["--out", str(tmp_path / "out"), "--runs", str(tmp_path / "runs"), "--subjects", "vehicle", "red fruit"]
    words += ["--steps", "1", "--samples", "40", "--model", str(miniature_folders["2.2"]), "--device", "cpu"]
    make_gallery.main(words)
    text = (tmp_path / "out" / "README.md").read_text()
    assert "## red fruit" in text and "(red-fruit.jpg)" in text and text.count("| not asked |") == 2 * creation.COLUMNS
    assert Image.open(tmp_path / "out" / "red-fruit.jpg").width == 1000
    assert capsys.readouterr().out.startswith("vehicle: surprise ") and "traced" not in text
    assert text.count("of 1 steps; not checked.") == 2 and "did not learn from: it says nothing of copies" in text
    assert TypicalityModel.load(tmp_path / "runs" / "vehicle" / "typicality").dims == 6
