"""The possible world: the same numbers make the same picture, nothing is blank, and every picture says what it is made from."""

import dataclasses
import re

import numpy as np
import pytest
import torch

from creativelib.pocket import corpus, drawings, possible, worlds

resvg_py = pytest.importorskip("resvg_py", reason="drawing the possible world needs the training extra")

SHAPES = {
    "vehicle": '<g><rect x="4" y="10" width="24" height="10" fill="#cc2222"/><circle cx="9" cy="22" r="3" fill="#222"/></g>',
    "fruit": '<circle cx="16" cy="18" r="10" fill="#e07a1f"/><path d="M16 8l3-5" stroke="#3a7d2c" stroke-width="2"/>',
    "pet": '<defs><linearGradient id="a"><stop stop-color="#c68e5a"/></linearGradient></defs>'
    '<circle cx="16" cy="16" r="11" fill="url(#a)"/>',
    "chair": '<path d="M8 4h4v12h12v12h-3v-8h-9v8H8z" fill="#7b4bc4"/>',
}


@pytest.fixture(scope="module")
def world():
    records, sources = [], []
    for index, (noun, body) in enumerate(list(SHAPES.items()) * 4):
        split = "held-out concept" if index % 8 == 7 else "train"
        records.append({"label": noun, "tags": [], "nouns": [noun], "style": "flat", "split": split, "set": f"set{index % 3}"})
        sources.append(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">{body}</svg>')
    images = np.stack([corpus.render(source) for source in sources])
    return records, sources, images


def test_a_picture_depends_on_seed_and_number_alone(world):
    one, other = possible.PossibleWorld(*world), possible.PossibleWorld(*world)
    other.picture(7)  # what was made before does not matter
    assert np.array_equal(one.picture(3).image, other.picture(3).image) and one.picture(3).record == other.picture(3).record
    assert not np.array_equal(one.picture(3).image, possible.PossibleWorld(*world, seed=1).picture(3).image)


def test_pictures_are_different_never_blank_and_on_white(world):
    made = [possible.PossibleWorld(*world).picture(index) for index in range(60)]
    assert len({one.image.tobytes() for one in made}) == 60
    for one in made:
        assert one.image.shape == (128, 128, 3) and one.alpha.shape == (128, 128)
        assert 0.02 < (one.image < 245).any(-1).mean() < 0.97
        assert (one.image[one.alpha == 0] == 255).all()


def test_every_picture_names_its_sources_and_the_split_is_kept(world):
    records = world[0]
    for split in ("train", "held-out"):
        here = possible.PossibleWorld(*world, split=split)
        for index in range(25):
            record = here.picture(index).record
            assert record["sources"] and all(records[row]["split"].startswith(split) for row in record["sources"])
            assert set(record["nouns"]) <= set(records[record["sources"][0]]["nouns"])
    with pytest.raises(ValueError, match="split"):
        possible.PossibleWorld(*world, split="nowhere")


def test_half_of_something_else_leaves_no_noun(world):
    here, seen = possible.PossibleWorld(*world), 0
    for index in range(150):
        made = here.picture(index)
        if "halves of two kinds" in made.operations:
            nouns = [world[0][row]["nouns"][0] for row in made.sources[:2]]
            seen += nouns[0] != nouns[1]
            assert bool(made.nouns) == (nouns[0] == nouns[1])
    assert seen > 1


def test_a_palette_changes_colours_and_no_shape():
    body, rng = SHAPES["vehicle"], np.random.default_rng(1)
    other = drawings.new_palette(body, rng)
    assert other != body and re.sub(drawings.COLOUR, "", other) == re.sub(drawings.COLOUR, "", body)


def test_a_pattern_stays_within_the_shapes(world):
    here = possible.PossibleWorld(*world)
    source = here.source(0)
    plain = possible._rendered(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32" width="192">{source.body}</svg>')
    body = drawings.with_pattern(source.body, source.box, "p", np.random.default_rng(0))
    patterned = possible._rendered(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32" width="192">{body}</svg>')
    assert np.abs(plain[..., 3].astype(int) - patterned[..., 3]).max() <= 2 and (plain != patterned).any()
    assert drawings.with_pattern("<path/>", source.box, "p", np.random.default_rng(0)) is None


def test_parts_are_the_shapes_of_a_drawing_each_with_its_definitions():
    assert [part.count("<rect") + part.count("<circle") for part in drawings.parts_of(SHAPES["vehicle"])] == [1, 1]
    (part,) = drawings.parts_of(SHAPES["pet"])
    assert "linearGradient" in part and "<circle" in part


def test_the_drawn_box_is_where_the_drawing_is(world):
    for row, (left, top, width, height) in ((0, (4, 10, 24, 15)), (1, (6, 2.5, 20, 25.5))):
        drawn = possible.PossibleWorld(*world).source(row).drawn
        assert np.abs(np.array(drawn) - (left, top, width, height)).max() < 1.3  # of 32: pixels of 128


def test_both_worlds_in_one_and_draws_by_weight(world, tmp_path):
    records, sources, images = world
    (tmp_path / "corpus").mkdir()
    np.save(tmp_path / "corpus/images.npy", images)
    import json

    (tmp_path / "corpus/records.json").write_text(json.dumps(records))
    (tmp_path / "corpus/drawings.json").write_text(json.dumps(sources))
    possible.make(tmp_path, 6)
    both = worlds.load(tmp_path, images, records)
    count = sum(record["split"] == "train" for record in records)
    assert len(both) == 2 * count + 6 == len(both.records) and int(both.typical.sum()) == 2 * count
    assert float(both.weights.sum()) == pytest.approx(1) and float(both.weights[both.typical].sum()) == pytest.approx(0.3)
    drawn = both.draw(4000, torch.Generator().manual_seed(0))
    assert float(both.typical[drawn].float().mean()) == pytest.approx(0.3, abs=0.03)
    assert np.array_equal(
        both.pictures(torch.tensor([2 * count + 1]))[0], possible.PossibleWorld(records, sources, images).picture(1).image
    )
    for record in both.records[2 * count :]:
        assert both.records[record["first"]]["label"] == records[record["sources"][0]]["label"]
    some = both.where(both.typical).draw(200, torch.Generator().manual_seed(0))
    assert both.typical[some].all()
    alone = worlds.load(tmp_path / "nowhere", images, records)
    assert len(alone) == 2 * count and float(alone.weights.sum()) == pytest.approx(1)


def test_what_is_kept_of_a_block_is_found_again_wherever_the_block_moves(world, tmp_path):
    """Two processes make a world from both its ends: a block that comes between others moves those behind it."""
    records, _, images = world
    both, seen = worlds.load(tmp_path / "nowhere", images, records), []
    blocks = [np.full((2, 128, 128, 3), shade, np.uint8) for shade in (10, 20, 30)]

    def describe(pictures):
        seen.append(int(pictures[0, 0, 0, 0]))
        return torch.from_numpy(pictures[:, 0, 0, 0].copy())[:, None]

    for chosen, anew in (([0, 2], [10, 30]), ([0, 1, 2], [20]), ([2, 0], [])):
        grown = dataclasses.replace(both, blocks=[blocks[number] for number in chosen])
        found = worlds.described(grown, tmp_path / "kept", describe)
        assert found[::2, 0].tolist() == [10 * (number + 1) for number in chosen]
        assert [seen.pop() for _ in list(seen)][::-1] == anew


def test_one_of_several_processes_makes_the_held_out_pictures(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(possible, "make", lambda work, count, split, first=0: made.append((split, first)))
    for first in ("0", "500"):
        monkeypatch.setattr("sys.argv", ["possible", "--work", str(tmp_path), "--first", first])
        possible.main()
    assert made == [("held-out", 0), ("train", 0), ("train", 500)]
