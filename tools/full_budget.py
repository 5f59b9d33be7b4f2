"""Ship one comparison of few cells, with what happened in each run: ``data/comparison/full_budget/``. It is made by

    creativelib compare --methods 'conceptlab[steps=2500],creative' --budgets 2500 --subjects vehicle --seeds 1 --results 8 \
        --out build/full-budget
    python tools/full_budget.py build/full-budget

Summaries, answers and varieties stay behind: of one seed and one subject there is no interval, and nothing is decided.
"""

import argparse
import json
import shutil
from dataclasses import asdict
from functools import partial
from pathlib import Path

from creativelib.comparison import grid, report
from creativelib.storage import data_folder, read_facts, replace

RUNS = "runs.json"


def what_happened(folder: Path, comparison: report.Comparison) -> list[dict]:
    """For each cell its names, its cost, its facts (without those of every step), and each picture's nats and probabilities."""
    runs = []
    for cell in comparison.cells:
        kept = read_facts(grid.cell_path(folder, cell))
        facts, pictures = dict(kept["provenance"]["facts"]), {}
        for name in ("loss", "surprise"):
            facts.pop(name, None)
        for name in ("surprise", "judge", "checker"):
            pictures[name] = [round(value, 4) for value in map(float, kept["pictures"][name])]
        runs.append(
            asdict(cell)
            | {"cost": kept["provenance"]["cost"], "accepted_from": kept["accepted_from"], "facts": facts, "pictures": pictures}
        )
    return runs


def ship(folder: Path, out: Path) -> None:
    """From the folder of a finished comparison into ``out``.

    Raises:
        OSError: a file is not there, or cannot be written. ValueError: one is not understood.
    """
    comparison = report.Comparison(folder)
    runs = what_happened(folder, comparison)
    out.mkdir(parents=True, exist_ok=True)
    replace(out / RUNS, lambda file: file.write_text(json.dumps(runs, indent=1) + "\n", encoding="utf-8"))
    for name in ("results.csv", report.NEAREST, *map(report.sheet_name, comparison.subjects), report.MADE_WITH):
        replace(out / name, partial(shutil.copyfile, folder / name))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="that creativelib compare wrote")
    parser.add_argument("--out", type=Path, default=data_folder() / "comparison" / "full_budget")
    arguments = parser.parse_args()
    ship(arguments.folder, arguments.out)


if __name__ == "__main__":
    main()
