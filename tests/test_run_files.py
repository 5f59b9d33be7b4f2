"""One run takes the place of another: nothing is lost by a full disk or a kill, and nobody else's files are overwritten."""

import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from runs import Checker, alike

from creativelib import run as run_module
from creativelib import run_files, storage
from creativelib.directions import NegativeCluster
from creativelib.run import CreativeRun
from creativelib.run_folder import find_run, hold


def content(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def full(*arguments, **options):
    raise storage.SafetensorError("I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize("writes", [0, 1, 2])
def test_a_disk_too_full_for_the_new_run_keeps_the_earlier_one(make, monkeypatch, tmp_path, writes):
    make(seed=1, snapshot_every=1).run(3, progress=False, folder=tmp_path)
    (tmp_path / "snapshots/mine.txt").write_text("somebody else's")
    before, left, save = content(tmp_path), list(range(writes)), storage.save_file
    monkeypatch.setattr(
        storage, "save_file", lambda *given, **named: (save if left and [left.pop()] else full)(*given, **named)
    )
    run = make(seed=2)
    with pytest.raises(OSError, match=r"cannot write to .*No space left on device.* save\(another folder\)"):
        run.run(2, progress=False, folder=tmp_path, force=True)
    assert content(tmp_path) == before and run.steps == 0
    with pytest.raises(FileExistsError, match="seed 1, 3 steps"):  # it is not asked to replace any more
        run.save()
    monkeypatch.undo()
    again = CreativeRun.load(tmp_path, generator=run.generator)
    assert list(again.snapshots) == [0, 1, 2, 3] and again.seed == 1
    run.save(force=True)
    assert CreativeRun.load(tmp_path, generator=run.generator).seed == 2


def test_a_run_whose_save_elsewhere_fails_stays_whole_where_it_is(make, monkeypatch, tmp_path):
    monkeypatch.setattr("creativelib.snapshots.IN_MEMORY", 0)
    run = make(snapshot_every=1).run(3, progress=False, folder=tmp_path / "here")
    save = storage.save_file
    monkeypatch.setattr(
        storage, "save_file", lambda tensors, path, **named: (full if "run" in path.name else save)(tensors, path, **named)
    )
    with pytest.raises(OSError, match="No space"):
        run.save(tmp_path / "there")
    assert not (tmp_path / "there").exists()
    monkeypatch.setattr(storage, "save_file", save)
    run.run(4, progress=False)
    run.save()
    again = CreativeRun.load(tmp_path / "here", generator=run.generator)
    assert alike(again, run) and list(again.snapshots) == [0, 1, 2, 3, 4]


def test_a_kill_at_any_moment_leaves_one_of_the_two_whole(make, typicality, monkeypatch, tmp_path):
    """The folder is copied before every change of a file's name, as a kill would leave it."""
    folder, copies = tmp_path / "run", []
    clusters = [NegativeCluster.fit(typicality, typicality.sample(5, torch.Generator().manual_seed(0)))]
    earlier = make(seed=1, snapshot_every=1, clusters=clusters).run(2, progress=False, folder=folder)
    later = make(seed=2, snapshot_every=3)

    def watched(kind, name):
        change = getattr(kind, name)

        def changed(*arguments, **options):
            if any(str(one).startswith(str(folder)) for one in arguments):
                copies.append(shutil.copytree(folder, tmp_path / str(len(copies))))
            return change(*arguments, **options)

        monkeypatch.setattr(kind, name, changed)

    for kind, name in ((os, "replace"), (os, "rename"), (os, "unlink"), (os, "mkdir"), (os, "rmdir")):
        watched(kind, name)
    later.save(folder, force=True)
    monkeypatch.undo()
    found = []
    for copy in copies:
        lost, ended = not (copy / run_files.STATE).exists(), (copy / run_files.ASIDE).exists()
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            opened = CreativeRun.load(copy, generator=later.generator)
        told = str(said[0].message) if said else ""
        assert len(said) < 2 and not (lost and "the earlier one is back, as it was" not in told)
        assert ("the new one was saved, the earlier one is removed now" in told) == (ended and not lost)
        found.append(opened.seed)
        assert alike(opened, earlier if opened.seed == 1 else later)
        assert list(opened.snapshots) == ([0, 1, 2] if opened.seed == 1 else [0]) and len(opened.clusters) == 2 - opened.seed
        with hold(copy):
            assert not run_files.interrupted(copy)
    assert found == sorted(found) and set(found) == {1, 2} and len(found) > 15


def test_a_kill_at_the_first_save_leaves_a_free_folder(make, monkeypatch, tmp_path):
    copies = []
    monkeypatch.setattr(
        run_module, "write_state", lambda folder, *rest: copies.append(shutil.copytree(folder, tmp_path / "copy"))
    )
    make(seed=1).save(tmp_path / "run")
    monkeypatch.undo()
    assert (copies[0] / "typicality.safetensors").is_file()
    run = make(seed=2).run(2, progress=False, folder=copies[0])
    assert alike(CreativeRun.load(copies[0], generator=run.generator), run)


@pytest.mark.parametrize("left", ["history.jsonl", "snapshots/000010.safetensors", "typicality.json", "clusters/0.json"])
def test_files_that_a_run_would_overwrite_are_refused(make, tmp_path, left):
    """What remains of a run whose state was deleted, or somebody's files of such names."""
    path = tmp_path / left
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    run = make()
    for attempt in (lambda: run.run(2, progress=False, folder=tmp_path), lambda: run.save(tmp_path)):
        with pytest.raises(
            FileExistsError, match=rf"holds files that a run would overwrite \({left}\), but no run.safetensors"
        ):
            attempt()
    assert path.read_text() == "mine" and run.steps == 0
    run.run(2, progress=False, folder=tmp_path, force=True)
    assert list(CreativeRun.load(tmp_path, generator=run.generator).snapshots) == [0, 2]


def test_a_damaged_run_is_replaced_by_force(make, tmp_path):
    make(seed=1).run(2, progress=False, folder=tmp_path)
    (tmp_path / "run.safetensors").write_bytes(b"half")
    with pytest.raises(ValueError, match="is damaged"):
        make(seed=2).run(2, progress=False, folder=tmp_path)
    make(seed=2).run(1, progress=False, folder=tmp_path, force=True)
    assert find_run(tmp_path)["steps"] == 1


def test_what_killed_programs_left_is_swept_at_the_start(make, tmp_path):
    make().run(1, progress=False, folder=tmp_path)
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    names = ("before_after.png", "creative-1.svg", "run.safetensors", "snapshots/.000001.safetensors")
    dead = [(tmp_path / name).with_name(f".{Path(name).name.lstrip('.')}.{ended.pid}") for name in names]
    earlier = tmp_path / f".baseline.json.{os.getpid()}"  # of another program that had our number, as happens in containers
    alive, foreign = tmp_path / f".run.json.{os.getppid()}", tmp_path / f".notes.txt.{ended.pid}"
    for path in (*dead, earlier, alive, foreign):
        path.write_text("half a fi")
    os.utime(earlier, (1e9, 1e9))
    with hold(tmp_path):
        assert not any(path.exists() for path in (*dead, earlier)) and alive.exists() and foreign.exists()


@pytest.mark.parametrize("again", [False, True])
def test_a_folder_that_is_deleted_meanwhile_is_not_made_again(make, tmp_path, again):
    """Nothing can be written there safely: another process may have locked what is there now."""
    run, folder = make(snapshot_every=1), tmp_path / "run"

    def iterate(steps):
        for row in type(run).iterate(run, steps):
            if run.steps == 2:
                shutil.rmtree(folder)
                if again:
                    folder.mkdir()
            yield row

    run.iterate = iterate
    with (
        pytest.raises(OSError, match=r"was deleted, moved or replaced .* The 4 steps done are kept in memory"),
        pytest.warns(UserWarning) as warned,
    ):
        run.run(4, progress=False, folder=folder)
    assert len(warned) == 1 and (not list(folder.iterdir()) if again else not folder.exists())
    run.save(folder)
    assert alike(CreativeRun.load(folder, generator=run.generator), run)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_a_save_that_is_interrupted_after_it_counts_is_still_ours(make, monkeypatch, tmp_path, error):
    """The state has its name already, and this object has not heard of it yet."""
    run, write = make().run(2, progress=False, folder=tmp_path), run_module.write_state

    def interrupted(*arguments):
        write(*arguments)
        monkeypatch.undo()
        raise error

    monkeypatch.setattr(run_module, "SAVE_EVERY", 1)
    monkeypatch.setattr(run_module, "write_state", interrupted)
    if error is KeyboardInterrupt:
        with pytest.raises(KeyboardInterrupt):
            run.run(4, progress=False, folder=tmp_path)
    else:
        with pytest.warns(UserWarning, match="cannot write"):
            run.run(4, progress=False, folder=tmp_path)
    assert find_run(tmp_path)["steps"] == run.steps and alike(CreativeRun.load(tmp_path, generator=run.generator), run)
    assert run.run(6, progress=False, folder=tmp_path).steps == 6


def test_a_checkers_snapshots_survive_a_move(make, tmp_path):
    run = make(checker=Checker(0.9), check_every=3, snapshot_every=2).run(5, progress=False, folder=tmp_path / "one")
    run.save(tmp_path / "two")
    assert list(CreativeRun.load(tmp_path / "two", generator=run.generator).snapshots) == list(run.snapshots)


def test_where_nothing_is_written_nothing_is_left(make, monkeypatch, tmp_path):
    """Not even the lock, in a folder that was there before or in one that was made for it."""
    there, absent = tmp_path / "there", tmp_path / "deep" / "down"
    there.mkdir()
    for folder in (there, absent):
        for steps in (0, "3", None):
            with pytest.raises(ValueError, match="^steps: got"):
                make().run(steps, progress=False, folder=folder)
        monkeypatch.setattr(storage, "save_file", full)
        with pytest.raises(OSError, match="No space left"):
            make().run(1, progress=False, folder=folder)
        monkeypatch.undo()
        with hold(folder), hold(folder):
            assert (folder / ".lock").exists()
    assert not list(there.iterdir()) and not absent.parent.exists()
    with hold(absent):
        (absent / "mine.txt").write_text("somebody's")
    assert sorted(content(absent)) == [".lock", "mine.txt"]


def test_a_lock_that_went_while_it_was_waited_for_is_made_again(tmp_path):
    """Whoever opened the file before it went would hold a lock that nobody else can see."""
    folder = tmp_path / "run"
    with hold(folder):
        handle = os.open(folder / ".lock", os.O_RDWR)
    assert os.fstat(handle).st_nlink == 0 and not folder.exists()
    os.close(handle)
    with hold(folder):
        assert (folder / ".lock").exists()


def test_a_link_to_itself_is_no_folder(make, tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "link").symlink_to("deep/down")
    with pytest.raises(OSError, match="^folder: cannot write to .*loop .*; choose another folder"):
        make().run(1, progress=False, folder=tmp_path / "loop")
    with pytest.raises(FileNotFoundError, match="no run is saved in"):
        CreativeRun.load(tmp_path / "loop")
    make().run(1, progress=False, folder=tmp_path / "link")
    assert find_run(tmp_path / "deep" / "down")["steps"] == 1


@pytest.mark.parametrize("name", ["", "caf\udce9", "~nobody-of-this-name/run"])
def test_a_folder_whose_name_cannot_be_kept_is_refused_before_the_search(make, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    run = make()
    for call in (lambda: run.run(1, progress=False, folder=name), lambda: run.save(name), lambda: find_run(name)):
        with pytest.raises(ValueError, match="^folder: got '"):
            call()
    assert not list(tmp_path.iterdir()) and run.steps == 0
