"""The judge that only measures: its probe, its rule, its files."""

import json

import numpy as np
import pytest
import torch

from creativelib.pocket import judge, worlds
from creativelib.pocket.judge import Judge


def record(*nouns):
    return {"nouns": list(nouns), "label": nouns[0], "tags": [], "split": "train"}


RECORDS = (
    6 * [record("vehicle")]
    + 6 * [record("pet", "animal")]
    + 6 * [record("animal")]
    + 6 * [record("face")]
    + [record("alien", "face")]
)


@pytest.fixture
def fitted():
    """A judge of 8 features in which each class has a direction of its own."""
    generator = torch.Generator().manual_seed(0)
    names = sorted({r["nouns"][0] for r in RECORDS})
    features = 0.1 * torch.randn(len(RECORDS), 8, generator=generator)
    features[torch.arange(len(RECORDS)), [names.index(r["nouns"][0]) for r in RECORDS]] += 3
    return Judge.fit(features, RECORDS, strength=1.0), features


def test_overlap_is_a_quarter_of_the_noun():
    overlaps = judge.overlapping_nouns(RECORDS)
    assert overlaps["pet"] == ["animal"]  # 6 of 12 pictures that carry "animal"
    assert overlaps["alien"] == []  # 1 of 7 that carry "face"
    assert overlaps["vehicle"] == []


def test_fit_tells_the_classes_apart(fitted):
    model, features = fitted
    chances = model.probabilities_of_features(features)
    assert chances.shape == (25, 5) and torch.allclose(chances.sum(1), torch.ones(25))
    assert [model.classes[i] for i in chances.argmax(1)] == [r["nouns"][0] for r in RECORDS]


def test_a_rare_noun_counts_as_much_as_a_common_one():
    source = torch.Generator().manual_seed(0)
    rare, common = (torch.randn(n, 4, generator=source) + shift for n, shift in ((6, 1.0), (300, 0.0)))
    records = 6 * [record("dinosaur")] + 300 * [record("pet")]
    model = Judge.fit(torch.cat([rare, common]), records)
    found = model.probabilities_of_features(torch.randn(200, 4, generator=source) + 1.0).argmax(1)
    assert (found == model.classes.index("dinosaur")).float().mean() > 0.5


def test_two_classes(fitted):
    features = torch.tensor([[1.0], [2.0], [9.0], [10.0]])
    two = Judge.fit(features, [record("pet")] * 2 + [record("vehicle")] * 2, strength=1.0)
    assert two.weight.shape == (2, 1)
    assert two.probabilities_of_features(features).argmax(1).tolist() == [0, 0, 1, 1]


def test_rule_of_is_subject(fitted):
    model = fitted[0]
    assert model.classes == ["alien", "animal", "face", "pet", "vehicle"]
    chances = torch.tensor(
        [
            [0.0, 0.6, 0.0, 0.3, 0.1],  # most like an animal, then a pet: a pet, since animal overlaps pet
            [0.0, 0.6, 0.0, 0.1, 0.3],  # an animal, then a vehicle: no pet, and no vehicle
            [0.3, 0.0, 0.4, 0.2, 0.1],  # a face does not overlap alien
            [0.0, 0.1, 0.1, 0.1, 0.7],
        ]
    )
    assert model.verdict(chances, "pet").tolist() == [True, False, False, False]
    assert model.verdict(chances, "vehicle").tolist() == [False, False, False, True]
    assert model.verdict(chances, "alien").tolist() == [False, False, False, False]
    assert model.verdict(chances, "face").tolist() == [False, False, True, False]
    assert model.verdict(chances, "animal").tolist() == [True, True, False, False]
    with pytest.raises(ValueError, match="one of the judge's classes"):
        model.verdict(chances, "submarine")
    with pytest.raises(ValueError, match="one of the judge's classes"):
        model.is_subject(np.zeros((1, 8, 8, 3), np.uint8), "submarine")


def test_save_and_load(fitted, tmp_path):
    model, features = fitted
    model.save(tmp_path / "judge")
    assert sorted(path.name for path in (tmp_path / "judge").iterdir()) == ["judge.json", "judge.safetensors"]
    about = json.loads((tmp_path / "judge/judge.json").read_text())
    assert about["classes"] == model.classes and about["backbones"] == ["efficientnet-lite0", "efficientnet-lite2"]
    loaded = Judge.load(tmp_path / "judge")
    assert loaded.overlaps == model.overlaps and loaded.variants == model.variants
    torch.testing.assert_close(
        loaded.probabilities_of_features(features), model.probabilities_of_features(features), atol=2e-3, rtol=0
    )


def test_pictures_are_judged_with_their_mirror_image(fitted, monkeypatch):
    model = fitted[0]
    images = np.random.default_rng(0).integers(0, 255, (3, 8, 8, 3), np.uint8)
    seen = []

    def fake(views, variants, device="cpu"):
        seen.append(views)
        return torch.from_numpy(views.reshape(len(views), -1)[:, :8].astype(np.float32))

    monkeypatch.setattr(judge, "features_of", fake)
    chances = model.probabilities(images)
    assert chances.shape == (3, 5) and torch.allclose(chances.sum(1), torch.ones(3))
    assert np.array_equal(seen[1], images[:, :, ::-1])
    assert model.is_subject(images, "pet").dtype == bool and model.is_subject(images, "pet").shape == (3,)


def test_bad_input_is_refused(fitted, tmp_path):
    model, features = fitted
    for images in (np.zeros((2, 8, 8, 3)), np.zeros((8, 8, 3), np.uint8), [1, 2]):
        with pytest.raises(ValueError, match="uint8 array"):
            model.probabilities(images)
    assert model.probabilities(np.zeros((0, 8, 8, 3), np.uint8)).shape == (0, 5)
    with pytest.raises(ValueError, match="as many"):
        Judge.fit(features[:3], RECORDS)
    with pytest.raises(ValueError, match="two nouns"):
        Judge.fit(features[:2], RECORDS[:2])
    with pytest.raises(FileNotFoundError, match="make pocket"):
        Judge.load(tmp_path / "nothing")


def test_training_learns_from_both_worlds_and_from_what_is_dissolved(tmp_path, monkeypatch):
    images = np.random.default_rng(0).integers(0, 255, (25, 128, 128, 3), np.uint8)
    typical = [{**one, "label": "x", "style": "flat", "tags": []} for one in RECORDS]
    possible = [{"nouns": [], "sources": [0], "operations": [], "first": 0}, {**record("pet"), "sources": [1], "first": 1}]
    blocks, count = [*worlds.views(images), images[:2]], 2 * len(images)
    starts, weights = np.cumsum([0, *map(len, blocks)]), torch.full((count + 2,), 1 / (count + 2))
    both = worlds.Worlds(blocks, starts, 2 * typical + possible, torch.arange(count + 2) < count, weights)
    asked = []

    def look(pictures, variant, size, device="cpu"):
        asked.append(len(pictures))
        return torch.randn(len(pictures), 4, generator=torch.Generator().manual_seed(variant + len(asked)))

    monkeypatch.setattr(judge.teachers, "image_features", look)
    model = judge.train(both, tmp_path, "cpu", dissolved=6)
    assert sorted(asked) == sorted(2 * [6, 25, 25, 2])
    assert judge.NOTHING in model.classes and model.weight.shape == (6, 8)
    assert Judge.load(tmp_path / "shipped/judge").classes == model.classes
