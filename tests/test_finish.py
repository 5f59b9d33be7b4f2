"""The finish: clean contours, few colours, the same drawing; what it writes opens where it should."""

import json
import re
import shutil
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from creativelib import finish
from creativelib.generator import load_generator

SVG = "{http://www.w3.org/2000/svg}"


def drawing(side: int = 128, blur: float = 1.5) -> Image.Image:
    """A red disc with a blue bar and a black eye on white, by default as soft as a decoder's picture."""
    page = Image.new("RGB", (side, side), "white")
    pen, unit = ImageDraw.Draw(page), side / 128
    pen.ellipse([20 * unit, 20 * unit, 108 * unit, 108 * unit], fill=(220, 40, 40))
    pen.rectangle([30 * unit, 70 * unit, 98 * unit, 82 * unit], fill=(30, 60, 200))
    pen.ellipse([48 * unit, 40 * unit, 62 * unit, 54 * unit], fill="black")
    return page.filter(ImageFilter.GaussianBlur(blur))


def small(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture.resize((128, 128), Image.Resampling.LANCZOS)).astype(int)


def steepness(pixels: np.ndarray) -> float:
    return float(np.quantile(np.abs(np.diff(pixels.mean(-1), axis=1)), 0.99))


def test_a_soft_drawing_gets_sharp_and_keeps_its_colours():
    soft = drawing()
    (shown,) = finish.finish([soft])
    sharp = np.asarray(drawing(blur=0)).astype(int)
    assert shown.size == (512, 512) and shown.mode == "RGB"
    raw, traced = np.asarray(soft).astype(int), small(shown)
    assert np.abs(traced - sharp).mean() < 0.6 * np.abs(raw - sharp).mean()
    assert steepness(traced) > 1.2 * steepness(raw)
    for (row, column), colour in {(60, 90): (220, 40, 40), (76, 60): (30, 60, 200), (47, 55): (0, 0, 0)}.items():
        assert np.abs(traced[row, column] - colour).max() < 16
    assert (np.asarray(shown)[:40] == 255).all()


def test_contours_have_no_fringe_of_colours_in_between():
    pixels = np.asarray(finish.finish([drawing()])[0].convert("RGB")).reshape(-1, 3)
    four = np.array([(255, 255, 255), (220, 40, 40), (30, 60, 200), (0, 0, 0)])
    near = np.abs(pixels[:, None].astype(int) - four).max(-1).min(-1) < 16
    assert near.mean() > 0.97


def test_colours_farther_apart_than_the_limit_stay_two_though_others_lie_between():
    """A chain of near ones made them one: a house of ten browns became one brown field."""
    every = finish.lab(np.arange(256, dtype=np.uint8)[:, None].repeat(3, 1))[:, 0]
    greys = np.array([np.abs(every - light).argmin() for light in range(8, 81, 6)], np.uint8)  # a step is 6 of Delta E
    picture = Image.fromarray(np.broadcast_to(greys.repeat(9), (117, 117)).copy()).convert("RGB")
    shown = np.asarray(finish.render(finish.trace(picture), 117)).astype(int)[58, 4::9, 0]
    far = np.abs(every[greys][:, None] - every[greys]) > finish.Tracing.apart
    assert far.any() and not (far & (np.abs(shown[:, None] - shown) < 8)).any()


def test_the_same_picture_gives_the_same_document():
    assert finish.trace(drawing()) == finish.trace(drawing())


def test_a_document_stays_short():
    confetti, source = Image.new("RGB", (128, 128), "white"), np.random.default_rng(0)
    pen = ImageDraw.Draw(confetti)
    for left, top, *colour in source.integers(0, 255, (400, 5)).tolist():
        pen.ellipse([left // 2, top // 2, left // 2 + 12, top // 2 + 12], fill=tuple(colour))
    free = finish.trace(confetti, finish.Tracing(most=10**9))
    short = finish.trace(confetti)
    assert len(short) <= finish.Tracing.most < 0.6 * len(free) and len(finish.trace(drawing())) < 4_000
    lost, blank = (np.abs(shown - np.asarray(confetti).astype(int)).mean() for shown in (small(finish.render(short)), 255))
    assert lost < 0.6 * blank, (lost, blank)


@pytest.mark.parametrize("side", [4, 6])
def test_a_pattern_is_not_lost_for_the_sake_of_a_short_document(side):
    """Larger specks were left out until a page of dots was a blank one of 254 bytes."""
    checks = (np.indices((128, 128)) // side).sum(0) % 2
    pixels = np.where(checks[..., None], (180, 40, 40), 255).astype(np.uint8)
    pixels[:8] = pixels[-8:] = 255
    shown = small(finish.render(finish.trace(Image.fromarray(pixels))))
    assert 0.6 < (shown.min(-1) < 200).mean() / (pixels.min(-1) < 200).mean() < 1.7


@pytest.mark.parametrize("size", [(37, 100), (100, 37), (97, 96)])
def test_a_picture_of_odd_sides_has_no_dark_rim(size):
    (shown,) = finish.finish([Image.new("RGB", size, "white")])
    assert np.asarray(shown).min() == 255


def test_a_curve_told_from_the_pen_is_the_same_curve():
    steps = " ".join(f"L{1 + 0.3 * step:.2f} 2" for step in range(100))  # rounded from where it began, it does not drift
    assert sum(map(int, re.findall(r"l(\d+) 0", finish.relative(f"M1 2 {steps}", (0, 0), 1)))) == 30
    curve = "M1 2 L5 2 C6 3 7 4 8 5 C9 9 3 9 1 6 Z M2.5 3 L3 3 L3 4 Z"
    told, meant = finish.relative(curve, (10, 20), 2), "M22 44L30 44C32 46 34 48 36 50C38 58 26 58 22 52ZM25 46L26 46L26 48Z"
    assert told == "M22 44l8 0c2 2 4 4 6 6c2 8-10 8-14 2zM25 46l1 0l0 2z"
    page = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64" width="64" height="64"><path d="{}"/></svg>'
    one, other = (np.asarray(finish.render(page.format(path), 200)) for path in (told, meant))
    assert np.array_equal(one, other) and one.min() == 0


def test_the_document_is_an_svg_that_editors_open():
    root = ElementTree.fromstring(finish.trace(drawing()))
    assert root.tag == f"{SVG}svg" and (root.get("width"), root.get("height")) == ("512", "512")
    page, *paths = root
    assert page.tag == f"{SVG}rect" and page.get("fill") == "#fff"
    assert 4 <= len(paths) < 20 and all(path.tag == f"{SVG}path" and path.get("d") for path in paths)


@pytest.mark.parametrize("colour", [(255, 255, 255), (200, 30, 90), (0, 0, 0), (251, 252, 250)])
def test_a_picture_of_one_colour_stays_one(colour):
    (shown,) = finish.finish([Image.new("RGB", (64, 64), colour)])
    wanted = (255, 255, 255) if min(colour) > 245 else colour
    assert np.abs(np.asarray(shown).astype(int) - wanted).max() <= 1


def test_what_is_transparent_is_white_paper():
    page = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    ImageDraw.Draw(page).rectangle([16, 16, 47, 47], fill=(0, 128, 0, 255))
    pixels = np.asarray(finish.finish([page])[0])
    assert (pixels[:100] == 255).all() and np.abs(pixels[256, 256].astype(int) - (0, 128, 0)).max() <= 2


def test_other_modes_and_shapes():
    wide = drawing().resize((96, 48))
    root = ElementTree.fromstring(finish.trace(wide))
    assert (root.get("width"), root.get("height")) == ("512", "256")
    assert finish.finish([wide.convert("L")], 200)[0].size == (200, 100)
    assert finish.finish([]) == []


@pytest.mark.parametrize("bad", [Image.new("RGB", (7, 64)), np.zeros((64, 64, 3), np.uint8), "picture.png", None])
def test_what_is_no_picture_is_refused(bad):
    with pytest.raises(ValueError, match="^image: got .*; give a PIL picture of at least 8 x 8 pixels$"):
        finish.trace(bad)


def test_what_cannot_be_rendered_is_refused():
    for document in ("", "<svg", "<html/>", None):
        with pytest.raises(ValueError, match="^document: got .*; give an SVG document"):
            finish.render(document)
    for side in (0, -5, 12.5, True):
        with pytest.raises(ValueError, match="^side: got .*; give a whole number"):
            finish.render(finish.trace(drawing()), side)


def test_files_for_the_reader(tmp_path):
    traced = finish.save_pictures([drawing(), drawing()], tmp_path)
    assert [path.name for path in traced] == ["creative-1.svg", "creative-1.png", "creative-2.svg", "creative-2.png"]
    assert ElementTree.parse(traced[0]).getroot().tag == f"{SVG}svg" and Image.open(traced[1]).size == (512, 512)
    (plain,) = finish.save_pictures([drawing()], tmp_path, traced=False)
    assert plain.name == "creative-1.png" and (np.asarray(Image.open(plain)) == np.asarray(drawing())).all()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["creative-1.png", "creative-2.png", "creative-2.svg"]


def test_published_pictures_stay_as_they_are(miniature_folders, tmp_path):
    folder = tmp_path / "drawer"
    shutil.copytree(miniature_folders["2.2"], folder)
    pictures = [drawing()]
    assert load_generator(folder, device="cpu").finish(pictures) == pictures
    settings = json.loads((folder / "generator.json").read_text())
    (folder / "generator.json").write_text(json.dumps({**settings, "drawings": True}))
    (shown,) = load_generator(folder, device="cpu").finish(pictures, 200)
    assert shown.size == (200, 200)
