"""Dissolved pictures: what a search that nothing holds back leaves of a subject. A fixed set that checkers are measured on.

*Dissolved* is a rule, not a taste. A picture is dissolved when both hold:

1. it is the result of a search of default settings *without* a checker, at a target far beyond any that is asked for:
   ``FAR`` nats above plain, so nothing but the anchor held it;
2. the judge does not call it the subject, and the judge was in no loss and no check of that search.

How full its outline is says nothing of it: what the second generation left of a building at 150 nats is a maze of strokes
inside a closed outline, as full as a house's.

The set was made once, with Pocket Kandinsky's second generation, whose decoder knew the typical world alone, and it does not
change with the weights: a model whose own far pictures stay whole could not say whether its checker would have seen the
difference. What checkers and judges of this project learn to refuse (``spoilt``) is made from drawings by a program; no decoder
drew it, and none of this set is in it.

``python -m creativelib.pocket.dissolved`` made it; running it again on other weights makes another set.
"""

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np
from PIL import Image

from creativelib.pocket import corpus
from creativelib.pocket.evaluate_creative import Trials, figure_seeds
from creativelib.pocket.measured import Amounts, Measured, weights_of
from creativelib.storage import data_folder

FAR = (150.0, 225.0, 300.0)  # nats above plain
RUNS, NOISE_SEEDS, STEPS = 1, 16, 600  # of each subject; steps at most
KEPT = 10  # pictures of each subject at most, evenly over runs and distances
FOLDER = data_folder() / "dissolved"


def far_pictures(measured: Measured, noun: str) -> dict[str, np.ndarray]:
    """Pictures (n, 128, 128, 3) of searches without a checker at every distance of ``FAR``, and their ``nats`` above plain."""
    trials, images, nats = Trials(measured, noun, checker=None), [], []
    for seed in range(RUNS):
        run, seeds = trials.begin(seed, FAR[0]), figure_seeds(seed, NOISE_SEEDS)
        for distance in FAR:
            run.aim(trials.plain_nats + distance).run(STEPS, progress=False)
            drawn, at = trials.draw(run.sample(seeds), seeds)
            images.append(drawn)
            nats.append(at)
    return {"pictures": np.concatenate(images), "nats": np.concatenate(nats)}


def dissolved(measured: Measured, noun: str, images: np.ndarray) -> np.ndarray:
    """Which far pictures (n, 128, 128, 3) of a subject are dissolved, (n,) bool: the second part of the rule."""
    return ~measured.judge.is_subject(images, noun)


def make(measured: Measured, folder: Path = FOLDER) -> dict:
    """Make the set: one picture file, one row of pictures after the other, and ``dissolved.json`` about them."""
    rows, about = [], {"weights": weights_of(measured.model), "nats": list(FAR), "subjects": {}}
    for noun in measured.subjects:
        far = measured.kept(f"far-{noun}", lambda noun=noun: far_pictures(measured, noun))
        found = np.flatnonzero(dissolved(measured, noun, far["pictures"]))
        kept = found[np.linspace(0, len(found) - 1, min(KEPT, len(found))).round().astype(int)] if len(found) else found
        rows.append(far["pictures"][kept])
        about["subjects"][noun] = {"pictures": len(kept), "far": len(far["nats"]), "dissolved": len(found)}
        about["subjects"][noun]["nats_above_plain"] = [round(float(value), 1) for value in far["nats"][kept]]
        print(f"{noun}: {len(found)} of {len(far['nats'])} far pictures are dissolved", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "pictures.webp"
    strip = np.concatenate(rows)
    Image.fromarray(strip.reshape(-1, corpus.SIZE, 3)).save(path, quality=95, method=6)  # lossless it is 0.9 MB
    about["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / "dissolved.json").write_text(json.dumps(about, indent=1) + "\n")
    return about


def load(folder: Path = FOLDER) -> dict[str, np.ndarray]:
    """The set: pictures (n, 128, 128, 3) uint8 of each subject.

    Raises:
        FileNotFoundError: it is not there.
    """
    if not (folder / "dissolved.json").exists():
        raise FileNotFoundError(f"There is no set of dissolved pictures in {folder}: fetch the whole repository.")
    about = json.loads((folder / "dissolved.json").read_text())
    with Image.open(folder / "pictures.webp") as file:
        images = np.asarray(file.convert("RGB")).reshape(-1, corpus.SIZE, corpus.SIZE, 3)
    counts = [one["pictures"] for one in about["subjects"].values()]
    return dict(zip(about["subjects"], np.split(images, np.cumsum(counts)[:-1]), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("build/pocket"), help="work folder (default: %(default)s)")
    parser.add_argument("--model", type=Path, default=Path("data/pocket"), help="whose searches (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=FOLDER, help="where the set goes (default: %(default)s)")
    options = parser.parse_args()
    scratch = options.work / "dissolved"
    measured = Measured(options.work, options.model, scratch, scratch / "sheets", Amounts(baseline=2000))
    measured.open_scratch()
    make(measured, options.out)


if __name__ == "__main__":
    main()
