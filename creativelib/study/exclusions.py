"""Who is left out of a study's analysis, by numbers that were fixed when it was made."""

from typing import Protocol

import pandas as pd

from creativelib.study.agreement import SAME
from creativelib.study.agreement import exclusions as of_one_scale


class Rule(Protocol):
    """The numbers of the rule; ``server.folder.Settings`` has them."""

    failed_checks: int
    quickest: int


def rule(numbers: Rule) -> str:
    """The rule in words."""
    checks = f"rated more than {numbers.failed_checks} pictures of something else above 0 (where asked how creative)"
    same = f"gave all pictures, of {SAME} or more, one number"
    return f"{checks}; {same}; answered half of them in less than {numbers.quickest} ms; or was asked both questions"


def exclusions(ratings: pd.DataFrame, numbers: Rule) -> dict[str, str]:
    """Code -> reason of everybody whom the rule leaves out.

    Args:
        ratings: of ``Store.ratings``, of all scales; without milliseconds (simulated ones) nobody was too quick. Nobody is
            asked both questions, but who took part twice, and was joined into one afterwards (``Store.unite``), may have been:
            what they said second was not naive.
    """
    scales = ratings.groupby("rater")["scale"].nunique()
    found = {rater: "was asked both questions" for rater in scales[scales > 1].index}
    if "milliseconds" in ratings:
        ratings = ratings.assign(milliseconds=pd.to_numeric(ratings["milliseconds"], errors="coerce"))
    for _, rows in ratings.groupby("scale"):
        if (rows["kind"] == "image").any():
            out = of_one_scale(rows, allowed=numbers.failed_checks, fastest=numbers.quickest)
            found |= dict(zip(out["rater"], out["reason"], strict=True))
    return found
