"""``creativelib create vehicle``: runs the paper's method once and writes a picture and the run."""

import argparse
import tempfile
from pathlib import Path

from creativelib.cli_arguments import path, seed, whole

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
MOST_SAMPLES = 1_000_000  # of the baseline, 200 times the paper's: more is a slip of the keyboard


def register(commands) -> None:
    """Add the command to ``commands``."""
    create_parser = commands.add_parser("create", help="search for an untypical picture of a subject")
    option = create_parser.add_argument
    option("words", nargs="*", metavar="SUBJECT", help="what to draw, in any words: vehicle")
    option("--subject", default=None, help="the same, as an option")
    option("--space", default="lora", help=f"what is searched: {', '.join(SPACE_NAMES)} (default: lora)")
    option("--steps", type=whole(1), default=50, help="steps of the search (default: 50)")
    option("--seed", type=seed, default=0, help="another seed, another result (default: 0)")
    option("--model", default=None, help="pocket, kandinsky-2.1, kandinsky-2.2 or a folder (default: pocket)")
    option("--out", type=path, default=Path("creative"), help="folder to write to (default: creative)")
    option("--n", type=whole(DIMS + 1, MOST_SAMPLES), default=5000, help="baseline samples (default: 5000)")
    option("--checker", default=None, help="'none', a folder or a hub id (default: the model's own)")
    option("--device", default=None, help="cpu or cuda (default: cuda where there is one)")
    option("--quiet", action="store_true", help="no progress bars")
    create_parser.set_defaults(run=create)


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
