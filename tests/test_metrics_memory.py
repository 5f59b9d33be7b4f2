"""The nearest training picture, from compact features: the right one is found, and the file is small."""

import json

import numpy as np
import pytest

from creativelib.metrics.memory import Distance, Memory, save
from creativelib.storage import data_folder


def corpus(n=300, f=64):
    source = np.random.default_rng(0)
    rows = source.normal(size=(n, 12)) @ source.normal(size=(12, f)) + 0.1 * source.normal(size=(n, f))
    return rows, [{"label": f"picture {number}", "set": "noto", "split": "train", "tags": []} for number in range(n)]


def test_a_copy_is_found_again_after_coding(tmp_path):
    rows, records = corpus()
    path = save(tmp_path / "corpus", {"picture": Memory.fit(rows, records, dims=16)})
    memory = Memory.load(path)
    near = rows[[5, 77]] + 0.05 * np.random.default_rng(1).normal(size=(2, 64))
    index, cosine = memory.nearest(near)
    assert index.tolist() == [5, 77] and cosine.min() > 0.98
    assert memory.records[77] == {"label": "picture 77", "set": "noto", "split": "train"}
    assert memory.nearest(np.random.default_rng(2).normal(size=(5, 64)))[1].max() < 0.95
    assert path.stat().st_size < 300 * (16 + 45) + 4 * 64 * 20


def test_what_was_held_out_is_no_training_picture():
    rows, records = corpus()
    records[5]["split"] = "held-out concept"
    memory = Memory.fit(rows, records, dims=16)
    index, cosine = memory.nearest(rows[[5, 77]])
    assert index[0] != 5 and index[1] == 77 and cosine[0] < 0.97 < cosine[1] and len(memory.learned) == 299
    with pytest.raises(ValueError, match="^records: got none whose split is 'train'"):
        Memory.fit(rows, [record | {"split": "held-out concept"} for record in records], dims=16)


def test_views_of_the_same_pictures_are_kept_in_one_file(tmp_path):
    rows, records = corpus()
    views = {"picture": Memory.fit(rows, records, dims=16), "structure": Memory.fit(rows[:, ::-1], records, dims=8)}
    path = save(tmp_path / "corpus", views)
    for view, memory in views.items():
        again = Memory.load(path, view)
        assert again.records == memory.records and (again.codes == memory.codes).all() and again.scale == memory.scale
    with pytest.raises(ValueError, match="^view: got 'colour'; choose one of 'picture', 'structure'"):
        Memory.load(path, "colour")
    with pytest.raises(ValueError, match="^memories: got some of other pictures"):
        save(path, views | {"structure": Memory.fit(rows, records[::-1], dims=8)})


def test_distance_is_in_units_of_plain_pictures():
    rows, records = corpus()
    memory, source = Memory.fit(rows, records, dims=16), np.random.default_rng(3)
    plain = rows[source.integers(300, size=400)] + 0.5 * source.normal(size=(400, 64))
    measure = Distance.fit(memory, plain)
    assert np.isclose(measure.nearest(plain)[1].mean(), 1)
    index, distance = measure.nearest(np.stack([rows[5], rows[5] + 2 * source.normal(size=64)]))
    assert index[0] == 5 and distance[0] < 0.3 < 1 < distance[1]
    assert np.isclose((measure.nearest(plain)[1] > measure.limit).mean(), 0.05, atol=0.005)
    with pytest.raises(ValueError, match="^plain: got 0 pictures"):
        Distance.fit(memory, plain[:0])


def test_the_corpus_s_own_picture_is_shown_where_it_is_built(tmp_path):
    rows, records = corpus()
    memory = Memory.fit(rows, records, dims=16)
    assert memory.picture(3, tmp_path) is None
    (tmp_path / "corpus").mkdir()
    images = np.arange(300, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 3), np.uint8)
    np.save(tmp_path / "corpus" / "images.npy", images)
    (tmp_path / "corpus" / "records.json").write_text(json.dumps(records))
    assert memory.picture(3, tmp_path).getpixel((0, 0)) == (3, 3, 3)
    (tmp_path / "corpus" / "records.json").write_text(json.dumps(records[::-1]))
    assert memory.picture(3, tmp_path) is None  # another picture is at that place


def test_what_does_not_fit_is_refused(tmp_path):
    rows, records = corpus(40)
    with pytest.raises(ValueError, match="^records: got 39 for 40 pictures"):
        Memory.fit(rows, records[:-1])
    with pytest.raises(ValueError, match="^rows: got 40 pictures for dims=88"):
        Memory.fit(rows, records)
    with pytest.raises(ValueError, match="^rows: got shape"):
        Memory.fit(rows, records, dims=4).nearest(rows[:, :3])
    with pytest.raises(FileNotFoundError):
        Memory.load(tmp_path / "none")


def test_the_shipped_memory_is_small_and_knows_its_pictures():
    memory = Memory.load()
    path = data_folder() / "comparison" / "corpus.safetensors"
    assert path.stat().st_size <= 1.5 * 2**20 and len(memory.records) == len(memory.codes) > 5000
    assert all(record["label"] and record["set"] and record["split"] for record in memory.records)
    chosen = memory.learned[::997]
    grey = Memory.load(view="structure")
    assert grey.records == memory.records and grey.codes.shape[1] < memory.codes.shape[1]
    rows = memory.mean + (memory.codes[chosen] / memory.scale) @ memory.directions  # what the codes say of the features
    index, cosine = memory.nearest(rows)
    assert cosine.min() > 0.999 and (memory.codes[index] == memory.codes[chosen]).all()
