"""tools/setup: what it mends, what it leaves alone, and what it says; on small environments with a pip that takes notes."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path

import pytest
from installed import pins, unlike_the_lock

ROOT = Path(__file__).resolve().parents[1]
LOCK = "# a comment\nappnope==0.1.4; sys_platform == 'darwin'\ntorch==2.13.0\ntqdm==4.70.1\ntyping-extensions==4.16.0\n"
# Installs by writing what importlib.metadata reads, and leaves its command line and what it was told by variables.
PIP = r"""
import json, os, re, sys, sysconfig
from pathlib import Path
site = Path(sysconfig.get_path("purelib"))
print("pip that takes notes")
if "install" in sys.argv and "--dry-run" not in sys.argv:
    told = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "PYTHON"))}
    with open(site / "notes", "a") as notes:
        notes.write(json.dumps([sys.argv[1:], told]) + "\n")
    words = "\n".join(Path(word).read_text() if word.endswith(".lock") else word for word in sys.argv)
    found = re.findall(r"^([\w-]+)==([\w.+]+)$", words, re.MULTILINE) + [("creativelib", "0")] * ("-e" in sys.argv)
    for name, version in found:
        folder = site / f"{name}.dist-info"
        folder.mkdir(exist_ok=True)
        there = (folder / "METADATA").exists() and f"Version: {version}+" in (folder / "METADATA").read_text()
        if not there or "--force-reinstall" in sys.argv:
            (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project whose set-up was finished, with the tool as a module that works on it."""
    for name in ("setup", "installed.py", "torch_choice.py"):
        (tmp_path / "tools").mkdir(exist_ok=True)
        shutil.copy(ROOT / "tools" / name, tmp_path / "tools" / name)
    (tmp_path / "requirements.lock").write_text(LOCK)
    (tmp_path / "pyproject.toml").write_text("")
    for name in ("PYTHON_CHOSEN", "TORCH", "TORCH_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    new_environment(tmp_path)
    tool = load(tmp_path)
    assert tool.why_anew() == ""
    tool.main()
    assert (tmp_path / ".venv" / "setup.stamp").is_file() and tool.in_place("auto")
    return tool


def new_environment(folder: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / ".venv")], check=True)
    pip = site_packages(folder) / "pip"
    pip.mkdir()
    (pip / "__init__.py").touch()
    (pip / "__main__.py").write_text(PIP)


def load(folder: Path):
    loader = SourceFileLoader("setup_tool", str(folder / "tools" / "setup"))
    tool = importlib.util.module_from_spec(importlib.util.spec_from_loader("setup_tool", loader))
    loader.exec_module(tool)
    return tool


def site_packages(folder: Path) -> Path:
    return next((folder / ".venv" / "lib").glob("python3*/site-packages"))


def notes(tool) -> str:
    return (site_packages(tool.ROOT) / "notes").read_text()


def test_nothing_is_done_where_all_is_in_place(project, capfd):
    before = notes(project)
    project.main()
    assert notes(project) == before and capfd.readouterr().out == ""


def test_a_package_that_was_removed_comes_back(project, capfd):
    shutil.rmtree(site_packages(project.ROOT) / "tqdm.dist-info")
    project.main()
    assert "mending .venv: tqdm is missing" in capfd.readouterr().out
    assert (site_packages(project.ROOT) / "tqdm.dist-info").is_dir() and project.in_place("auto")


def test_the_package_itself_comes_back(project):
    shutil.rmtree(site_packages(project.ROOT) / "creativelib.dist-info")
    (project.ROOT / "creativelib.egg-info").mkdir()  # in the project's folder: not installed
    (project.ROOT / "creativelib.egg-info" / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: creativelib\nVersion: 0\n")
    os.chdir(project.ROOT)
    assert not project.in_place("auto")


@pytest.mark.parametrize(("name", "version"), [("tqdm", "4.1.0"), ("torch", "2.12.0+cpu"), ("torch", "2.13.0")])
def test_a_version_that_is_not_the_locks_is_mended(project, name, version, capfd):
    metadata = site_packages(project.ROOT) / f"{name}.dist-info" / "METADATA"
    right = metadata.read_text()
    metadata.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    project.main()
    assert f"{name} is {version}, not " in capfd.readouterr().out
    assert metadata.read_text() == right


def test_a_python_that_is_gone_is_noticed(project):
    for link in (project.ROOT / ".venv" / "bin").glob("python*"):
        link.unlink()
        link.symlink_to("/nowhere/python3")
    assert not project.in_place("auto")
    assert project.why_anew() == "its Python does not run"


def test_an_environment_of_an_older_python_is_made_anew(project, monkeypatch):
    monkeypatch.setattr(project, "look", lambda: ((3, 10), {"pip": "26"}))
    assert not project.in_place("auto")
    assert project.why_anew() == "it has Python 3.10, which is too old"


def test_another_python_is_taken_only_if_it_was_asked_for(project, monkeypatch):
    packages = project.look()[1]
    monkeypatch.setattr(project, "look", lambda: ((3, 99), packages))
    assert project.in_place("auto")
    monkeypatch.setenv("PYTHON_CHOSEN", "/opt/python3.98/bin/python3")
    assert not project.in_place("auto") and "not the one that was asked for" in project.why_anew()


def test_an_environment_without_pip_is_made_anew(project):
    shutil.rmtree(site_packages(project.ROOT) / "pip")
    assert project.why_anew() == "its pip does not run"


def test_pip_installs_into_the_environment_whatever_else_it_was_told(project, monkeypatch):
    told = {"PIP_USER": "1", "PIP_TARGET": "/nowhere", "PIP_PREFIX": "/nowhere", "PYTHONPATH": "/nowhere", "PIP_TIMEOUT": "9"}
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    (project.ROOT / ".venv" / "setup.stamp").unlink()
    (site_packages(project.ROOT) / "notes").unlink()
    load(project.ROOT).main()
    assert '"PIP_USER": "0"' in notes(project) and '"PIP_TIMEOUT": "9"' in notes(project)
    assert "/nowhere" not in notes(project)


@pytest.mark.parametrize(("ensurepip", "advice"), [(None, "apt-get install python3-venv"), ("there", "Is the folder writable")])
def test_the_advice_fits_what_went_wrong(project, monkeypatch, ensurepip, advice):
    shutil.rmtree(project.VENV)
    monkeypatch.setattr(project.importlib.util, "find_spec", lambda name: ensurepip)
    monkeypatch.setattr(project.sys, "executable", shutil.which("false"))
    with pytest.raises(SystemExit, match=advice):
        project.make_venv()


def test_pins_of_other_systems_are_not_missed():
    assert "appnope" in pins(LOCK, "darwin") and "appnope" not in pins(LOCK, "linux")
    assert (
        len(pins((ROOT / "requirements.lock").read_text(), "darwin"))
        == (ROOT / "requirements.lock").read_text().count("==") - 1
    )
    installed = pins(LOCK, "linux") | {"creativelib": "0"}
    assert unlike_the_lock(LOCK, installed, "linux") == []
    assert unlike_the_lock(LOCK, installed, "darwin") == ["appnope is missing"]
    assert unlike_the_lock(LOCK, installed | {"torch": "2.13.0+cu130"}, "linux") == []


def make(folder: Path, *arguments: str) -> str:
    command = ["make", "-f", str(ROOT / "Makefile"), *arguments]
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHON", "LAB", "MAKEFLAGS", "MAKELEVEL")}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("given", ["{}/My Python/python3", "~/My Python/python3"])
def test_the_path_of_the_interpreter_may_have_spaces(tmp_path, given, monkeypatch):
    python = tmp_path / "My Python" / "python3"
    python.parent.mkdir()
    python.write_text('#!/bin/sh\necho "took $*, chosen: $PYTHON_CHOSEN"\n')
    python.chmod(0o755)
    monkeypatch.setenv("HOME", str(tmp_path))
    path = given.format(tmp_path)
    assert make(tmp_path, "setup", f"PYTHON={path}") == f"took tools/setup, chosen: {path}\n"


def test_what_python_compiles_is_kept_also_where_a_container_says_otherwise(tmp_path, monkeypatch):
    """Without it every process of the pool, and every kernel, compiles PyTorch and diffusers anew: ten seconds each."""
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    python = tmp_path / "python3"
    python.write_text('#!/bin/sh\necho "told: ${PYTHONDONTWRITEBYTECODE:-nothing}"\n')
    python.chmod(0o755)
    assert make(tmp_path, "setup", f"PYTHON={python}") == "told: nothing\n"


def test_line_endings_stay_whatever_git_is_told(tmp_path):
    """As Git for Windows checks out, which the Linux within Windows then sees."""
    here, there = tmp_path / "here", tmp_path / "there"
    names = (".gitattributes", ".ci/run", "tools/setup", "Makefile", "data/pocket/SHA256SUMS", "data/pocket/generator.json")
    for name in names:
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, here / name)
    identity = ("-c", "user.name=n", "-c", "user.email=e", "-c", "core.autocrlf=false")
    for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "all"]):
        subprocess.run(["git", *command], cwd=here, check=True)
    subprocess.run(["git", "clone", "-q", "-c", "core.autocrlf=true", str(here), str(there)], check=True)
    assert [name for name in names if (there / name).read_bytes() != (ROOT / name).read_bytes()] == []


def test_jupyterlab_can_be_told_more():
    assert "-m jupyterlab --allow-root --port=9000 notebooks/" in make(ROOT, "-n", "lab", "LAB=--allow-root --port=9000")


@pytest.mark.parametrize(("cores", "jobs", "tests"), [(1, 1, 2), (5, 5, 6), (8, 8, 8), (20, 8, 8)])
def test_the_pool_is_as_wide_as_the_machine(tmp_path, monkeypatch, cores, jobs, tests):
    getconf = tmp_path / "getconf"
    getconf.write_text(f"#!/bin/sh\necho {cores}\n")
    getconf.chmod(0o755)
    for name in ("JOBS", "TESTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert re.search(rf"--jobs {jobs} ", make(ROOT, "-n", "comparison-small"))
    assert re.search(rf"pytest -n {tests} ", make(ROOT, "-n", "test"))


def test_all_is_tested_in_one_pool_by_one_command():
    """README, continuous integration and contributors run the same: a file at a time on each core, one thread each."""
    command = make(ROOT, "-n", "test", "TESTS=3").splitlines()[-1]
    assert command.startswith("CREATIVELIB_QUICK=1 OMP_NUM_THREADS=1 ") and "pytest -n 3 --dist loadfile" in command
    assert "--durations 10" in command and "--nbval-lax" in command and command.endswith(" tests notebooks")
    assert (ROOT / ".ci" / "run").read_text().endswith("\nmake test\n")
    assert re.search(r"^make test .*unit tests.*notebooks", (ROOT / "README.md").read_text(), re.MULTILINE)
