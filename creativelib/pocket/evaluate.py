"""Measure Pocket Kandinsky: ``python -m creativelib.pocket.evaluate`` (``make pocket-evaluate``).

Writes ``evaluation.json`` (every number), ``sheets/*.jpg`` (contact sheets) and ``MODEL_CARD.md`` (made from the JSON) beside
the shipped model. Everything is measured on the *shipped* half-precision files through the same classes that users load, and
against pictures that nothing was trained on. It takes about 25 minutes on two cores; an evaluation that was interrupted goes
on where it was.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from creativelib.pocket import model_card
from creativelib.pocket.evaluate_checker import measure_checker, measure_judge, measure_kinds, strange
from creativelib.pocket.evaluate_creative import measure_creative
from creativelib.pocket.evaluate_finish import measure_finish
from creativelib.pocket.evaluate_model import (
    measure_autoencoder,
    measure_clip,
    measure_cost,
    measure_counts,
    measure_decoder,
    measure_files,
    measure_memory,
)
from creativelib.pocket.evaluate_pictures import measure_prior, measure_quality, measure_words
from creativelib.pocket.measured import QUICK, Amounts, Measured, weights_of
from creativelib.pocket.sheets import sheet
from creativelib.pocket.train import write_checksums
from creativelib.pullback import load_checker


def search_and_measure(measured: Measured) -> dict:
    """``measure_creative`` with the checker that ships with the model."""
    return measure_creative(measured, load_checker(measured.model / "checker", device="cpu"))


def show_possible(measured: Measured) -> dict:
    """How many held-out possible pictures were looked at; a sheet of the first eight of each subject."""
    rows = [strange(measured, noun)[:8] for noun in measured.subjects]
    sheet(np.concatenate([row for row in rows if len(row) == 8]), measured.sheets / "possible.jpg")
    return {
        "held_out": len(measured.possible[1]),
        "sheet_of": [n for n, row in zip(measured.subjects, rows, strict=True) if len(row) == 8],
    }


PARTS: dict[str, Callable[[Measured], dict]] = {
    "counts": measure_counts,
    "clip": measure_clip,
    "autoencoder": measure_autoencoder,
    "decoder": measure_decoder,
    "prior": measure_prior,
    "quality": measure_quality,
    "creative": search_and_measure,
    "checker": measure_checker,
    "kinds": measure_kinds,
    "possible": show_possible,
    "judge": measure_judge,
    "finish": measure_finish,
    "memorisation": measure_memory,
    "words": measure_words,
    "cost": measure_cost,
    "files": measure_files,
}
"""Every part of ``evaluation.json`` and what measures it, in this order."""


def evaluate(measured: Measured, parts: Sequence[str] = tuple(PARTS), before: dict | None = None) -> dict:
    """The evaluation as one dictionary; writes the sheets on the way.

    Args:
        parts: those to measure. before: an earlier evaluation of the same weights, for the others.

    Raises:
        ValueError: parts are left out and there is no earlier evaluation, or it is of other weights.
    """
    weights = weights_of(measured.model)
    if set(parts) < set(PARTS) and (before or {}).get("weights") != weights:
        raise ValueError(
            "only: no evaluation of these weights is there to take the other parts from; measure all once, without --only"
        )
    training = measured.model / "training.json"
    result = {"weights": weights, "training": json.loads(training.read_text()) if training.exists() else None}
    measured.open_scratch()
    for name, measure in PARTS.items():
        if name not in parts:
            result[name] = before[name]
            continue
        begun = time.monotonic()
        result[name] = measured.part(name, measure)
        print(f"{name}: {time.monotonic() - begun:.0f} s", flush=True)
    result["machine"] = result["cost"]["machine"]
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    option = parser.add_argument
    option("--work", type=Path, default=Path("build/pocket"), help="work folder with both worlds (default: %(default)s)")
    option("--model", type=Path, default=Path("data/pocket"), help="the shipped model (default: %(default)s)")
    option("--out", type=Path, help="where the results go (default: beside the model)")
    option("--only", nargs="+", choices=PARTS, metavar="PART", help=f"measure these anew, keep the rest: {', '.join(PARTS)}")
    option("--quick", action="store_true", help="a tenth of everything, to see that it works; never beside the model")
    options = parser.parse_args()
    out = options.out or options.model
    if options.quick and out.resolve() == options.model.resolve():
        parser.error("--quick measures too little for a card: give --out another folder")
    scratch = options.work / ("evaluation-quick" if options.quick else "evaluation")
    measured = Measured(options.work, options.model, scratch, out / "sheets", QUICK if options.quick else Amounts())
    kept = out / "evaluation.json"
    try:
        result = evaluate(measured, options.only or tuple(PARTS), json.loads(kept.read_text()) if kept.exists() else None)
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))
    out.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(result, indent=2) + "\n")
    (out / "MODEL_CARD.md").write_text(model_card.render(result))
    if out.resolve() == options.model.resolve():
        write_checksums(out)
    measured.clear_scratch()  # a whole evaluation: the next one begins anew
    print(model_card.aims_table(result))


if __name__ == "__main__":
    main()
