"""What tests of ``creativelib create`` have in common: a quick run of a miniature, and what is in its folder."""

import json

import pytest

from creativelib import cli, creation
from creativelib.run_folder import find_run


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def arguments(miniature_folders, out):
    """Of a run of three quick steps, without a subject."""
    return ["create", "--model", str(miniature_folders["2.2"]), "--n", "80", "--steps", "3", "--device", "cpu", "--quiet",
            "--out", str(out)]  # fmt: skip


def settings(folder) -> dict:
    return find_run(folder)["settings"]


def surprises(folder) -> list[float]:
    return [json.loads(line)["surprise"] for line in (folder / "history.jsonl").read_text().splitlines()]


@pytest.fixture
def quick(monkeypatch, small_generator):
    """The miniature is loaded once, and pictures are small."""
    load = creation.load_generator

    def load_once(source, **options):
        known = (source.name, options["device"]) == (small_generator.name, "cpu")
        return small_generator if known else load(source, **options)

    monkeypatch.setattr(creation, "load_generator", load_once)
    monkeypatch.setattr(creation, "DPI", 30)


@pytest.fixture(scope="module")
def vehicle_run(tmp_path_factory, miniature_folders):
    out = tmp_path_factory.mktemp("run") / "vehicle"
    options = ["--model", str(miniature_folders["2.2"]), "--n", "80", "--steps", "2", "--quiet", "--device", "cpu"]
    assert cli.main(["create", "vehicle", *options, "--out", str(out)]) == 0
    return out
