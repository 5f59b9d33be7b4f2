"""A check by another road: a linear mixed model of ratings, with crossed random effects of raters, pictures and runs.

Pictures are random too. Held fixed, as if the next study showed the very same ones, what one picture has beside its surprise
counts as
an effect of surprise: in worlds without any, a third to a half of such models found one.
"""

import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd
import statsmodels.api as sm
from scipy.stats import norm
from statsmodels.regression.mixed_linear_model import VCSpec

from creativelib.study.ratings import checked_level, checked_ratings

_EDGE = 5e-3  # a variance below this share of the residual one is called 0


@dataclass(frozen=True)
class MixedEffects:
    """A linear mixed model of ratings.

    Attributes:
        terms: index intercept, linear, quadratic (of surprise in standard deviations of the pictures); columns estimate, error,
            low, high, p. rater_sd, picture_sd, run_sd, residual_sd: rating points; ``run_sd`` is NaN where runs are not known.
        converged: what the optimiser says. note: how to read it.
    """

    terms: pd.DataFrame
    rater_sd: float
    picture_sd: float
    run_sd: float
    residual_sd: float
    converged: bool
    note: str


def mixed_effects(ratings: pd.DataFrame, *, level: float = 0.95) -> MixedEffects:
    """value ~ z + z^2 with random intercepts of each rater, picture and (where there is a column seed) run, by REML.

    The p-values are Wald's, of the normal law: with few runs or raters they are somewhat too small. Some seconds for 2,000
    ratings.

    Args:
        ratings: with rater, stimulus, value, surprise; seed (of the run) if it is known.

    Raises:
        TypeError, ValueError: as ``checked_ratings``, fewer than three values of surprise.
    """
    runs = isinstance(ratings, pd.DataFrame) and "seed" in ratings
    rows = checked_ratings(ratings, ["rater", "stimulus", "value", "surprise", *(["seed"] if runs else [])])
    images = rows.groupby("stimulus")["surprise"].first().astype(float)
    if images.nunique() < 3:
        raise ValueError(f"ratings: got {images.nunique()} value(s) of surprise; give images of at least 3")
    z = ((rows["surprise"].astype(float) - images.mean()) / images.std()).to_numpy()
    design = np.stack([np.ones_like(z), z, z**2], axis=1)
    names = ["rater", "stimulus"] + (["seed"] if runs and 1 < rows["seed"].nunique() < len(images) else [])
    notes = ["raters and pictures are random: the p-values speak of other raters and other pictures"]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            model = sm.MixedLM(rows["value"].to_numpy(float), design, groups=np.zeros(len(z)), exog_vc=_crossed(rows, names))
            fit = model.fit(reml=True, method=["bfgs", "lbfgs", "powell"])  # the last needs no gradient: for the edge
            estimate, error = np.asarray(fit.fe_params), np.asarray(fit.bse_fe)
            variances, scale, converged = dict(zip(names, map(float, fit.vcomp), strict=True)), float(fit.scale), fit.converged
        except np.linalg.LinAlgError as problem:
            estimate = error = np.full(3, np.nan)
            variances, scale, converged = dict.fromkeys(names, np.nan), np.nan, False
            notes.append(f"no estimate: {problem}")
    if not converged:
        notes.append("the optimiser did not converge: take no number from here")
    else:
        said = {"rater": "raters", "stimulus": "pictures of one surprise", "seed": "runs"}
        for name in (name for name in names if variances[name] < _EDGE * scale):
            notes.append(f"{said[name]} hardly differ in their means: their variance is at 0, the edge of what is allowed")
    if not converged or not error.all() or np.isnan(error).any():  # those of attempts that a later one made good are no news
        notes += sorted({str(warning.message).split("\n")[0] for warning in caught})
    reach = norm.ppf((1 + checked_level(level)) / 2) * error
    columns = {"estimate": estimate, "error": error, "low": estimate - reach, "high": estimate + reach}
    with np.errstate(divide="ignore", invalid="ignore"):
        columns["p"] = 2 * norm.sf(np.abs(estimate / error))
    terms = pd.DataFrame(columns, index=pd.Index(["intercept", "linear", "quadratic"], name="term"))
    spreads = [float(np.sqrt(variances.get(name, np.nan))) for name in ("rater", "stimulus", "seed")]
    return MixedEffects(terms, *spreads, float(np.sqrt(scale)), bool(converged), "; ".join(notes))


def _crossed(rows: pd.DataFrame, names: list[str]) -> VCSpec:
    """One variance for each of these columns, in a model of one group, which is how statsmodels has effects that cross."""
    indicators = [pd.get_dummies(rows[name]) for name in names]
    labels = [[list(map(str, one.columns))] for one in indicators]
    return VCSpec(names, labels, [[one.to_numpy(float)] for one in indicators])
