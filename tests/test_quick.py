"""The switch for short notebooks, and who reads it."""

import re
from pathlib import Path

import pytest
import run_notebooks

from creativelib import environment
from creativelib.quick import SWITCH, setting

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(("value", "seen"), [(None, 60), ("", 60), ("0", 60), ("1", 20)])
def test_the_switch_chooses(monkeypatch, value, seen):
    monkeypatch.delenv(SWITCH, raising=False)
    if value is not None:
        monkeypatch.setenv(SWITCH, value)
    assert setting(60, quick=20) == seen


def test_anything_else_is_refused(monkeypatch):
    monkeypatch.setenv(SWITCH, "yes")
    with pytest.raises(ValueError, match="CREATIVELIB_QUICK: got 'yes'; allowed are 1"):
        setting(60, quick=20)


def test_it_is_read_in_one_place():
    """Notebooks and modules ask this function; a second reader would soon mean something else by it."""
    sources = [*ROOT.glob("creativelib/**/*.py"), *ROOT.glob("notebooks/*.ipynb"), *ROOT.glob("tools/*.py")]
    readers = [path.name for path in sources if re.search(rf"(environ|getenv)[^\n]*{SWITCH}", path.read_text())]
    assert readers == []
    assert SWITCH in (ROOT / "Makefile").read_text()


def test_committed_outputs_are_of_the_full_settings(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv(SWITCH, "1")
    assert run_notebooks.main(["--keep", "--notebooks", str(ROOT / "notebooks"), "--out", str(tmp_path)]) == 1
    assert "unset CREATIVELIB_QUICK" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_the_reader_is_told(monkeypatch):
    monkeypatch.delenv(SWITCH, raising=False)
    assert environment.check_quick() == []
    monkeypatch.setenv(SWITCH, "1")
    (finding,) = environment.check_quick()
    assert finding.severity == "warning" and "short settings" in finding.what and "unset CREATIVELIB_QUICK" in finding.fix
    monkeypatch.setenv(SWITCH, "x")
    assert "got 'x'" in environment.check_quick()[0].what
