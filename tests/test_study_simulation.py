"""The simulated class feels what it is told to feel, answers on the scale, is repeatable, and says that it is simulated."""

import numpy as np
import pandas as pd
import pytest

from creativelib.study.inverted_u import inverted_u
from creativelib.study.simulation import MARK, People, simulate_choices, simulate_class
from creativelib.study.taste import berlyne, expected_rating
from creativelib.study.wundt import WundtCurve

STIMULI = pd.DataFrame(
    {
        "stimulus": [f"s{k}" for k in range(12)],
        "surprise": np.linspace(40, 160, 12),
        "seed": np.arange(12) % 3,
        "iteration": np.arange(12) * 5,
    }
)
EQUAL = {"slope": 0, "image_noise": 0}  # people who feel equally strongly, pictures that differ by their surprise alone
PLAIN = {"peak_spread": 0, "offset": 0, "noise": 0, "lapse": 0, **EQUAL}


def test_the_frame_is_one_of_ratings_and_marked_as_simulated():
    ratings = simulate_class(STIMULI, 7, seed=1)
    assert list(ratings) == "rater stimulus value seed iteration surprise kind of position simulated".split()
    assert ratings.attrs["raters"] == MARK == "simulated raters"
    assert ratings["simulated"].all() and ratings["rater"].str.startswith("simulated").all()
    assert len(ratings) == 7 * 12 and (ratings["kind"] == "image").all() and ratings["value"].dtype == int
    assert ratings.groupby("rater")["stimulus"].nunique().eq(12).all() and ratings["value"].between(0, 5).all()
    merged = ratings.merge(STIMULI, on="stimulus", suffixes=("", "_given"))
    for column in ("seed", "iteration", "surprise"):
        assert (merged[column] == merged[f"{column}_given"]).all()


def test_one_seed_gives_one_class_and_leaves_the_global_state_alone():
    np.random.seed(5)
    before = np.random.get_state()[1].copy()
    one, two, three = (simulate_class(STIMULI, 7, seed=seed) for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(one, two)
    assert not one["value"].equals(three["value"])
    pd.testing.assert_frame_equal(*(simulate_choices(STIMULI, 7, seed=1) for _ in range(2)))
    assert (np.random.get_state()[1] == before).all()


def test_without_noise_the_rating_is_the_rounded_curve():
    curve = WundtCurve([1, 3, 6, 70, 9, 125, 7], 40, 160)  # below 0 at the end
    ratings = simulate_class(STIMULI, 3, seed=1, curve=curve, **PLAIN)
    expected = np.clip(np.rint(curve.predict(ratings["surprise"])), 0, 5)
    assert (ratings["value"] == expected).all() and 0 in expected and curve.predict(160.0) < -1


def test_raters_go_by_the_surprise_that_they_perceive():
    stimuli = STIMULI.assign(perceived=STIMULI["surprise"].to_numpy()[::-1] ** 2)
    ratings = simulate_class(stimuli, 2, seed=1, curve=lambda x: x / 6000, **PLAIN).drop_duplicates("stimulus")
    assert np.corrcoef(ratings["surprise"], ratings["value"])[0, 1] < -0.9


@pytest.mark.parametrize("judged", [False, 0.0])
def test_what_the_judge_does_not_see_displeases(judged):
    unseen, options = STIMULI.assign(judged=judged), {"curve": lambda x: 4 + 0 * x, "seed": 1, **PLAIN}
    assert (simulate_class(unseen, 5, out_of_domain=0, displeasure=2, **options)["value"] == 2).all()
    assert (simulate_class(unseen, 5, out_of_domain=1, displeasure=2, **options)["value"] == 0).all()
    share = simulate_class(unseen, 200, out_of_domain=0.6, displeasure=2, **options)["value"].eq(0).mean()
    assert share == pytest.approx(0.6, abs=0.04)
    half = simulate_class(unseen.assign(judged=0.5), 200, out_of_domain=0.6, displeasure=2, **options)["value"]
    assert half.eq(0).mean() == pytest.approx(0.3, abs=0.04) and set(half) == {0, 3}
    assert (simulate_class(unseen.assign(judged=True), 5, out_of_domain=1, **options)["value"] == 4).all()


def test_lapses_and_personal_differences():
    options = {"curve": lambda x: 2 + 0 * x, "seed": 3, "peak_spread": 0, "noise": 0, **EQUAL}
    lapsed = simulate_class(STIMULI, 500, offset=0, lapse=0.6, **options)["value"]
    assert lapsed.value_counts(normalize=True).sort_index().tolist() == pytest.approx([0.1, 0.1, 0.5, 0.1, 0.1, 0.1], abs=0.02)
    means = simulate_class(STIMULI, 500, offset=0.8, lapse=0, **options).groupby("rater")["value"].agg(["mean", "nunique"])
    assert (means["nunique"] == 1).all() and means["mean"].std() == pytest.approx(np.hypot(0.8, 12**-0.5), abs=0.08)
    step = {"curve": lambda x: 4.0 * (x > 100), "offset": 0, "noise": 0, "lapse": 0, **EQUAL}
    where = simulate_class(STIMULI, 500, seed=1, peak_spread=15, **step).query("value == 4").groupby("rater")["surprise"].min()
    assert where.std() == pytest.approx(15, abs=2)


def test_they_see_what_the_instrument_shows_them():
    """Orders of ``rating_order``: repeats are rated like their originals, outsiders get a 0, and people may see parts."""
    table = pd.concat(
        [
            STIMULI.assign(kind="image", of=None),
            pd.DataFrame({"stimulus": ["again"], "kind": "repeat", "of": "s3", "surprise": np.nan}),
            pd.DataFrame({"stimulus": ["other"], "kind": "outsider", "surprise": np.nan}),
        ]
    )
    orders = [["s3", "s1", "again", "other"], ["other", "s5"]]
    ratings = simulate_class(table, 2, seed=0, orders=orders, curve=lambda x: 1 + x / 40, **PLAIN)
    assert ratings["stimulus"].tolist() == orders[0] + orders[1] and ratings["position"].tolist() == [0, 1, 2, 3, 0, 1]
    assert ratings["kind"].tolist() == ["image", "image", "repeat", "outsider", "outsider", "image"]
    value = ratings["value"].tolist()
    assert value[0] == value[2] == 3 and value[3] == value[4] == 0 and value[5] > value[1] > 0
    with pytest.raises(ValueError, match="^orders: got 1 for 2 raters"):
        simulate_class(table, 2, seed=0, orders=orders[:1])
    with pytest.raises(ValueError, match="^orders: 's99' is not among the stimuli"):
        simulate_class(table, 2, seed=0, orders=[["s1"], ["s99"]])


def test_by_default_everybody_sees_all_in_an_order_of_their_own():
    shown = simulate_class(STIMULI, 9, seed=1).groupby("rater")["stimulus"].agg(tuple)
    assert shown.nunique() == 9 and all(sorted(order) == sorted(STIMULI["stimulus"]) for order in shown)


def test_what_came_before_colours_what_follows():
    ups = pd.DataFrame({"stimulus": ["low", "high", "probe"], "surprise": [1.0, 5.0, 3.0]})
    options = {"curve": lambda x: x, "seed": 0, "carryover": 0.5, **PLAIN}
    probe = [simulate_class(ups, 1, orders=[[one, "probe"]], **options)["value"].iloc[1] for one in ("low", "high")]
    assert probe == [2, 4]


def test_people_pictures_and_runs_differ_as_much_as_they_are_told_to():
    wide = pd.DataFrame({"stimulus": range(400), "surprise": 0.0, "seed": np.arange(400) // 4})
    options = {"curve": lambda x: 2.5 + 0 * x, "peak_spread": 0, "offset": 0, "slope": 0}

    def felt(**more):
        return People(wide, 40, np.random.default_rng(0), **(options | more)).felt

    assert felt(image_noise=0.7)[0].std() == pytest.approx(0.7, abs=0.08)
    runs = felt(image_noise=0, run_noise=0.7)[0].reshape(100, 4)
    assert np.ptp(runs, axis=1).max() < 1e-9 and runs[:, 0].std() == pytest.approx(0.7, abs=0.15)
    half = wide.assign(surprise=np.arange(400) % 2)
    strong = People(half, 4000, np.random.default_rng(0), curve=lambda x: x, peak_spread=0, slope=0.3, image_noise=0).felt
    assert (strong[:, 1] - strong[:, 0]).std() == pytest.approx(0.3, abs=0.02)


def test_expected_rating_is_the_mean_of_many_raters():
    curve, options = (
        berlyne(40, 160, peak=115),
        {"peak_spread": 12, "offset": 0.5, "noise": 0.7, "lapse": 0.1, "image_noise": 0},
    )
    means = simulate_class(STIMULI, 4000, seed=0, curve=curve, slope=0, **options).groupby("surprise")["value"].mean()
    np.testing.assert_allclose(means, expected_rating(means.index, curve, **options), atol=0.08)


def test_berlyne_has_the_peak_and_height_that_were_asked_for():
    curve = berlyne(40, 160, peak=90, height=2)
    assert curve.peak == pytest.approx(90, abs=0.1) and float(curve.predict(90.0)) == pytest.approx(3)
    assert float(berlyne(40, 160).predict(40.0)) == pytest.approx(1, abs=0.2)
    assert np.ptp(berlyne(0, 1, height=0).predict(np.linspace(0, 1, 9))) == 0


def test_the_whole_road_from_class_to_verdict():
    stimuli = pd.DataFrame({"stimulus": range(40), "surprise": np.linspace(40, 160, 40)})
    stimuli["perceived"] = 300 + 3 * stimuli["surprise"] + np.random.default_rng(0).normal(0, 15, 40)
    stimuli["judged"] = stimuli["surprise"] < 130
    assert inverted_u(simulate_class(stimuli, 30, seed=0, image_noise=0.3), resamples=50).consistent


def test_choices():
    choices = simulate_choices(STIMULI, 50, seed=1, pairs=20, curve=lambda x: x / 40, **EQUAL, decision_noise=0.2, lapse=0)
    assert list(choices) == ["rater", "left", "right", "chosen", "simulated"] and choices.attrs["raters"] == MARK
    assert len(choices) == 1000 and (choices["left"] != choices["right"]).all()
    surprise = STIMULI.set_index("stimulus")["surprise"]
    ahead = surprise.loc[choices["left"]].to_numpy() - surprise.loc[choices["right"]].to_numpy()
    right = (choices["chosen"] == "left") == (ahead > 0)
    assert right[abs(ahead) > 50].mean() > 0.98 and right[abs(ahead) < 15].mean() < 0.9
    assert (choices["chosen"] == "left").mean() == pytest.approx(0.5, abs=0.06)
    guessed = simulate_choices(STIMULI, 50, seed=1, pairs=20, curve=lambda x: x / 40, **EQUAL, decision_noise=0.2, lapse=1)
    assert ((guessed["chosen"] == "left") == (guessed["left"] > guessed["right"])).mean() == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"raters": 0}, "raters: got 0"),
        ({"seed": -1}, "seed: got -1"),
        ({"seed": None}, "seed: got None"),
        ({"carryover": 1}, "carryover: got 1; give a number between -1 and 1"),
        ({"slope": -1}, "slope: got -1; give 0 or more"),
        ({"stimuli": STIMULI.assign(kind="outsider")}, "stimuli: none is an image"),
        ({"lapse": 1.5}, "lapse: got 1.5; give a share from 0 to 1"),
        ({"out_of_domain": -0.1}, "out_of_domain: got -0.1"),
        ({"noise": -1}, "noise: got -1; give 0 or more"),
        ({"peak_spread": float("nan")}, "peak_spread: got nan"),
        ({"stimuli": STIMULI.iloc[:0]}, "stimuli: got 0 rows"),
        ({"stimuli": STIMULI.drop(columns="surprise")}, "stimuli: got 12 rows and the columns"),
        ({"stimuli": STIMULI.assign(stimulus="s")}, "stimuli: 's' comes twice"),
        ({"stimuli": STIMULI.assign(surprise=np.nan)}, "stimuli: column 'surprise' holds other values than finite nats"),
        ({"stimuli": STIMULI.assign(perceived=np.inf)}, "stimuli: column 'perceived'"),
        ({"stimuli": STIMULI.assign(judged=2)}, "stimuli: column 'judged' holds other values than a bool or a share"),
        ({"stimuli": STIMULI.assign(surprise=1.0)}, "stimuli: all have the same surprise"),
    ],
)
def test_bad_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        simulate_class(**{"stimuli": STIMULI, "raters": 3, "seed": 0} | options)
    with pytest.raises(TypeError, match="^stimuli: got list"):
        simulate_class([1], seed=0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: berlyne(1, 1), "low, high: got 1 and 1"),
        (lambda: berlyne(0, 1, peak=2), "peak: got 2; give a surprise between 0 and 1 nats"),
        (lambda: berlyne(0, 1, height=-1), "height: got -1"),
        (lambda: simulate_choices(STIMULI, seed=0, pairs=0), "pairs: got 0"),
        (lambda: simulate_choices(STIMULI, seed=0, decision_noise=0), "decision_noise: got 0"),
        (lambda: simulate_choices(STIMULI.iloc[:1], seed=0, curve=lambda x: x), "stimuli: got 1 row; give at least 2"),
    ],
)
def test_other_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        call()
