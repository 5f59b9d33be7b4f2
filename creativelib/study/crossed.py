"""The mean of a table of raters by runs, and how far it may be off for other raters *and* other runs.

Each cell is a number that one rater gave in one run, for example how much higher one picture than another:

    cell = mean + effect of the rater + effect of the run + rest

Raters who like everything new, and runs that came out well, move whole rows and columns, so cells are not independent. The
three variances are found by moments (Henderson's first method), which needs no complete table; the error of the mean follows
from them, and Satterthwaite's approximation says how many degrees of freedom it has.
"""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class CrossedMean:
    """The mean of the cells, its standard error and the degrees of freedom of that; variances of rater, run and rest."""

    mean: float
    error: float
    freedom: float
    rater: float
    run: float
    rest: float


def crossed_mean(cells: np.ndarray) -> CrossedMean:
    """Mean of ``cells`` (raters, runs), NaN where a rater did not see a run.

    An effect whose variance comes out negative is left out and the others are found anew, so that the error is never below that
    of independent cells without it. Where raters cannot be told from the rest (one run each) their effects count as rest.

    Raises:
        ValueError: fewer than two raters or runs with a number.
    """
    cells = np.asarray(cells, dtype=float)
    cells = cells[np.isfinite(cells).any(1)][:, np.isfinite(cells).any(0)]
    if cells.ndim != 2 or min(cells.shape) < 2:
        raise ValueError(f"cells: got numbers of {cells.shape[0]} raters in {cells.shape[1]} runs; give at least 2 of each")
    seen = np.isfinite(cells)
    n, sizes = int(seen.sum()), (seen.sum(1).astype(float), seen.sum(0).astype(float))
    mean = float(cells[seen].mean())
    off = np.where(seen, cells - mean, 0.0)
    squares = np.array([np.square(off.sum(1)).sum(), np.square(off.sum(0)).sum(), np.square(off).sum()])
    # G = Z'MZ for the indicators Z of raters and runs, M taking the mean away: all traces below are of this small matrix.
    counts = np.concatenate(sizes)
    gram = np.block([[np.diag(sizes[0]), seen.astype(float)], [seen.T.astype(float), np.diag(sizes[1])]])
    gram -= np.outer(counts, counts) / n
    parts = (slice(0, len(cells)), slice(len(cells), None))
    expected = np.array(
        [[np.square(gram[one, other]).sum() for other in parts] + [np.trace(gram[one, one])] for one in parts]
        + [[np.trace(gram[one, one]) for one in parts] + [n - 1]]
    )  # of each square, for each variance
    share = np.array([np.square(sizes[0]).sum() / n**2, np.square(sizes[1]).sum() / n**2, 1 / n])  # in the error of the mean
    active = [index for index in (0, 1) if sizes[index].max() > 1] + [2]
    variances = np.zeros(3)
    while True:
        chosen = expected[np.ix_(active, active)]
        found = np.linalg.lstsq(chosen, squares[active], rcond=None)[0]
        if len(active) == 1 or found[:-1].min() >= 0:
            break
        active.pop(int(found[:-1].argmin()))
    variances[active] = np.maximum(found, 0)
    error = math.sqrt(float(share @ variances))
    weights = np.zeros(3)
    weights[active] = np.linalg.lstsq(chosen.T, share[active], rcond=None)[0]  # squared error = weights @ squares
    spread = [np.repeat(two[:2], [len(cells), cells.shape[1]]) for two in (weights, variances)]
    form = spread[0][:, None] * gram * spread[1] + np.diag(variances[2] * spread[0] + weights[2] * spread[1])
    product, rest = form @ gram, weights[2] * variances[2]
    first = np.trace(product) + rest * (n - 1)
    second = np.einsum("ij,ji->", product, product) + 2 * rest * np.trace(product) + rest**2 * (n - 1)
    freedom = max(first**2 / second, 1.0) if second > 0 else float(n - 1)
    return CrossedMean(mean, error, freedom, *map(float, variances))
