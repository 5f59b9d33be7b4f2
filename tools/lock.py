"""Write requirements.lock: the versions in this environment of all that pyproject.toml asks for, directly or not.

Build suffixes (``+cpu``) are cut and PyTorch's CUDA packages left out, so that one file serves every machine.
"""

import sys
import tomllib
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from installed import OLDEST_PYTHON
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
ELSEWHERE = ["appnope==0.1.4; sys_platform == 'darwin'"]  # what only other systems need
HEADER = "# The versions that the tests ran with. Written by `make lock`; the ranges are in pyproject.toml.\n"


def direct_requirements() -> list[str]:
    """All that pyproject.toml names: to build, to run, and every extra."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = pyproject["project"]
    extras = [line for lines in project["optional-dependencies"].values() for line in lines]
    extras = [line for line in extras if Requirement(line).name != project["name"]]  # one extra that takes in another
    return [*pyproject["build-system"]["requires"], *project["dependencies"], *extras]


def closure(lines: list[str]) -> dict[str, str]:
    """Name -> installed version of the requirements and of what they require in turn."""
    versions, seen, queue = {}, set(), [(Requirement(line), "") for line in lines]
    while queue:
        requirement, extra = queue.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        if name.startswith(("nvidia-", "cuda-", "triton")):
            continue
        distribution = metadata.distribution(name)
        versions[name] = distribution.version.partition("+")[0]
        for wanted in {"", *requirement.extras} - {extra for seen_name, extra in seen if seen_name == name}:
            seen.add((name, wanted))
            queue += [(Requirement(line), wanted) for line in distribution.requires or []]
    return versions


def too_new(names: Iterable[str], python: str) -> dict[str, str]:
    """Name -> what it asks for, of the installed packages (those that are) that refuse this version of Python."""
    asked = {}
    for name in names:
        try:
            # [...] raises for a field that is missing, once anything has loaded importlib_metadata
            asked[name] = metadata.metadata(name).get("Requires-Python") or ""
        except metadata.PackageNotFoundError:  # what other systems need
            continue
    return {name: wanted for name, wanted in asked.items() if not SpecifierSet(wanted).contains(python)}


if __name__ == "__main__":
    versions = closure(direct_requirements())
    oldest = ".".join(map(str, OLDEST_PYTHON)) + ".0"
    if refused := too_new(versions, oldest):
        asked = "; ".join(f"{name} {versions[name]} asks for Python {wanted}" for name, wanted in refused.items())
        sys.exit(
            f"requirements.lock: not written, for Python {oldest} must do: {asked}. Install older versions of these first."
        )
    pins = [f"{name}=={version}" for name, version in versions.items()]
    (ROOT / "requirements.lock").write_text(HEADER + "\n".join(sorted([*pins, *ELSEWHERE])) + "\n")
    print(f"requirements.lock: {len(pins) + len(ELSEWHERE)} packages")
