"""The tests catch what they are for: the package is broken on purpose, in a copy, and the tests of that part must go red."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# what is broken: (module, the code, what it becomes, the tests that must notice)
MUTATIONS = {
    "the creative loss has the other sign": (
        "losses.py",
        "return (log_prob if target is None",
        "return -(log_prob if target is None",
        "test_losses.py",
    ),
    "the anchor is dropped": (
        "pullback.py",
        'return Decision(anchor, "anchor", hold=True)',
        'return Decision(creative, "creative", hold=False)',
        "test_pullback.py",
    ),
    "the anchor shares its moments with the creative loss": (
        "run.py",
        "optimizer = self.optimizer(kind)",
        'optimizer = self.optimizer("creative")',
        "test_run.py",
    ),
    "a pulled sample is not held": ("run.py", "noise_seed if hold else None", "None", "test_run.py"),
    "the text is pooled at the wrong token": (
        "generator.py",
        "_repair_pooling(self.text_encoder, self.tokenizer.eos_token_id)",
        "pass",
        "test_generator.py",
    ),
    "the checker is not asked": (
        "run.py",
        "if self.checker and self.steps % self.check_every == 0:",
        "if False:",
        "test_run.py",
    ),
    "the checker's no is ignored": ("run.py", 'self.stopped = "checker"', "pass", "test_run.py"),
    "negative clusters attract": (
        "directions.py",
        'self.alpha if self.form == "repel" else -self.alpha',
        'self.alpha if self.form != "repel" else -self.alpha',
        "test_directions.py",
    ),
    "negative clusters are left out of the run": (
        "run.py",
        "creative_loss(log_prob, self.target) + negative",
        "creative_loss(log_prob, self.target)",
        "test_directions.py test_run.py",
    ),
    "the Gaussian takes variances for standard deviations": (
        "typicality.py",
        "scale = self._like(embeddings)[3].sqrt()",
        "scale = self._like(embeddings)[3]",
        "test_typicality.py",
    ),
    "the prior sees what comes after": (
        "prior_sampling.py",
        "device=mask.device).tril()",
        "device=mask.device)",
        "test_prior_sampling.py",
    ),
    "a second press rates the next picture": (
        "study/session.py",
        "if stimulus is not None and stimulus != current.id:",
        "if False:",
        "test_study_panel.py",
    ),
    "the browser is told what a picture is": (
        "study/panel.py",
        'now["stimulus"] = current.id if current else ""',
        'now["stimulus"] = f"{current.id} {current.kind}" if current else ""',
        "test_study_panel.py",
    ),
    "a figure hides that its raters were simulated": (
        "study/figures.py",
        'startswith("simulated")',
        'startswith("human")',
        "test_study_figures.py",
    ),
    "the paired difference has the other sign": (
        "study/contrasts.py",
        "table[of] - table[versus]",
        "table[versus] - table[of]",
        "test_study_contrasts.py",
    ),
}


def run_tests(folder: Path, files: list[str]) -> subprocess.CompletedProcess:
    """The named test files against the copy of the package in ``folder``, which comes first on Python's path."""
    paths = [str(ROOT / "tests" / name) for name in files]
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *paths]
    environment = os.environ | {"CREATIVELIB_DATA": str(ROOT / "data"), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.fixture
def copy(tmp_path):
    shutil.copytree(ROOT / "creativelib", tmp_path / "creativelib", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_an_unbroken_copy_is_green(copy):
    done = run_tests(copy, sorted({name for *_, tests in MUTATIONS.values() for name in tests.split()}))
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_broken_package_turns_the_tests_red(name, copy):
    module, code, mutated, tests = MUTATIONS[name]
    path = copy / "creativelib" / module
    text = path.read_text()
    assert text.count(code) == 1, f"{module} no longer has {code!r} once; bring this list up to date"
    path.write_text(text.replace(code, mutated))
    done = run_tests(copy, tests.split())
    assert done.returncode == 1, done.stdout[-2000:] + done.stderr[-2000:]  # 1: tests failed; others: they did not run
    assert "AssertionError" in done.stdout or "Failed:" in done.stdout, done.stdout[-2000:]
