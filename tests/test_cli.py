"""``creativelib create``: the three files, one clear line for a mistake, and interruption."""

import json
import os
import re
import subprocess
import sys

import pytest
from PIL import Image

from creativelib import cli, spaces
from creativelib.run import CreativeRun


@pytest.fixture
def arguments(miniature_folders, tmp_path):
    return ["create", "fast", "vehicle", "--model", str(miniature_folders["2.2"]), "--n", "80", "--steps", "3",
            "--device", "cpu", "--out", str(tmp_path / "out")]  # fmt: skip


def test_writes_picture_and_run(arguments, tmp_path, capsys):
    assert cli.main([*arguments, "--quiet"]) == 0
    out = capsys.readouterr()
    assert "nats after 3 of 3 steps" in out.out and out.err == ""
    folder = tmp_path / "out"
    assert sorted(path.name for path in folder.iterdir()) == ["before_after.png", "run.json", "run.safetensors"]
    facts = json.loads((folder / "run.json").read_text())
    assert facts["settings"]["prompt"].endswith("photo of a fast vehicle. photorealistic, 4k, HQ.")
    assert facts["settings"]["space"] == "lora" and facts["settings"]["baseline"]["n"] == 80
    assert Image.open(folder / "before_after.png").width > 800


def test_the_bar_shows_surprise_and_anchor(arguments, capsys):
    cli.main(arguments)
    assert re.search(r"surprise -?\d+\.\d nats, anchor -?\d\.\d{3}", capsys.readouterr().err)


@pytest.mark.parametrize("space", spaces.SPACES)
def test_every_space(arguments, space, tmp_path):
    assert cli.main(["create", *arguments[3:], "--quiet", "--space", space, "--subject", "alien"]) == 0
    assert json.loads((tmp_path / "out" / "run.json").read_text())["settings"]["space"] == space


def test_space_names_are_those_of_the_package():
    assert cli.SPACE_NAMES == tuple(spaces.SPACES)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["create", "vehicle", "--model", "nonsense"], "model: got 'nonsense'; choose 'pocket'"),
        (["create", ""], "subject: got ''; give a word"),
        (["create"], "subject: got ''"),
        (["create", "vehicle", "--subject", "alien"], "subject: given twice"),
        (["create", "vehicle", "--space", "outer"], "space: got 'outer'; choose one of lora, subject-token"),
        (["create", "vehicle", "--steps", "0"], "argument --steps: got '0'; give a whole number of at least 1"),
        (["create", "vehicle", "--steps", "many"], "argument --steps: got 'many'"),
        (["create", "vehicle", "--seed", "-1"], "argument --seed: got '-1'"),
        (["create", "vehicle", "--n", "50"], "argument --n: got '50'; give a whole number of at least 51"),
        (["invent", "vehicle"], "argument COMMAND: invalid choice: 'invent'"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(options, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    try:
        code = cli.main(options)
    except SystemExit as exit:
        code = exit.code
    error = capsys.readouterr().err
    assert code == 2 and message in error and error.count("\n") == 1 and error.startswith("creativelib: ")


def test_unwritable_folder(arguments, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert cli.main([*arguments[:-1], str(tmp_path / "file" / "out")]) == 2
    assert "out: cannot write to" in capsys.readouterr().err


def test_interruption_keeps_what_was_done(arguments, tmp_path, monkeypatch):
    step = CreativeRun.step

    def interrupted(run):
        if run.steps == 2:
            raise KeyboardInterrupt
        return step(run)

    monkeypatch.setattr(CreativeRun, "step", interrupted)
    assert cli.main([*arguments, "--quiet"]) == 130
    assert json.loads((tmp_path / "out" / "run.json").read_text())["steps"] == 2
    assert (tmp_path / "out" / "before_after.png").is_file()


def test_as_a_module(tmp_path):
    command = [sys.executable, "-m", "creativelib", "create", "vehicle", "--space", "outer", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ})
    assert done.returncode == 2 and done.stderr.startswith("creativelib: space: got 'outer'")
