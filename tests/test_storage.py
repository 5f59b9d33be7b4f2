"""Files are atomic, say what they hold, and refuse what does not fit."""

import errno
import json
import os
import time

import numpy as np
import pytest
import torch

from creativelib import storage


def test_round_trip_with_a_readable_copy(tmp_path):
    tensors = {"a": torch.arange(6).reshape(2, 3).T, "b": torch.zeros(0)}
    path = storage.write_tensors(tmp_path / "deep" / "thing.json", tensors, {"seed": 3})
    found, facts = storage.read_tensors(path)
    assert facts == {"seed": 3} == json.loads(path.with_suffix(".json").read_text())
    assert torch.equal(found["a"], tensors["a"]) and found["b"].shape == (0,)
    assert sorted(p.name for p in path.parent.iterdir()) == ["thing.json", "thing.safetensors"]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = storage.write_tensors(tmp_path / "thing", {"a": torch.ones(1)}, {"seed": 1})

    def fail(*arguments, **options):
        raise OSError("disk full")

    monkeypatch.setattr(storage, "save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        storage.write_tensors(path, {"a": torch.zeros(1)}, {"seed": 2})
    tensors, facts = storage.read_tensors(path)
    assert facts == {"seed": 1} and float(tensors["a"]) == 1
    assert len(list(tmp_path.iterdir())) == 2


def test_foreign_files_are_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.ones(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(ValueError, match="was not written by creativelib"):
        storage.read_tensors(tmp_path / "foreign")
    with pytest.raises(ValueError, match="a is None, not 1"):
        storage.require_equal({}, {"a": 1}, "x")


def test_a_dot_in_a_name_belongs_to_the_name(tmp_path):
    for weight in ("4.0", "4.5"):
        storage.write_tensors(tmp_path / f"vehicle_w{weight}", {"a": torch.tensor(float(weight))}, {"weight": weight})
    for weight in ("4.0", "4.5"):
        for name in (f"vehicle_w{weight}", f"vehicle_w{weight}.safetensors", f"vehicle_w{weight}.json"):
            tensors, facts = storage.read_tensors(tmp_path / name)
            assert float(tensors["a"]) == float(weight) and facts == {"weight": weight}
    assert len(list(tmp_path.iterdir())) == 4


def test_the_disk_has_the_file_before_it_gets_its_name_and_the_folder_after(tmp_path, monkeypatch):
    done, fsync, rename = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (done.append(os.readlink(f"/proc/self/fd/{handle}")), fsync(handle)))
    monkeypatch.setattr(os, "replace", lambda old, new: (done.append("rename"), rename(old, new)))
    storage.write_tensors(tmp_path / "thing", {"a": torch.ones(1)}, {}, readable=False)
    assert done == [str(tmp_path / f".thing.safetensors.{os.getpid()}"), "rename", str(tmp_path)]


def test_what_a_killed_process_left_is_cleared_away(tmp_path):
    stale, young, other = (tmp_path / name for name in (".thing.json.123", ".thing.json.124", ".thing.json.backup"))
    for path in (stale, young, other):
        path.write_text("half a fi")
    os.utime(stale, (time.time() - 2 * storage.STALE_SECONDS,) * 2)
    storage.write_tensors(tmp_path / "thing", {"a": torch.ones(1)}, {})
    assert not stale.exists() and young.exists() and other.exists()  # the young one may be another process's


def test_numbers_of_numpy_and_torch_are_kept_and_what_is_no_json_is_named(tmp_path):
    facts = {"seed": np.int64(3), "rates": (np.float32(0.5), torch.tensor(2)), "on": np.bool_(True), "name": np.str_("a")}
    assert storage.read_facts(storage.write_tensors(tmp_path / "thing", {}, facts)) == {
        "seed": 3, "rates": [0.5, 2], "on": True, "name": "a",
    }  # fmt: skip
    for bad, place in (({"a": {"b": float("nan")}}, "facts.a.b: got nan"), ({"a": [print]}, r"facts.a\[0\]: got <built-in")):
        with pytest.raises(ValueError, match=f"^{place}"):
            storage.write_tensors(tmp_path / "thing", {}, bad)


def test_a_damaged_file_is_named(tmp_path):
    path = storage.write_tensors(tmp_path / "thing", {"a": torch.ones(100)}, {"seed": 1})
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:4], b"", whole.replace(b"seed", b'se"d')):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=f"^path: {path} is damaged"):
            storage.read_tensors(path)
    path = tmp_path / "thing.json"
    for text, message in (("[1]", "holds list"), ('{"a": ', "is damaged"), ("\xff", "is damaged")):
        path.write_bytes(text.encode("latin-1"))
        with pytest.raises(ValueError, match=f"^path: {path} {message}"):
            storage.read_json(path)


def test_the_home_folder_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("CREATIVELIB_DATA", "~/data")
    assert storage.data_folder() == tmp_path / "data"
    assert storage.write_tensors("~/thing", {}, {}) == tmp_path / "thing.safetensors"
    assert storage.read_facts("~/thing") == {} and not (tmp_path / "~").exists()


def test_tensors_and_facts_are_of_one_file(tmp_path, monkeypatch):
    """A run that goes on puts a newer state in place while somebody reads."""
    path, open_file = storage.write_tensors(tmp_path / "run", {"step": torch.tensor(1)}, {"step": 1}), storage.safe_open

    def meanwhile(*given, **named):
        monkeypatch.setattr(storage, "safe_open", open_file)
        file = open_file(*given, **named)
        storage.write_tensors(path, {"step": torch.tensor(2)}, {"step": 2})
        return file

    monkeypatch.setattr(storage, "safe_open", meanwhile)
    tensors, facts = storage.read_tensors(path)
    assert int(tensors["step"]) == facts["step"] and storage.read_facts(path) == {"step": 2}


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_that_cannot_sync_a_folder_keeps_files_all_the_same(tmp_path, monkeypatch, number):
    """Some of networks and of virtual machines."""
    fsync = os.fsync

    def only_files(handle):
        if os.path.isdir(f"/proc/self/fd/{handle}"):
            raise OSError(number, os.strerror(number))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", only_files)
    storage.write_tensors(tmp_path / "thing", {"a": torch.ones(1)}, {"seed": 1})
    assert storage.read_facts(tmp_path / "thing") == {"seed": 1}
    monkeypatch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")))
    with pytest.raises(OSError, match="thing.safetensors cannot be written .Input/output error"):
        storage.write_tensors(tmp_path / "thing", {"a": torch.ones(1)}, {"seed": 2})


@pytest.mark.parametrize("name", ["", ".", "..", "caf\udce9", "~nobody-of-this-name/vehicle"])
def test_a_name_that_is_none_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    for call in (lambda: storage.write_tensors(name, {}, {}), lambda: storage.read_tensors(name)):
        with pytest.raises(ValueError, match="^path: got '"):
            call()
    assert not list(tmp_path.iterdir())


def test_files_are_for_those_that_the_user_wants(tmp_path):
    """safetensors makes them for the user alone: a folder that a class shares was of no use to the others."""
    before = os.umask(0o027)
    try:
        path = storage.write_tensors(tmp_path / "thing", {"a": torch.ones(1)}, {})
    finally:
        os.umask(before)
    assert [file.stat().st_mode & 0o777 for file in (path, path.with_suffix(".json"))] == [0o640, 0o640]


def test_a_file_that_may_not_be_read_is_told_as_one(tmp_path, monkeypatch):
    path = storage.write_tensors(tmp_path / "thing", {"a": torch.ones(1)}, {})

    def closed(*given):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(storage, "open", closed, raising=False)  # root may read everything
    with pytest.raises(OSError, match=f"^path: {path} cannot be read .Permission denied.$"):
        storage.read_tensors(path)
