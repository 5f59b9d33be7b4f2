"""The command line: ``creativelib create vehicle`` runs the paper's method once and writes a picture and the run."""

import argparse
import sys
import tempfile
from pathlib import Path

SPACE_NAMES = (
    "lora",
    "subject-token",
    "adjective-token",
    "lora+subject-token",
    "embedding",
)  # spaces.SPACES, not imported: slow
DIMS = 50  # S2.1 of the paper
COLUMNS = 6  # images a row of the figure
CALIBRATION = 16  # plain pictures that set the checker's threshold


def whole(least: int):
    """An argparse type: a whole number of at least ``least``."""

    def parse(text: str) -> int:
        if not text.lstrip("-").isdigit() or int(text) < least:
            raise argparse.ArgumentTypeError(f"got {text!r}; give a whole number of at least {least}")
        return int(text)

    return parse


class Parser(argparse.ArgumentParser):
    """Reports a mistake as one line, without the usage block."""

    def error(self, message: str):
        self.exit(2, f"creativelib: {message}\n")


def build_parser() -> argparse.ArgumentParser:
    """The parser of ``creativelib``."""
    parser = Parser(prog="creativelib", description="Creative image generation with a diffusion model.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    create = commands.add_parser("create", help="search for an untypical picture of a subject")
    create.add_argument("words", nargs="*", metavar="SUBJECT", help="what to draw, in any words: vehicle")
    create.add_argument("--subject", default=None, help="the same, as an option")
    create.add_argument("--space", default="lora", help=f"what is searched: {', '.join(SPACE_NAMES)} (default: lora)")
    create.add_argument("--steps", type=whole(1), default=50, help="steps of the search (default: 50)")
    create.add_argument("--seed", type=whole(0), default=0, help="another seed, another result (default: 0)")
    create.add_argument("--model", default=None, help="pocket, kandinsky-2.1, kandinsky-2.2 or a folder (default: pocket)")
    create.add_argument("--out", type=Path, default=Path("creative"), help="folder to write to (default: creative)")
    create.add_argument("--n", type=whole(DIMS + 1), default=5000, help="baseline samples (default: 5000)")
    create.add_argument("--checker", default=None, help="'none', a folder or a hub id (default: the model's own)")
    create.add_argument("--device", default=None, help="cpu or cuda (default: cuda where there is one)")
    create.add_argument("--quiet", action="store_true", help="no progress bars")
    return parser


def require_writable(folder: Path) -> None:
    """Make ``folder`` and try to write in it, before minutes are spent."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(f"out: cannot write to {folder} ({error.strerror}); choose another folder with --out") from error


def create(arguments: argparse.Namespace) -> int:
    """The command ``create``; returns the exit code. Raises ValueError or OSError with one clear sentence."""
    subject = " ".join(arguments.words).strip() if arguments.subject is None else arguments.subject.strip()
    if arguments.words and arguments.subject is not None:
        raise ValueError("subject: given twice; write it after 'create' or with --subject, not both")
    if not any(character.isalnum() for character in subject):
        raise ValueError(f"subject: got {subject!r}; give a word or words, for example: creativelib create vehicle")
    if arguments.space not in SPACE_NAMES:
        raise ValueError(f"space: got {arguments.space!r}; choose one of {', '.join(SPACE_NAMES)}")
    require_writable(arguments.out)

    import torch

    from creativelib.figures import before_after
    from creativelib.generator import load_generator, positive_prompt
    from creativelib.prior_sampling import sample_prior
    from creativelib.pullback import load_checker
    from creativelib.run import CreativeRun
    from creativelib.seeds import derive_seed
    from creativelib.spaces import make_space
    from creativelib.typicality import TypicalityModel

    progress, prompt = not arguments.quiet, positive_prompt(subject)
    generator = load_generator(arguments.model, device=arguments.device)
    chosen = arguments.checker or generator.source.checker
    checker = load_checker(chosen, device=generator.device) if chosen not in (None, "none") else None
    space = make_space(arguments.space, generator, subject, arguments.seed)
    dims = min(DIMS, generator.embedding_dim // 2)  # half only matters for models far smaller than the published
    baseline = sample_prior(generator, prompt, n=arguments.n, seed=arguments.seed, progress=progress)
    if checker is not None:
        plain = generator.decode(baseline.embeddings[:CALIBRATION], prompt=prompt, seed=arguments.seed)
        checker = checker.calibrated(plain, subject)
    typicality = TypicalityModel.fit(baseline.embeddings, dims=dims, provenance=baseline.provenance)
    run = CreativeRun(generator, subject, space, typicality, checker=checker, seed=arguments.seed)
    interrupted = False
    try:
        run.run(arguments.steps, progress=progress, folder=arguments.out)
    except KeyboardInterrupt:
        interrupted = True

    seeds = [derive_seed(arguments.seed, "figure", column) for column in range(COLUMNS)]
    pairs = [run.sample(seeds, step) for step in (0, run.result_step)]
    images = [generator.decode(embeddings, prompt=prompt, seed=seeds) for embeddings in pairs]
    surprises = [typicality.surprise(embeddings).tolist() for embeddings in pairs]
    title = f"{subject}: {run.result_step} steps in the space {space.name!r}, {generator.name}, seed {arguments.seed}"
    before_after(*images, *surprises, title=title).savefig(arguments.out / "before_after.png", dpi=150)
    before, after = (torch.tensor(values).mean().item() for values in surprises)
    print(f"surprise {before:.1f} -> {after:.1f} nats after {run.result_step} of {arguments.steps} steps; see {arguments.out}")
    if run.stopped == "checker":
        refused = run.history[-1]["check"]
        print(f"the checker ended the search at step {run.steps} (P(yes) {refused:.2f}); step {run.result_step} is shown")
    elif run.stopped == "not finite":
        print(f"the search ended at step {run.steps}: the loss was no longer finite; a lower learning rate helps")
    return 130 if interrupted else 0


def main(arguments: list[str] | None = None) -> int:
    """Entry point of ``creativelib``; returns 0, 2 for a mistake in what was asked, 130 when interrupted."""
    try:
        return create(build_parser().parse_args(arguments))
    except (ValueError, OSError) as error:
        print("creativelib: " + " ".join(str(error).split()), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("creativelib: interrupted before the search began; nothing was written", file=sys.stderr)
        return 130
