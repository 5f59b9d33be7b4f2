"""Agreement gives published and hand-worked numbers; who is left out is left out for a reason that was fixed before."""

import math

import pandas as pd
import pytest

from creativelib.study.agreement import exclusions, failed_checks, krippendorff_alpha, repeat_agreement


def frame(rows, columns="rater stimulus value seed iteration surprise kind") -> pd.DataFrame:
    return pd.DataFrame(rows, columns=columns.split())


SMALL = frame(
    [
        ("a", "s", 1, 0, 0, 10.0, "image"),
        ("b", "s", 2, 0, 0, 10.0, "image"),
        ("a", "t", 4, 0, 5, 30.0, "image"),
        ("b", "t", 5, 0, 5, 30.0, "image"),
        ("a", "u", 2, 1, 5, 20.0, "image"),
        ("b", "u", 0, 1, 5, 20.0, "image"),
        ("a", "u", 5, 1, 5, 20.0, "repeat"),
    ]
)


def test_alpha_is_that_of_krippendorffs_own_example():
    """Four observers, twelve units: "Computing Krippendorff's Alpha-Reliability" (2011)."""
    observed = ["123321412...", "1233224125.3", ".3332342251.", "12332441251."]
    rows = [(f"r{i}", f"u{k}", int(v)) for i, row in enumerate(observed) for k, v in enumerate(row) if v != "."]
    ratings = frame(rows, "rater stimulus value")
    for measure, alpha in (("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)):
        assert krippendorff_alpha(ratings, measure=measure) == pytest.approx(alpha, abs=5e-4)
    again = pd.concat([ratings, ratings.assign(value=0)])  # a second rating of the same image does not count
    assert krippendorff_alpha(again) == krippendorff_alpha(ratings)


def test_repeats_worked_by_hand():
    found = repeat_agreement(SMALL)
    assert found.loc["a", ["repeats", "difference", "within_one"]].tolist() == [1, 3, 0]
    assert found.loc["b", "repeats"] == 0 and math.isnan(found.loc["b", "difference"])
    three = frame([("a", "s", v) for v in (2, 3, 0)] + [("a", "t", 4), ("a", "t", 2)], "rater stimulus value")
    assert repeat_agreement(three).loc["a"].tolist() == [2, 1.5, 0.5]  # the third time is not compared


def test_failed_checks_worked_by_hand():
    checks = frame([("a", 4, 4), ("a", 1, 3), ("b", 4, 4), ("c", 0, 4), ("c", 0, 3)], "rater value expected")
    found = failed_checks(checks)
    assert found["checks"].to_dict() == {"a": 2, "b": 1, "c": 2} and found["failed"].to_dict() == {"a": 1, "b": 0, "c": 2}
    assert found["flagged"].to_dict() == {"a": True, "b": False, "c": True}
    assert failed_checks(checks, allowed=1)["flagged"].to_dict() == {"a": False, "b": False, "c": True}


def test_checks_and_repeats_as_a_store_gives_them():
    """From a store a repeat has an id of its own and names its original; outsiders are rows of the ratings."""
    rows = [
        ("a", "s", 1, "image", None), ("a", "r", 3, "repeat", "s"), ("a", "x", 0, "outsider", None),
        ("b", "s", 2, "image", None), ("b", "r", 2, "repeat", "s"), ("b", "x", 4, "outsider", None),
    ]  # fmt: skip
    ratings = frame(rows, "rater stimulus value kind of")
    assert repeat_agreement(ratings)["difference"].to_dict() == {"a": 2, "b": 0}
    assert failed_checks(ratings)["flagged"].to_dict() == {"a": False, "b": True}
    begun = failed_checks(ratings[ratings["kind"] != "outsider"])  # people who have seen none yet
    assert begun["checks"].to_dict() == {"a": 0, "b": 0} and not begun["flagged"].any()


def rated(rater, values, kind="image", milliseconds=2000):
    return [(rater, f"{kind}{k}", value, kind, milliseconds) for k, value in enumerate(values)]


def test_exclusions_have_reasons_and_nobody_is_out_for_a_taste():
    rows = rated("careless", [1, 2, 3, 4, 1, 2, 3, 4]) + rated("careless", [3], "outsider")
    rows += rated("fine", [0, 0, 0, 1, 0, 0, 0, 0]) + rated("fine", [0], "outsider")
    rows += rated("hasty", [1, 2, 3, 4, 1, 2, 3, 4], milliseconds=300) + rated("hasty", [0], "outsider")
    rows += rated("short", [2, 2, 2]) + rated("wooden", [2] * 8) + rated("wooden", [0], "outsider")
    ratings = frame(rows, "rater stimulus value kind milliseconds")
    assert exclusions(ratings).set_index("rater")["reason"].to_dict() == {
        "careless": "rated 1 picture(s) of something else above 0",
        "hasty": "median answer after 300 ms, less than 500",
        "wooden": "gave all pictures the same number",
    }
    assert list(exclusions(ratings, allowed=1, fastest=0)["rater"]) == ["wooden"]
    surprising = ratings.assign(scale="surprising")  # how surprising a vehicle among aliens is has no right answer
    assert list(exclusions(surprising)["rater"]) == ["hasty", "wooden"]
    assert exclusions(ratings[ratings["rater"] == "fine"]).empty


FULL = frame([(rater, f"s{k}", (k + (rater == "b")) % 6) for rater in "abcd" for k in range(12)], "rater stimulus value")


@pytest.mark.parametrize(
    ("function", "change", "message"),
    [
        (function, change, message)
        for function in (krippendorff_alpha, repeat_agreement, exclusions)
        for change, message in [
            (lambda f: f.iloc[:0], "ratings: got 0 rows, none of an image; give at least one"),
            (lambda f: f.drop(columns="value"), r"ratings: got the columns .*\['value'\] are missing"),
            (lambda f: f.assign(value=5.5), "ratings: column 'value' holds 5.5 .*give numbers from 0 to 5"),
            (lambda f: f.assign(scale=["creative", "surprising"] * 24), "ratings: got ratings on 2 scales"),
        ]
    ]
    + [
        (krippendorff_alpha, lambda f: f.assign(rater="me"), "ratings: got 1 rater.s.; give the ratings of at least 2"),
        (krippendorff_alpha, lambda f: f.assign(value=3), "ratings: every rating is 3"),
        (krippendorff_alpha, lambda f: f.assign(stimulus=range(len(f))), "ratings: no image was rated by two raters"),
    ],
)
def test_bad_ratings_are_named(function, change, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        function(change(FULL))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: krippendorff_alpha(FULL, measure="ratio"), "measure: got 'ratio'; give one of .*'ordinal'"),
        (lambda: failed_checks(FULL), r"checks: got the columns .*\['expected'\] are missing"),
        (lambda: failed_checks(FULL, allowed=-1), "allowed: got -1"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        call()


def test_other_things_than_frames_are_refused():
    with pytest.raises(TypeError, match="^ratings: got dict"):
        krippendorff_alpha({})
