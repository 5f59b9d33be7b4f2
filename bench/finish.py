"""What the finish costs and keeps, on the shipped model: ``python -m bench.finish``. Run it again on new weights.

For plain samples and for creative results of the paper's eight subjects, raw and traced: the judge's share, edges against
real pictures' (at 128 px: a traced picture is made small again), size, and seconds of the processor. ``--set reach=1.2``
tries another value of ``Tracing``; several make a table. Pictures are kept in ``build/finish`` for the next table; ``--fresh``
draws them anew, as after training. Needs the packages of the judge and the corpus (``make pocket-corpus``).
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from creativelib import finish
from creativelib.finish import Tracing
from creativelib.generator import load_generator, positive_prompt
from creativelib.metrics import drawing
from creativelib.metrics.pictures import stack
from creativelib.pocket import corpus, judge, taxonomy
from creativelib.prior_sampling import sample_prior
from creativelib.run import CreativeRun
from creativelib.seeds import derive_seed
from creativelib.spaces import make_space
from creativelib.storage import data_folder
from creativelib.typicality import TypicalityModel

NATS = 55.0  # above the plain samples' mean: where creative results are looked at
BASELINE, STEPS, REAL = 800, 150, 60


def draw(generator, subject: str, count: int) -> dict[str, np.ndarray]:
    """Plain and creative pictures of a subject, from the same noise: uint8 (count, H, W, 3) each."""
    seeds = [derive_seed(0, "finish", index) for index in range(count)]
    baseline = sample_prior(generator, positive_prompt(subject), n=BASELINE, progress=False)
    typicality = TypicalityModel.fit(baseline.embeddings, provenance=baseline.provenance)
    plain = float(typicality.surprise(baseline.embeddings).mean())
    space = make_space("lora", generator, subject, 1)
    run = CreativeRun(generator, subject, space, typicality, seed=1, target=plain + NATS).run(STEPS, progress=False)
    embeddings = {"plain": run.default(seeds), "creative": run.sample(seeds)}
    return {
        kind: stack(generator.decode(part, prompt=positive_prompt(subject), seed=seeds)) for kind, part in embeddings.items()
    }


def pictures(folder: Path, model: str, count: int, fresh: bool) -> dict[str, dict[str, np.ndarray]]:
    """Kind -> subject -> pictures, from ``folder`` where they are kept."""
    generator, found = None, {"plain": {}, "creative": {}}
    for subject in taxonomy.SUBJECTS:
        files = {kind: folder / f"{subject}-{kind}.npy" for kind in found}
        if fresh or not all(file.is_file() for file in files.values()):
            generator = generator or load_generator(model)
            folder.mkdir(parents=True, exist_ok=True)
            for kind, drawn in draw(generator, subject, count).items():
                np.save(files[kind], drawn)
            print(f"drawn: {subject}", flush=True)
        for kind, file in files.items():
            found[kind][subject] = np.load(file)[:count]
    return found


def measure(drawn: dict[str, np.ndarray], real: dict[str, np.ndarray], the_judge: judge.Judge, tracing: Tracing | None) -> dict:
    """One row of the table: pictures by subject, raw where ``tracing`` is ``None``."""
    count, row, shown = sum(map(len, drawn.values())), {}, drawn
    if tracing is not None:
        begun = time.process_time()
        documents = {name: [finish.trace(Image.fromarray(one), tracing) for one in part] for name, part in drawn.items()}
        traced = time.process_time()
        large = {name: [finish.render(document) for document in part] for name, part in documents.items()}
        sizes = np.array([len(document) for part in documents.values() for document in part]) / 1000
        row |= {"trace s": (traced - begun) / count, "render s": (time.process_time() - traced) / count}
        row |= {"kB": sizes.mean(), "most kB": sizes.max()}
        side = next(iter(drawn.values())).shape[1]
        shown = {
            name: stack([one.resize((side, side), Image.Resampling.LANCZOS) for one in part]) for name, part in large.items()
        }
    row["sharpness"] = np.mean([drawing.sharpness(part, real[name]) for name, part in shown.items()])
    row["judge"] = np.mean(np.concatenate([the_judge.is_subject(part, name) for name, part in shown.items()]))
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="pocket", help="(default: %(default)s)")
    parser.add_argument("--work", type=Path, default=Path("build/pocket"), help="folder with the corpus (default: %(default)s)")
    parser.add_argument(
        "--pictures", type=Path, default=Path("build/finish"), help="where they are kept (default: %(default)s)"
    )
    parser.add_argument("--count", type=int, default=26, help="pictures of each subject and kind (default: %(default)s)")
    parser.add_argument("--fresh", action="store_true", help="draw the pictures anew")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE,...", help="other values of Tracing")
    options = parser.parse_args()
    variants = {"raw": None, "traced": Tracing()}
    for text in options.set:
        values = dict(part.split("=") for part in text.split(","))
        variants[text] = replace(Tracing(), **{name: type(getattr(Tracing(), name))(value) for name, value in values.items()})
    images, records = corpus.load(options.work)
    real = {name: [i for i, record in enumerate(records) if name in record["nouns"]] for name in taxonomy.SUBJECTS}
    real = {name: images[np.random.default_rng(0).permutation(index)[:REAL]] for name, index in real.items()}
    the_judge = judge.Judge.load(data_folder() / "pocket" / "judge")
    for kind, drawn in pictures(options.pictures, options.model, options.count, options.fresh).items():
        for name, tracing in variants.items():
            row = measure(drawn, real, the_judge, tracing)
            print(f"{kind:9}{name:24}" + "  ".join(f"{key} {value:.3f}" for key, value in row.items()), flush=True)


if __name__ == "__main__":
    main()
