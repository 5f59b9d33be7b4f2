"""Measures what a grid kept: one row a cell."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from creativelib.comparison.grid import cell_header, cell_path, is_finished, subject_path
from creativelib.comparison.plan import Cell, Settings
from creativelib.metrics.features import VIEWS, Novelty, vendi
from creativelib.storage import data_folder, read_tensors

NAMES = {"picture": "novelty", "structure": "structure", "colour": "colour"}  # of novelty in each view


@cache
def real_drawings() -> dict[str, dict]:
    """By subject: where real drawings lie in ``filled`` and ``parts``, and their mean edge strength; empty if none ships."""
    path = data_folder() / "comparison" / "real.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def table(cells: Sequence[Cell], out: str | Path, settings: Settings, weights: dict[str, str]) -> pd.DataFrame:
    """One row a finished cell: its four names, what it measures (means over its pictures), what it cost.

    ``novel_and_valid`` is the share of pictures beyond 95 % of plain ones and recognised by the judge, ``vendi`` that of the
    cell's pictures (where all were delivered), ``whole`` and ``sharpness`` are against real drawings. What a method has not is
    NaN, like ``structure_change`` without a default picture.
    """
    rows, novelty = [], {}
    for cell in dict.fromkeys(cells):
        path = cell_path(Path(out), cell)
        if not is_finished(path, cell_header(cell, settings, weights)):
            continue
        if cell.subject not in novelty:
            plain, facts = read_tensors(subject_path(Path(out), cell.subject))
            novelty[cell.subject] = {view: Novelty.fit(plain[f"plain/{view}"].double().numpy()) for view in VIEWS}
        rows.append(asdict(cell) | _row(cell, settings, novelty[cell.subject], *read_tensors(path)))
    return pd.DataFrame(rows)


def variety(cells: Sequence[Cell], out: str | Path, settings: Settings, weights: dict[str, str]) -> pd.DataFrame:
    """Does a method find something else with another seed? One row for each method, budget and subject.

    ``variety`` is the Vendi score of the first picture of every seed, from 1 (always the same) to ``seeds``; NaN where a seed
    is not finished, since of fewer pictures it is smaller.
    """
    seeds, first = len({cell.seed for cell in cells}), {}
    for cell in dict.fromkeys(cells):
        rows, path = first.setdefault((cell.method, cell.budget, cell.subject), []), cell_path(Path(out), cell)
        if is_finished(path, cell_header(cell, settings, weights)):
            rows.append(read_tensors(path)[0]["picture"][0].double().numpy())
    scores = [(*place, seeds, vendi(np.stack(rows)) if len(rows) == seeds else np.nan) for place, rows in first.items()]
    return pd.DataFrame(scores, columns=["method", "budget", "subject", "seeds", "variety"])


def _row(cell: Cell, settings: Settings, novelty: dict[str, Novelty], tensors: dict, facts: dict) -> dict:
    seen = {name: np.array(values, dtype=float) for name, values in facts["pictures"].items()}
    views = {view: tensors[view].double().numpy() for view in VIEWS}
    row = {NAMES[view]: float(novelty[view].score(rows).mean()) for view, rows in views.items()}
    outside = novelty["picture"].outside(views["picture"])
    row["outside"] = float(outside.mean())
    row["novel_and_valid"] = float((outside & (seen["judge"] > 0.5)).mean())
    row |= {name: float(seen[name].mean()) for name in ("judge", "surprise")}
    row["checker"] = float((seen["checker"] >= facts["accepted_from"]).mean())
    row["vendi"] = vendi(views["picture"]) if len(seen["judge"]) == settings.results else np.nan
    for name in ("structure_change", "colour_distance"):
        row[name] = float(seen[name].mean()) if name in seen else np.nan
    real = real_drawings().get(cell.subject)
    row["whole"] = row["sharpness"] = np.nan
    if real is not None:
        inside = [(seen[name] >= real[name][0]) & (seen[name] <= real[name][1]) for name in ("filled", "parts")]
        row["whole"] = float((inside[0] & inside[1]).mean())
        row["sharpness"] = float(seen["edge_strength"].mean()) / real["edge_strength"]
    cost, steps = facts["provenance"]["cost"], facts["provenance"]["facts"].get("steps", 0)
    return row | {"results": len(seen["judge"]), "steps": steps, **{f"cost_{name}": value for name, value in cost.items()}}


def sheet(
    cells: Sequence[Cell], out: str | Path, settings: Settings, weights: dict[str, str], *, results: int, side: int
) -> Image.Image:
    """A contact sheet of one subject: a row for each method and budget, seed by seed, none picked.

    Each cell has places for ``results`` pictures of ``side`` pixels; where it delivered fewer, or is not finished with these
    settings and weights, they stay white.
    """
    sides = list(dict.fromkeys((cell.method, cell.budget) for cell in cells))
    seeds = list(dict.fromkeys(cell.seed for cell in cells))
    page = Image.new("RGB", (len(seeds) * results * side, len(sides) * side), "white")
    for cell in cells:
        path = cell_path(Path(out), cell)
        if not is_finished(path, cell_header(cell, settings, weights)):
            continue
        top, first = sides.index((cell.method, cell.budget)), seeds.index(cell.seed) * results
        for number, picture in enumerate(read_tensors(path)[0]["images"].numpy()[:results]):
            small = Image.fromarray(picture).resize((side, side), Image.Resampling.LANCZOS)
            page.paste(small, ((first + number) * side, top * side))
    return page
