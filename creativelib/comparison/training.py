"""Rare, or new? How far results are from all that the generator learned from. Explored after the run; no hypothesis asks it.

The stated measure of novelty is the distance to plain pictures. It cannot tell what exists and is seldom drawn (cherries, where
plain fruit are apples and pears) from what was never there: both are far from plain pictures. So each result is also held
against the training pictures. *New* here means recognised, further from plain pictures than 95 % of these are from each other,
and further from every training picture than 95 % of the plain pictures are; *rare* means the first two without the third.

Everything is computed from what finished cells keep. The columns are called ``explored_...`` wherever they stand: this measure
was chosen when results had been seen, so it has means and intervals, and no verdict.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from creativelib.comparison.grid import cell_header, cell_path, is_finished, subject_path
from creativelib.comparison.plan import EXPLORED, Cell, Settings
from creativelib.metrics.features import Novelty
from creativelib.metrics.memory import DIMS, Distance, Memory
from creativelib.storage import data_folder, read_tensors
from creativelib.weights import folder_digest

CELL = ["method", "subject", "seed", "budget"]
SUFFIX = {"picture": "", "structure": "_structure"}  # of columns in each view; structure is without colour
SEEN = ["picture", "outside", "judge"]
NEAREST = [f"{name}{suffix}" for suffix in SUFFIX.values() for name in ("nearest", "set", "distance", "beyond")]


def memories(weights: dict[str, str]) -> dict[str, Memory]:
    """By view, of the corpus that a generator of these weights learned from; empty if that is not the one that ships."""
    shipped = data_folder() / "pocket"
    if any(weights.get(part) != folder_digest(shipped / part) for part in ("prior", "decoder")):
        return {}
    return {view: Memory.load(view=view) for view in DIMS}


def nearest(cells: Sequence[Cell], out: str | Path, settings: Settings, weights: dict[str, str]) -> pd.DataFrame:
    """One row a picture of each finished cell: the training picture most like it, as it is and in grey.

    Columns: the cell's four names; ``picture``, its number from 1; ``outside``, whether it is further from plain pictures than
    95 % of these; ``judge``, whether it is recognised; and then, once as it is and once without colour (``..._structure``):
    ``nearest`` and ``set``, label and source of the training picture; ``distance`` from it, where 1 is as far as plain pictures
    are from theirs; ``beyond``, whether 95 % of the plain pictures are nearer to one. Without rows where it is not known what
    the generator learned from.
    """
    rows, known, measures = [], memories(weights), {}
    for cell in dict.fromkeys(cells) if known else ():
        path = cell_path(Path(out), cell)
        if not is_finished(path, cell_header(cell, settings, weights)):
            continue
        if cell.subject not in measures:
            plain, _ = read_tensors(subject_path(Path(out), cell.subject))
            plain = {view: plain[f"plain/{view}"].double().numpy() for view in known}
            fitted = {view: Distance.fit(memory, plain[view]) for view, memory in known.items()}
            measures[cell.subject] = Novelty.fit(plain["picture"]), fitted
        novelty, fitted = measures[cell.subject]
        tensors, facts = read_tensors(path)
        count = len(tensors["images"])
        own = pd.DataFrame({"method": [cell.method] * count, "subject": cell.subject, "seed": cell.seed, "budget": cell.budget})
        own["picture"] = np.arange(1, count + 1)
        own["outside"] = novelty.outside(tensors["picture"].double().numpy())
        own["judge"] = np.array(facts["pictures"]["judge"], dtype=bool)
        for view, measure in fitted.items():
            index, distance = measure.nearest(tensors[view].double().numpy())
            records, suffix = [measure.memory.records[place] for place in index], SUFFIX[view]
            own[f"nearest{suffix}"] = [record["label"] for record in records]
            own[f"set{suffix}"] = [record["set"] for record in records]
            own[f"distance{suffix}"], own[f"beyond{suffix}"] = distance, distance > measure.limit
        rows.append(own)
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=[*CELL, *SEEN, *NEAREST])


def explored(frame: pd.DataFrame, pictures: pd.DataFrame) -> pd.DataFrame:
    """A table of cells (``table.table``) with the columns of ``plan.EXPLORED``, from that of their pictures (``nearest``).

    These are the mean distance, and the share of new pictures, in both views; NaN where nothing is known of a cell's pictures.
    """
    if pictures.empty:
        return frame.assign(**dict.fromkeys(EXPLORED, np.nan))
    columns = pictures[CELL].copy()
    for suffix in SUFFIX.values():
        columns[f"explored_distance{suffix}"] = pictures[f"distance{suffix}"]
        columns[f"explored_new{suffix}"] = pictures[["outside", "judge", f"beyond{suffix}"]].all(axis=1).astype(float)
    return frame.merge(columns.groupby(CELL, as_index=False).mean(), on=CELL, how="left")
