"""Negative clusters: Gaussian and shrinkage equal independent ones, each form pushes the way it says, spaces are kept."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import multivariate_normal

from creativelib.directions import FORMS, NegativeCluster, directional_loss, space_fingerprint
from creativelib.generator import positive_prompt
from creativelib.prior_sampling import sample_prior
from creativelib.run import CreativeRun
from creativelib.spaces import make_space
from creativelib.typicality import TypicalityModel
from creativelib.typicality_alternatives import KDETypicality

K = 5


def cloud(n: int, d: int = 12, seed: int = 0) -> torch.Tensor:
    """Correlated Gaussian rows away from the origin, float64."""
    mixing = torch.randn(d, d, generator=torch.Generator().manual_seed(9)) * torch.linspace(2, 0.1, d)
    return (torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) @ mixing.T + 3).double()


def disliked(n: int = 12, seed: int = 1) -> torch.Tensor:
    """Rows close together, beside the middle of the baseline."""
    return 0.4 * cloud(n, seed=seed) + 0.6 * cloud(1, seed=50)


TYPICALITY = TypicalityModel.fit(cloud(400), dims=K, provenance={"prompt": "a vehicle"})
OTHER_SPACE = TypicalityModel.fit(cloud(400, seed=2), dims=K)


@pytest.fixture(params=FORMS)
def cluster(request):
    return NegativeCluster.fit(TYPICALITY, disliked(), form=request.param, alpha=0.7)


def at(cluster: NegativeCluster, distance: float, seed: int = 0) -> torch.Tensor:
    """One embedding at a distance from the centre, (1, d)."""
    ray = torch.randn(K, generator=torch.Generator().manual_seed(seed)).double()
    coordinates = cluster.mean + torch.linalg.cholesky(cluster.covariance) @ (distance * ray / ray.norm())
    return (TYPICALITY.mean + coordinates @ TYPICALITY.components)[None]


# --- the Gaussian -----------------------------------------------------------------------------------------------------


def test_log_prob_and_distance_equal_scipy():
    cluster, points = NegativeCluster.fit(TYPICALITY, disliked()), cloud(20, seed=3)
    coordinates, centred = TYPICALITY.transform(points).numpy(), (TYPICALITY.transform(points) - cluster.mean).numpy()
    expected = multivariate_normal(cluster.mean.numpy(), cluster.covariance.numpy()).logpdf(coordinates)
    np.testing.assert_allclose(cluster.log_prob(points).numpy(), expected, rtol=1e-9)
    squared = np.einsum("ni,ij,nj->n", centred, np.linalg.inv(cluster.covariance.numpy()), centred)
    np.testing.assert_allclose(cluster.distance(points).numpy(), np.sqrt(squared), rtol=1e-9)


@pytest.mark.parametrize("n", [2, 3, 12, 100])
def test_fit_equals_an_independent_oas(n):
    cluster, rows = NegativeCluster.fit(TYPICALITY, disliked(n)), disliked(n).numpy()
    coordinates = (rows - TYPICALITY.mean.numpy()) @ TYPICALITY.components.numpy().T
    scale = TYPICALITY.variances.sqrt().numpy()
    spread = np.cov((coordinates / scale).T, bias=True)
    trace, trace_of_square = np.trace(spread), np.sum(spread**2)
    shrinkage = min(1, (trace_of_square + trace**2) / ((n + 1) * (trace_of_square - trace**2 / K)))
    shrunk = (1 - shrinkage) * spread + shrinkage * trace / K * np.eye(K)
    assert 0 < shrinkage <= 1 and cluster.n == n
    np.testing.assert_allclose(cluster.mean.numpy(), coordinates.mean(0), atol=1e-9)
    np.testing.assert_allclose(cluster.covariance.numpy(), scale[:, None] * shrunk * scale, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "rows",
    [disliked(1), disliked(1).repeat(9, 1), disliked(1) + 1e-4 * cloud(4)],
    ids=["one", "one nine times", "four almost equal"],
)
def test_without_a_spread_the_cluster_is_as_wide_as_the_baseline(rows):
    cluster = NegativeCluster.fit(TYPICALITY, rows)
    torch.testing.assert_close(cluster.covariance, TYPICALITY.variances.diag())
    torch.testing.assert_close(cluster.mean, TYPICALITY.transform(rows).mean(0))
    assert cluster.n == len(rows.unique(dim=0)) and float(cluster.distance(rows).max()) < 1e-3


def test_equal_rows_count_once():
    one, often = (NegativeCluster.fit(TYPICALITY, disliked()[picks]) for picks in ([0, 1, 2], [2, 0, 1, 0, 2, 2]))
    torch.testing.assert_close(often.covariance, one.covariance)
    torch.testing.assert_close(often.mean, one.mean)
    assert often.n == one.n == 3


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 9),
    copies=st.integers(1, 3),
    k=st.integers(1, 7),
    directions=st.integers(0, 3),
    dtype=st.sampled_from([torch.float16, torch.float32, torch.float64]),
    form=st.sampled_from(FORMS),
)
def test_any_few_rows_give_a_proper_gaussian(n, copies, k, directions, dtype, form):
    """Rows that vary in ``directions`` directions only, fewer than k: a singular covariance before it is shrunk."""
    typicality = TypicalityModel.fit(cloud(60), dims=k)
    low_rank = torch.randn(n, directions, generator=torch.Generator().manual_seed(n)) @ torch.randn(
        directions, 12, generator=torch.Generator().manual_seed(directions)
    )
    rows = (low_rank + cloud(1)).to(dtype).repeat(copies, 1)
    cluster = NegativeCluster.fit(typicality, rows, form=form)
    assert cluster.n == len(rows.double().unique(dim=0)) and float(torch.linalg.eigvalsh(cluster.covariance)[0]) > 0
    points = cloud(3, seed=1).to(dtype).requires_grad_()
    values = cluster.log_prob(points)
    assert values.shape == (3,) and values.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    cluster.loss(points).backward()
    assert bool(torch.isfinite(values).all()) and bool(torch.isfinite(points.grad).all()) and points.grad.dtype == dtype
    reference = cluster.log_prob(points.detach().double())
    torch.testing.assert_close(values.detach().double(), reference, rtol=2e-3, atol=1e-2)


def test_no_rows_in_no_values_out_and_nan_stays_nan(cluster):
    for method in (cluster.log_prob, cluster.distance):
        assert method(cloud(0)).shape == (0,)
        assert method(torch.cat([cloud(1), cloud(1) * torch.nan])).isnan().tolist() == [False, True]
    assert bool(cluster.loss(cloud(1) * torch.nan).isnan())


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (cloud(0), "embeddings: got none"),
        (torch.cat([cloud(3), cloud(1) * torch.nan]), "embeddings: 1 of 4 rows hold NaN"),
        (torch.cat([cloud(3), cloud(2) * torch.inf]), "embeddings: 2 of 5 rows hold NaN or infinite"),
        (cloud(3)[0], r"embeddings: got shape \(12,\)"),
        (cloud(3, 7), r"embeddings: got shape \(3, 7\); give \(N, 12\)"),
    ],
)
def test_bad_rows_are_named(rows, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        NegativeCluster.fit(TYPICALITY, rows)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"alpha": bad}, "alpha: got .*; give a positive number") for bad in (0, -1.0, math.nan, math.inf, True, "1")]
    + [({"form": "attract"}, "form: got 'attract'; choose one of 'repel', 'literal', 'bounded'")]
    + [({"name": bad}, "name: got .*; give a word") for bad in ("", "  ", None)]
    + [({"provenance": {"images": [Path("a.png")]}}, r"provenance.images\[0\]: got .*, which cannot be kept in a file")],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        NegativeCluster.fit(TYPICALITY, disliked(), **options)


def test_bad_gaussians_are_named():
    with pytest.raises(ValueError, match=r"^mean, covariance: got shapes \(4,\) and \(5, 5\); give \(5,\) and \(5, 5\)"):
        NegativeCluster(TYPICALITY, torch.zeros(4), torch.eye(5), n=1)
    for covariance in (torch.zeros(K, K), -torch.eye(K), torch.eye(K) * torch.nan):
        with pytest.raises(ValueError, match="^covariance: it is not positive definite"):
            NegativeCluster(TYPICALITY, torch.zeros(K), covariance, n=1)


# --- the loss ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("form", "sign"), [("repel", 1), ("bounded", 1), ("literal", -1)])
@pytest.mark.parametrize("distance", [0.5, 2.0, 4.0])
def test_a_small_step_down_the_loss_moves_as_the_form_says(form, sign, distance):
    """Eq. 7 as printed attracts; the default is the one that repels."""
    cluster = NegativeCluster.fit(TYPICALITY, disliked(), form=form)
    point = at(cluster, distance).requires_grad_()
    cluster.loss(point).backward()
    moved = (point - 1e-4 * point.grad / point.grad.norm()).detach()
    assert sign * float(cluster.distance(moved) - distance) > 1e-6
    assert NegativeCluster.fit(TYPICALITY, disliked()).form == "repel"


def test_gradients_by_finite_differences(cluster):
    points = cloud(3, seed=3).requires_grad_()
    for function in (cluster.loss, cluster.log_prob, cluster.distance):
        assert torch.autograd.gradcheck(function, (points,))


def test_at_the_centre_there_is_no_push(cluster):
    point = (TYPICALITY.mean + cluster.mean @ TYPICALITY.components)[None].requires_grad_()
    cluster.loss(point).backward()
    assert float(point.grad.abs().max()) < 1e-9


def test_values_of_the_forms():
    forms = {form: NegativeCluster.fit(TYPICALITY, disliked(), form=form, alpha=2.5) for form in FORMS}
    points = cloud(4, seed=3)
    expected = 2.5 * float(forms["repel"].log_prob(points).mean())
    assert float(forms["repel"].loss(points)) == pytest.approx(expected)
    assert float(forms["literal"].loss(points)) == pytest.approx(-expected)
    shares = torch.exp(-forms["bounded"].distance(points).square() / (2 * K))
    assert float(forms["bounded"].loss(points)) == pytest.approx(2.5 * K * float(shares.mean()))


def test_bounded_is_repel_but_for_a_constant_near_the_centre():
    repel, bounded = (NegativeCluster.fit(TYPICALITY, disliked(), form=form, alpha=0.7) for form in ("repel", "bounded"))
    differences = [
        float(repel.loss(at(repel, d, seed)) - bounded.loss(at(repel, d, seed))) for seed, d in enumerate((0, 0.1, 0.2))
    ]
    assert differences == pytest.approx([differences[0]] * 3, abs=1e-3)
    assert float(bounded.loss(at(bounded, 0.0)) - bounded.loss(at(bounded, 0.2))) == pytest.approx(0.7 * 0.2**2 / 2, rel=0.01)


@settings(max_examples=30, deadline=None)
@given(distance=st.floats(0, 1e6), alpha=st.floats(0.01, 100), seed=st.integers(0, 5))
def test_bounded_lies_between_zero_and_alpha_k(distance, alpha, seed):
    cluster = NegativeCluster.fit(TYPICALITY, disliked(), form="bounded", alpha=alpha)
    point = at(cluster, distance, seed).requires_grad_()
    loss = cluster.loss(point)
    loss.backward()
    assert 0 <= loss.item() <= alpha * K * (1 + 1e-9) and bool(torch.isfinite(point.grad).all())


def test_bounded_pushes_most_where_the_members_are_and_lets_go():
    def push(form: str, distance: float) -> float:
        cluster, step = NegativeCluster.fit(TYPICALITY, disliked(), form=form), 1e-4
        return float(cluster.loss(at(cluster, distance - step)) - cluster.loss(at(cluster, distance + step))) / (2 * step)

    most = push("bounded", math.sqrt(K))
    assert most == pytest.approx(math.sqrt(K / math.e), rel=1e-5)
    assert all(push("bounded", math.sqrt(K) * factor) < most for factor in (0.5, 0.9, 1.1, 2))
    assert push("bounded", 10 * math.sqrt(K)) < 1e-9
    assert push("repel", 30.0) == pytest.approx(30, rel=1e-5)  # grows with the distance


def test_several_clusters_add_up():
    one = NegativeCluster.fit(TYPICALITY, disliked(), alpha=0.5)
    other = NegativeCluster.fit(TYPICALITY, disliked(seed=2), name="busy", form="bounded", alpha=2)
    points = cloud(4, seed=3).requires_grad_()
    total = directional_loss(points, [one, other])
    torch.testing.assert_close(total, one.loss(points) + other.loss(points))
    torch.testing.assert_close(directional_loss(points, (one,)), one.loss(points))
    assert torch.autograd.gradcheck(lambda rows: directional_loss(rows, [one, other]), (points,))
    doubled = NegativeCluster.fit(TYPICALITY, disliked(), alpha=1.0)
    torch.testing.assert_close(doubled.loss(points), 2 * one.loss(points))


def test_no_clusters_cost_nothing():
    points = cloud(4).float().requires_grad_()
    nothing = directional_loss(points, [])
    assert nothing.item() == 0 and nothing.shape == () and not nothing.requires_grad and nothing.dtype == torch.float32


# --- the space --------------------------------------------------------------------------------------------------------


def test_save_and_load(cluster, tmp_path):
    cluster.name, cluster.provenance = "busy background", {"source": "labels"}
    loaded, points = NegativeCluster.load(cluster.save(tmp_path / "cluster"), TYPICALITY), cloud(4, seed=3)
    for method in ("log_prob", "distance", "loss"):
        assert torch.equal(getattr(loaded, method)(points), getattr(cluster, method)(points))
    assert loaded.settings == cluster.settings and loaded.provenance == cluster.provenance
    assert loaded.settings | {"fingerprint": ""} == {
        "name": "busy background", "alpha": 0.7, "form": cluster.form, "n": 12, "fingerprint": "",
    }  # fmt: skip


def test_settings_tell_clusters_apart():
    one, other = (NegativeCluster.fit(TYPICALITY, disliked(seed=seed)).settings for seed in (1, 2))
    assert one["fingerprint"] != other["fingerprint"] and len(one["fingerprint"]) == 16
    assert one | {"fingerprint": ""} == other | {"fingerprint": ""}
    assert NegativeCluster.fit(TYPICALITY, disliked(seed=1)).settings == one


def test_another_space_is_refused(tmp_path):
    cluster = NegativeCluster.fit(TYPICALITY, disliked(), name="busy")
    with pytest.raises(ValueError, match="^cluster 'busy' belongs to another PCA space than this typicality model; use the"):
        cluster.require_space(OTHER_SPACE)
    with pytest.raises(ValueError, match="^path: the cluster in .*cluster.safetensors belongs to another PCA space"):
        NegativeCluster.load(cluster.save(tmp_path / "cluster"), OTHER_SPACE)
    with pytest.raises(ValueError, match="^cluster 'busy' belongs to another PCA space"):
        directional_loss(cloud(1), [NegativeCluster.fit(OTHER_SPACE, disliked()), cluster])
    with pytest.raises(ValueError, match="kind is 'typicality model', not 'negative cluster'"):
        NegativeCluster.load(TYPICALITY.save(tmp_path / "model"), TYPICALITY)
    with pytest.raises(FileNotFoundError):
        NegativeCluster.load(tmp_path / "absent", TYPICALITY)


def test_the_space_is_mean_and_components_alone(tmp_path):
    """A saved model, or another density in the same principal directions, is the same space; fewer directions are not."""
    cluster = NegativeCluster.fit(TYPICALITY, disliked())
    for same in (TypicalityModel.load(TYPICALITY.save(tmp_path / "model")), KDETypicality.fit(cloud(400), dims=K)):
        cluster.require_space(same)
    spaces = [space_fingerprint(model) for model in (TYPICALITY, OTHER_SPACE, TypicalityModel.fit(cloud(400), dims=K - 1))]
    assert len(set(spaces)) == 3 and cluster.space == spaces[0]


# --- from a run, from a folder ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def baseline_model(small_generator):
    baseline = sample_prior(small_generator, positive_prompt("vehicle"), n=60, progress=False)
    return TypicalityModel.fit(baseline.embeddings, dims=4, provenance=baseline.provenance)


def test_from_a_run(small_generator, baseline_model):
    space = make_space("lora", small_generator, "vehicle")
    run = CreativeRun(small_generator, "vehicle", space, baseline_model, seed=3, learning_rate=1e-2).run(3, progress=False)
    cluster = NegativeCluster.from_run(run, n=12, name="busy", alpha=2)
    assert (cluster.n, cluster.name, cluster.alpha) == (12, "busy", 2.0) and cluster.typicality is baseline_model
    facts = {"source": "run", "subject": "vehicle", "run_seed": 3, "step": 3, "seed": 0}
    assert cluster.provenance == facts and run.steps == 3
    batched = NegativeCluster.from_run(run, n=12, batch_size=5)
    torch.testing.assert_close(batched.covariance, cluster.covariance, rtol=1e-3, atol=1e-5)
    start, reseeded = NegativeCluster.from_run(run, step=0, n=12), NegativeCluster.from_run(run, n=12, seed=1)
    assert not torch.allclose(start.mean, cluster.mean) and not torch.allclose(reseeded.mean, cluster.mean)
    for options, message in [({"n": 0}, "n: got 0"), ({"batch_size": 0}, "batch_size: got 0"), ({"step": 2}, "step: got 2")]:
        with pytest.raises(ValueError, match=f"^{message}"):
            NegativeCluster.from_run(run, **options)


def picture(seed: int) -> Image.Image:
    """Smooth noise in RGB, 40 x 40."""
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((40, 40), Image.Resampling.BICUBIC)


def test_from_a_folder(small_generator, baseline_model, tmp_path):
    opaque, photo, behind = picture(0), picture(1), picture(2)
    mask = Image.linear_gradient("L").resize((40, 40))
    transparent = behind.copy()
    transparent.putalpha(mask)
    opaque.save(tmp_path / "a.png")
    photo.save(tmp_path / "b.JPG", quality=95)
    transparent.save(tmp_path / "c.png")
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / "more").mkdir()
    on_white = Image.composite(behind, Image.new("RGB", (40, 40), "white"), mask)
    with Image.open(tmp_path / "b.JPG") as file:
        images = [opaque, file.convert("RGB"), on_white]
    expected = NegativeCluster.fit(baseline_model, small_generator.encode_images(images))
    cluster = NegativeCluster.from_folder(small_generator, tmp_path, baseline_model, name="busy", form="bounded")
    torch.testing.assert_close(cluster.mean, expected.mean, rtol=1e-2, atol=1e-3)
    torch.testing.assert_close(cluster.covariance, expected.covariance, rtol=1e-2, atol=1e-3)
    assert (cluster.n, cluster.name, cluster.form) == (3, "busy", "bounded")
    assert cluster.provenance["source"] == "folder" and cluster.provenance["images"] == ["a.png", "b.JPG", "c.png"]


def seen_in(folder, small_generator, baseline_model, monkeypatch) -> list[np.ndarray]:
    """The pictures that the image encoder is given."""
    seen, encode = [], type(small_generator).encode_images

    def watched(self, images):
        seen.extend(np.asarray(image) for image in images)
        return encode(self, images)

    monkeypatch.setattr(type(small_generator), "encode_images", watched)
    NegativeCluster.from_folder(small_generator, folder, baseline_model)
    return seen


def test_every_kind_of_image_is_seen_as_it_is_shown(small_generator, baseline_model, tmp_path, monkeypatch):
    Image.new("RGBA", (8, 4), (255, 0, 0, 0)).save(tmp_path / "a.png")
    Image.new("P", (8, 4)).save(tmp_path / "b.png", transparency=0)
    Image.fromarray(np.full((4, 8), 0x4040, dtype=np.uint16)).save(tmp_path / "c.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by 90 degrees
    Image.new("RGB", (8, 4), "red").save(tmp_path / "d.jpg", exif=exif)
    clear, indexed, grey, turned = seen_in(tmp_path, small_generator, baseline_model, monkeypatch)
    assert (clear == 255).all() and (indexed == 255).all() and (grey == 0x40).all()
    assert clear.shape == (4, 8, 3) and turned.shape == (8, 4, 3)


def test_folders_that_cannot_be_used_are_named(small_generator, baseline_model, tmp_path):
    def fit(folder):
        return NegativeCluster.from_folder(small_generator, folder, baseline_model)

    with pytest.raises(FileNotFoundError, match="^folder: there is no folder .*absent"):
        fit(tmp_path / "absent")
    with pytest.raises(ValueError, match="^folder: .* holds no images; give one with .png"):
        fit(tmp_path)
    picture(0).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    for content in (b"", b"not an image", whole[: len(whole) // 2]):
        (tmp_path / "b.png").write_bytes(content)
        with pytest.raises(ValueError, match="^folder: .*b.png cannot be read as an image; take it out"):
            fit(tmp_path)
    (tmp_path / "b.png").unlink()
    assert fit(tmp_path).n == 1
