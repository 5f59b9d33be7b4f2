"""``creativelib create`` in a folder: going on, refusing, replacing, interruptions, full disks."""

import errno
import os
import re
import shutil
import subprocess
import sys

import pytest
from cli_runs import settings, surprises

from creativelib import cli, creation, storage
from creativelib.generator import positive_prompt
from creativelib.prior_sampling import PriorSamples
from creativelib.pullback import load_checker
from creativelib.run import CreativeRun
from creativelib.run_folder import find_run
from creativelib.spaces import make_space

pytestmark = pytest.mark.usefixtures("quick")


# --- a folder that holds a run ----------------------------------------------------------------------------------------


def test_the_same_again_goes_on(arguments, out, capsys, monkeypatch):
    cli.main([*arguments, "vehicle"])
    first = surprises(out)
    monkeypatch.setattr(creation, "sample_prior", None)  # nothing is sampled again
    arguments[arguments.index("--steps") + 1] = "5"
    assert cli.main([*arguments, "vehicle"]) == 0
    assert "going on after 3 steps" in capsys.readouterr().out and surprises(out)[:3] == first
    monkeypatch.undo()
    cli.main([*arguments[:-1], str(out.with_name("straight")), "vehicle"])
    assert surprises(out) == surprises(out.with_name("straight")) and len(surprises(out)) == 5


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (["alien"], "subject is 'vehicle', not 'alien'"),
        (["vehicle", "--seed", "1"], "seed is 0, not 1; baseline_seed is 0, not 1"),
        (["vehicle", "--space", "embedding"], "space is 'lora', not 'embedding'"),
        (["vehicle", "--rank", "3"], "rank is 10, not 3"),
        (["vehicle", "--learning-rate", "0.5"], "learning_rate is 0.001, not 0.5"),
        (["vehicle", "--target", "90"], "target is None, not 90.0"),
        (["vehicle", "--rule", "sum"], "rule is 'alternating', not 'sum=1'"),
        (["vehicle", "--rule", "alternating=0.123"], "rule is 'alternating=THRESHOLD', not 'alternating=0.123'"),
        (["vehicle", "--guidance", "3"], "guidance is 2.0, not 3.0"),
        (["vehicle", "--prior-steps", "4"], "prior_steps is 3, not 4"),
        (["vehicle", "--n", "81"], "n is 80, not 81"),
        (["vehicle", "--checker", "pocket"], "checker is 'none', not 'one'"),
    ],
)
def test_another_run_is_not_replaced(arguments, out, other, difference, capsys, vehicle_run):
    shutil.copytree(vehicle_run, out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert cli.main([*arguments, *other]) == 2
    error, difference = capsys.readouterr().err, difference.replace("THRESHOLD", f"{settings(out)['rule']['threshold']:g}")
    assert error == (
        f"creativelib: out: {out} holds another run: {difference}. To go on with that run: creativelib create --resume --out "
        f"{out}. For a new one choose another folder with --out, or replace that run by --force\n"
    )
    assert before == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_force_replaces(arguments, out, vehicle_run):
    shutil.copytree(vehicle_run, out)
    assert cli.main([*arguments, "alien", "--force"]) == 0
    assert settings(out)["subject"] == "alien" and find_run(out)["steps"] == 3
    assert PriorSamples.load(out / "baseline").provenance["prompt"] == positive_prompt("alien")


def test_resume_knows_what_it_was(arguments, out, vehicle_run, capsys):
    shutil.copytree(vehicle_run, out)
    options = ["create", "--resume", "--out", str(out), "--quiet", "--device", "cpu"]
    assert cli.main([*options, "--steps", "4"]) == 0
    assert find_run(out)["steps"] == 4 and "after 4 of 4 steps" in capsys.readouterr().out
    assert cli.main([*options, "--steps", "5", "alien"]) == 2
    assert "subject is 'vehicle', not 'alien'" in capsys.readouterr().err
    assert cli.main([*options, "--steps", "5", "vehicle", "--seed", "0", "--target", "1000"]) == 0
    assert settings(out)["target"] == 1000 and find_run(out)["steps"] == 5


def test_a_run_that_was_given_another_target_answers_to_neither(arguments, out, vehicle_run, capsys):
    """It is neither the run without a target nor the run with it from its first step on."""
    shutil.copytree(vehicle_run, out)
    resume = ["create", "--resume", "--out", str(out), "--quiet", "--device", "cpu", "--steps", "3"]
    assert cli.main([*resume, "--target", "1000"]) == 0
    for original in (["vehicle"], ["vehicle", "--target", "1000"]):
        assert cli.main([*arguments, *original]) == 2
        error = capsys.readouterr().err
        assert "holds another run: target is none at first, 1000 from step 2 on. To go on with that run: creativelib" in error
    assert cli.main(resume[:-1] + ["4"]) == 0 and (settings(out)["target"], find_run(out)["steps"]) == (1000, 4)
    assert find_run(out)["aims"] == [[0, None], [2, 1000.0]]


def test_resume_of_nothing(out, capsys, miniature_folders):
    assert cli.main(["create", "--resume", "--out", str(out), "--model", str(miniature_folders["2.2"])]) == 2
    assert f"resume: there is no run in {out}; say what to create" in capsys.readouterr().err and not out.exists()


def test_a_run_that_went_further_than_is_asked_says_so(arguments, out, vehicle_run, capsys):
    shutil.copytree(vehicle_run, out)
    assert cli.main(["create", "--resume", "--out", str(out), "--quiet", "--device", "cpu", "--steps", "1"]) == 0
    said = capsys.readouterr().out
    assert "which has 2 steps already; a larger --steps goes further" in said and "after 2 of 2 steps" in said
    assert cli.main([*arguments, "vehicle"]) == 0 and find_run(out)["steps"] == 3  # the first command still goes on


def test_a_rule_means_its_default_number(arguments, out, vehicle_run, capsys):
    sums = out.with_name("sums")
    assert cli.main([*arguments[:-1], str(sums), "vehicle", "--rule", "sum=0.3"]) == 0
    shutil.copytree(vehicle_run, out)
    for options, difference in (
        ([*arguments[:-1], str(sums), "vehicle", "--rule", "sum"], "rule is 'sum=0.3', not 'sum=1'"),
        (["create", "--resume", "--device", "cpu", "--rule", "sum", "--out", str(sums)], "rule is 'sum=0.3', not 'sum=1'"),
    ):
        assert cli.main(options) == 2 and difference in capsys.readouterr().err
    own = f"alternating={settings(out)['rule']['threshold']}"  # what the model would choose, said
    assert cli.main([*arguments, "vehicle", "--rule", own]) == 0
    assert cli.main(["create", "--resume", "--out", str(out), "--quiet", "--device", "cpu", "--steps", "4"]) == 0
    assert find_run(out)["default_rule"] is True and cli.main([*arguments, "vehicle"]) == 0
    chosen = out.with_name("chosen")
    assert cli.main([*arguments[:-1], str(chosen), "vehicle", "--rule", "alternating=0.9"]) == 0
    assert cli.main([*arguments[:-1], str(chosen), "vehicle"]) == 2
    assert "rule is 'alternating=0.9', not 'alternating'" in capsys.readouterr().err


def test_files_that_would_be_overwritten_are_refused(arguments, out, capsys, monkeypatch):
    """What remains of a run, or somebody's files of such names."""
    monkeypatch.setattr(creation, "sample_prior", None)  # nothing is computed
    for name in ("baseline.safetensors", "baseline.json", "history.jsonl", "before_after.png", "creative-3.svg"):
        out.mkdir()
        (out / name).write_text("mine")
        assert cli.main([*arguments, "vehicle"]) == 2
        assert f"holds files that would be overwritten ({name}), but no run" in capsys.readouterr().err
        assert (out / name).read_text() == "mine"
        shutil.rmtree(out)
    monkeypatch.undo()


def test_the_baseline_of_a_replaced_run_stays_until_the_new_one_is_saved(arguments, out, vehicle_run, monkeypatch, capsys):
    shutil.copytree(vehicle_run, out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file() and path.name != ".lock"}

    def full(*given, **named):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(storage, "save_file", full)
    assert cli.main([*arguments, "alien", "--force"]) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in out.rglob("*") if path.is_file() and path.name != ".lock"}


def test_a_folder_in_use_is_refused(arguments, out, capsys):
    holder = "import sys; from creativelib.run_folder import hold\nwith hold(sys.argv[1]): print('held', flush=True); input()"
    process = subprocess.Popen(
        [sys.executable, "-c", holder, str(out)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "held\n"
        assert cli.main([*arguments, "vehicle"]) == 2
        assert "is in use by another program" in capsys.readouterr().err and not (out / "run.json").exists()
    finally:
        process.communicate("\n")


# --- interruptions and full disks -------------------------------------------------------------------------------------


def test_interruption_keeps_what_was_done(arguments, out, monkeypatch):
    step = CreativeRun.step

    def interrupted(run):
        if run.steps == 2:
            raise KeyboardInterrupt
        return step(run)

    monkeypatch.setattr(CreativeRun, "step", interrupted)
    assert cli.main([*arguments, "vehicle"]) == 130
    assert find_run(out)["steps"] == 2 and (out / "before_after.png").is_file()
    monkeypatch.undo()
    assert cli.main([*arguments, "vehicle"]) == 0 and find_run(out)["steps"] == 3


def test_several_seeds_end_with_the_first_interruption(arguments, out, monkeypatch):
    def interrupted(run):
        raise KeyboardInterrupt

    monkeypatch.setattr(CreativeRun, "step", interrupted)
    assert cli.main([*arguments, "vehicle", "--seeds", "0-3"]) == 130
    assert [path.name for path in out.iterdir()] == ["seed-0"]


def test_a_full_disk_where_there_is_no_terminal_at_all(arguments, out, monkeypatch, capsys):
    def full(*given, **named):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(creation, "draw", full)
    monkeypatch.setattr("sys.stdin", None)  # as Python has it where its input is closed
    assert cli.main([*arguments, "vehicle"]) == 2 and "the run itself is saved: make room" in capsys.readouterr().err


@pytest.mark.parametrize("somebody", [True, False])
def test_a_full_disk_loses_nothing_while_somebody_can_make_room(somebody, arguments, out, monkeypatch, capsys):
    draw, answers = creation.draw, []

    def full_once(run, folder, **options):
        if not answers:
            raise OSError(errno.ENOSPC, "No space left on device", str(folder / "before_after.png"))
        return draw(run, folder, **options)

    monkeypatch.setattr(creation, "draw", full_once)
    monkeypatch.setattr("sys.stdin.isatty", lambda: somebody, raising=False)
    monkeypatch.setattr("builtins.input", lambda: answers.append("Enter"))
    assert cli.main([*arguments, "vehicle"]) == (0 if somebody else 2)
    said = capsys.readouterr().err
    assert "No space left on device" in said and find_run(out)["steps"] == 3
    assert (out / "before_after.png").exists() == somebody
    waits = "Nothing is lost while this waits: free some space there, then press Enter"
    assert (waits if somebody else "the run itself is saved: make room there, then the same command draws the picture") in said


@pytest.mark.parametrize(
    ("full", "kept"),
    [
        ("run.safetensors", "out: cannot write to {out} (path: {out}/run.safetensors cannot be written (No space left on"),
        ("baseline.safetensors", "path: {out}/baseline.safetensors cannot be written (No space left on device)"),
        (
            "before_after.png",
            "path: {out}/before_after.png cannot be written (No space left on device); the run itself is saved",
        ),
        ("creative-2.png", "path: {out}/creative-2.png cannot be written (No space left on device); the run itself is saved"),
    ],
)
def test_a_full_disk_is_told_by_its_file_and_what_is_kept(arguments, out, monkeypatch, capsys, full, kept):
    """Of a program that ends nothing is "kept in memory"."""
    sync = storage.sync

    def no_room(path):
        if full in path.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(path)

    monkeypatch.setattr(storage, "sync", no_room)
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    assert cli.main([*arguments, "vehicle"]) == 2
    error = capsys.readouterr().err
    assert kept.format(out=out) in error and "memory" not in error and error.count("\n") == 1
    assert re.search(r"make room( there)?, then the same command (goes on|draws the picture)$", error.strip())
    monkeypatch.undo()
    assert cli.main([*arguments, "vehicle"]) == 0
    assert (out / "baseline.safetensors").is_file() and (out / "baseline.json").is_file()


def test_at_a_prompt_that_nobody_answers_the_program_ends(arguments, monkeypatch, capsys):
    def full(*given, **named):
        raise OSError(errno.ENOSPC, "No space left on device")

    def closed():
        raise EOFError

    monkeypatch.setattr(storage, "save_file", full)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", closed)
    assert cli.main([*arguments, "vehicle"]) == 2
    assert "make room there, then the same command goes on" in capsys.readouterr().err


def test_unwritable_folder(arguments, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert cli.main([*arguments[:-1], str(tmp_path / "file" / "out"), "vehicle"]) == 2
    error = capsys.readouterr().err
    assert "cannot write to" in error and "choose another folder" in error and error.count("\n") == 1


@pytest.mark.parametrize(
    "mistake",
    [
        ["vehicle", "--rank", "400"],
        ["vehicle", "--prior-steps", "5000"],
        ["vehicle", "--space", "adjective-token", "--adjective", "!"],
        ["vehicle " * 60],
        ["vehicle", "--checker", "/nowhere"],
        ["vehicle", "--cluster", "nowhere"],
    ],
)
@pytest.mark.parametrize("several", [[], ["--seeds", "3-4"]])
def test_a_mistake_leaves_nothing_behind_and_is_told_at_once(arguments, out, monkeypatch, capfd, mistake, several):
    if "--prior-steps" not in mistake:
        monkeypatch.setattr(creation, "sample_prior", None)  # the baseline has not begun
    assert cli.main([*arguments, *mistake, *several]) == 2
    assert capfd.readouterr().err.count("\n") == 1 and not out.exists()


def test_an_interruption_before_there_is_a_run_leaves_nothing_behind(arguments, out, monkeypatch):
    def interrupted(*given, **named):
        raise KeyboardInterrupt

    monkeypatch.setattr(creation, "sample_prior", interrupted)
    out.mkdir()
    assert cli.main([*arguments, "vehicle"]) == 130 and not list(out.iterdir())


def test_files_in_the_way_are_named_before_the_first_of_several_runs(arguments, out, monkeypatch, capsys):
    monkeypatch.setattr(creation, "sample_prior", None)
    (out / "seed-1").mkdir(parents=True)
    (out / "seed-1" / "before_after.png").write_text("mine")
    assert cli.main([*arguments, "vehicle", "--seeds", "0-1"]) == 2
    assert "seed-1 holds files that would be overwritten (before_after.png)" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == ["seed-1"]


def test_a_run_with_a_checker_that_the_command_does_not_know(
    arguments, out, vehicle_run, small_generator, checker_folder, capsys
):
    run = CreativeRun.load(vehicle_run, generator=small_generator)
    space = make_space("lora", small_generator, "vehicle")
    options = {"rule": run.rule, "learning_rate": 1e-3, "checker": load_checker(checker_folder, device="cpu", threshold=1e-6)}
    CreativeRun(small_generator, "vehicle", space, run.typicality, **options).run(1, progress=False, folder=out)
    resume = ["create", "--resume", *arguments[1:]]
    assert cli.main(resume) == 2
    said = f"creativelib: checker: the run was made with {checker_folder.name!r}, which is none of this model's; name it by"
    assert capsys.readouterr().err.startswith(said)
    assert cli.main([*resume, "--checker", str(checker_folder)]) == 0 and find_run(out)["steps"] == 3


def test_a_run_of_other_weights_is_told_in_the_words_of_the_command(
    arguments, out, vehicle_run, small_generator, monkeypatch, capsys
):
    shutil.copytree(vehicle_run, out)
    monkeypatch.setitem(small_generator.__dict__, "weights", {"prior": "sha256:1", "decoder": "sha256:2"})
    assert cli.main([*arguments, "vehicle"]) == 2
    error = capsys.readouterr().err
    assert "was made with other weights of '2.2' (prior is 'sha256:" in error and "or replace that run by --force" in error


def test_a_run_without_its_typicality_model_is_told_in_the_words_of_the_command(
    arguments, out, vehicle_run, tmp_path, monkeypatch, capsys
):
    shutil.copytree(vehicle_run, out)
    (out / "typicality.safetensors").unlink()
    lost = f"in {out} has lost its typicality.safetensors, without which it cannot be opened; put back a copy of the file, or"
    for command in ([*arguments, "vehicle"], ["create", "--resume", *arguments[1:]]):
        assert cli.main(command) == 2
        assert capsys.readouterr().err == f"creativelib: out: the run {lost} replace that run by --force\n"
    monkeypatch.setattr("creativelib.creation.sample_prior", None)  # it is told before the baseline is sampled
    elsewhere = [*arguments[:-1], str(tmp_path / "other"), "vehicle", "--cluster", str(out)]
    assert cli.main(elsewhere) == 2 and not (tmp_path / "other").exists()
    assert capsys.readouterr().err == f"creativelib: cluster: the run {lost} give a folder of its pictures\n"


def test_a_console_that_does_not_know_all_letters(tmp_path, miniature_folders):
    options = ["create", "vehicle", "--model", str(miniature_folders["2.2"]), "--device", "cpu", "--out", str(tmp_path / "車"),
               "--n", "60", "--steps", "1", "--quiet"]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "creativelib", *options], env={**os.environ, "PYTHONIOENCODING": "ascii"}, capture_output=True
    )
    assert done.returncode == 0 and b"see " in done.stdout and b"\\u8eca" in done.stdout and done.stderr == b""
