"""Run the main job for the paper's eight subjects and three other words; write the figures and their page to gallery/."""

import argparse
from pathlib import Path

from PIL import Image

from creativelib.cli_arguments import path
from creativelib.creation import PICTURE, Studio, draw
from creativelib.gallery import STEPS, SUBJECTS, counts_as_yes, exhibits, find_run, table
from creativelib.metrics.memory import Memory

WORDS = ("mushroom", "red fish", "lantern")  # that the paper does not have
ROOT = Path(__file__).resolve().parents[1]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=path, default=ROOT / "gallery", help="folder (default: %(default)s)")
    runs = ROOT / "build" / "gallery"
    parser.add_argument("--runs", type=path, default=runs, help="folder of the runs (default: %(default)s)")
    parser.add_argument("--subjects", nargs="+", default=[*SUBJECTS, *WORDS])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--samples", type=int, default=5000, help="of each baseline (default: %(default)s)")
    parser.add_argument("--model", default=None, help="pocket, kandinsky-2.1, kandinsky-2.2 or a folder")
    parser.add_argument("--device", default=None, help="cpu or cuda (default: what there is)")
    parser.add_argument("--raw", action="store_true", help="pictures as they are decoded, not traced")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    studio, memory = Studio(options.model, options.device, progress=False), Memory.load()
    lines = [
        "# Gallery",
        "",
        "`make gallery`: one run of `creativelib create` for each subject of the paper and for other words, on",
        f"{studio.generator.name}, seed {options.seed}, {options.steps} steps, none picked. Above: the default; below: the",
        "same noise after the search. The nearest training picture is the one most like the result, in features of a network",
        "that nothing was trained with (`creativelib.metrics.memory`); the cosine is 1 for a copy.",
    ]
    if not studio.generator.settings.drawings:
        lines.append("That is a picture of the icons' corpus, which this model did not learn from: it says nothing of copies.")
    if not options.raw and studio.generator.settings.drawings:
        lines.append("Pictures are traced for display; the checker saw them as they were decoded.")
    for subject in options.subjects:
        folder = options.runs / subject.replace(" ", "-")
        run = find_run(studio, subject, folder, options.steps, n=options.samples, seed=options.seed)
        before, after = draw(run, folder, traced=not options.raw)
        picture = Image.open(folder / PICTURE).convert("RGB")
        picture.thumbnail((1000, 1000))
        name = f"{folder.name}.jpg"
        picture.save(options.out / name, quality=65, optimize=True, progressive=True)
        ended = f"; ended by the {run.stopped}" if run.stopped else ""
        said = f"surprise {before:.1f} -> {after:.1f} nats after {run.result_step} of {options.steps} steps{ended}"
        said += f"; {counts_as_yes(run)}"
        lines += ["", f"## {subject}", "", f"{said}.", "", f"![{subject}: default above, creative below]({name})", ""]
        lines += table(exhibits(run, memory))
        print(f"{subject}: {said}", flush=True)
    (options.out / "README.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
