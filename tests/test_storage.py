"""Files are atomic, say what they hold, and refuse what does not fit."""

import json

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

    monkeypatch.setattr(storage, "save", fail)
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
