"""``creativelib create``: the three files, one clear line for a mistake, and interruption."""

import json
import os
import re
import subprocess
import sys
import types

import pytest
from PIL import Image

import creativelib
from creativelib import cli, cli_create, spaces
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
    assert {"before_after.png", "run.json", "run.safetensors", "history.jsonl"} <= {path.name for path in folder.iterdir()}
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
    assert cli_create.SPACE_NAMES == tuple(spaces.SPACES)


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
        (["create", "vehicle", "--steps", "²"], "argument --steps: got '²'; give a whole number of at least 1"),
        (["create", "vehicle", "--seed", str(2**64)], "give a whole number from 0 to 4294967295"),
        (["create", "vehicle", "--n", "50"], "argument --n: got '50'; give a whole number from 51 to 1000000"),
        (["create", "vehicle", "--n", "1000000000000"], "give a whole number from 51 to 1000000"),
        (["create", "vehicle", "--out", "~nobody-of-this-name/here"], "argument --out: got '~nobody"),
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


def test_version(capsys):
    with pytest.raises(SystemExit) as exit:
        cli.main(["--version"])
    assert exit.value.code == 0 and capsys.readouterr().out == f"creativelib {creativelib.__version__}\n"


def test_tilde_is_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cli.build_parser().parse_args(["create", "vehicle", "--out=~/my pictures"]).out == tmp_path / "my pictures"


def test_help_does_not_wait_for_torch():
    code = (
        "import sys; from creativelib import cli; cli.build_parser().format_help(); "
        "print({'torch', 'pandas', 'matplotlib', 'sqlalchemy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("set()\n", "")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ModuleNotFoundError("No module named 'sqlalchemy'", name="sqlalchemy"), "the package sqlalchemy is missing; run"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes"), "the memory is full ("),
        (MemoryError(), "the memory is full (MemoryError)"),
        (OSError("one\ntwo"), "one two"),
    ],
)
def test_a_command_of_another_module_and_what_it_raises(error, message, monkeypatch, capsys):
    def fail(arguments):
        raise error

    command = types.ModuleType("later_command")
    command.register = lambda commands: commands.add_parser("later", help="soon").set_defaults(run=fail)
    monkeypatch.setitem(sys.modules, "later_command", command)
    monkeypatch.setattr(cli, "COMMANDS", (*cli.COMMANDS, "later_command"))
    assert cli.main(["later"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"creativelib: {message}") and error.count("\n") == 1


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), ModuleNotFoundError("no", name="creativelib.absent")])
def test_a_mistake_of_ours_is_not_hidden(error, monkeypatch):
    def fail(arguments):
        raise error

    command = types.ModuleType("later_command")
    command.register = lambda commands: commands.add_parser("later").set_defaults(run=fail)
    monkeypatch.setitem(sys.modules, "later_command", command)
    monkeypatch.setattr(cli, "COMMANDS", ("later_command",))
    with pytest.raises(type(error)):
        cli.main(["later"])
