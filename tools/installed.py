"""Whether what is installed is what requirements.lock says; with the standard library alone, for set-up asks."""

import re

OLDEST_PYTHON = (3, 11)


def canonical(name: str) -> str:
    """A package's name as package indexes compare it: ``Jupyter_Client`` and ``jupyter-client`` are one."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(lock: str, system: str) -> dict[str, str]:
    """Name -> version of the lines of the lock that hold for ``system`` (as ``sys.platform`` has it)."""
    found = {}
    for line in lock.splitlines():
        match = re.fullmatch(r"([\w.-]+)==([^\s;]+)(?:; sys_platform == '(\w+)')?", line)
        if match and match[3] in (None, system):
            found[canonical(match[1])] = match[2]
    return found


def unlike_the_lock(lock: str, installed: dict[str, str], system: str, torch: str = "") -> list[str]:
    """What is missing or has another version, a phrase each.

    Args:
        lock: the text of requirements.lock.
        installed: canonical name -> version.
        system: as ``sys.platform`` has it.
        torch: PyTorch's version with its build, if that shall hold too: the lock leaves the build open.
    """
    wanted = pins(lock, system)
    wrong = [f"{name} is missing" for name in [*wanted, "creativelib"] if name not in installed]
    for name, version in wanted.items():
        have = installed.get(name, version)
        exact = torch if name == "torch" and torch else version
        if have != exact and (exact is not version or have.partition("+")[0] != version):
            wrong.append(f"{name} is {have}, not {exact}")
    return wrong
