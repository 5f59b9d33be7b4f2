"""Set-up: the files that name packages agree, the choice of PyTorch's build, what importing the package costs."""

import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from installed import OLDEST_PYTHON
from lock import too_new
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from torch_choice import CPU_INDEX_URL, choose_build, is_installed, pip_arguments

import creativelib
from creativelib import environment

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
EXTRAS = PROJECT["optional-dependencies"]


@pytest.fixture(scope="module")
def pins():
    """Name -> pinned version of requirements.lock."""
    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
    requirements = [Requirement(line) for line in lines]
    assert all([specifier.operator for specifier in item.specifier] == ["=="] for item in requirements)
    return {canonicalize_name(item.name): next(iter(item.specifier)).version for item in requirements}


def direct():
    everything = [Requirement(line) for lines in (PROJECT["dependencies"], *EXTRAS.values()) for line in lines]
    return [requirement for requirement in everything if requirement.name != PROJECT["name"]]


@pytest.mark.parametrize("requirement", direct(), ids=lambda requirement: requirement.name)
def test_the_lock_has_every_direct_dependency_in_its_range(requirement, pins):
    assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)])


def test_extras_name_extras_that_exist():
    own = [Requirement(line) for lines in EXTRAS.values() for line in lines if Requirement(line).name == PROJECT["name"]]
    assert own and all(requirement.extras <= set(EXTRAS) for requirement in own)


def test_the_lock_serves_every_machine(pins):
    assert not [name for name in pins if name.startswith(("nvidia-", "cuda-", "triton"))]
    assert not [name for name, version in pins.items() if "+" in version]
    assert PROJECT["name"] not in pins


def test_torch_is_pinned_alike(pins):
    (torch,) = [item for item in direct() if item.name == "torch"]
    assert str(torch.specifier) == f"=={pins['torch']}"


def test_every_pin_takes_the_oldest_python(pins):
    oldest = PROJECT["requires-python"].removeprefix(">=") + ".0"  # as Debian 12 has 3.11.2
    refused = too_new(pins, oldest)
    assert refused == {}, f"pin older versions of these: {refused}"
    assert too_new({"pytest": "9"}, "2.7") == {"pytest": metadata.metadata("pytest")["Requires-Python"]}


def test_one_oldest_python_everywhere():
    oldest = PROJECT["requires-python"].removeprefix(">=")
    numbers = tuple(map(int, oldest.split(".")))
    assert numbers == OLDEST_PYTHON == environment.OLDEST_PYTHON
    assert f"({', '.join(map(str, numbers))})" in (ROOT / "Makefile").read_text()
    assert f"sys.version_info < ({', '.join(map(str, numbers))})" in (ROOT / "tools" / "setup").read_text()
    for name in ("README.md", "Makefile"):
        assert set(re.findall(r"Python \(?(3[.\d]+\d) or newer", (ROOT / name).read_text())) == {oldest}


def test_environment_yml_is_python_pip_and_the_package():
    python, pip, packages = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert python == f"python{PROJECT['requires-python']}" and pip == "pip"
    lock, package = packages["pip"]
    assert lock == "-r requirements.lock" and (ROOT / lock.removeprefix("-r ")).is_file()
    extras = re.fullmatch(r"-e \.\[(.*)\]", package).group(1).split(",")
    assert set(extras) <= set(EXTRAS)


def test_one_version_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == creativelib.__version__
    assert citation["license"] == PROJECT["license"]


def test_importing_the_package_is_quick():
    heavy = "import creativelib, sys; print(sorted({'torch', 'diffusers', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True).stdout == "[]\n"


PROBE = """
import os, sys
if sys.argv[1] == "first":
    sys.modules["torch"] = sys  # as if it were loaded
from creativelib import torch_came_first
print(os.environ["OMP_WAIT_POLICY"], torch_came_first)
"""


@pytest.mark.parametrize(
    ("torch", "policy", "seen"),
    [
        ("later", None, "passive False"),
        ("first", None, "passive True"),
        ("first", "passive", "passive False"),
        ("later", "active", "active False"),  # somebody's own wish
    ],
)
def test_the_package_makes_threads_wait_without_spinning(torch, policy, seen):
    variables = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    variables |= {"OMP_WAIT_POLICY": policy} if policy else {}
    command = [sys.executable, "-c", PROBE, torch]
    assert subprocess.run(command, env=variables, capture_output=True, text=True, check=True).stdout.strip() == seen


def test_exports():
    assert callable(creativelib.check_environment) and callable(creativelib.load_generator)
    assert set(creativelib.__all__) <= set(dir(creativelib))
    with pytest.raises(AttributeError, match="no attribute 'load_generater'; it exports .*load_generator"):
        creativelib.load_generater  # noqa: B018


@pytest.mark.parametrize(
    ("request_", "system", "nvidia", "build"),
    [
        ("auto", "Linux", False, "cpu"),
        ("auto", "Linux", True, "cuda"),
        ("cpu", "Linux", True, "cpu"),
        ("cuda", "Linux", False, "cuda"),
        ("auto", "Darwin", False, "any"),
        ("cpu", "Darwin", False, "any"),
    ],
)
def test_the_build_of_torch_fits_the_machine(request_, system, nvidia, build):
    assert choose_build(request_, system, nvidia) == build


@pytest.mark.parametrize(("request_", "system"), [("gpu", "Linux"), ("cuda", "Darwin")])
def test_an_impossible_build_is_refused(request_, system):
    with pytest.raises(ValueError, match=f"TORCH: got '{request_}'"):
        choose_build(request_, system, False)


@pytest.mark.parametrize(
    ("installed", "build", "there"),
    [
        ("2.13.0+cpu", "cpu", True),
        ("2.13.0", "cpu", False),
        ("2.13.0", "cuda", True),
        ("2.13.0+cu130", "cuda", True),
        ("2.13.0+cpu", "cuda", False),
        ("2.13.0", "any", True),
        ("2.12.0+cpu", "cpu", False),
        (None, "any", False),
    ],
)
def test_what_is_installed_is_kept_only_if_it_fits(installed, build, there):
    assert is_installed(installed, "2.13.0", build) is there


@pytest.mark.parametrize(
    ("build", "index_url", "found", "arguments"),
    [
        ("cpu", "", True, ["torch==2.13.0+cpu"]),
        ("cpu", "", False, ["torch==2.13.0+cpu", "--index-url", CPU_INDEX_URL]),
        ("cpu", "https://mirror", True, ["torch==2.13.0+cpu", "--index-url", "https://mirror"]),
        ("cuda", "", False, ["torch===2.13.0"]),
        ("cuda", "https://mirror", False, ["torch==2.13.0", "--index-url", "https://mirror"]),
        ("any", "", False, ["torch==2.13.0"]),
    ],
)
def test_where_torch_comes_from(build, index_url, found, arguments):
    assert pip_arguments("2.13.0", build, index_url, found) == arguments
