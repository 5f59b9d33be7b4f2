"""Directionality: what a viewer disliked becomes a cluster that the search keeps away from (section 5.4, Eqs. 7 and 8).

The sign of Eq. 7, minimised as printed, *raises* the likelihood under the cluster: it attracts, while the text says that it
repels. ``form="repel"`` is what the text says, ``form="literal"`` what the equation says. Both log-Gaussians are quadratic in
the distance d, so the further away, the harder the push; ``form="bounded"`` lets go.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from sklearn.covariance import OAS

from creativelib.arguments import finite_number, whole_number
from creativelib.generator import Generator
from creativelib.seeds import derive_seed
from creativelib.storage import plain_json, read_tensors, require_equal, write_tensors
from creativelib.typicality import TypicalityModel, checked_embeddings

FORMS = ("repel", "literal", "bounded")
LEAST_SPREAD = 0.01  # in standard deviations of the baseline; images closer together than this count as one
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")


class Sampled(Protocol):
    """What a cluster needs of a run."""

    subject: str
    seed: int
    typicality: TypicalityModel

    @property
    def result_step(self) -> int: ...

    def sample(self, seeds: Sequence[int], step: int | None = None) -> torch.Tensor: ...


def _fingerprint(*parts: torch.Tensor) -> str:
    """SHA-256 of shapes and values, hexadecimal."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(repr(tuple(part.shape)).encode() + part.detach().cpu().double().contiguous().numpy().tobytes())
    return digest.hexdigest()


def space_fingerprint(typicality: TypicalityModel) -> str:
    """Which PCA space a model works in: SHA-256 of mean and components of Eq. 3, hexadecimal."""
    return _fingerprint(typicality.mean, typicality.components)


class NegativeCluster:
    """A Gaussian around disliked embeddings, in the PCA space of a typicality model. Usually made by ``fit`` or ``from_...``.

    Methods take embeddings (N, d) of a floating dtype on any device, compute in that dtype (float32 for half precision) and
    are differentiable; NaN in gives NaN out.

    Args:
        typicality: whose principal coordinates (Eq. 3) the Gaussian lives in.
        mean: (k,) and covariance: (k, k), in principal coordinates.
        n: how many different embeddings were fitted.
        name: what the cluster is called in tables and figures.
        alpha: strength of Eq. 7; 1 weighs a nat under the cluster as much as a nat under the baseline.
        form: ``"repel"``, ``"literal"`` or ``"bounded"``, see ``loss``.
        provenance: where the embeddings came from, as JSON values.

    Raises:
        ValueError: a shape that does not fit, a covariance that is not positive definite, unknown form, alpha not positive, a
            provenance that cannot be kept in a file.
    """

    kind = "negative cluster"

    def __init__(
        self,
        typicality: TypicalityModel,
        mean: torch.Tensor,
        covariance: torch.Tensor,
        *,
        n: int,
        name: str = "unappealing",
        alpha: float = 1.0,
        form: str = "repel",
        provenance: dict | None = None,
    ):
        k = typicality.dims
        if tuple(mean.shape) != (k,) or tuple(covariance.shape) != (k, k):
            shapes = f"{tuple(mean.shape)} and {tuple(covariance.shape)}"
            raise ValueError(f"mean, covariance: got shapes {shapes}; give ({k},) and ({k}, {k}), in principal coordinates")
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f"name: got {name!r}; give a word or words, for example 'busy background'")
        alpha = finite_number("alpha", alpha, above=0)
        if form not in FORMS:
            raise ValueError(f"form: got {form!r}; choose one of {', '.join(map(repr, FORMS))}")
        triangle, failed = torch.linalg.cholesky_ex(covariance.detach().cpu().double())
        if int(failed) or not bool(torch.isfinite(triangle).all()):
            raise ValueError("covariance: it is not positive definite; shrink it, as NegativeCluster.fit does")
        self.typicality, self.space = typicality, space_fingerprint(typicality)
        self.mean, self.covariance, self._triangle = mean, covariance, triangle
        self.n, self.name, self.alpha, self.form = int(n), name, alpha, form
        self.provenance = plain_json(provenance or {}, "provenance")

    # --- making -------------------------------------------------------------------------------------------------------

    @classmethod
    def fit(cls, typicality: TypicalityModel, embeddings: torch.Tensor, **options) -> "NegativeCluster":
        """Fit a cluster to few disliked embeddings.

        A dozen embeddings give a singular covariance in 50 dimensions, so it is shrunk by OAS (Chen et al. 2010), in
        coordinates in which the baseline has variance 1 in every direction: towards a ball of the baseline's shape. (Ledoit
        and Wolf's estimate would shrink that of two embeddings by nothing.) Equal rows count once. One embedding, or several
        that are closer together than ``LEAST_SPREAD``, say nothing about a spread: the cluster then is as wide as the baseline.

        Args:
            embeddings: (n, d), n of at least 1.
            options: ``name``, ``alpha``, ``form``, ``provenance`` of the class.

        Raises:
            ValueError: no embeddings, wrong shape, NaN or infinite values.
        """
        embeddings = checked_embeddings(embeddings)
        if not len(embeddings):
            raise ValueError("embeddings: got none; give at least one disliked embedding")
        scale = typicality.variances.double().cpu().sqrt()
        whitened = typicality.transform(embeddings.unique(dim=0)).double() / scale
        spread = OAS().fit(whitened.numpy()).covariance_ if len(whitened) > 1 else None
        if spread is None or spread.trace() < LEAST_SPREAD**2 * len(scale):
            covariance = torch.eye(len(scale), dtype=torch.float64)
        else:
            covariance = torch.from_numpy(spread)
        return cls(typicality, whitened.mean(0) * scale, covariance * scale.outer(scale), n=len(whitened), **options)

    @classmethod
    def from_run(
        cls, run: Sampled, step: int | None = None, n: int = 100, *, seed: int = 0, batch_size: int = 50, **options
    ) -> "NegativeCluster":
        """Fit a cluster to ``n`` embeddings sampled at a snapshot of a run, in the run's own PCA space (section 5.4).

        Args:
            step: of a snapshot; the run's result by default. seed: of the noise. options: as ``fit``.

        Raises:
            ValueError: no such snapshot, or ``n`` below 1.
        """
        n, batch_size = whole_number("n", n, 1), whole_number("batch_size", batch_size, 1)
        step = run.result_step if step is None else step
        seeds = [derive_seed(seed, "negative", index) for index in range(n)]
        embeddings = [run.sample(seeds[start : start + batch_size], step).cpu() for start in range(0, n, batch_size)]
        facts = {"source": "run", "subject": run.subject, "run_seed": run.seed, "step": step, "seed": seed}
        return cls.fit(run.typicality, torch.cat(embeddings), **{"provenance": facts, **options})

    @classmethod
    def from_folder(cls, generator: Generator, folder: str | Path, typicality: TypicalityModel, **options) -> "NegativeCluster":
        """Fit a cluster to the images of a folder, seen through the generator's image encoder.

        Args:
            folder: images by suffix (``SUFFIXES``), subfolders not read. Transparent ones are put on white.
            typicality: of the same generator. options: as ``fit``.

        Raises:
            FileNotFoundError: no such folder. ValueError: no images in it, or a file that is none.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise FileNotFoundError(f"folder: there is no folder {folder}")
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
        if not paths:
            raise ValueError(f"folder: {folder} holds no images; give one with {', '.join(SUFFIXES)} files")
        embeddings = generator.encode_images([_open_on_white(path) for path in paths])
        facts = {"source": "folder", "model": generator.name, "images": [path.name for path in paths]}
        return cls.fit(typicality, embeddings, **{"provenance": facts, **options})

    # --- measuring ----------------------------------------------------------------------------------------------------

    def _whiten(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Coordinates in which the cluster is a standard normal, (N, k)."""
        centred = self.typicality.transform(embeddings)
        centred = centred - self.mean.to(centred)
        return torch.linalg.solve_triangular(self._triangle.to(centred), centred.T, upper=False).T

    def distance(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Mahalanobis distance d to the centre, in standard deviations of the cluster, (N,).

        Members of the cluster are at about sqrt(k), 7 in 50 dimensions, and not at 0.
        """
        return torch.linalg.vector_norm(self._whiten(embeddings), dim=-1)

    def log_prob(self, embeddings: torch.Tensor) -> torch.Tensor:
        """log G_neg of Eq. 7: log density of the principal coordinates under the cluster, in nats, (N,)."""
        coordinates = self.typicality.transform(embeddings)
        gaussian = torch.distributions.MultivariateNormal(
            self.mean.to(coordinates), scale_tril=self._triangle.to(coordinates), validate_args=False
        )
        return gaussian.log_prob(coordinates)

    def loss(self, embeddings: torch.Tensor) -> torch.Tensor:
        """L_neg of Eq. 7 in nats, mean over embeddings (N, d), to be minimised; a scalar. By ``form``:

        - ``"repel"``: alpha log G_neg. Moves away; no lower bound, and a push that grows with d.
        - ``"literal"``: -alpha log G_neg, as printed. Moves towards the cluster.
        - ``"bounded"``: alpha k exp(-d^2 / 2k). Moves away; between 0 and alpha k, equal to ``"repel"`` but for a constant
          close to the centre, strongest at d = sqrt(k), where the members are, and nothing far away.

        At the very centre all three have no gradient.
        """
        if self.form == "bounded":
            k = len(self.mean)
            return self.alpha * k * torch.exp(self._whiten(embeddings).square().sum(-1) / (-2 * k)).mean()
        return (self.alpha if self.form == "repel" else -self.alpha) * self.log_prob(embeddings).mean()

    # --- keeping ------------------------------------------------------------------------------------------------------

    @property
    def settings(self) -> dict:
        """Everything that ``loss`` depends on, short, as JSON values: a run keeps it in its own settings."""
        facts = {key: getattr(self, key) for key in ("name", "alpha", "form", "n")}
        return {**facts, "fingerprint": _fingerprint(self.mean, self.covariance)[:16]}

    def require_space(self, typicality: TypicalityModel) -> None:
        """Refuse a typicality model of another PCA space than the cluster's.

        Raises:
            ValueError: the spaces differ.
        """
        _require_space(f"cluster {self.name!r}", self.space, typicality)

    def save(self, path: str | Path) -> Path:
        """Write ``path.safetensors`` and ``path.json``, with the fingerprint of the PCA space; returns the former."""
        facts = {key: getattr(self, key) for key in ("kind", "space", "n", "name", "alpha", "form", "provenance")}
        return write_tensors(path, {"mean": self.mean, "covariance": self.covariance}, facts)

    @classmethod
    def load(cls, path: str | Path, typicality: TypicalityModel) -> "NegativeCluster":
        """Read a saved cluster back into its PCA space.

        Raises:
            FileNotFoundError: no such file. ValueError: it holds something else, or a cluster of another PCA space.
        """
        tensors, facts = read_tensors(path)
        require_equal(facts, {"kind": cls.kind}, path)
        _require_space(f"path: the cluster in {path}", facts["space"], typicality)
        return cls(typicality, **tensors, **{key: value for key, value in facts.items() if key not in ("kind", "space")})


def directional_loss(embeddings: torch.Tensor, clusters: Sequence[NegativeCluster]) -> torch.Tensor:
    """The L_neg term of Eq. 8 for several clusters: the sum of their losses for embeddings (N, d), in nats, a scalar.

    0 without clusters.

    Raises:
        ValueError: the clusters are of different PCA spaces.
    """
    for cluster in clusters[1:]:
        cluster.require_space(clusters[0].typicality)
    return sum((cluster.loss(embeddings) for cluster in clusters), start=embeddings.new_zeros(()))


def _require_space(what: str, space: str, typicality: TypicalityModel) -> None:
    """Refuse a fingerprint that is not that of ``typicality``."""
    if space != space_fingerprint(typicality):
        raise ValueError(
            f"{what} belongs to another PCA space than this typicality model; use the model it was fitted in, or fit it again"
        )


def _open_on_white(path: Path) -> Image.Image:
    """An image file upright in RGB, with white where it is transparent."""
    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)
            if image.mode == "I;16":  # Pillow would clip 16-bit grey to white
                image = image.point(lambda level: level / 256).convert("L")
            image = image.convert("RGBA")
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"folder: {path} cannot be read as an image; take it out of the folder") from error
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
