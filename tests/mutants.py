"""Runs tests against broken copies of the package, a fork each, so that all that is heavy is imported once.

A server on stdin and stdout, for ``test_mutations``: it takes lines ``["folder of the copy", ["test file or id", ...]]`` and
answers each with ``{"status": pytest's exit status, "failed": [ids of tests], "text": what pytest printed}``, both as JSON.
"""

import importlib
import json
import os
import pkgutil
import sys
import tempfile
from pathlib import Path

import pytest

import creativelib.study

ROOT = Path(__file__).resolve().parents[1]


def warm() -> None:
    """Import the libraries that the package uses, and forget the package itself: a fork takes it from its copy."""
    sys.path.insert(0, str(ROOT / "tests"))
    import miniature_checkers  # noqa: F401

    for package in (creativelib, creativelib.study):
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    for name in [name for name in sys.modules if name.partition(".")[0] in ("creativelib", "miniature", "miniature_checkers")]:
        del sys.modules[name]


class Failures:
    """A plugin of pytest that notes which tests failed."""

    def __init__(self):
        self.ids = []

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self.ids.append(report.nodeid)


def run_tests(folder: str, names: list[str], answer: str) -> None:
    """In the fork: run the tests with the copy first on Python's path, write what happened to the file ``answer``, and end."""
    os.chdir(folder)
    sys.path.insert(0, folder)
    with tempfile.TemporaryFile("w+") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        failures = Failures()
        # the root of the project, which pytest would put first, holds the package that is not broken
        options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-o", "pythonpath=tools"]
        status = pytest.main([*options, *(str(ROOT / "tests" / name) for name in names)], plugins=[failures])
        sys.stdout.flush()
        file.seek(0)
        found = {"status": int(status), "failed": failures.ids, "text": file.read()}
    Path(answer).write_text(json.dumps(found))
    os._exit(0)


def main() -> None:
    warm()
    with tempfile.TemporaryDirectory() as scratch:
        answer = Path(scratch) / "answer.json"
        for line in sys.stdin:
            answer.unlink(missing_ok=True)
            child = os.fork()
            if child == 0:
                run_tests(*json.loads(line), str(answer))
            os.waitpid(child, 0)
            print(answer.read_text() if answer.exists() else '{"status": -1, "failed": [], "text": "it died"}', flush=True)


if __name__ == "__main__":
    main()
