"""``creativelib create``: what it writes, going on, refusing, options, interruption, and one clear line for a mistake."""

import copy
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import fields

import pytest
import torch
from cli_runs import settings, surprises
from PIL import Image

from creativelib import cli, cli_create, cli_request, creation, pullback, spaces
from creativelib.generator import positive_prompt
from creativelib.prior_sampling import PriorSamples, noise_sources, sample_embeddings
from creativelib.pullback import Verdict, YesNoChecker
from creativelib.run import CreativeRun
from creativelib.run_folder import find_run, hold
from creativelib.typicality import TypicalityModel

pytestmark = pytest.mark.usefixtures("quick")


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


# --- options ----------------------------------------------------------------------------------------------------------


def test_options_reach_the_run(arguments, out, tmp_path, capsys):
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
    moved = pictures.rename(tmp_path / "elsewhere")
    options[options.index(str(pictures))] = str(moved)
    assert cli.main([*arguments, "vehicle", *options]) == 0  # what counts is what is in it
    Image.new("RGB", (32, 32), "blue").save(moved / "0.png")
    capsys.readouterr()
    assert cli.main([*arguments, "vehicle", *options]) == 2
    assert f"cluster 'red things' was made of something else than {moved} holds" in capsys.readouterr().err


def test_away_from_what_another_run_found(arguments, out, vehicle_run):
    assert cli.main([*arguments, "vehicle", "--cluster", str(vehicle_run), "--rule", "alternating=0.9"]) == 0
    (cluster,) = settings(out)["clusters"]
    assert (cluster["name"], cluster["n"], cluster["form"]) == ("vehicle", 100, "repel")
    assert settings(out)["rule"] == {"name": "AlternatingRule", "threshold": 0.9}


def test_clusters_of_folders_of_one_name(arguments, out, tmp_path, capsys):
    for number, colour in (("1", "red"), ("2", "blue")):
        (tmp_path / number / "bad").mkdir(parents=True)
        Image.new("RGB", (32, 32), colour).save(tmp_path / number / "bad" / "a.png")
    first, second = (["--cluster", str(tmp_path / number / "bad")] for number in "12")
    assert cli.main([*arguments, "vehicle", *first, *first]) == 2
    assert "give each folder once" in capsys.readouterr().err and not out.exists()
    assert cli.main([*arguments, "vehicle", *first, *second, "--alpha", "0.5"]) == 0
    assert [cluster["name"] for cluster in settings(out)["clusters"]] == ["1/bad", "2/bad"]
    assert cli.main([*arguments, "vehicle", *first, *second, "--alpha", "0.5"]) == 0
    resume = ["create", "--resume", "--device", "cpu", "--quiet", "--out", str(out), "--steps", "4"]
    for options, difference in ((["--alpha", "2"], "alpha is 0.5, not 2.0"), (["--form", "bounded"], "form is 'repel', not")):
        assert cli.main([*resume, *options]) == 2 and difference in capsys.readouterr().err
    assert cli.main(resume) == 0


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


def test_a_folder_that_is_taken_is_named_before_the_first_of_several_runs(arguments, out, vehicle_run, capsys):
    shutil.copytree(vehicle_run, out / "seed-5")
    assert cli.main([*arguments, "vehicle", "--seeds", "4-5"]) == 2
    assert f"{out}/seed-5 holds another run: seed is 0, not 5" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == ["seed-5"]


def test_the_checker_is_calibrated_on_enough_pictures_and_keeps_its_threshold(arguments, out, checker_folder, monkeypatch):
    asked = {}

    def calibrated(checker, images, subject, **options):
        asked.update(options, images=len(images), subject=subject)
        same = copy.copy(checker)
        same.threshold, same.checks = 1e-6, options["checks"]
        return same

    monkeypatch.setattr(YesNoChecker, "calibrated", calibrated)
    assert cli.main([*arguments, "vehicle", "--checker", str(checker_folder)]) == 0
    assert asked == {"images": min(80, creation.CALIBRATION_IMAGES), "subject": "vehicle", "checks": 1}
    assert creation.CALIBRATION_IMAGES >= 30 and settings(out)["checker"]["threshold"] == 1e-6
    monkeypatch.setattr(YesNoChecker, "calibrated", None)  # a run keeps its threshold
    arguments[arguments.index("--steps") + 1] = "5"
    assert cli.main([*arguments, "vehicle", "--checker", str(checker_folder)]) == 0 and len(surprises(out)) == 5


def test_a_run_that_is_made_longer_is_the_longer_run(arguments, out, tmp_path, checker_folder, monkeypatch):
    """For more checks the threshold is lower, so that an unchanged model passes them; what the former ended then goes on."""
    monkeypatch.setattr(creation, "CHECK_EVERY", 3)

    def calibrated(checker, images, subject, *, checks):
        same = copy.copy(checker)
        same.threshold, same.checks = 1 - 0.3 * checks, checks
        return same

    monkeypatch.setattr(YesNoChecker, "calibrated", calibrated)
    monkeypatch.setattr(YesNoChecker, "check", lambda checker, image, subject: Verdict(0.6 >= checker.threshold, 0.6))
    words = [*arguments, "vehicle", "--checker", str(checker_folder)]
    assert cli.main(words) == 0
    found = find_run(out)
    assert (found["stopped"], found["steps"], found["checks"]) == ("checker", 3, 1)
    words[words.index("--steps") + 1] = "4"
    assert cli.main(words) == 0
    whole = tmp_path / "whole"
    assert cli.main([*words, "--out", str(whole)]) == 0
    one, other = ({**find_run(folder), "id": "", "mark": "", "superseded": []} for folder in (out, whole))
    assert one == other and one["stopped"] == "" and surprises(out) == surprises(whole)
    monkeypatch.setattr(YesNoChecker, "calibrated", None)  # enough for fewer checks
    words[words.index("--steps") + 1] = "3"
    assert cli.main(words) == 0


def test_the_memory_that_may_be_used_reaches_the_generator(miniature_folders, monkeypatch, tmp_path, capsys):
    class Loaded(ValueError):
        pass

    def load(source, **options):
        raise Loaded(f"memory is {options['memory']}")

    monkeypatch.setattr(creation, "load_generator", load)
    words = ["create", "vehicle", "--model", str(miniature_folders["2.2"]), "--device", "cpu", "--out", str(tmp_path)]
    assert cli.main([*words, "--memory", "12GB"]) != 0 and "memory is 12GB" in capsys.readouterr().err


# --- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["vehicle", "--model", "nonsense"], "model: got 'nonsense'; choose 'pocket'"),
        (["vehicle", "--device", "foo"], "device: got 'foo'; there is: cpu"),
        (["vehicle", "--device", "meta"], "device: got 'meta'; there is: cpu"),
        (["vehicle", "--device", "cpu:3"], "device: got 'cpu:3'; there is: cpu"),
        (["vehicle", "--memory", "much"], "memory: got 'much'; give an amount such as '12GB'"),
        (["vehicle", "--memory", "0.5GB"], "memory: got '0.5GB'; give an amount such as '12GB', more than 0.75 GiB"),
        (["vehicle", "--out", "x" * 300], "folder: cannot read xxx"),
        (["vehicle", "--resume", "--out", "x" * 300], "(File name too long); choose another"),
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
        (["vehicle", "--learning-rate", "1e300"], "got '1e300'; give a number above 0, at most 1e+30"),
        (["vehicle", "--alpha", "3"], "alpha: there is no cluster that it could be of; leave it out, or give --cluster"),
        (["vehicle", "--form", "literal"], "form: there is no cluster"),
        (["vehicle", "--out", " "], "argument --out: got ' '; give a folder"),
        (["caf\udce9"], "subject: got 'caf\\udce9'; give a word"),
        (["vehicle", "--out", "caf\udce9"], "folder: got 'caf\\udce9', which is not written in UTF-8"),
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
    assert not list(tmp_path.iterdir())  # and no folder was made


def test_a_folder_without_pictures_to_keep_away_from(arguments, tmp_path, capsys):
    assert cli.main([*arguments, "vehicle", "--cluster", str(tmp_path / "absent")]) == 2
    assert f"cluster: there is no folder {tmp_path / 'absent'}; give" in capsys.readouterr().err
    assert cli.main([*arguments, "vehicle", "--cluster", str(tmp_path)]) == 2
    assert f"cluster: in {tmp_path} is neither a picture nor a run" in capsys.readouterr().err


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
    assert unsaid == {"target", "adjective", "rule_number", "alpha", "form"} and json.dumps(saved.said())
    with hold(vehicle_run):
        assert studio.open(cli_request.Request(subject="vehicle", n=80), vehicle_run, 2).steps == 2
