"""The Gaussian in PCA space equals independent implementations, is differentiable, and refuses bad input clearly."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2, multivariate_normal
from sklearn.decomposition import PCA

from creativelib.prior_sampling import PriorSamples
from creativelib.storage import read_tensors, write_tensors
from creativelib.typicality import TypicalityModel, checked_embeddings


def cloud(n: int = 400, d: int = 12, seed: int = 0) -> torch.Tensor:
    """Correlated Gaussian rows away from the origin."""
    source = torch.Generator().manual_seed(seed)
    mixing = torch.randn(d, d, generator=source) * torch.linspace(2, 0.1, d)
    return torch.randn(n, d, generator=source) @ mixing.T + 3


ALIKE = (cloud(1).double() / 3).repeat(101, 1)  # the mean of these is not exact: they vary, but by float noise alone


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


def test_what_a_file_holds_and_what_is_refused(model, tmp_path):
    tensors, facts = read_tensors(model.save(tmp_path / "typicality"))
    assert set(tensors) == {"mean", "components", "variances"}
    assert set(facts) == {"kind", "total_variance", "n", "provenance"} and facts["kind"] == "typicality model"
    with pytest.raises(ValueError, match="kind is 'negative cluster', not 'typicality model'"):
        TypicalityModel.load(write_tensors(tmp_path / "other", tensors, facts | {"kind": "negative cluster"}))


@settings(max_examples=40, deadline=None)
@given(
    cuts=st.lists(st.integers(0, 60), max_size=8),
    dims=st.integers(1, 6),
    offset=st.sampled_from([0.0, 1e3, -1e4]),
)
def test_a_stream_gives_the_model_of_all_its_rows(cuts, dims, offset):
    """Equal cuts, and cuts at the ends, make empty batches."""
    data = cloud(60, 8).double() + offset
    batches = torch.tensor_split(data, sorted(cuts))
    streamed, whole = TypicalityModel.fit_stream(iter(batches), dims, {"a": 1}), TypicalityModel.fit(data, dims)
    for part in ("mean", "components", "variances"):
        torch.testing.assert_close(getattr(streamed, part), getattr(whole, part), rtol=1e-7, atol=1e-7)
    assert streamed.explained == pytest.approx(whole.explained) and (streamed.n, streamed.provenance) == (60, {"a": 1})
    points = cloud(5, 8, seed=1).double() + offset
    torch.testing.assert_close(streamed.log_prob(points), whole.log_prob(points), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_a_stream_is_summed_in_float64(dtype):
    data = cloud().to(dtype)
    streamed, whole = TypicalityModel.fit_stream(data.split(7), dims=5), TypicalityModel.fit(data, dims=5)
    assert streamed.mean.dtype == streamed.components.dtype == streamed.variances.dtype == torch.float64
    torch.testing.assert_close(streamed.variances, whole.variances, rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    ("batches", "dims", "message"),
    [
        ([], 5, "batches: got no embeddings"),
        ([torch.zeros(0, 12)], 5, "batches: got no embeddings"),
        ([cloud(20), cloud(20, 11)], 5, "batches: got widths 12 and 11"),
        ([cloud(20), torch.full((3, 12), torch.nan)], 5, "batches: 3 of 3 rows hold NaN"),
        ([cloud(20), cloud(1) * torch.inf], 5, "batches: 1 of 1 rows hold NaN or infinite"),
        ([cloud(2), cloud(3)], 5, "batches: got 5 for dims=5"),
        ([cloud(20)[0]], 5, r"batches: got shape \(12,\)"),
        ([cloud(20)], 13, "dims: got 13"),
        ([cloud(20)], True, "dims: got True"),
        ([torch.ones(50, 12)] * 2, 1, "batches: they vary in 0 directions only"),
        (ALIKE.split([3, 47, 51]), 1, "batches: they vary in 0 directions only"),
        ((ALIKE * 1e6).split([3, 47, 51]), 2, "batches: they vary in 0 directions only"),
        ([cloud(4).repeat(10, 1)], 5, "batches: they vary in 3 directions only"),
    ],
)
def test_bad_batches_are_named(batches, dims, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        TypicalityModel.fit_stream(batches, dims=dims)


def test_rows_to_fit_are_copied_to_float64_without_gradient():
    rows = checked_embeddings(cloud(3).half().requires_grad_())
    assert rows.dtype == torch.float64 and not rows.requires_grad
    assert checked_embeddings(cloud(3).numpy()).shape == (3, 12) and checked_embeddings(torch.zeros(0, 4)).shape == (0, 4)
    with pytest.raises(ValueError, match=r"^disliked: got shape \(1, 3, 12\)"):
        checked_embeddings(cloud(3)[None], "disliked")


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
        (ALIKE, 1, "embeddings: they vary in 0 directions only"),
        (ALIKE * 1e6, 1, "embeddings: they vary in 0 directions only"),
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


def test_dims_of_numpy_and_the_fit_through_the_covariance():
    """The same as through the embeddings themselves, also where the mean is far from zero; and a mean that cancels nothing."""
    for offset in (0.0, 1e6):
        data = cloud() + offset
        fast, slow = TypicalityModel.fit(data, dims=np.int64(5)), PCA(5, svd_solver="full").fit(data.double().numpy())
        np.testing.assert_allclose(fast.variances, slow.explained_variance_, rtol=1e-8)
        np.testing.assert_allclose(np.abs(fast.components.numpy() @ slow.components_.T), np.eye(5), atol=1e-6)
        np.testing.assert_allclose(fast.mean, slow.mean_)
        assert type(fast.dims) is int
    with pytest.raises(ValueError, match=r"^dims: got 99; give a whole number from 1 to 12 \(the width of an embedding\)"):
        TypicalityModel.fit(cloud(), dims=99)


@pytest.mark.parametrize("given", [PriorSamples(torch.zeros(2, 2)), None, "many", [[1, "a"]], [[1.0], [1.0, 2.0]]])
def test_what_is_no_embeddings_is_told_in_one_line(given):
    with pytest.raises(ValueError, match=r"^embeddings: got \w+; give numbers \(n, d\), for example samples.embeddings$"):
        TypicalityModel.fit(given)
