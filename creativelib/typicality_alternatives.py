"""Other densities in the same PCA space: kernel density estimate (S2.2) and Gaussian mixture, to compare the Gaussian with.

Both are used wherever a ``TypicalityModel`` is. What they inherit, ``mahalanobis_squared`` too, is that of PCA and Gaussian.
"""

import math
from functools import cached_property
from pathlib import Path

import torch
from sklearn.mixture import GaussianMixture

from creativelib.arguments import finite_number, whole_number
from creativelib.storage import read_facts
from creativelib.typicality import TypicalityModel, checked_embeddings

DRAWS = 4000  # own samples behind the quantities that have no closed form


class _Alternative(TypicalityModel):
    """A density of the whitened principal coordinates W (e - mu_0) / sqrt(variances), in which every spread is 1.

    A subclass gives ``_log_density`` and ``_draw`` there; fitting there makes it independent of the scale of embeddings.
    """

    @classmethod
    def fit_stream(cls, batches, dims: int = 50, provenance: dict | None = None):
        """Not offered: this density needs all embeddings at once.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(f"fit_stream: {cls.__name__} needs all embeddings at once; use fit, or TypicalityModel")

    def _log_density(self, whitened: torch.Tensor) -> torch.Tensor:
        """Log density of whitened coordinates (N, dims), (N,)."""
        raise NotImplementedError

    def _draw(self, n: int, source: torch.Generator) -> torch.Tensor:
        """Whitened coordinates (n, dims), float64."""
        raise NotImplementedError

    def whiten(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Principal coordinates in units of their standard deviations, (N, dims)."""
        return self.transform(embeddings) / self._like(embeddings)[3].sqrt()

    def log_prob(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Log density of the principal coordinates, in nats, (N,): comparable with that of the Gaussian."""
        return self._log_density(self.whiten(embeddings)) - 0.5 * self._like(embeddings)[3].log().sum()

    def sample(self, n: int, source: torch.Generator) -> torch.Tensor:
        """Embeddings drawn from the density, (n, d), float32; nothing of them lies outside the subspace."""
        n = whole_number("n", n, 1)
        return (self.mean + (self._draw(n, source) * self.variances.sqrt()) @ self.components).float()

    @cached_property
    def _own_surprise(self) -> torch.Tensor:
        """Surprise in nats of ``DRAWS`` samples of the density itself, rising, always the same."""
        return self.surprise(self.sample(DRAWS, torch.Generator().manual_seed(0)).double()).sort().values

    def expected_surprise(self) -> float:
        """Mean surprise of a sample of the density itself (its entropy), in nats, estimated from ``DRAWS`` samples."""
        return float(self._own_surprise.mean())

    def tail_probability(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Share of the density that is less likely, estimated from ``DRAWS`` samples, in steps of 1 / ``DRAWS``, (N,), float64
        on the CPU: not every device knows float64.
        """
        surprise = self.surprise(embeddings.detach()).cpu().double()
        share = 1 - torch.searchsorted(self._own_surprise, surprise).double() / DRAWS
        return torch.where(surprise.isnan(), surprise, share)  # the search takes NaN for the largest number


class KDETypicality(_Alternative):
    """Gaussian kernel density estimate: the mean of a Gaussian around every baseline embedding.

    A kernel has the covariance ``bandwidth``^2 diag(variances), as in ``scipy.stats.gaussian_kde``. The paper tried it and
    found that it needs a much smaller k (S2.2).

    Attributes:
        points: the baseline in whitened principal coordinates, (n, dims).
        bandwidth: standard deviation of a kernel in those of the baseline.
    """

    kind = "kde typicality model"

    def __init__(self, *gaussian, points: torch.Tensor, bandwidth: float, **named):
        super().__init__(*gaussian, **named)
        self.points, self.bandwidth = points, float(bandwidth)

    @classmethod
    def fit(
        cls,
        embeddings: torch.Tensor,
        dims: int = 50,
        provenance: dict | None = None,
        *,
        bandwidth: float | None = None,
    ) -> "KDETypicality":
        """Fit PCA (Eq. 3) and put a kernel on every embedding.

        Args:
            embeddings: (n, d), more than ``dims`` of them.
            bandwidth: in standard deviations of the baseline; by default Scott's rule, n^(-1 / (dims + 4)).

        Raises:
            ValueError: as ``TypicalityModel.fit``, and a bandwidth that is no positive number.
        """
        if bandwidth is not None:
            bandwidth = finite_number("bandwidth", bandwidth, above=0, hint="None for Scott's rule")
        embeddings = checked_embeddings(embeddings)
        base = TypicalityModel.fit(embeddings, dims, provenance)
        bandwidth = float(base.n ** (-1 / (base.dims + 4)) if bandwidth is None else bandwidth)
        base.provenance |= {"density": "kde", "bandwidth": bandwidth}
        points = base.transform(embeddings) / base.variances.sqrt()
        return cls(**base._tensors(), **base._facts(), points=points, bandwidth=bandwidth)

    def _log_density(self, whitened: torch.Tensor) -> torch.Tensor:
        points = self.points.to(whitened)
        squared = whitened.square().sum(1, keepdim=True) + points.square().sum(1) - 2 * whitened @ points.T  # (N, n)
        constant = math.log(len(points)) + self.dims * (math.log(self.bandwidth) + 0.5 * math.log(2 * math.pi))
        return torch.logsumexp(squared / (-2 * self.bandwidth**2), dim=1) - constant

    def _draw(self, n: int, source: torch.Generator) -> torch.Tensor:
        chosen = self.points[torch.randint(len(self.points), (n,), generator=source)]
        return chosen + self.bandwidth * torch.randn(n, self.dims, generator=source, dtype=torch.float64)

    def _tensors(self) -> dict[str, torch.Tensor]:
        return {**super()._tensors(), "points": self.points}

    def _facts(self) -> dict:
        return {**super()._facts(), "bandwidth": self.bandwidth}


class MixtureTypicality(_Alternative):
    """A mixture of Gaussians with full covariances, fitted by expectation maximisation (scikit-learn).

    Attributes:
        weights: (parts,), sum 1. means: (parts, dims). covariances: (parts, dims, dims); the last two in whitened principal
            coordinates. Called ``parts``, because ``components`` are the principal directions.
    """

    kind = "mixture typicality model"

    def __init__(self, *gaussian, weights: torch.Tensor, means: torch.Tensor, covariances: torch.Tensor, **named):
        super().__init__(*gaussian, **named)
        self.weights, self.means, self.covariances = weights, means, covariances
        self._triangles = torch.linalg.cholesky(covariances)

    @property
    def parts(self) -> int:
        """How many Gaussians are mixed."""
        return len(self.weights)

    @classmethod
    def fit(
        cls,
        embeddings: torch.Tensor,
        dims: int = 50,
        provenance: dict | None = None,
        *,
        parts: int = 4,
        seed: int = 0,
    ) -> "MixtureTypicality":
        """Fit PCA (Eq. 3) and a mixture.

        Args:
            embeddings: (n, d), more than ``parts * dims`` of them, so that no covariance is singular when shared out evenly.
            parts: Gaussians in the mixture. seed: of where expectation maximisation starts.

        Raises:
            ValueError: as ``TypicalityModel.fit``, and more parts than the embeddings can feed.
        """
        embeddings = checked_embeddings(embeddings)
        parts, seed = whole_number("parts", parts, 1), whole_number("seed", seed, 0, 2**32 - 1)
        base = TypicalityModel.fit(embeddings, dims, provenance)
        if base.n <= parts * dims:
            raise ValueError(f"parts: got {parts} for {base.n} embeddings and dims={dims}; give at most {(base.n - 1) // dims}")
        base.provenance |= {"density": "mixture", "parts": parts, "density_seed": seed}
        whitened = (base.transform(embeddings) / base.variances.sqrt()).numpy()
        found = GaussianMixture(parts, random_state=seed, max_iter=500).fit(whitened)
        fitted = {"weights": found.weights_, "means": found.means_, "covariances": found.covariances_}
        return cls(**base._tensors(), **base._facts(), **{name: torch.from_numpy(part) for name, part in fitted.items()})

    def _log_density(self, whitened: torch.Tensor) -> torch.Tensor:
        gaussians = torch.distributions.MultivariateNormal(
            self.means.to(whitened), scale_tril=self._triangles.to(whitened), validate_args=False
        )
        weighted = gaussians.log_prob(whitened[:, None]) + self.weights.to(whitened).log()  # (N, parts)
        return torch.logsumexp(weighted, dim=1)

    def _draw(self, n: int, source: torch.Generator) -> torch.Tensor:
        part = torch.multinomial(self.weights, n, replacement=True, generator=source)
        noise = torch.randn(n, self.dims, 1, generator=source, dtype=torch.float64)
        return self.means[part] + (self._triangles[part] @ noise).squeeze(-1)

    def _tensors(self) -> dict[str, torch.Tensor]:
        mixture = {"weights": self.weights, "means": self.means, "covariances": self.covariances}
        return {**super()._tensors(), **mixture}


KINDS = {model.kind: model for model in (TypicalityModel, KDETypicality, MixtureTypicality)}


def load_typicality(path: str | Path) -> TypicalityModel:
    """Read a saved model of any of these densities.

    Raises:
        FileNotFoundError: no such file. ValueError: the file holds something else.
    """
    kind = read_facts(path).get("kind")
    if kind not in KINDS:
        raise ValueError(f"path: {path} holds a {kind!r} and no typicality model ({', '.join(KINDS)})")
    return KINDS[kind].load(path)
