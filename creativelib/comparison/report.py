"""What a comparison leaves: tables and a sheet of pictures for each subject, in a folder that can be opened again."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path

import pandas as pd
from PIL import Image

from creativelib.comparison import answers, grid, plan, table, training
from creativelib.methods import make_method
from creativelib.methods.rates import RATES
from creativelib.storage import data_folder, replace

SHEET, QUALITY = 72, 60  # pixels of a picture on a sheet; of its WebP, half as large as a JPEG that looks alike
MADE_WITH, NEAREST = "made_with.json", "nearest.csv.gz"
GZIP = {"method": "gzip", "compresslevel": 9, "mtime": 1}  # the same bytes whenever it is written
TABLES = ("results.csv", "summary.csv", "answers.csv", "variety.csv", NEAREST)


def sheet_name(subject: str) -> str:
    return f"{subject.replace(' ', '-')}.webp"


def left_open(cells: Iterable[plan.Cell]) -> dict:
    """What the names of methods leave open, and results depend on: their options, and the rates of the spaces."""
    return {
        "options": {name: make_method(name).settings for name in dict.fromkeys(cell.method for cell in cells)},
        "rates": RATES,
    }


def write(
    out: str | Path,
    cells: Sequence[plan.Cell],
    asked: Iterable[plan.Hypothesis],
    weights: dict[str, str],
    settings: plan.Settings,
) -> "Comparison":
    """Measure what is finished of ``cells``, and write ``results.csv``, ``summary.csv``, ``answers.csv``, ``variety.csv``,
    ``nearest.csv.gz``, a sheet for each subject and ``made_with.json``, into the folder that they are in. Each file is replaced
    as a whole, the last one last.

    Raises:
        ValueError: no cell is finished. OSError: a file cannot be written; names it.
    """
    out = Path(out)
    frame = table.table(cells, out, settings, weights)
    if frame.empty:
        raise ValueError(f"out: no cell of this comparison is finished in {out}")
    pictures = training.nearest(cells, out, settings, weights)
    frame = training.explored(frame, pictures)
    measures = [name for name in (*plan.MEASURES, *plan.EXPLORED) if name in frame]
    tables = {
        "results.csv": frame.round(5),
        "summary.csv": answers.summary(frame, measures).round(4),
        "answers.csv": answers.answer(frame, asked).round(5),
        "variety.csv": table.variety(cells, out, settings, weights).round(4),
    }
    for name, rows in tables.items():
        replace(out / name, partial(rows.to_csv, index=False))
    replace(out / NEAREST, partial(pictures.round(3).to_csv, index=False, compression=GZIP))
    for subject in dict.fromkeys(cell.subject for cell in cells):
        own = [cell for cell in cells if cell.subject == subject]
        page = table.sheet(own, out, settings, weights, results=settings.results, side=SHEET)
        replace(out / sheet_name(subject), partial(page.save, format="WEBP", quality=QUALITY, method=6))
    facts = {"weights": weights, "settings": settings.facts, "cells": len(frame), **left_open(cells)}
    facts["plan"] = [asdict(cell) for cell in cells]
    replace(out / MADE_WITH, lambda file: file.write_text(json.dumps(facts) + "\n", encoding="utf-8"))
    return Comparison(out)


def require_free(out: str | Path, subjects: Iterable[str]) -> None:
    """Refuse a folder without a comparison that holds files which ``write`` would replace.

    Raises:
        FileExistsError: names them.
    """
    names = [name for name in (*TABLES, *map(sheet_name, subjects)) if (Path(out) / name).exists()]
    if names and not grid.cells_folder(out).is_dir() and not (Path(out) / MADE_WITH).is_file():
        raise FileExistsError(
            f"out: {out} holds files that would be overwritten ({', '.join(names)}), but no comparison: the rest of one, or "
            "files of your own; choose another folder with --out, or replace them by --force"
        )


class Comparison:
    """A folder that ``write`` made, for example the one that ships.

    Raises:
        FileNotFoundError: there is none. ValueError: a file in it is not understood.
    """

    def __init__(self, folder: str | Path | None = None):
        self.folder = data_folder() / "comparison" if folder is None else Path(folder)
        path = self.folder / MADE_WITH
        if not path.is_file():
            raise FileNotFoundError(f"folder: there is no {path}; make it with: creativelib compare --out {self.folder}")
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
            self.weights, self.cells = facts["weights"], [plan.Cell(**cell) for cell in facts["plan"]]
            self.settings = plan.Settings(**facts["settings"])
            self._left_open = {name: facts.get(name, {}) for name in ("options", "rates")}
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"folder: {path} is not understood ({error}); make the comparison again") from error

    def differences(self, weights: dict[str, str]) -> list[str]:
        """What it was made with that is not so here and now: parts of the model, options of methods, rates of spaces.

        Empty if it is of ``weights`` and of the methods as they are.
        """
        now = {"weights": weights, **left_open(self.cells)}
        then = {"weights": self.weights, **self._left_open}
        parts = ((kind, sorted(name for name in now[kind] if then[kind].get(name) != now[kind][name])) for kind in now)
        return [f"{kind} ({', '.join(names)})" for kind, names in parts if names]

    @cached_property
    def results(self) -> pd.DataFrame:
        """One row a cell: see ``table.table``."""
        return pd.read_csv(self.folder / "results.csv")

    @cached_property
    def answers(self) -> pd.DataFrame:
        """One row a hypothesis: see ``answers.answer``."""
        return pd.read_csv(self.folder / "answers.csv")

    @cached_property
    def variety(self) -> pd.DataFrame:
        """One row a method, budget and subject: see ``table.variety``."""
        return pd.read_csv(self.folder / "variety.csv")

    @cached_property
    def nearest(self) -> pd.DataFrame:
        """One row a picture, with the training picture most like it: see ``training.nearest``."""
        return pd.read_csv(self.folder / NEAREST)

    @property
    def sides(self) -> list[tuple[str, int]]:
        """Methods and budgets, in the order of the sheets' rows."""
        return list(dict.fromkeys((cell.method, cell.budget) for cell in self.cells))

    @property
    def subjects(self) -> list[str]:
        return list(dict.fromkeys(cell.subject for cell in self.cells))

    @property
    def seeds(self) -> list[int]:
        return list(dict.fromkeys(cell.seed for cell in self.cells))

    def pictures(self, subject: str, side: tuple[str, int], seed: int) -> list[Image.Image]:
        """The pictures of a cell, cut out of its sheet: fewer than ``settings.results`` where fewer were delivered.

        Raises:
            ValueError: no such cell.
        """
        cell = plan.Cell(side[0], subject, seed, side[1])
        if cell not in self.cells:
            raise ValueError(f"subject, side, seed: got {subject!r}, {side}, {seed}; there is no such cell")
        rows = self.results
        found = rows[(rows["method"] == cell.method) & (rows["budget"] == cell.budget)]
        found = found[(found["subject"] == subject) & (found["seed"] == seed)]
        count = int(found["results"].iloc[0]) if len(found) else 0
        page, top = self._sheet(subject), self.sides.index(side) * SHEET
        left = self.seeds.index(seed) * self.settings.results * SHEET
        boxes = [(left + number * SHEET, top, left + (number + 1) * SHEET, top + SHEET) for number in range(count)]
        return [page.crop(box) for box in boxes]

    def _sheet(self, subject: str) -> Image.Image:
        return Image.open(self.folder / sheet_name(subject)).convert("RGB")


@dataclass(frozen=True)
class Found:
    """A comparison, and a sentence that says where it comes from."""

    comparison: Comparison
    said: str


def shipped_or_small(
    weights: dict[str, str],
    sides: Sequence[tuple[str, int]],
    subjects: Sequence[str],
    seeds: Sequence[int],
    settings: plan.Settings,
    out: str | Path,
    *,
    shipped: str | Path | None = None,
) -> Found:
    """The comparison that ships, if it is of these weights, options and rates; else a small one, computed now; says which.

    Of the small one, cells that cannot be computed are left out, and named.

    Args:
        weights: of generator and checker, see ``work.weights_of``. sides, subjects, seeds, settings: of the small one.
        out: its folder; what is finished there is not made again, what was made otherwise is replaced.
        shipped: the other one's; by default ``data/comparison``.

    Raises:
        ValueError: no cell of the small one could be computed (``grid.CellsFailed``). OSError: as ``grid.run``.
    """
    try:
        comparison = Comparison(shipped)
    except FileNotFoundError:
        why = "no comparison ships with this version"
    else:
        if not (other := comparison.differences(weights)):
            rows = f"{len(comparison.subjects)} subjects, {len(comparison.seeds)} seeds"
            return Found(comparison, f"the comparison that ships, made with these weights: {rows}")
        why = f"the comparison that ships was made with other {' and '.join(other)}"
    cells = plan.grid(sides, subjects, seeds)
    rows = f"{len(subjects)} subjects, {len(seeds)} seeds, {settings.results} pictures a cell"
    try:
        made = grid.run(cells, out, settings, progress=False, force=True)
    except grid.CellsFailed as error:
        if len(error.failed) == len(cells):
            raise
        made, rows = error.weights, f"{rows}; {error}"
    return Found(write(out, cells, plan.hypotheses(), made, settings), f"{why}, so this is a small one, computed now: {rows}")
