"""The tests catch what they are for: the package is broken on purpose, in a copy, and the tests of that part must go red."""

import json
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
        "search.py",
        "optimizer = self.optimizer(kind)",
        'optimizer = self.optimizer("creative")',
        "test_run.py::test_a_held_sample_is_pulled_back_after_a_long_push",
    ),
    "a pulled sample is not held": (
        "search.py",
        "noise_seed if hold else None",
        "None",
        "test_run.py::test_the_seed_is_held_until_it_is_pulled_back",
    ),
    "the text is pooled at the wrong token": (
        "generator.py",
        "repair_pooling(prior_pipeline.text_encoder, self.tokenizer.eos_token_id)",
        "pass",
        "test_generator.py::test_pooling_is_at_the_end_of_text_when_a_token_is_added",
    ),
    "the checker is not asked": (
        "search.py",
        'asked = self.checker and self.steps and self.history[-1]["check"] is None',
        "asked = False",
        "test_run.py::test_a_no_ends_the_run_and_keeps_the_last_accepted_snapshot",
    ),
    "the checker's no is ignored": (
        "search.py",
        'self.stopped = "checker" if math.isfinite(probability) else "no answer"',
        "pass",
        "test_run.py::test_a_no_ends_the_run_and_keeps_the_last_accepted_snapshot",
    ),
    "negative clusters attract": (
        "directions.py",
        'self.alpha if self.form == "repel" else -self.alpha',
        'self.alpha if self.form != "repel" else -self.alpha',
        "test_directions.py",
    ),
    "negative clusters are left out of the run": (
        "search.py",
        "creative_loss(log_prob, self.target) + negative",
        "creative_loss(log_prob, self.target)",
        "test_run.py::test_a_cluster_pushes_as_its_form_says "
        "test_run.py::test_clusters_are_part_of_the_creative_loss_and_of_the_history",
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
    "another run is replaced without a word": (
        "run_folder.py",
        "found = find_run(folder)\n",
        "found = None\n",
        "test_run_folder.py::test_a_run_of_other_settings_is_neither_replaced_nor_mixed",
    ),
    "what follows the last dot of a name is taken off": (
        "storage.py",
        "path.stem if path.suffix in SUFFIXES else path.name",
        "path.stem",
        "test_storage.py::test_a_dot_in_a_name_belongs_to_the_name",
    ),
    "a file that a full disk did not take counts as written": (
        "snapshots.py",
        "            write_tensors(",
        "            self._files.add(step)\n            write_tensors(",
        "test_run_folder.py::test_a_full_disk_loses_nothing",
    ),
    "a file gets its name before it is on the disk": (
        "storage.py",
        "sync(temporary)\n",
        "pass\n",
        "test_storage.py::test_the_disk_has_the_file_before_it_gets_its_name_and_the_folder_after",
    ),
    "a second press rates the next picture": (
        "study/session.py",
        "if stimulus is not None and stimulus != current.id:",
        "if False:",
        "test_study_panel.py::test_a_late_second_answer_is_not_for_the_next_picture",
    ),
    "the browser is told what a picture is": (
        "study/panel.py",
        'now["stimulus"] = current.id if current else ""',
        'now["stimulus"] = f"{current.id} {current.kind}" if current else ""',
        "test_study_panel.py::test_a_rating_is_kept_before_the_next_picture_shows",
    ),
    "who withdrew comes back with the next merge": (
        "study/store.py",
        "bury(connection, rater, None)",
        "connection.execute(RATERS.delete().where(RATERS.c.id == rater))",
        "test_study_merging.py",
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


class Runner:
    """Sends tests to ``mutants.py`` and keeps which of them went red."""

    def __init__(self):
        variables = {"CREATIVELIB_DATA": str(ROOT / "data"), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
        variables["OBJC_DISABLE_INITIALIZE_FORK_SAFETY"] = "YES"  # macOS
        command = [sys.executable, str(ROOT / "tests" / "mutants.py")]
        self.server = subprocess.Popen(command, env=os.environ | variables, stdin=-1, stdout=-1, text=True)
        self.red = set()

    def run(self, copy: Path, names: list[str]) -> dict:
        print(json.dumps([str(copy), names]), file=self.server.stdin, flush=True)
        return json.loads(self.server.stdout.readline())


@pytest.fixture(scope="module")
def runner():
    runner = Runner()
    yield runner
    runner.server.communicate()  # no more lines: it ends


@pytest.fixture
def copy(tmp_path):
    shutil.copytree(ROOT / "creativelib", tmp_path / "creativelib", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_broken_package_turns_the_tests_red(name, copy, runner):
    module, code, mutated, tests = MUTATIONS[name]
    path = copy / "creativelib" / module
    text = path.read_text()
    assert text.count(code) == 1, f"{module} no longer has {code!r} once; bring this list up to date"
    path.write_text(text.replace(code, mutated))
    done = runner.run(copy, tests.split())
    assert done["status"] == 1, done["text"][-2000:]  # 1: tests failed; others: they did not run
    assert "AssertionError" in done["text"] or "Failed:" in done["text"], done["text"][-2000:]
    runner.red.update(done["failed"])


def test_what_went_red_is_green_on_an_unbroken_copy(copy, runner):
    if not runner.red:
        pytest.skip("no broken copy was tested before this")
    done = runner.run(copy, sorted(name.removeprefix("tests/") for name in runner.red))
    assert done["status"] == 0, done["text"][-2000:]
