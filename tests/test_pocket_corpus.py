"""The corpus: names, splits, rendering. Nothing here needs the icon sets themselves."""

import numpy as np
import pytest
import torch

from creativelib.pocket import captions, corpus, taxonomy

SQUARE = {"body": '<path fill="currentColor" d="M2 2h12v12H2z"/>', "width": 16, "height": 16}


@pytest.mark.parametrize(
    ("label", "subgroup", "first"),
    [
        ("dog face", "animal-mammal", "pet"),
        ("elephant", "animal-mammal", "animal"),
        ("T-Rex", "animal-reptile", "dinosaur"),
        ("taxi", "transport-ground", "vehicle"),
        ("stop sign", "transport-ground", "object"),
        ("castle", "place-building", "building"),
        ("handbag", "clothing", "handbag"),
        ("chair", "household", "chair"),
        ("robot", "face-costume", "alien"),
        ("kiwi fruit", "food-fruit", "fruit"),
    ],
)
def test_first_noun_of_a_label(label, subgroup, first):
    assert taxonomy.nouns_of_label(label, subgroup)[0] == first


@pytest.mark.parametrize(
    ("slug", "noun"),
    [
        ("office-chair", "chair"),
        ("blood-bag", None),
        ("dinosaur-egg", None),
        ("shopping-bag", "handbag"),
        ("car", None),
        ("chairman", None),
    ],
)
def test_subject_of_a_file_name(slug, noun):
    assert taxonomy.subject_of_name(slug) == noun


def test_split_depends_on_names_only_and_holds_out_whole_concepts():
    records = [{"concept": f"c{i // 5}", "set": f"s{i % 5}"} for i in range(5000)]
    corpus.assign_split(records)
    alone = [dict(records[777], split=None)]
    corpus.assign_split(alone)
    assert alone[0]["split"] == records[777]["split"]
    by_concept = {}
    for record in records:
        by_concept.setdefault(record["concept"], set()).add(record["split"])
    assert all(splits == {"held-out concept"} for splits in by_concept.values() if "held-out concept" in splits)
    share = np.mean([record["split"] == "held-out concept" for record in records])
    assert 0.07 < share < 0.13
    share = np.mean([record["split"] == "held-out rendering" for record in records if record["split"] != "held-out concept"])
    assert 0.03 < share < 0.07


def test_render_centres_a_tinted_glyph_on_white():
    image = corpus.render(corpus.svg_of(SQUARE, {}, "#ff0000"))
    assert image.shape == (128, 128, 3) and image.dtype == np.uint8
    assert (image[0] == 255).all() and (image[:, 0] == 255).all()
    assert tuple(image[64, 64]) == (255, 0, 0)


@pytest.mark.parametrize("source", ["<svg>not an icon", corpus.svg_of({"body": ""}, {}), "missing.webp"])
def test_render_leaves_out_what_cannot_be_drawn_or_is_blank(source):
    assert corpus.render(source) is None


def test_load_says_how_to_build_a_missing_corpus(tmp_path):
    with pytest.raises(FileNotFoundError, match="make pocket-corpus"):
        corpus.load(tmp_path)


def test_captions_hold_the_papers_prompt_and_the_article():
    record = {"label": "UFO", "nouns": ["alien"], "tags": ["fly"], "style": "flat"}
    texts = {captions.caption(record, torch.Generator().manual_seed(i)) for i in range(600)}
    assert "Professional high-quality photo of an alien. photorealistic, 4k, HQ." in texts
    assert captions.caption(record, torch.Generator().manual_seed(3)) == captions.caption(
        record, torch.Generator().manual_seed(3)
    )


def test_thin_subjects_are_drawn_more_often():
    records = [{"nouns": ["vehicle"]}] * 90 + [{"nouns": ["chair"]}] * 10
    weights = captions.sampling_weights(records)
    assert weights.sum() == pytest.approx(1, abs=1e-5)
    assert 0.1 < weights[90:].sum() < 0.5


def test_missing_clip_art_is_said_aloud(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(corpus, "build", lambda work, clipart: (None, []))
    for folder, words in ((tmp_path / "none", "install Debian's package openclipart-svg"), (tmp_path, "")):
        monkeypatch.setattr("sys.argv", ["corpus", "--clipart", str(folder)])
        corpus.main()
        assert (words or "building") in (said := capsys.readouterr().out) and ("openclipart" in said) == bool(words)
