"""The Wundt curve of section 3, and its rivals, fitted to ratings by least squares (Fig. 4; Berlyne 1971).

Many at once: a fit is of numbers of ratings and their sums at places of surprise, a row for each resample or fold.
"""

import numpy as np
from scipy.optimize import least_squares
from scipy.special import expit

from creativelib.study import HIGHEST, LOWEST

FEWEST_IMAGES = 8  # of different surprise: the curve has seven parameters
_POINTS = 401  # places in the range where a maximum is looked for
_MIDPOINTS, _SCALES = 17, (0.05, 0.1, 0.2)  # see _Sigmoids


def require_images(surprise: np.ndarray, name: str) -> None:
    """Raises ValueError where there are fewer than ``FEWEST_IMAGES`` different values of surprise."""
    different = len(np.unique(surprise))
    if different < FEWEST_IMAGES:
        raise ValueError(f"{name}: got {different} different value(s) of surprise; give images of at least {FEWEST_IMAGES}")


class _Sigmoids:
    """Sigmoids of surprise to choose from: midpoints at quantiles of the images and a little outside, scales by the range.

    Given its sigmoids, the curve is linear in the rest, so trying all pairs finds the best one without starting values or
    local minima, for many resamples at once.
    """

    def __init__(self, surprise: np.ndarray):
        self.low, self.width = surprise.min(), np.ptp(surprise)
        inner = (np.quantile(surprise, np.linspace(0, 1, _MIDPOINTS)) - self.low) / self.width
        midpoints = np.unique(np.concatenate([[-0.2, -0.1], inner, [1.1, 1.2]]))
        self.scale, self.midpoint = (part.ravel() for part in np.meshgrid(_SCALES, midpoints, indexing="ij"))
        self.values = expit(((surprise - self.low) / self.width - self.midpoint[:, None]) / self.scale[:, None])  # (S, n)
        self.first, self.second = np.nonzero(self.midpoint[:, None] < self.midpoint)  # all pairs with x1 < x2

    def moments(self, counts: np.ndarray, sums: np.ndarray) -> tuple[np.ndarray, ...]:
        """Weighted mean rating (B, 1), means of sigmoids (B, S), their covariance with the ratings and variance, (B, S)."""
        total = counts.sum(1, keepdims=True)
        rating = sums.sum(1, keepdims=True) / total
        means = counts @ self.values.T / total
        return rating, means, sums @ self.values.T / total - rating * means, counts @ (self.values**2).T / total - means**2


class _Curve:
    """What all models have: they are fitted by least squares and predict a rating.

    A subclass gives ``_fitted``, which fits rows of weights, and ``_values``, the curves of rows of parameters.

    Attributes:
        parameters: (P,), in the order that the subclass says. low, high: range in nats in which a peak is looked for.
    """

    def __init__(self, parameters, low: float, high: float):
        self.parameters, self.low, self.high = np.asarray(parameters, dtype=float), float(low), float(high)

    @staticmethod
    def _fitted(surprise: np.ndarray, counts: np.ndarray, sums: np.ndarray) -> np.ndarray:
        """Parameters (B, P) for surprise (n,), numbers of ratings (B, n) and their sums (B, n)."""
        raise NotImplementedError

    @staticmethod
    def _values(parameters: np.ndarray, surprise: np.ndarray) -> np.ndarray:
        """Ratings (B, m) of parameters (B, P) at surprise (m,)."""
        raise NotImplementedError

    @classmethod
    def fit(cls, surprise, rating):
        """Least squares on single ratings.

        Args:
            surprise: in nats, (N,). rating: 0 to 5, (N,).

        Raises:
            ValueError: shapes that differ, NaN, ratings outside 0..5, fewer than ``FEWEST_IMAGES`` values of surprise.
        """
        surprise, rating = np.asarray(surprise, dtype=float), np.asarray(rating, dtype=float)
        if surprise.ndim != 1 or surprise.shape != rating.shape:
            raise ValueError(f"surprise, rating: got shapes {surprise.shape} and {rating.shape}; give two of the same (N,)")
        if not np.isfinite(surprise).all():
            raise ValueError(f"surprise: {(~np.isfinite(surprise)).sum()} of {len(surprise)} are not finite; leave them out")
        outside = ~((rating >= LOWEST) & (rating <= HIGHEST))
        if outside.any():
            raise ValueError(f"rating: got {rating[outside][0]}; give numbers from {LOWEST} to {HIGHEST}")
        require_images(surprise, "surprise")
        places, index = np.unique(surprise, return_inverse=True)
        counts, sums = (np.bincount(index, weights)[None] for weights in (np.ones(len(index)), rating))
        return cls._refined(cls._fitted(places, counts, sums)[0], places, counts[0], sums[0])

    @classmethod
    def _refined(cls, parameters: np.ndarray, surprise: np.ndarray, counts: np.ndarray, sums: np.ndarray):
        """The curve of ``parameters``, by a subclass brought to the minimum next to them."""
        return cls(parameters, surprise.min(), surprise.max())

    def predict(self, x) -> np.ndarray:
        """Rating expected at a surprise of ``x`` nats, in the shape of ``x``; outside 0..5 where the curve is."""
        x = np.asarray(x, dtype=float)
        return self._values(self.parameters[None], x.ravel())[0].reshape(x.shape)

    @property
    def peak(self) -> float:
        """Surprise in nats at which the curve is highest between ``low`` and ``high``; NaN if that is at an end."""
        return float(self._peaks(self.parameters[None], self.low, self.high)[0])

    @classmethod
    def _peaks(cls, parameters: np.ndarray, low: float, high: float) -> np.ndarray:
        """Inner maximisers of rows of parameters, (B,); NaN where there is none."""
        if not low < high:
            raise ValueError(f"low, high: got {low} and {high}; give low < high")
        x = np.linspace(low, high, _POINTS)
        values = cls._values(parameters, x)
        best = values.argmax(1)
        inner = (best > 0) & (best < _POINTS - 1) & (np.ptp(values, axis=1) > 1e-9)
        best, row = best.clip(1, _POINTS - 2), np.arange(len(values))
        before, here, after = (values[row, best + step] for step in (-1, 0, 1))
        bend = before - 2 * here + after
        with np.errstate(divide="ignore", invalid="ignore"):
            shift = np.where(bend < 0, 0.5 * (before - after) / bend, 0)  # the top of the parabola through the three
        return np.where(inner, x[best] + shift * (x[1] - x[0]), np.nan)


class WundtCurve(_Curve):
    """Berlyne's curve: a reward that sets in at x1 less a punishment that sets in later, at x2 > x1 (section 3).

    h(x) = baseline + reward * sigmoid((x - x1) / s1) - punishment * sigmoid((x - x2) / s2)

    ``parameters`` are baseline, reward, punishment (rating points, the last two not negative), x1, s1, x2, s2 (nats).

    Two scales, because one for both misplaces the peak of a curve that falls faster than it rises: where that was three
    times as fast, the 95 % interval covered the peak in two of three simulated studies, and with two scales in nine of ten.
    Single parameters are hardly identified (a late strong punishment looks like an early weak one); curve and peak are.
    """

    baseline, reward, punishment, x1, s1, x2, s2 = (property(lambda self, i=i: float(self.parameters[i])) for i in range(7))

    @staticmethod
    def _values(parameters, surprise):
        baseline, reward, punishment, x1, s1, x2, s2 = (part[:, None] for part in parameters.T)
        return baseline + reward * expit((surprise - x1) / s1) - punishment * expit((surprise - x2) / s2)

    @staticmethod
    def _fitted(surprise, counts, sums):
        grid = _Sigmoids(surprise)
        rating, means, covariance, variance = grid.moments(counts, sums)
        first, second = grid.first, grid.second
        product = counts @ (grid.values[first] * grid.values[second]).T / counts.sum(1, keepdims=True)
        shared = means[:, first] * means[:, second] - product  # covariance of the first sigmoid with minus the second
        cov1, cov2, var1, var2 = covariance[:, first], -covariance[:, second], variance[:, first], variance[:, second]
        determinant = var1 * var2 - shared**2
        with np.errstate(divide="ignore", invalid="ignore"):
            reward, punishment = (cov1 * var2 - cov2 * shared) / determinant, (cov2 * var1 - cov1 * shared) / determinant
            both = (determinant > 1e-6 * var1 * var2) & (reward >= 0) & (punishment >= 0)
            alone1, alone2 = (np.where((c > 0) & (v > 1e-12), c / v, 0) for c, v in ((cov1, var1), (cov2, var2)))
        # Neither is negative: where one would be, the best has one sigmoid alone, or none.
        first_alone = alone1 * cov1 >= alone2 * cov2
        reward = np.where(both, reward, np.where(first_alone, alone1, 0))
        punishment = np.where(both, punishment, np.where(first_alone, 0, alone2))
        best = (reward * cov1 + punishment * cov2).argmax(1)  # by this the mean squared residual falls
        row, i, j = np.arange(len(best)), first[best], second[best]
        reward, punishment = reward[row, best], punishment[row, best]
        baseline = rating[:, 0] - reward * means[row, i] + punishment * means[row, j]
        places = [part for k in (i, j) for part in (grid.low + grid.width * grid.midpoint[k], grid.width * grid.scale[k])]
        return np.stack([baseline, reward, punishment, *places], axis=1)

    @classmethod
    def _refined(cls, parameters, surprise, counts, sums):
        low, width = surprise.min(), np.ptp(surprise)
        weight, mean = np.sqrt(counts), sums / counts

        def curve(free):  # with x from 0 to 1, x2 = x1 + a positive gap
            baseline, reward, punishment, x1, s1, gap, s2 = free
            x1, s1, gap, s2 = low + width * x1, width * s1, width * gap, width * s2
            return np.array([baseline, reward, punishment, x1, s1, x1 + gap, s2])

        baseline, reward, punishment, x1, s1, x2, s2 = parameters
        start = np.array([baseline, reward, punishment, (x1 - low) / width, s1 / width, (x2 - x1) / width, s2 / width])
        least = np.array([-10, 0, 0, -0.5, 0.02, 1e-3, 0.02])
        most = np.array([10, 20, 20, 1.5, 0.5, 2, 0.5])
        found = least_squares(
            lambda free: weight * (cls._values(curve(free)[None], surprise)[0] - mean),
            np.clip(start, least + 1e-6, most - 1e-6),  # from the best of all pairs, so one start is enough
            bounds=(least, most),
            max_nfev=100,
        )
        return cls(curve(found.x), low, low + width)


class Line(_Curve):
    """h(x) = a + b x; ``parameters`` are a, b. Its peak is NaN."""

    @staticmethod
    def _values(parameters, surprise):
        return parameters @ np.vander(surprise, parameters.shape[1], increasing=True).T

    @staticmethod
    def _fitted(surprise, counts, sums, degree: int = 1):
        low, width = surprise.min(), np.ptp(surprise)
        powers = np.vander((surprise - low) / width, degree + 1, increasing=True)  # (n, P), of x from 0 to 1: well conditioned
        normal = np.einsum("bn,np,nq->bpq", counts, powers, powers, optimize=True)
        solved = np.linalg.solve(normal, (sums @ powers)[:, :, None])[:, :, 0]
        scaled = np.polynomial.Polynomial([-low / width, 1 / width])
        back = np.array([np.pad((scaled**k).coef, (0, degree - k)) for k in range(degree + 1)])
        return solved @ back


class Parabola(Line):
    """h(x) = a + b x + c x^2; ``parameters`` are a, b, c."""

    @staticmethod
    def _fitted(surprise, counts, sums):
        return Line._fitted(surprise, counts, sums, degree=2)


class Monotone(_Curve):
    """One sigmoid, rising or falling: h(x) = baseline + height * sigmoid((x - x1) / s1). Its peak is NaN.

    Preferred to isotonic regression as the rival of the Wundt curve, which is this with a second sigmoid: as smooth, so that a
    difference between them is one of shape.
    """

    @staticmethod
    def _values(parameters, surprise):
        baseline, height, x1, s1 = (part[:, None] for part in parameters.T)
        return baseline + height * expit((surprise - x1) / s1)

    @staticmethod
    def _fitted(surprise, counts, sums):
        grid = _Sigmoids(surprise)
        rating, means, covariance, variance = grid.moments(counts, sums)
        height = np.where(variance > 1e-12, covariance / np.maximum(variance, 1e-12), 0)
        best = (height * covariance).argmax(1)
        row = np.arange(len(best))
        height = height[row, best]
        baseline = rating[:, 0] - height * means[row, best]
        place = grid.low + grid.width * grid.midpoint[best]
        return np.stack([baseline, height, place, grid.width * grid.scale[best]], axis=1)


MODELS = {"wundt": WundtCurve, "parabola": Parabola, "monotone": Monotone, "line": Line}
