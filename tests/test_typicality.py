"""The Gaussian in PCA space equals independent implementations, is differentiable, and refuses bad input clearly."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2, multivariate_normal

from creativelib.typicality import TypicalityModel


def cloud(n: int = 400, d: int = 12, seed: int = 0) -> torch.Tensor:
    """Correlated Gaussian rows away from the origin."""
    source = torch.Generator().manual_seed(seed)
    mixing = torch.randn(d, d, generator=source) * torch.linspace(2, 0.1, d)
    return torch.randn(n, d, generator=source) @ mixing.T + 3


@pytest.fixture(scope="module")
def model():
    return TypicalityModel.fit(cloud(), dims=5)


def test_log_prob_equals_scipy(model):
    points = cloud(20, seed=1).double()
    coordinates = model.transform(cloud().double()).numpy()
    expected = multivariate_normal(mean=np.zeros(5), cov=np.cov(coordinates.T)).logpdf(model.transform(points).numpy())
    np.testing.assert_allclose(model.log_prob(points).numpy(), expected, rtol=1e-9)
    np.testing.assert_allclose(model.surprise(points.float()).numpy(), -expected, rtol=1e-4)


def test_projection_is_that_of_an_eigendecomposition(model):
    data = cloud().double().numpy()
    values, vectors = np.linalg.eigh(np.cov(data.T))
    expected = np.abs((data - data.mean(0)) @ vectors[:, ::-1][:, :5])
    np.testing.assert_allclose(np.abs(model.transform(cloud().double()).numpy()), expected, atol=1e-6)
    np.testing.assert_allclose(model.variances.numpy(), values[::-1][:5], rtol=1e-9)
    assert model.explained == pytest.approx(values[::-1][:5].sum() / values.sum())


def test_gradients_by_finite_differences(model):
    points = cloud(2, seed=1).double().requires_grad_()
    for function in (model.log_prob, model.residual_energy, model.mahalanobis_squared):
        assert torch.autograd.gradcheck(function, (points,))


def test_mahalanobis_and_tail(model):
    points = cloud(30, seed=2).double()
    inverse = np.linalg.inv(np.cov(model.transform(cloud().double()).numpy().T))
    coordinates = model.transform(points).numpy()
    expected = np.einsum("ni,ij,nj->n", coordinates, inverse, coordinates)
    np.testing.assert_allclose(model.mahalanobis_squared(points).numpy(), expected, rtol=1e-9)
    np.testing.assert_allclose(model.tail_probability(points).numpy(), chi2.sf(expected, 5), rtol=1e-9)


def test_typical_is_a_shell(model):
    samples = model.sample(4000, torch.Generator().manual_seed(0))
    distances = model.mahalanobis_squared(samples)
    assert float(distances.mean()) == pytest.approx(5, abs=0.3) and float(distances.var()) == pytest.approx(10, abs=1.5)
    assert float(model.surprise(samples).mean()) == pytest.approx(model.expected_surprise(), abs=0.2)
    assert float(model.surprise(model.mean[None].float())) < float(model.surprise(samples).min())
    assert float(model.residual_energy(samples).max()) < 1e-5


def test_residual_energy_sees_what_the_density_does_not(model):
    basis = torch.linalg.svd(model.components, full_matrices=True).Vh
    inside, outside = (model.mean + 3 * direction for direction in (basis[0], basis[-1]))
    assert float(model.residual_energy(inside[None])) == pytest.approx(0, abs=1e-9)
    assert float(model.residual_energy(outside[None])) == pytest.approx(1)
    assert float(model.log_prob(outside[None])) == pytest.approx(float(model.log_prob(model.mean[None])))


def test_half_precision_is_computed_in_float32(model):
    assert model.log_prob(cloud(2).half()).dtype == torch.float32


def test_save_and_load(model, tmp_path):
    model.provenance = {"prompt": "a vehicle"}
    loaded = TypicalityModel.load(model.save(tmp_path / "typicality"))
    points = cloud(3, seed=1)
    assert torch.equal(loaded.log_prob(points), model.log_prob(points))
    assert (loaded.n, loaded.explained, loaded.provenance) == (model.n, model.explained, model.provenance)


@pytest.mark.parametrize(
    ("embeddings", "dims", "message"),
    [
        (cloud().index_fill(0, torch.tensor([3]), torch.nan), 5, "embeddings: 1 of 400 rows hold NaN"),
        (cloud().index_fill(0, torch.tensor([3]), torch.inf), 5, "embeddings: 1 of 400 rows hold NaN or infinite"),
        (cloud(5), 5, "embeddings: got 5 for dims=5"),
        (cloud()[0], 5, r"embeddings: got shape \(12,\)"),
        (cloud(), 13, "dims: got 13"),
        (cloud(), 0, "dims: got 0"),
        (cloud(), 2.0, "dims: got 2.0"),
        (torch.ones(100, 12), 5, "embeddings: they vary in 0 directions only"),
        (cloud(4).repeat(10, 1), 5, "embeddings: they vary in 3 directions only"),
    ],
)
def test_bad_input_is_named(embeddings, dims, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        TypicalityModel.fit(embeddings, dims=dims)


def test_wrong_width_is_named(model):
    for method in (model.log_prob, model.residual_energy, model.transform):
        with pytest.raises(ValueError, match=r"^embeddings: got shape \(3, 7\); give \(N, 12\)"):
            method(torch.zeros(3, 7))


@settings(max_examples=25, deadline=None)
@given(dims=st.integers(1, 6), extra=st.integers(1, 40), width=st.integers(6, 10), count=st.integers(0, 4))
def test_shapes_and_finiteness(dims, extra, width, count):
    model = TypicalityModel.fit(cloud(dims + extra, width), dims=dims)
    points = cloud(count, width, seed=1)
    for method in (model.log_prob, model.mahalanobis_squared, model.tail_probability, model.residual_energy):
        values = method(points)
        assert values.shape == (count,) and bool(torch.isfinite(values).all())
