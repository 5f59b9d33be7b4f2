"""Footnote 3 of the paper, to the letter: the default picture is not rated, its score *is* 1.

"Default output is used as an example image in the survey and its creative score is set to 1 (boring)." So the first point of
Fig. 4 is no rating, and whatever people give the next pictures, if it is more than 1, is a rise. Kept to show what it does;
studies of this package rate default pictures like all others.
"""

import pandas as pd

from creativelib.study.ratings import checked_ratings

BORING = 1


def default_set_to_one(ratings: pd.DataFrame) -> pd.DataFrame:
    """The ratings with ``BORING`` in the place of every rating of a default picture (iteration 0).

    Raises:
        TypeError, ValueError: as ``checked_ratings``; no rating of iteration 0.
    """
    rows = checked_ratings(ratings, ["rater", "value", "iteration"])
    default = rows["iteration"] == 0
    if not default.any():
        raise ValueError("ratings: got none of iteration 0; give those of default pictures too")
    return rows.assign(value=rows["value"].where(~default, BORING))
