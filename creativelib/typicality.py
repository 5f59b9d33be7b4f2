"""How typical an embedding is: PCA and a Gaussian over the baseline distribution (section 5.1, Eqs. 3 and 4; S2.1, S2.2)."""

import math
from pathlib import Path

import numpy as np
import torch
from sklearn.decomposition import PCA

from creativelib.storage import read_tensors, require_equal, write_tensors


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
        embeddings = torch.as_tensor(embeddings).detach().cpu().double()
        if embeddings.ndim != 2:
            raise ValueError(f"embeddings: got shape {tuple(embeddings.shape)}; give (n, d), one embedding a row")
        n, d = embeddings.shape
        if isinstance(dims, bool) or not isinstance(dims, int) or not 1 <= dims <= d:
            raise ValueError(f"dims: got {dims!r}; give a whole number from 1 to {d}, the width of an embedding")
        if n <= dims:
            raise ValueError(f"embeddings: got {n} for dims={dims}; sample more than {dims}, or ask for fewer dims")
        bad = int((~torch.isfinite(embeddings)).any(1).sum())
        if bad:
            raise ValueError(f"embeddings: {bad} of {n} rows hold NaN or infinite values; leave those rows out")
        with np.errstate(invalid="ignore"):  # rows that are all equal: reported below
            pca = PCA(n_components=dims, svd_solver="full").fit(embeddings.numpy())
        varying = int((pca.explained_variance_ > 1e-10 * max(pca.explained_variance_[0], 1e-20)).sum())
        if varying < dims:
            raise ValueError(
                f"embeddings: they vary in {varying} directions only, dims={dims} needs as many; are rows repeated? "
                f"Sample other ones, or ask for dims <= {varying}"
            )
        total = float(embeddings.var(0).sum())
        parts = (pca.mean_, pca.components_, pca.explained_variance_)
        return cls(*(torch.from_numpy(np.ascontiguousarray(part)) for part in parts), total, n, provenance)

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
        """Share of the Gaussian that lies further out, by the chi-square law with ``dims`` degrees of freedom, (N,)."""
        half = self.mahalanobis_squared(embeddings.detach()).double() / 2
        return torch.special.gammaincc(torch.full_like(half, self.dims / 2), half)

    def residual_energy(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Share of |e - mu_0|^2 outside the subspace, 0 to 1, (N,): where the creative loss does not look."""
        embeddings, mean, components, _ = self._like(embeddings)
        centred = embeddings - mean
        outside = centred - (centred @ components.T) @ components
        return outside.square().sum(-1) / centred.square().sum(-1).clamp(min=torch.finfo(centred.dtype).tiny)

    def sample(self, n: int, source: torch.Generator) -> torch.Tensor:
        """Embeddings drawn from the Gaussian, (n, d), float32; nothing of them lies outside the subspace."""
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise ValueError(f"n: got {n!r}; give a whole number of at least 1")
        coordinates = torch.randn(n, self.dims, generator=source, dtype=torch.float64) * self.variances.sqrt()
        return (self.mean + coordinates @ self.components).float()

    def save(self, path: str | Path) -> Path:
        """Write ``path.safetensors`` and ``path.json``; returns the former."""
        tensors = {"mean": self.mean, "components": self.components, "variances": self.variances}
        facts = {"kind": "typicality model", "total_variance": self.total_variance, "n": self.n, "provenance": self.provenance}
        return write_tensors(path, tensors, facts)

    @classmethod
    def load(cls, path: str | Path) -> "TypicalityModel":
        """Read a saved model.

        Raises:
            FileNotFoundError: no such file. ValueError: the file holds something else.
        """
        tensors, facts = read_tensors(path)
        require_equal(facts, {"kind": "typicality model"}, path)
        return cls(**tensors, total_variance=facts["total_variance"], n=facts["n"], provenance=facts["provenance"])
