"""Kernel density estimate and mixture equal scipy's and scikit-learn's, are differentiable, and stand in for the Gaussian."""

import math
from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp
from scipy.stats import gaussian_kde, multivariate_normal
from sklearn.mixture import GaussianMixture

from creativelib.losses import creative_loss
from creativelib.typicality import TypicalityModel
from creativelib.typicality_alternatives import KDETypicality, MixtureTypicality

DIMS = 3


def cloud(n: int = 300, d: int = 8, seed: int = 0) -> torch.Tensor:
    """Rows of two correlated groups away from the origin, with spreads far from 1; float64."""
    source = torch.Generator().manual_seed(seed)
    mixing = torch.randn(d, d, generator=torch.Generator().manual_seed(1)) * torch.linspace(3, 0.1, d)
    rows = torch.randn(n, d, generator=source) + 2 * (torch.arange(n) % 3 == 0)[:, None]
    return (rows @ mixing.T + 5).double()


@pytest.fixture(scope="module")
def models():
    return {
        "gaussian": TypicalityModel.fit(cloud(), DIMS),
        "kde": KDETypicality.fit(cloud(), DIMS),
        "mixture": MixtureTypicality.fit(cloud(), DIMS, parts=2, seed=4),
    }


@pytest.fixture(params=["kde", "mixture"])
def model(request, models):
    return models[request.param]


@pytest.mark.parametrize("bandwidth", [None, 0.2, 1.5])
def test_kde_equals_scipy(bandwidth):
    model, points = KDETypicality.fit(cloud(), DIMS, bandwidth=bandwidth), cloud(20, seed=1)
    assert bandwidth is not None or model.bandwidth == pytest.approx(300 ** (-1 / (DIMS + 4)))
    expected = gaussian_kde(model.transform(cloud()).numpy().T, bw_method=bandwidth)  # None: Scott's rule
    np.testing.assert_allclose(model.log_prob(points).numpy(), expected.logpdf(model.transform(points).numpy().T), rtol=1e-8)
    np.testing.assert_allclose(model.surprise(points.float()).numpy(), -model.log_prob(points).numpy(), rtol=1e-3, atol=1e-3)


def test_mixture_equals_scikit_learn_and_scipy(models):
    model, points = models["mixture"], cloud(20, seed=1)
    scale = model.variances.sqrt().numpy()
    found = GaussianMixture(2, random_state=4, max_iter=500).fit(model.transform(cloud()).numpy() / scale)
    coordinates = model.transform(points).numpy()
    expected = found.score_samples(coordinates / scale) - np.log(scale).sum()  # a density of coordinates that are not scaled
    np.testing.assert_allclose(model.log_prob(points).numpy(), expected, rtol=1e-8)
    unscaled = [
        np.log(weight) + multivariate_normal(scale * mean, np.outer(scale, scale) * covariance).logpdf(coordinates)
        for weight, mean, covariance in zip(found.weights_, found.means_, found.covariances_, strict=True)
    ]
    np.testing.assert_allclose(expected, logsumexp(unscaled, axis=0), rtol=1e-8)
    assert model.parts == 2 and float(model.weights.sum()) == pytest.approx(1)


def test_a_mixture_of_one_is_the_gaussian(models):
    one, gaussian, points = MixtureTypicality.fit(cloud(), DIMS, parts=1), models["gaussian"], cloud(20, seed=1)
    torch.testing.assert_close(one.log_prob(points), gaussian.log_prob(points), rtol=0, atol=0.1)  # n against n - 1
    assert one.expected_surprise() == pytest.approx(gaussian.expected_surprise(), abs=0.1)


def test_gradients_by_finite_differences(model):
    points = cloud(3, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(model.log_prob, (points,))
    creative_loss(model.log_prob(points)).backward()
    assert (model.surprise(points - 0.1 * points.grad) > model.surprise(points)).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_far_away_the_gradient_still_points_outwards(model, dtype):
    direction = (model.components[0] * model.variances[0].sqrt()).float()
    points = (model.mean.float() + 30 * direction)[None].to(dtype).requires_grad_()
    log_prob = model.log_prob(points)
    log_prob.sum().backward()
    assert log_prob.dtype == torch.float32 and float(log_prob.detach()) < -50 and float(points.grad[0].float() @ direction) < -1


def test_sample_moments(model):
    samples = model.sample(20_000, torch.Generator().manual_seed(3))
    assert samples.dtype == torch.float32 and samples.shape == (20_000, 8)
    assert torch.equal(samples, model.sample(20_000, torch.Generator().manual_seed(3)))
    whitened = model.whiten(samples.double())
    spread = 1 + getattr(model, "bandwidth", 0) ** 2  # a kernel adds its own; a mixture keeps the moments of its data
    torch.testing.assert_close(whitened.mean(0), torch.zeros(DIMS).double(), rtol=0, atol=0.04)
    torch.testing.assert_close(whitened.T.cov(), spread * torch.eye(DIMS).double(), rtol=0, atol=0.05)
    assert float(model.residual_energy(samples).max()) < 1e-5


def test_the_surprise_and_the_tail_are_those_of_the_density_itself(model):
    samples = model.sample(4000, torch.Generator().manual_seed(3)).double()
    assert float(model.surprise(samples).mean()) == pytest.approx(model.expected_surprise(), abs=0.1)
    tail = model.tail_probability(samples)  # of own samples: uniform
    levels = torch.tensor([0.05, 0.5, 0.95]).double()
    torch.testing.assert_close(tail.quantile(levels), levels, rtol=0, atol=0.03)
    order = model.surprise(samples).argsort()
    assert (tail[order].diff() <= 0).all() and not tail.requires_grad
    far = (model.mean + 40 * model.variances[0].sqrt() * model.components[0])[None]
    assert float(model.tail_probability(far)) == 0 and float(tail.max()) > 0.99


def test_save_and_load(model, tmp_path):
    model.provenance["prompt"] = "a vehicle"
    loaded, points = type(model).load(model.save(tmp_path / "model")), cloud(3, seed=1)
    assert torch.equal(loaded.log_prob(points), model.log_prob(points))
    assert torch.equal(*(one.sample(5, torch.Generator().manual_seed(0)) for one in (loaded, model)))
    assert (loaded.n, loaded.explained, loaded.provenance) == (model.n, model.explained, model.provenance)
    assert loaded.provenance["density"] == model.kind.split()[0]


@pytest.mark.parametrize(("written", "read"), list(permutations(["gaussian", "kde", "mixture"], 2)))
def test_a_file_of_another_kind_is_refused(models, tmp_path, written, read):
    path = models[written].save(tmp_path / "model")
    with pytest.raises(ValueError, match=f"kind is '{models[written].kind}', not '{models[read].kind}'"):
        type(models[read]).load(path)


def test_nan_in_gives_nan_out(model):
    points = cloud(3, seed=1)
    points[1, 2] = torch.nan
    for method in (model.log_prob, model.surprise, model.tail_probability):
        assert method(points).isnan().tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"bandwidth": bad}, f"bandwidth: got {bad}") for bad in (0, -1.0, math.nan, math.inf)]
    + [({"parts": bad}, f"parts: got {bad}; give a whole") for bad in (0, 1.5, True)]
    + [({"parts": 100}, "parts: got 100 for 300 embeddings and dims=3; give at most 99")],
)
def test_bad_options_are_named(options, message):
    family = KDETypicality if "bandwidth" in options else MixtureTypicality
    with pytest.raises(ValueError, match=f"^{message}"):
        family.fit(cloud(), DIMS, **options)


@pytest.mark.parametrize("family", [KDETypicality, MixtureTypicality])
def test_bad_input_is_named(family):
    for embeddings, message in [
        (cloud().index_fill(0, torch.tensor([3]), torch.nan), "embeddings: 1 of 300 rows hold NaN"),
        (cloud(3), "embeddings: got 3 for dims=3"),
        (cloud()[0], r"embeddings: got shape \(8,\)"),
        (torch.ones(100, 8), "embeddings: they vary in 0 directions only"),
    ]:
        with pytest.raises(ValueError, match=f"^{message}"):
            family.fit(embeddings, DIMS)
    with pytest.raises(NotImplementedError, match=f"^fit_stream: {family.__name__} needs all embeddings"):
        family.fit_stream([cloud()], DIMS)


def test_wrong_widths_and_counts_are_named(model):
    for method in (model.log_prob, model.tail_probability):
        with pytest.raises(ValueError, match=r"^embeddings: got shape \(3, 7\); give \(N, 8\)"):
            method(torch.zeros(3, 7))
    with pytest.raises(ValueError, match="^n: got 0"):
        model.sample(0, torch.Generator())


@settings(max_examples=15, deadline=None)
@given(dims=st.integers(1, 5), extra=st.integers(1, 30), count=st.integers(0, 4), mixed=st.booleans())
def test_shapes_and_finiteness(dims, extra, count, mixed):
    data = cloud(dims + extra)
    model = MixtureTypicality.fit(data, dims, parts=1) if mixed else KDETypicality.fit(data, dims)
    values = model.log_prob(cloud(count, seed=1))
    assert values.shape == (count,) and bool(torch.isfinite(values).all())


def test_own_samples_are_drawn_once(model, monkeypatch):
    drawn, draw = [], type(model)._draw
    monkeypatch.setattr(type(model), "_draw", lambda self, n, source: (drawn.append(n), draw(self, n, source))[1])
    fresh = type(model).fit(cloud(), dims=3)
    points = cloud(5, seed=1)
    assert torch.equal(fresh.tail_probability(points), fresh.tail_probability(points))
    assert fresh.expected_surprise() == fresh.expected_surprise() and len(drawn) == 1
