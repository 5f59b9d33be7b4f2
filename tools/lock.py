"""Write requirements.lock: the versions in this environment of all that pyproject.toml asks for, directly or not.

Build suffixes (``+cpu``) are cut and PyTorch's CUDA packages left out, so that one file serves every machine.
"""

import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
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


if __name__ == "__main__":
    pins = [f"{name}=={version}" for name, version in closure(direct_requirements()).items()]
    (ROOT / "requirements.lock").write_text(HEADER + "\n".join(sorted([*pins, *ELSEWHERE])) + "\n")
    print(f"requirements.lock: {len(pins) + len(ELSEWHERE)} packages")
