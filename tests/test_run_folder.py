"""A run in its folder: nothing is overwritten unasked, lost in a full disk, or shared with another process; it opens again."""

import errno
import json
import shutil
import subprocess
import sys
import warnings
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from runs import Checker, alike
from safetensors.torch import load_file, save_file

from creativelib import run as run_module
from creativelib import snapshots, storage
from creativelib.directions import NegativeCluster
from creativelib.generator import load_generator, positive_prompt
from creativelib.prior_sampling import noise_sources, sample_embeddings
from creativelib.pullback import AlternatingRule, SumRule, load_checker
from creativelib.run import CreativeRun
from creativelib.run_folder import FolderInUse, find_run, hold
from creativelib.spaces import make_space
from creativelib.storage import read_tensors, write_tensors

# --- whose folder it is -----------------------------------------------------------------------------------------------


def test_a_run_of_other_settings_is_neither_replaced_nor_mixed(make, tmp_path):
    first = make(seed=1).run(3, progress=False, folder=tmp_path)
    (tmp_path / "before_after.png").write_text("a picture")
    before = (tmp_path / "run.safetensors").read_bytes()
    with pytest.raises(ValueError, match=r"other settings: seed is 1, not 2; learning_rate is 0.001, not 0.002\."):
        make(seed=2, learning_rate=2e-3).run(3, progress=False, folder=tmp_path)
    with pytest.raises(FileExistsError, match=r"holds another run \(vehicle, lora, seed 1, 3 steps\)"):
        make(seed=2).save(tmp_path)
    with pytest.raises(FileExistsError, match="another run"):  # the same settings, but steps that are not those in the folder
        make(seed=1).run(2, progress=False).run(3, progress=False, folder=tmp_path)
    assert (tmp_path / "run.safetensors").read_bytes() == before
    assert alike(CreativeRun.load(tmp_path, generator=first.generator), first)


def test_force_replaces_the_run_and_nothing_else(make, tmp_path):
    make(seed=1, snapshot_every=1).run(5, progress=False, folder=tmp_path)
    (tmp_path / "before_after.png").write_text("a picture")
    (tmp_path / "clusters").mkdir(exist_ok=True)
    (tmp_path / "clusters/mine.png").write_text("another")
    second = make(seed=2).run(2, progress=False, folder=tmp_path, force=True)
    assert alike(CreativeRun.load(tmp_path, generator=second.generator), second)
    assert sorted(path.name for path in (tmp_path / "snapshots").iterdir()) == ["000000.safetensors", "000002.safetensors"]
    assert (tmp_path / "before_after.png").read_text() == "a picture"
    assert (tmp_path / "clusters/mine.png").read_text() == "another"


def test_the_same_settings_go_on_where_the_folder_is(make, tmp_path):
    straight = make().run(9, progress=False)
    make().run(4, progress=False, folder=tmp_path)
    again = make().run(9, progress=False, folder=tmp_path)
    assert alike(again, straight)
    idle = make().run(9, progress=False, folder=tmp_path)  # a cell that is run twice
    assert alike(idle, straight) and find_run(tmp_path)["steps"] == 9


def test_a_run_that_another_object_went_on_with_is_not_set_back(make, tmp_path):
    one = make().run(3, progress=False, folder=tmp_path)
    make().run(6, progress=False, folder=tmp_path)
    with pytest.raises(FileExistsError, match="6 steps"):
        one.run(4, progress=False, folder=tmp_path)
    assert find_run(tmp_path)["steps"] == 6


def test_a_second_process_is_refused(make, tmp_path):
    script = "import sys, filelock; lock = filelock.FileLock(sys.argv[1]); lock.acquire(); print('held', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / ".lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "held\n"
        run = make()
        for attempt in (lambda: run.run(2, progress=False, folder=tmp_path), lambda: run.save(tmp_path)):
            with pytest.raises(FolderInUse, match=f"^folder: {tmp_path} is in use by another program"):
                attempt()
        assert run.steps == 0
        other.communicate("\n")
    with hold(tmp_path), hold(tmp_path):  # a program may hold it around the whole of its work
        assert run.run(2, progress=False, folder=tmp_path).steps == 2


def test_a_folder_that_cannot_be_written_to_is_named_before_the_search(make, tmp_path):
    (tmp_path / "file").write_text("in the way")
    run = make()
    with pytest.raises(OSError, match=f"^folder: cannot write to {tmp_path}/file/out"):
        run.run(3, progress=False, folder=tmp_path / "file" / "out")
    assert run.steps == 0


# --- whatever cannot be kept is refused, the rest is kept ---------------------------------------------------------------


def test_numbers_of_numpy_are_numbers(make, tmp_path):
    options = {"seed": np.int64(3), "learning_rate": np.float32(1e-3), "target": np.float64(1e3), "guidance": torch.tensor(2.0)}
    whole = {"prior_steps": np.int32(3), "check_every": np.int64(5), "snapshot_every": torch.tensor(2)}
    run = make(**options, **whole).run(3, progress=False, folder=tmp_path)
    plain = make(seed=3, learning_rate=float(np.float32(1e-3)), target=1e3, guidance=2.0, prior_steps=3, check_every=5)
    assert alike(plain.run(3, progress=False), run)
    assert make(**options, **whole).resume(tmp_path).steps == 3


@dataclass
class Mine:
    weight: object

    def __call__(self, creative, anchor):
        return creative + self.weight * anchor, "mine", False


class Unsure(Checker):
    def __init__(self, threshold):
        self.threshold = threshold


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"rule": lambda creative, anchor: (creative, "mine", False)}, "^rule: got <function"),
        ({"rule": SumRule}, "^rule: got <class"),
        ({"rule": Mine(float("nan"))}, r"^settings.rule.weight: got nan"),
        ({"rule": Mine(torch.ones(2))}, r"^settings.rule.weight: got tensor"),
        ({"seed": 2**64}, r"^seed: got 18446744073709551616; give a whole number from 0 to 18446744073709551615"),
        ({"seed": -1}, "^seed: got -1"),
        ({"seed": 1.5}, "^seed: got 1.5"),
        ({"seed": np.bool_(True)}, "^seed: got"),
        ({"learning_rate": float("nan")}, "^learning_rate: got nan; give a positive number"),
        ({"guidance": float("nan")}, "^guidance: got nan; give a finite number"),
        ({"target": float("inf")}, "^target: got inf"),
        ({"prior_steps": 1}, "^prior_steps: got 1"),
        ({"checker": lambda image, subject: True}, "^checker: got <function .*; give one from load_checker"),
        ({"checker": Checker}, "^checker: got <class"),
        ({"checker": Unsure(None)}, r"^checker.threshold: got None; give a finite number"),
        ({"checker": Unsure(float("nan"))}, r"^checker.threshold: got nan; give a finite number"),
        ({"clusters": 3}, r"^clusters: got 3; give a list of them"),
    ],
)
def test_what_cannot_be_kept_is_refused_before_the_search(make, bad, message):
    with pytest.raises(ValueError, match=message):
        make(**bad)


@pytest.mark.parametrize("verdict", [True, None, SimpleNamespace(probability=None), SimpleNamespace(probability="yes")])
def test_an_answer_that_is_none_is_told_and_the_steps_are_kept(make, tmp_path, verdict):
    checker = Checker(0.9)
    checker.check = lambda image, subject: verdict
    with pytest.raises(ValueError, match="^checker: it answered .*; give a pullback.Verdict, whose probability is a number"):
        make(checker=checker, check_every=2).run(6, progress=False, folder=tmp_path)
    assert make(checker=checker, check_every=2).resume(tmp_path).steps == 2


def test_an_infinite_probability_is_no_yes(make):
    run = make(checker=Checker(0.9, float("inf")), check_every=2).run(6, progress=False)
    assert (run.stopped, run.steps, run.result_step) == ("no answer", 4, 2)


def test_a_checker_without_an_answer_is_an_outcome_of_its_own(make, tmp_path):
    checker = Checker(0.9, float("nan"), 0.8)
    run = make(checker=checker, check_every=2).run(6, progress=False, folder=tmp_path)
    assert (run.stopped, run.steps, run.result_step) == ("no answer", 4, 2)
    again = make(checker=checker, check_every=2).resume(tmp_path)
    assert again.stopped == "no answer" and np.isnan(again.history[3]["check"]) and again.history[1]["check"] == 0.9
    assert json.loads((tmp_path / "history.jsonl").read_text().splitlines()[3])["check"] == "nan"  # strict JSON
    again.run(6, progress=False, folder=tmp_path)  # asks about step 4 again
    assert (again.stopped, again.steps, again.result_step) == ("", 6, 6)
    assert [row["check"] for row in again.history] == [None, 0.9, None, 0.8, None, 0.8] and checker.asked == 4


# --- full disks and killed processes ----------------------------------------------------------------------------------


@pytest.fixture
def disk(monkeypatch):
    """A disk that is full while ``disk.full``."""

    class Disk:
        full, written = False, 0

    save_file, open_file, found = storage.save_file, open, Disk()

    def save(tensors, path, metadata):
        if found.full:
            path.write_bytes(b"half")
            raise storage.SafetensorError("I/O error: No space left on device (os error 28)")
        found.written += sum(tensor.nbytes for tensor in tensors.values())
        return save_file(tensors, path, metadata=metadata)

    def opened(path, *arguments, **options):
        if found.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return open_file(path, *arguments, **options)

    monkeypatch.setattr(storage, "save_file", save)
    monkeypatch.setattr("creativelib.run_folder.open", opened, raising=False)
    return found


def test_a_full_disk_loses_nothing(make, disk, tmp_path):
    straight = make(snapshot_every=2).run(8, progress=False)
    run = make(snapshot_every=2)

    def fill(steps):
        for row in type(run).iterate(run, steps):
            disk.full = run.steps >= 3
            yield row

    run.iterate = fill
    with pytest.raises(OSError) as raised, pytest.warns(UserWarning) as warned:
        run.run(8, progress=False, folder=tmp_path)
    for said in (str(raised.value), str(warned[0].message)):
        assert said.startswith(f"folder: cannot write to {tmp_path} (") and "No space left on device" in said
    assert "The 8 steps done are kept in memory: make room there and call save(), or save(another folder)." in str(raised.value)
    assert len(warned) == 1 and run.steps == 8 and list(run.snapshots) == [0, 2, 4, 6, 8]
    assert find_run(tmp_path)["steps"] == 0  # the state from before, whole
    disk.full = False
    run.save()
    again = CreativeRun.load(tmp_path, generator=run.generator)
    assert alike(again, straight) and list(again.snapshots) == [0, 2, 4, 6, 8]
    del run.iterate
    assert alike(run.run(10, progress=False, folder=tmp_path), make().run(10, progress=False))


def test_another_folder_takes_what_a_full_disk_does_not(make, disk, tmp_path):
    run = make(snapshot_every=2).run(4, progress=False, folder=tmp_path / "full")
    disk.full = True
    with pytest.raises(OSError, match="kept in memory"), pytest.warns(UserWarning):
        run.run(6, progress=False, folder=tmp_path / "full")
    disk.full = False
    run.save(tmp_path / "roomy")
    again = CreativeRun.load(tmp_path / "roomy", generator=run.generator)
    assert alike(again, run) and list(again.snapshots) == [0, 2, 4, 6]


def test_a_killed_run_goes_on_from_its_last_state(make, monkeypatch, tmp_path):
    """Rows and snapshots that are younger than the state are cut off, and come again the same."""
    monkeypatch.setattr(run_module, "SAVE_EVERY", 4)
    options = {"checker": Checker(0.9), "check_every": 3, "snapshot_every": 2}
    straight = make(**options).run(12, progress=False)
    killed = make(**options)
    with hold(tmp_path) as there:
        killed._settle(there, False)
        for _ in killed.iterate(12):
            killed._save_in_passing()
            if killed.steps == 7:
                break  # killed: no final save
    (tmp_path / ".run.safetensors.99999").write_text("half")
    with open(tmp_path / "history.jsonl", "a") as file:
        file.write('{"step": 7, "ki')
    assert find_run(tmp_path)["steps"] == 4 and len(killed.snapshots) > 3
    again = make(**options).run(12, progress=False, folder=tmp_path)
    assert alike(again, straight) and list(again.snapshots) == list(straight.snapshots)
    loaded = CreativeRun.load(tmp_path, generator=again.generator)
    assert alike(loaded, straight) and list(loaded.snapshots) == list(straight.snapshots)
    lines = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(12))


def test_a_history_that_lost_rows_is_named(make, tmp_path):
    make().run(3, progress=False, folder=tmp_path)
    (tmp_path / "history.jsonl").write_text("")
    with pytest.raises(ValueError, match="history.jsonl is damaged: it holds 0 of 3 steps"):
        make().resume(tmp_path)
    (tmp_path / "history.jsonl").write_text("[1]\n" * 3)
    with pytest.raises(ValueError, match="history.jsonl is damaged: it holds 0 of 3 steps"):
        make().resume(tmp_path)
    (tmp_path / "history.jsonl").unlink()
    with pytest.raises(ValueError, match="history.jsonl is missing, with the 3 steps that were done; put back a copy"):
        make().resume(tmp_path)


def test_a_damaged_state_is_named(make, tmp_path):
    make().run(3, progress=False, folder=tmp_path)
    path = tmp_path / "run.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    for attempt in (make().resume, find_run, CreativeRun.load):
        with pytest.raises(ValueError, match=f"^path: {path} is damaged or cut short"):
            attempt(tmp_path)


# --- opening ----------------------------------------------------------------------------------------------------------


def test_a_finished_run_opens_by_its_folder_alone(make, small_generator, typicality, tmp_path):
    rows = typicality.sample(5, torch.Generator().manual_seed(0))
    clusters = [NegativeCluster.fit(typicality, rows, name=name) for name in ("busy", "grey")]
    options = {"rule": AlternatingRule(0.9), "clusters": clusters, "checker": Checker(0.9), "check_every": 4, "seed": 5}
    options["snapshot_every"] = 2
    run = make("lora+subject-token", **options).run(6, progress=False, folder=tmp_path)
    again = CreativeRun.load(tmp_path, device="cpu")  # loads the generator too
    assert again.generator is not small_generator and again.generator.weights == small_generator.weights
    assert alike(again, run) and again.settings == run.settings and list(again.snapshots) == [0, 2, 4, 6]
    for step in (0, 4, 6, None):
        assert torch.equal(again.sample([1, 2], step), run.sample([1, 2], step))
    assert torch.equal(again.default([1]), run.default([1])) and again.typicality.provenance == typicality.provenance
    assert [cluster.name for cluster in again.clusters] == ["busy", "grey"]
    with pytest.raises(ValueError, match="^checker: this run was made with one; to go on, load it with checker="):
        again.run(7, progress=False)
    more = CreativeRun.load(tmp_path, generator=small_generator, checker=Checker(0.9)).run(9, progress=False, folder=tmp_path)
    assert alike(more, make("lora+subject-token", **options).run(6, progress=False).run(9, progress=False))


def test_a_rule_of_ones_own_is_needed_only_to_go_on(make, small_generator, tmp_path):
    run = make(rule=Mine(2.0)).run(3, progress=False, folder=tmp_path)
    again = CreativeRun.load(tmp_path, generator=small_generator)
    assert alike(again, run) and again.settings["rule"] == {"name": "Mine", "weight": 2.0}
    with pytest.raises(ValueError, match="^rule: this run was made with one"):
        again.run(4, progress=False)
    with pytest.raises(ValueError, match="rule.weight is 2.0, not 3.0"):
        CreativeRun.load(tmp_path, generator=small_generator, rule=Mine(3.0))
    assert CreativeRun.load(tmp_path, generator=small_generator, rule=Mine(2.0)).run(4, progress=False).steps == 4


def test_a_run_of_an_older_version_opens_and_goes_on(make, small_generator, typicality, tmp_path):
    """Then everything was in one file, the settings said less, and there was no typicality model beside it."""
    run = make(checker=Checker(0.9), check_every=2, snapshot_every=2).run(4, progress=False)
    tensors = {f"now/{name}": tensor for name, tensor in run.space.state_dict().items()}
    for step in run.snapshots:
        tensors |= {f"snapshot/{step}/{name}": tensor for name, tensor in run.snapshots[step].items()}
    tensors |= {name: tensor for name, tensor in run._state().items() if name.startswith("optimizer/")}
    since = ("weights", "space_options", "clusters", "decoder", "device", "dtype", "versions")
    settings = {key: value for key, value in run.settings.items() if key not in since}
    settings["checker"] = {"threshold": 0.5}
    del settings["baseline"]["weights"]
    facts = {"kind": "creative run", "settings": settings, "steps": 4, "result_step": 4, "stopped": "", "accepted": 4}
    write_tensors(tmp_path / "run", tensors, facts | {"held_seed": None, "history": run.history})
    with pytest.raises(ValueError, match="^typicality: .* holds none"):
        CreativeRun.load(tmp_path, generator=small_generator)
    again = CreativeRun.load(tmp_path, generator=small_generator, typicality=typicality)
    assert alike(again, run) and list(again.snapshots) == [0, 2, 4]
    with pytest.raises(ValueError, match="seed is 0, not 1"):
        make(seed=1).resume(tmp_path)
    new = make(checker=Checker(0.9), check_every=2, snapshot_every=2).run(6, progress=False, folder=tmp_path)
    assert alike(new, make(checker=Checker(0.9), check_every=2).run(6, progress=False))
    assert list(CreativeRun.load(tmp_path, generator=small_generator).snapshots) == [0, 2, 4, 6]
    assert not any(name.startswith("snapshot/") for name in read_tensors(tmp_path / "run")[0])


def test_other_versions_warn_and_other_weights_are_refused(make, small_generator, monkeypatch, tmp_path):
    make().run(2, progress=False, folder=tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make().resume(tmp_path)
    monkeypatch.setattr("creativelib.search.version", lambda name: "9.9")
    with pytest.warns(UserWarning, match="versions.torch is '.*', not '9.9'"):
        assert make().resume(tmp_path).steps == 2
    monkeypatch.undo()
    monkeypatch.setitem(small_generator.__dict__, "weights", {"prior": "sha256:other", "decoder": "sha256:other"})
    with pytest.raises(ValueError, match="was made with other weights: prior is 'sha256:[0-9a-f]+', not 'sha256:other'"):
        CreativeRun.load(tmp_path, generator=small_generator)


def test_settings_tell_apart_what_changes_a_run(small_generator, typicality, checker_folder, tmp_path):
    """What was not in the settings could be changed under a run that goes on."""

    def build(space="lora", threshold=0.5, **options):
        made = make_space(space, small_generator, "vehicle", **options)
        checker = load_checker(checker_folder, device="cpu", threshold=threshold)
        return CreativeRun(small_generator, "vehicle", made, typicality, rule=SumRule(0.0), checker=checker)

    run = build("lora", rank=2)
    run.save(tmp_path / "lora")
    for other, message in (
        (build("lora", rank=3), "space_options.rank is 2, not 3"),
        (build("lora", rank=2, threshold=0.4), "checker.threshold is 0.5, not 0.4"),
        (build("adjective-token"), "space is 'lora', not 'adjective-token'"),
    ):
        with pytest.raises(ValueError, match=message):
            other.resume(tmp_path / "lora")
    build("adjective-token", adjective="red").save(tmp_path / "red")
    with pytest.raises(ValueError, match="space_options.adjective is 'red', not 'creative'"):
        build("adjective-token").resume(tmp_path / "red")
    for part in ("prior", "decoder"):
        assert run.settings["weights"][part].startswith("sha256:")
    assert run.settings["checker"]["weights"].startswith("sha256:") and run.settings["versions"]["torch"] == "2.13.0"
    assert (run.settings["dtype"], run.settings["device"]) == ("float32", "cpu")
    assert run.settings["decoder"] == {"steps": 2, "guidance": 4.0, "image_size": 32}
    assert json.loads((tmp_path / "lora" / "run.json").read_text())["settings"] == run.settings


def test_other_weights_of_the_same_name_are_other_weights(miniature_folders, tmp_path):
    folder = tmp_path / "2.2"
    shutil.copytree(miniature_folders["2.2"], folder)
    one, path = load_generator(folder, device="cpu"), folder / "decoder" / "movq" / "config.json"
    copy = load_generator(miniature_folders["2.2"], device="cpu")
    assert one.name == copy.name and one.weights == copy.weights
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))  # a checkout under Windows
    assert load_generator(folder, device="cpu").weights == one.weights
    tensors = load_file(weights := folder / "prior" / "prior" / "diffusion_pytorch_model.safetensors")
    save_file({name: tensor + 1e-3 for name, tensor in tensors.items()}, weights)
    other = load_generator(folder, device="cpu")
    assert other.weights["prior"] != one.weights["prior"] and other.weights["decoder"] == one.weights["decoder"]
    assert other.name == one.name


def test_the_adapters_of_a_run_are_exported(make, miniature_folders, tmp_path):
    run = make(learning_rate=1e-2, snapshot_every=2).run(4, progress=False, folder=tmp_path)
    loaded, fresh = CreativeRun.load(tmp_path, generator=run.generator), load_generator(miniature_folders["2.2"], device="cpu")
    fresh.prior.load_lora_adapter(str(loaded.export_lora(tmp_path / "lora", step=2)), prefix=None)
    with torch.no_grad():
        found = sample_embeddings(fresh, fresh.encode_text(positive_prompt("vehicle")), noise_sources([1, 2]))
    torch.testing.assert_close(found, run.sample([1, 2], 2), rtol=1e-4, atol=1e-5)
    assert (found - run.sample([1, 2], 4)).abs().max() > 1e-3
    with pytest.raises(ValueError, match="^space: 'subject-token' has no LoRA to export"):
        make("subject-token").export_lora(tmp_path / "lora")


@pytest.mark.parametrize("scale", [10])  # 1 is the published size: 13.1 MB a copy; a tenth of it is quicker
def test_a_long_run_stays_light(make, disk, monkeypatch, tmp_path, scale):
    """1,000 steps of the adapters of a published prior, 3.28 million numbers: at most 0.9 GB are written in all."""
    run = make(checker=Checker(0.9), snapshot_every=10, check_every=25)
    numbers = 3_280_000 // scale
    parameter = torch.nn.Parameter(torch.randn(numbers))
    monkeypatch.setattr(run.space, "_parameters", {"adapters": parameter})
    monkeypatch.setattr(run_module, "STATE_BYTES", run_module.STATE_BYTES // scale)
    monkeypatch.setattr("creativelib.snapshots.IN_MEMORY", snapshots.IN_MEMORY // scale)
    run.snapshots = snapshots.Snapshots()
    run.snapshots.keep(0, run.space.state_dict())
    moments = {name: torch.zeros(numbers) for name in ("exp_avg", "exp_avg_sq")} | {"step": torch.tensor(0.0)}
    most = 0

    def step():  # what a step leaves behind, without its hour of computing
        for kind in ("creative", "anchor"):
            run.optimizer(kind).state[parameter] = moments
        with torch.no_grad():
            parameter[:10] += 1e-3
        run.history.append(
            {"step": run.steps, "kind": "creative", "surprise": 1.0, "anchor_cosine": 0.5, "held": False, "check": None}
        )
        if run.steps % run.snapshot_every == 0:
            run.keep_snapshot()
        if run.steps % run.check_every == 0:
            run.history[-1]["check"] = 0.9
            run._accept()
        nonlocal most
        most = max(most, sum(map(snapshots.size, run.snapshots._memory.values())))
        return run.history[-1]

    run.step = step
    run.run(1000, progress=False, folder=tmp_path)
    on_disk = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert disk.written * scale < 0.9e9 and on_disk * scale < 0.9e9
    assert most * scale < 60e6
    assert list(run.snapshots) == list(range(0, 1001, 10)) and run.result_step == 1000
    error = (run.snapshots[1000]["adapters"] - parameter.detach()).abs().max()
    assert 0 < error < 3e-3  # half precision for looking
    assert torch.equal(read_tensors(tmp_path / "run")[0]["now/adapters"], parameter.detach())  # full for going on
