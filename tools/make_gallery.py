"""Run ``creativelib create`` for the paper's eight subjects and three others; write the figures and their page to gallery/."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from PIL import Image

from creativelib.cli_arguments import path

SUBJECTS = ("building", "vehicle", "alien", "fruit", "handbag", "chair", "pet", "dinosaur", "mushroom", "red fish", "lantern")
ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=path, default=ROOT / "gallery", help="folder (default: %(default)s)")
    parser.add_argument(
        "--runs", type=path, default=ROOT / "build" / "gallery", help="where the runs go (default: %(default)s)"
    )
    parser.add_argument("--seed", default="0")
    parser.add_argument("--raw", action="store_true", help="pictures as they are decoded, not traced")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    lines = [
        "# Gallery",
        "",
        "`make gallery`: one run of `creativelib create` for each subject of the paper and for three other words, on Pocket",
        f"Kandinsky, seed {options.seed}, 50 steps, none picked. Above: the default; below: the same noise after the search.",
    ]
    if not options.raw:
        lines.append("Pictures are traced for display; the checker saw them as they were decoded.")
    for subject in SUBJECTS:
        folder = options.runs / subject.replace(" ", "-")
        options_of_run = ["--seed", options.seed, "--out", str(folder), "--force", "--quiet", *["--raw"][: options.raw]]
        command = [sys.executable, "-m", "creativelib", "create", subject, *options_of_run]
        said = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout.split("; see")[0]
        picture = Image.open(folder / "before_after.png").convert("RGB")
        picture.thumbnail((1000, 1000))
        name = f"{folder.name}.jpg"
        picture.save(options.out / name, quality=88)
        run = json.loads((folder / "run.json").read_text())
        ended = f"; ended by the {run['stopped']}" if run["stopped"] else ""
        lines += ["", f"## {subject}", "", f"{said}{ended}.", "", f"![{subject}: default above, creative below]({name})"]
        print(f"{subject}: {said}{ended}", flush=True)
    (options.out / "README.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
