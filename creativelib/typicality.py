"""How typical an embedding is: PCA and a Gaussian over the baseline distribution (section 5.1, Eqs. 3 and 4; S2.1, S2.2)."""

import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from sklearn.decomposition import PCA

from creativelib.arguments import whole_number
from creativelib.storage import read_tensors, require_equal, write_tensors


def checked_embeddings(embeddings: torch.Tensor, name: str = "embeddings") -> torch.Tensor:
    """Rows to fit something to: (n, d) in float64 on the CPU, without gradient. ``name`` is what an error calls them.

    Raises:
        ValueError: no numbers, wrong shape, NaN or infinite values.
    """
    try:
        embeddings = torch.as_tensor(embeddings).detach().cpu().double()
    except (TypeError, ValueError, RuntimeError) as error:  # torch has one for each way to be wrong
        kind = type(embeddings).__name__
        raise ValueError(f"{name}: got {kind}; give numbers (n, d), for example samples.embeddings") from error
    if embeddings.ndim != 2:
        raise ValueError(f"{name}: got shape {tuple(embeddings.shape)}; give (n, d), one embedding a row")
    bad = int((~torch.isfinite(embeddings)).any(1).sum())
    if bad:
        raise ValueError(f"{name}: {bad} of {len(embeddings)} rows hold NaN or infinite values; leave those rows out")
    return embeddings


def _checked_dims(name: str, n: int, d: int, dims: int) -> int:
    """``dims`` as an ``int``, unless that many principal directions are more than (n, d) embeddings can give."""
    dims = whole_number("dims", dims, 1, d, "the width of an embedding")
    if n <= dims:
        raise ValueError(f"{name}: got {n} for dims={dims}; sample more than {dims}, or ask for fewer dims")
    return dims


def _require_spread(name: str, variances: np.ndarray, mean: np.ndarray) -> None:
    """Refuse falling variances (dims,) of which some are zero but for float noise: that of a mean (d,) grows with it."""
    noise = 1e-12 * float(abs(mean).max())
    varying = int((variances > max(1e-10 * variances[0], noise**2)).sum())
    if varying < len(variances):
        raise ValueError(
            f"{name}: they vary in {varying} directions only, dims={len(variances)} needs as many; are rows repeated? "
            f"Sample other ones, or ask for dims <= {varying}"
        )


class TypicalityModel:
    """A Gaussian in the ``dims`` leading principal directions of the baseline embeddings.

    In principal coordinates the estimated covariance is diagonal by construction, so Sigma of Eq. 4 is the vector
    ``variances``. All methods take embeddings (N, d) of a floating dtype on any device and compute in that dtype
    (float32 for half precision); all but ``tail_probability`` and ``sample`` are differentiable.

    Attributes:
        mean: mu_0 of Eq. 3, (d,). components: W of Eq. 3, (dims, d), orthonormal rows. variances: (dims,), falling.
        total_variance: of the baseline over all d directions. n: how many embeddings were fitted.
        provenance: where they came from.
    """

    kind = "typicality model"  # what its file says it is

    def __init__(self, mean, components, variances, total_variance: float, n: int, provenance: dict | None = None):
        self.mean, self.components, self.variances = mean, components, variances
        self.total_variance, self.n, self.provenance = float(total_variance), int(n), dict(provenance or {})

    @classmethod
    def fit(cls, embeddings: torch.Tensor, dims: int = 50, provenance: dict | None = None) -> "TypicalityModel":
        """Fit Eqs. 3 and 4.

        Args:
            embeddings: (n, d), more than ``dims`` of them; 5,000 in the paper.
            dims: k, 50 in the paper.

        Raises:
            ValueError: wrong shape, NaN or infinite values, too few or too equal embeddings, ``dims`` out of range.
        """
        embeddings = checked_embeddings(embeddings)
        dims, mean = _checked_dims("embeddings", *embeddings.shape, dims), embeddings.mean(0)
        with np.errstate(invalid="ignore"):  # rows that are all equal: reported below
            # Through the covariance, which is several times faster than through the embeddings and as exact, if they are
            # centred first: scikit-learn subtracts the mean from the covariance, where it may cancel all digits.
            pca = PCA(n_components=dims, svd_solver="covariance_eigh").fit((embeddings - mean).numpy())
        _require_spread("embeddings", pca.explained_variance_, mean.numpy())
        total = float(embeddings.var(0).sum())
        parts = (mean.numpy(), pca.components_, pca.explained_variance_)
        return cls(*(torch.from_numpy(np.ascontiguousarray(part)) for part in parts), total, len(embeddings), provenance)

    @classmethod
    def fit_stream(cls, batches: Iterable[torch.Tensor], dims: int = 50, provenance: dict | None = None) -> "TypicalityModel":
        """Fit Eqs. 3 and 4 to embeddings that come in batches, in the memory of one batch and two (d, d) matrices.

        The same model as ``fit`` on all of them but for float noise: mean and covariance are updated exactly.

        Args:
            batches: each (m, d) with any m, also 0; together more than ``dims`` rows.

        Raises:
            ValueError: as ``fit``, and batches of different widths.
        """
        n, mean, scatter = 0, 0.0, 0.0
        for batch in batches:
            batch = checked_embeddings(batch, "batches")
            if n and batch.shape[1] != len(mean):
                raise ValueError(f"batches: got widths {len(mean)} and {batch.shape[1]}; give embeddings of one generator")
            if len(batch):
                shift, centred = batch.mean(0) - mean, batch - batch.mean(0)
                scatter = scatter + centred.T @ centred + shift.outer(shift) * (n * len(batch) / (n + len(batch)))
                mean = mean + shift * (len(batch) / (n + len(batch)))
                n += len(batch)
        if not n:
            raise ValueError("batches: got no embeddings; give at least one batch with rows")
        dims = _checked_dims("batches", n, len(mean), dims)
        values, vectors = torch.linalg.eigh(scatter / (n - 1))  # rising
        components = vectors.flip(1)[:, :dims].T
        largest = components.gather(1, components.abs().argmax(1, keepdim=True))
        _require_spread("batches", values.flip(0)[:dims].numpy(), mean.numpy())
        parts = (mean, (components * largest.sign()).contiguous(), values.flip(0)[:dims])  # signs as scikit-learn's
        return cls(*parts, float(values.sum()), n, provenance)

    @property
    def dims(self) -> int:
        """k, the number of principal directions."""
        return len(self.variances)

    @property
    def explained(self) -> float:
        """Share of the variance of the baseline that lies in the subspace, 0 to 1."""
        return float(self.variances.sum()) / self.total_variance

    def _like(self, embeddings: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Checked embeddings, and mean, components, variances in their dtype and on their device."""
        if embeddings.ndim != 2 or embeddings.shape[1] != len(self.mean):
            raise ValueError(
                f"embeddings: got shape {tuple(embeddings.shape)}; give (N, {len(self.mean)}), the width this was fitted on"
            )
        dtype = embeddings.dtype if embeddings.dtype in (torch.float32, torch.float64) else torch.float32
        parts = (self.mean, self.components, self.variances)
        return embeddings.to(dtype), *(part.to(embeddings.device, dtype) for part in parts)

    def transform(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Eq. 3: principal coordinates W (e - mu_0), (N, dims)."""
        embeddings, mean, components, _ = self._like(embeddings)
        return (embeddings - mean) @ components.T

    def mahalanobis_squared(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Squared Mahalanobis distance to the mean, (N,). For typical samples about ``dims``: a shell, not the mean."""
        return (self.transform(embeddings).square() / self._like(embeddings)[3]).sum(-1)

    def log_prob(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Eq. 4: log density of the principal coordinates, in nats, (N,)."""
        scale = self._like(embeddings)[3].sqrt()
        gaussian = torch.distributions.Normal(torch.zeros_like(scale), scale, validate_args=False)
        return gaussian.log_prob(self.transform(embeddings)).sum(-1)

    def surprise(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Arousal potential of section 3, -log p(e), in nats, (N,)."""
        return -self.log_prob(embeddings)

    def expected_surprise(self) -> float:
        """Mean surprise of a sample of the Gaussian itself (its entropy), in nats."""
        return 0.5 * float((self.variances.log() + math.log(2 * math.pi) + 1).sum())

    def tail_probability(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Share of the Gaussian that lies further out, by the chi-square law with ``dims`` degrees of freedom, (N,), float64 on
        the CPU: not every device knows float64.
        """
        half = self.mahalanobis_squared(embeddings.detach()).cpu().double() / 2
        return torch.special.gammaincc(torch.full_like(half, self.dims / 2), half)

    def residual_energy(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Share of |e - mu_0|^2 outside the subspace, 0 to 1, (N,): where the creative loss does not look."""
        embeddings, mean, components, _ = self._like(embeddings)
        centred = embeddings - mean
        outside = centred - (centred @ components.T) @ components
        return outside.square().sum(-1) / centred.square().sum(-1).clamp(min=torch.finfo(centred.dtype).tiny)

    def sample(self, n: int, source: torch.Generator) -> torch.Tensor:
        """Embeddings drawn from the Gaussian, (n, d), float32; nothing of them lies outside the subspace."""
        n = whole_number("n", n, 1)
        coordinates = torch.randn(n, self.dims, generator=source, dtype=torch.float64) * self.variances.sqrt()
        return (self.mean + coordinates @ self.components).float()

    def _tensors(self) -> dict[str, torch.Tensor]:
        """What the model consists of, by argument of its constructor."""
        return {"mean": self.mean, "components": self.components, "variances": self.variances}

    def _facts(self) -> dict:
        """The other arguments of its constructor, as JSON values."""
        return {"total_variance": self.total_variance, "n": self.n, "provenance": self.provenance}

    def save(self, path: str | Path) -> Path:
        """Write ``path.safetensors`` and ``path.json``; returns the former."""
        return write_tensors(path, self._tensors(), {"kind": self.kind, **self._facts()})

    @classmethod
    def load(cls, path: str | Path) -> "TypicalityModel":
        """Read a saved model.

        Raises:
            FileNotFoundError: no such file. ValueError: the file holds something else.
        """
        tensors, facts = read_tensors(path)
        require_equal(facts, {"kind": cls.kind}, path)
        return cls(**tensors, **{key: value for key, value in facts.items() if key != "kind"})
