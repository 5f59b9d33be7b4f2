"""``creativelib create``: what it writes, going on, refusing, options, interruption, and one clear line for a mistake."""

import copy
import errno
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import fields

import pytest
import torch
from PIL import Image

from creativelib import cli, cli_create, cli_request, creation, pullback, spaces
from creativelib.generator import positive_prompt
from creativelib.prior_sampling import PriorSamples, noise_sources, sample_embeddings
from creativelib.pullback import YesNoChecker
from creativelib.run import CreativeRun
from creativelib.run_folder import find_run, hold
from creativelib.typicality import TypicalityModel


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def arguments(miniature_folders, out):
    """Of a run of three quick steps, without a subject."""
    return ["create", "--model", str(miniature_folders["2.2"]), "--n", "80", "--steps", "3", "--device", "cpu", "--quiet",
            "--out", str(out)]  # fmt: skip


def settings(folder) -> dict:
    return find_run(folder)["settings"]


def surprises(folder) -> list[float]:
    return [json.loads(line)["surprise"] for line in (folder / "history.jsonl").read_text().splitlines()]


@pytest.fixture(autouse=True)
def quick(monkeypatch, small_generator):
    """The miniature is loaded once, and pictures are small."""
    load = creation.load_generator

    def load_once(source, *, device=None):
        return small_generator if (source.name, device) == (small_generator.name, "cpu") else load(source, device=device)

    monkeypatch.setattr(creation, "load_generator", load_once)
    monkeypatch.setattr(creation, "DPI", 30)


# --- what it writes ---------------------------------------------------------------------------------------------------


def test_writes_picture_run_and_baseline(arguments, out, capsys):
    assert cli.main([*arguments, "fast", "vehicle"]) == 0
    said = capsys.readouterr()
    assert "nats after 3 of 3 steps" in said.out and said.err == ""
    assert settings(out)["prompt"].endswith("photo of a fast vehicle. photorealistic, 4k, HQ.")
    assert settings(out)["space"] == "lora" and settings(out)["baseline"]["n"] == 80
    assert Image.open(out / "before_after.png").width > 250  # at the DPI of the tests
    assert (out / "creative-1.png").is_file() and not list(out.glob("*.svg"))  # this model's pictures are no drawings
    baseline, typicality = PriorSamples.load(out / "baseline"), TypicalityModel.load(out / "typicality")
    refitted = TypicalityModel.fit(baseline.embeddings, dims=typicality.dims)
    torch.testing.assert_close(refitted.mean, typicality.mean)
    assert len(baseline.embeddings) == 80 and not [path for path in out.iterdir() if re.search(r"\.\d+$", path.name)]


def test_pictures_of_a_model_that_draws_are_traced_unless_raw(arguments, out, miniature_folders, tmp_path):
    drawer = shutil.copytree(miniature_folders["2.2"], tmp_path / "drawer")
    given = json.loads((drawer / "generator.json").read_text())
    (drawer / "generator.json").write_text(json.dumps({**given, "drawings": True}))
    arguments[arguments.index("--model") + 1] = str(drawer)
    numbers = range(1, creation.COLUMNS + 1)
    assert cli.main([*arguments, "vehicle"]) == 0
    assert {path.name for path in out.glob("creative-*")} == {
        f"creative-{n}.{kind}" for n in numbers for kind in ("svg", "png")
    }
    assert Image.open(out / "creative-1.png").size == (512, 512) and "<svg" in (out / "creative-1.svg").read_text()
    assert cli.main([*arguments, "vehicle", "--raw"]) == 0  # the same run, shown in another way
    assert {path.name for path in out.glob("creative-*")} == {f"creative-{n}.png" for n in numbers}
    assert Image.open(out / "creative-1.png").size == (given["image_size"],) * 2


def test_what_it_wrote_can_be_opened(vehicle_run):
    run = CreativeRun.load(vehicle_run)
    assert (run.steps, run.subject, run.sample([1, 2]).shape[0]) == (2, "vehicle", 2)


def test_the_bar_shows_surprise_and_anchor(arguments, capsys):
    cli.main([*(option for option in arguments if option != "--quiet"), "vehicle"])
    assert re.search(r"surprise -?\d+\.\d nats, anchor -?\d\.\d{3}", capsys.readouterr().err)


@pytest.mark.parametrize("space", spaces.SPACES)
def test_every_space_shows_the_frozen_model_above(arguments, space, out, small_generator, monkeypatch):
    drawn = []
    monkeypatch.setattr(creation, "before_after", lambda *parts, **words: (drawn.append(parts), original(*parts, **words))[1])
    assert cli.main([*arguments, "--space", space, "--subject", "alien"]) == 0
    assert settings(out)["space"] == space
    seeds = [creation.derive_seed(0, "figure", column) for column in range(creation.COLUMNS)]
    prompt = positive_prompt("alien")
    with torch.no_grad():
        embeddings = sample_embeddings(small_generator, small_generator.encode_text(prompt), noise_sources(seeds))
    expected = small_generator.decode(embeddings, prompt=prompt, seed=seeds)
    assert [image.tobytes() for image in drawn[0][0]] == [image.tobytes() for image in expected]


original = creation.before_after


def test_any_characters_in_the_subject(arguments, out):
    assert cli.main([*arguments, r"a chair for $\frac{$"]) == 0 and (out / "before_after.png").is_file()


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
        (["vehicle", "--rule", "sum"], "rule is 'alternating', not 'sum'"),
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
    error = capsys.readouterr().err
    assert error == (
        f"creativelib: out: {out} holds another run: {difference}; choose another folder with --out, or replace that run by "
        "--force\n"
    )
    assert before == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def vehicle_run(tmp_path_factory, miniature_folders):
    out = tmp_path_factory.mktemp("run") / "vehicle"
    options = ["--model", str(miniature_folders["2.2"]), "--n", "80", "--steps", "2", "--quiet", "--device", "cpu"]
    assert cli.main(["create", "vehicle", *options, "--out", str(out)]) == 0
    return out


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


def test_resume_of_nothing(out, capsys, miniature_folders):
    assert cli.main(["create", "--resume", "--out", str(out), "--model", str(miniature_folders["2.2"])]) == 2
    assert f"resume: there is no run in {out}; say what to create" in capsys.readouterr().err


def test_a_folder_in_use_is_refused(arguments, out, capsys):
    holder = "import sys; from creativelib.run_folder import hold\nwith hold(sys.argv[1]): print('held', flush=True); input()"
    process = subprocess.Popen(
        [sys.executable, "-c", holder, str(out)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "held\n"
        assert cli.main([*arguments, "vehicle"]) == 2
        assert "is in use by another run" in capsys.readouterr().err and not (out / "run.json").exists()
    finally:
        process.communicate("\n")


# --- options ----------------------------------------------------------------------------------------------------------


def test_options_reach_the_run(arguments, out, tmp_path):
    pictures = tmp_path / "red things"
    pictures.mkdir()
    for index in range(3):
        Image.new("RGB", (32, 32), (200 + index, 0, 0)).save(pictures / f"{index}.png")
    options = ["--rank", "2", "--learning-rate", "0.01", "--rule", "sum=0.5", "--guidance", "3", "--prior-steps", "4",
               "--target", "500", "--baseline-seed", "7", "--seed", "3", "--cluster", str(pictures), "--alpha", "0.5",
               "--form", "bounded"]  # fmt: skip
    assert cli.main([*arguments, "vehicle", *options]) == 0
    found = settings(out)
    assert (found["space_options"], found["learning_rate"], found["target"], found["seed"]) == ({"rank": 2}, 0.01, 500, 3)
    assert found["rule"] == {"name": "SumRule", "weight": 0.5} and found["prior"] == {"steps": 4, "guidance": 3.0}
    assert (found["baseline"]["seed"], found["baseline"]["steps"], found["baseline"]["guidance"]) == (7, 4, 3.0)
    (cluster,) = found["clusters"]
    assert (cluster["name"], cluster["alpha"], cluster["form"], cluster["n"]) == ("red things", 0.5, "bounded", 3)
    assert cli.main([*arguments, "vehicle", *options]) == 0  # the same again is the same


def test_away_from_what_another_run_found(arguments, out, vehicle_run):
    assert cli.main([*arguments, "vehicle", "--cluster", str(vehicle_run), "--rule", "alternating=0.9"]) == 0
    (cluster,) = settings(out)["clusters"]
    assert (cluster["name"], cluster["n"], cluster["form"]) == ("vehicle", 100, "repel")
    assert settings(out)["rule"] == {"name": "AlternatingRule", "threshold": 0.9}


def test_adjective(arguments, out):
    assert cli.main([*arguments, "vehicle", "--space", "adjective-token", "--adjective", "quality"]) == 0
    assert settings(out)["space_options"] == {"adjective": "quality"}


def test_several_seeds_share_a_baseline_and_are_the_runs_of_one_each(arguments, out):
    assert cli.main([*arguments, "vehicle", "--seeds", "4-5"]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["seed-4", "seed-5"]
    assert {settings(out / f"seed-{seed}")["baseline"]["seed"] for seed in (4, 5)} == {4}
    alone = out.with_name("alone")
    assert cli.main([*arguments[:-1], str(alone), "vehicle", "--seed", "5", "--baseline-seed", "4"]) == 0
    assert surprises(alone) == surprises(out / "seed-5") != surprises(out / "seed-4")
    assert (alone / "before_after.png").read_bytes() == (out / "seed-5" / "before_after.png").read_bytes()


def test_the_checker_is_calibrated_on_enough_pictures_and_keeps_its_threshold(arguments, out, checker_folder, monkeypatch):
    asked = {}

    def calibrated(checker, images, subject, **options):
        asked.update(options, images=len(images), subject=subject)
        same = copy.copy(checker)
        same.threshold = 1e-6
        return same

    monkeypatch.setattr(YesNoChecker, "calibrated", calibrated)
    assert cli.main([*arguments, "vehicle", "--checker", str(checker_folder)]) == 0
    assert asked == {"images": min(80, creation.CALIBRATION_IMAGES), "subject": "vehicle", "checks": 1}
    assert creation.CALIBRATION_IMAGES >= 30 and settings(out)["checker"]["threshold"] == 1e-6
    monkeypatch.setattr(YesNoChecker, "calibrated", None)  # a run keeps its threshold
    arguments[arguments.index("--steps") + 1] = "5"
    assert cli.main([*arguments, "vehicle", "--checker", str(checker_folder)]) == 0 and len(surprises(out)) == 5


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
    assert "No space left on device" in capsys.readouterr().err and find_run(out)["steps"] == 3
    assert (out / "before_after.png").exists() == somebody


def test_unwritable_folder(arguments, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert cli.main([*arguments[:-1], str(tmp_path / "file" / "out"), "vehicle"]) == 2
    error = capsys.readouterr().err
    assert "cannot write to" in error and "choose another folder" in error and error.count("\n") == 1


# --- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["vehicle", "--model", "nonsense"], "model: got 'nonsense'; choose 'pocket'"),
        (["vehicle", "--device", "foo"], "device: got 'foo'; there is: cpu"),
        ([""], "subject: got ''; give a word"),
        ([], "subject: got ''"),
        (["?!", "--resume"], "subject: got '?!'"),
        (["vehicle", "--subject", "alien"], "subject: given twice"),
        (["vehicle", "--space", "outer"], "space: got 'outer'; choose one of lora, subject-token"),
        (["vehicle", "--space", "embedding", "--rank", "3"], "rank: the space 'embedding' has none; leave it out, or choose"),
        (
            ["vehicle", "--adjective", "odd"],
            "adjective: the space 'lora' has none; leave it out, or choose --space adj",
        ),
        (["vehicle", "--resume", "--force"], "resume: go on with the run in the folder, or replace it"),
        (["vehicle", "--seed", "1", "--seeds", "1-2"], "seeds: give --seed or --seeds, not both"),
        (
            ["vehicle", "--seeds", "3-1"],
            "got '3-1'; give different seeds, at most 1000, for example 0-4 or 1,5,9",
        ),
        (["vehicle", "--seeds", "1,1"], "argument --seeds: got '1,1'; give different seeds"),
        (["vehicle", "--seeds", "0-99999999999"], "give different seeds, at most 1000"),
        (["vehicle", "--seeds", "one"], "argument --seeds: got 'one'; give a whole number from 0"),
        (["vehicle", "--steps", "0"], "argument --steps: got '0'; give a whole number of at least 1"),
        (["vehicle", "--steps", "many"], "argument --steps: got 'many'"),
        (["vehicle", "--steps", "²"], "argument --steps: got '²'; give a whole number of at least 1"),
        (["vehicle", "--seed", "-1"], "argument --seed: got '-1'"),
        (["vehicle", "--seed", str(2**64)], "give a whole number from 0 to 18446744073709551615"),
        (["vehicle", "--n", "50"], "argument --n: got '50'; give a whole number from 51 to 1000000"),
        (["vehicle", "--n", "1000000000000"], "give a whole number from 51 to 1000000"),
        (["vehicle", "--learning-rate", "nan"], "argument --learning-rate: got 'nan'; give a number above 0"),
        (["vehicle", "--learning-rate", "0"], "give a number above 0"),
        (["vehicle", "--guidance", "inf"], "argument --guidance: got 'inf'; give a number"),
        (["vehicle", "--rule", "product"], "argument --rule: got 'product'; choose one of alternating, sum"),
        (["vehicle", "--rule", "sum=-1"], "argument --rule: got '-1'; give a number of at least 0"),
        (["vehicle", "--form", "round"], "argument --form: invalid choice: 'round'"),
        (["vehicle", "--out", "~nobody-of-this-name/here"], "argument --out: got '~nobody"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(options, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    try:
        code = cli.main(["create", *options])
    except SystemExit as exit:
        code = exit.code
    error = capsys.readouterr().err
    assert code == 2 and message in error and error.count("\n") == 1 and error.startswith("creativelib: ")


def test_a_folder_without_pictures_to_keep_away_from(arguments, tmp_path, capsys):
    assert cli.main([*arguments, "vehicle", "--cluster", str(tmp_path / "absent")]) == 2
    assert f"folder: there is no folder {tmp_path / 'absent'}" in capsys.readouterr().err


def test_as_a_module(tmp_path):
    command = [sys.executable, "-m", "creativelib", "create", "vehicle", "--space", "outer", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ})
    assert done.returncode == 2 and done.stderr.startswith("creativelib: space: got 'outer'")


def test_names_are_those_of_the_package():
    assert cli_create.SPACES == tuple(spaces.SPACES)
    assert set(cli_request.RULES.values()) == set(pullback.RULES)
    options = {name: space.__init__.__code__.co_varnames for name, space in spaces.SPACES.items()}
    assert all(option in options[name] for name, option in cli_request.OPTIONS.items())


def test_a_request_that_is_complete_says_everything(vehicle_run, miniature_folders):
    studio = creation.Studio(str(miniature_folders["2.2"]))
    request = cli_request.Request(subject="vehicle").completed(studio.source)
    saved = cli_request.Request.answered_by(settings(vehicle_run))
    unsaid = {field.name for field in fields(request) if getattr(request, field.name) is None}
    assert unsaid == {"target", "adjective", "rule_number"} and json.dumps(saved.said())
    with hold(vehicle_run):
        assert studio.open(cli_request.Request(subject="vehicle", n=80), vehicle_run).steps == 2
