"""The Wundt curve is Berlyne's, and finds the curve that was put in; its rivals are what numpy says."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import expit

from creativelib.study.simulation import simulate_class
from creativelib.study.taste import berlyne
from creativelib.study.wundt import MODELS, Line, Monotone, Parabola, WundtCurve

LOW, HIGH = 40.0, 160.0


def test_the_curve_is_berlynes():
    curve = WundtCurve([1, 3, 2, 70, 5, 120, 8], LOW, HIGH)
    expected = 1 + 3 * expit((100 - 70) / 5) - 2 * expit((100 - 120) / 8)
    assert float(curve.predict(100.0)) == pytest.approx(expected)
    assert (curve.baseline, curve.reward, curve.punishment) == (1, 3, 2)
    assert (curve.x1, curve.s1, curve.x2, curve.s2) == (70, 5, 120, 8)
    assert curve.predict(np.zeros((2, 3))).shape == (2, 3)
    best = minimize_scalar(lambda x: -curve.predict(x), bounds=(LOW, HIGH), method="bounded").x
    assert curve.peak == pytest.approx(best, abs=0.01)


def test_fit_recovers_a_curve_without_noise():
    curve, x = WundtCurve([1, 2.5, 3, 70, 9, 125, 7], LOW, HIGH), np.linspace(LOW, HIGH, 60)
    for shift, factor in ((0, 1), (-1000, 1), (0, 1000)):  # surprise may be negative or large
        found = WundtCurve.fit(factor * x + shift, curve.predict(x))
        np.testing.assert_allclose(found.predict(factor * x + shift), curve.predict(x), atol=2e-3)
        assert found.peak == pytest.approx(factor * curve.peak + shift, abs=0.2 * factor)
        assert found.x1 < found.x2 and min(found.reward, found.punishment, found.s1, found.s2) > 0


@pytest.mark.parametrize(
    "values", [lambda x: 2 + 0 * x, lambda x: x / 40, lambda x: 5 - x / 40, lambda x: 4 * expit((x - 70) / 9)]
)
def test_a_curve_without_an_inner_maximum_has_no_peak(values):
    x = np.linspace(LOW, HIGH, 50)
    assert math.isnan(WundtCurve.fit(x, values(x)).peak)


def test_line_and_parabola_equal_numpy_also_with_weights():
    surprise = np.random.default_rng(3).uniform(LOW, HIGH, 40)
    frame = simulate_class(
        pd.DataFrame({"stimulus": range(40), "surprise": surprise}), 30, seed=3, curve=berlyne(LOW, HIGH, peak=110)
    )
    frame = frame.sample(700, random_state=0)  # images with different numbers of ratings
    x, y = frame["surprise"].to_numpy(), frame["value"].to_numpy(float)
    for model, degree in ((Line, 1), (Parabola, 2)):
        np.testing.assert_allclose(model.fit(x, y).parameters, np.polynomial.polynomial.polyfit(x, y, degree), rtol=1e-6)
    a, b, c = Parabola.fit(x, y).parameters
    assert Parabola.fit(x, y).peak == pytest.approx(-b / (2 * c), abs=1e-6)
    assert math.isnan(Line.fit(x, y).peak) and math.isnan(Monotone.fit(x, y).peak)


def test_the_wundt_curve_is_never_worse_than_one_sigmoid_that_rises():
    x = np.linspace(LOW, HIGH, 40)
    y = np.clip((1 + 3 * expit((x - 70) / 10)) + np.random.default_rng(0).normal(0, 0.3, 40), 0, 5)
    errors = [np.square(model.fit(x, y).predict(x) - y).sum() for model in (WundtCurve, Monotone)]
    assert errors[0] <= errors[1] + 1e-9


def test_bad_arguments_are_named():
    x = np.linspace(LOW, HIGH, 20)
    for arguments, message in [
        ((x, np.ones(19)), r"surprise, rating: got shapes \(20,\) and \(19,\)"),
        ((np.where(x > 100, np.nan, x), np.ones(20)), "surprise: .* of 20 are not finite"),
        ((x, np.full(20, 5.5)), "rating: got 5.5; give numbers from 0 to 5"),
        ((x, np.full(20, np.nan)), "rating: got nan"),
        ((np.ones(20), np.ones(20)), "surprise: got 1 different value"),
    ]:
        for model in MODELS.values():
            with pytest.raises(ValueError, match=f"^{message}"):
                model.fit(*arguments)
