"""The command line itself: finding commands, one clear line for a mistake, quick help."""

import subprocess
import sys
import types
import warnings

import pytest

import creativelib
from creativelib import cli


def test_version(capsys):
    with pytest.raises(SystemExit) as exit:
        cli.main(["--version"])
    assert exit.value.code == 0 and capsys.readouterr().out == f"creativelib {creativelib.__version__}\n"


def test_a_warning_is_one_line(monkeypatch, capsys):
    def warn(arguments):
        warnings.warn("numbers may differ", stacklevel=2)
        return 0

    command = types.ModuleType("later_command")
    command.register = lambda commands: commands.add_parser("later").set_defaults(run=warn)
    monkeypatch.setitem(sys.modules, "later_command", command)
    monkeypatch.setattr(cli, "COMMANDS", ("later_command",))
    assert cli.main(["later"]) == 0 and capsys.readouterr().err == "creativelib: warning: numbers may differ\n"


def test_tilde_is_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cli.build_parser().parse_args(["create", "vehicle", "--out=~/my pictures"]).out == tmp_path / "my pictures"


@pytest.mark.parametrize("number", ["-1e5", "-1E+5", "-2.5e1", "-.5e3", "-3.", "-7"])
def test_a_negative_number_is_no_option(number):
    chosen = cli.build_parser().parse_args(["create", "vehicle", "--target", number, "--guidance", number])
    assert chosen.target == chosen.guidance == float(number)


@pytest.mark.parametrize("number", ["-inf", "-nan", "-1e31"])
def test_a_negative_number_that_is_refused(number, capsys):
    with pytest.raises(SystemExit):
        cli.build_parser().parse_args(["create", "vehicle", "--target", number])
    assert f"argument --target: got '{number}'; give a number of at most 1e+30" in capsys.readouterr().err


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
