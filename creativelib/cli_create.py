"""``creativelib create vehicle``: the paper's method once for each seed, kept in a folder that can be gone on with."""

import argparse
import sys
from dataclasses import fields, replace
from pathlib import Path

from creativelib.cli_arguments import named_number, path, real, seed, seeds, whole
from creativelib.cli_request import OPTIONS, RULES, Request

SPACES = ("lora", "subject-token", "adjective-token", "lora+subject-token", "embedding")  # spaces.SPACES, not imported: slow
LEAST_SAMPLES = 51  # one more than there are principal directions
MOST_SAMPLES = 1_000_000  # of the baseline, 200 times the paper's: more is a slip of the keyboard


def register(commands) -> None:
    """Add the command to ``commands``."""
    parser = commands.add_parser(
        "create",
        help="search for an untypical picture of a subject",
        description="Search for an untypical picture of a subject. The folder keeps the run, its baseline and a picture; the "
        "same command again goes on where it was interrupted, and a larger --steps goes further.",
    )
    option = parser.add_argument
    option("words", nargs="*", metavar="SUBJECT", help="what to draw, in any words: vehicle")
    option("--subject", help="the same, as an option")
    option("--out", type=path, default=Path("creative"), help="folder to write to (default: creative)")
    option("--resume", action="store_true", help="go on with the run in --out, with its own settings; no SUBJECT is needed")
    option("--force", action="store_true", help="replace another run that is in --out")
    option("--steps", type=whole(1), default=50, help="steps of the search in all (default: 50)")
    option("--seed", type=seed, help="another seed, another result (default: 0)")
    option("--seeds", type=seeds, metavar="LIST", help="several runs on one baseline, in folders of their own: 0-4 or 1,5,9")
    option("--model", help="pocket, kandinsky-2.1, kandinsky-2.2 or a folder (default: pocket)")
    option("--device", help="cpu or cuda (default: cuda where there is one)")
    option("--memory", metavar="AMOUNT", help="how much of a card to use, e.g. 12GB (default: what others have left)")
    option("--anchor", choices=("decoder", "prior"), help="text encoder of the anchor, of Kandinsky 2.1 (default: decoder)")
    what = "what its decoder is told beside the embedding (default: empty)"
    option("--decoder-prompt", choices=("empty", "subject"), help=what)
    option("--raw", action="store_true", help="show pictures as they are decoded, not traced to clean contours (and no SVG)")
    option("--quiet", action="store_true", help="no progress bars")

    option = parser.add_argument_group("the search").add_argument
    option("--space", help=f"what is searched: {', '.join(SPACES)} (default: lora)")
    option("--rank", type=whole(1), help="of the LoRA (default: 10, as in the paper)")
    option("--adjective", metavar="WORD", help="what the adjective token starts as (default: creative)")
    option(
        "--learning-rate", type=real(0, above=True), metavar="RATE", help="of AdamW (default: the model's; 1e-4 in the paper)"
    )
    option("--target", type=real(), metavar="NATS", help="stop at this surprise (default: none)")
    kinds = "alternating[=THRESHOLD] or sum[=WEIGHT] (default: alternating, with the threshold that suits the model)"
    option("--rule", type=named_number(tuple(RULES)), help=f"what a step minimises: {kinds}")
    option("--checker", help="'none', a folder or a hub id (default: the model's own)")

    option = parser.add_argument_group("the prior and its baseline").add_argument
    option("--prior-steps", type=whole(2), metavar="STEPS", help="of the prior (default: the model's; 5 in the paper)")
    option("--guidance", type=real(), help="of the prior; 1 or less turns it off (default: the model's)")
    option("--n", type=whole(LEAST_SAMPLES, MOST_SAMPLES), help="baseline samples (default: 5000)")
    option("--baseline-seed", type=seed, metavar="SEED", help="of the baseline samples (default: the first seed)")

    option = parser.add_argument_group("what to keep away from").add_argument
    what = "pictures that are not wanted, or the folder of a run whose result is not; may be given several times"
    option("--cluster", action="append", default=[], type=path, metavar="FOLDER", help=what)
    option("--alpha", type=real(0, above=True), help="strength of the clusters (default: 1)")
    forms = ("repel", "literal", "bounded")
    option("--form", choices=forms, help="how they push: repel, literal (Eq. 7 as printed) or bounded (default: repel)")
    parser.set_defaults(run=create)


def read(arguments: argparse.Namespace) -> Request:
    """What was asked for.

    Raises:
        ValueError: options that make no sense together, or no subject.
    """
    words = " ".join(arguments.words).strip()
    subject = words if arguments.subject is None else arguments.subject.strip()
    if words and arguments.subject is not None:
        raise ValueError("subject: given twice; write it after 'create' or with --subject, not both")
    if not any(character.isalnum() for character in subject) and (subject or not arguments.resume):
        raise ValueError(f"subject: got {subject!r}; give a word or words, for example: creativelib create vehicle")
    if arguments.resume and arguments.force:
        raise ValueError("resume: go on with the run in the folder, or replace it by --force, not both")
    if arguments.seeds and arguments.seed is not None:
        raise ValueError("seeds: give --seed or --seeds, not both")
    if arguments.space not in (None, *SPACES):
        raise ValueError(f"space: got {arguments.space!r}; choose one of {', '.join(SPACES)}")
    space = arguments.space or (None if arguments.resume else SPACES[0])
    for name in ("rank", "adjective"):
        if getattr(arguments, name) is not None and space is not None and OPTIONS.get(space) != name:
            having = [one for one, own in OPTIONS.items() if own == name]
            raise ValueError(f"{name}: the space {space!r} has none; leave it out, or choose --space {' or '.join(having)}")
    for name in ("alpha", "form"):
        if getattr(arguments, name) is not None and not arguments.cluster and not arguments.resume:
            raise ValueError(f"{name}: there is no cluster that it could be of; leave it out, or give --cluster FOLDER")
    rule, number = arguments.rule or (None, None)
    given = {field.name: getattr(arguments, field.name, None) for field in fields(Request)}
    first = arguments.seeds[0] if arguments.seeds and arguments.baseline_seed is None else arguments.baseline_seed
    given |= {"subject": subject or None, "rule": rule, "rule_number": number, "baseline_seed": first}
    return Request(**{**given, "clusters": tuple(arguments.cluster)})


def create(arguments: argparse.Namespace) -> int:
    """The command ``create``; returns the exit code. Raises ValueError or OSError with one clear sentence."""
    request = read(arguments)
    asked = {arguments.out: request}
    if arguments.seeds:
        asked = {arguments.out / f"seed-{one}": replace(request, seed=one) for one in arguments.seeds}

    from creativelib.creation import Studio
    from creativelib.run_folder import find_run

    model, switches = arguments.model, {"anchor": arguments.anchor, "decoder_prompt": arguments.decoder_prompt}
    for folder in asked if arguments.resume else ():
        kept = find_run(folder)
        if kept is None:
            raise ValueError(f"resume: there is no run in {folder}; say what to create, or where it is with --out")
        settings = kept["settings"]
        model = model or kept.get("origin")
        switches["anchor"] = switches["anchor"] or settings.get("anchor")
        switches["decoder_prompt"] = switches["decoder_prompt"] or settings.get("decoder", {}).get("prompt")
    studio = Studio(model, arguments.device, memory=arguments.memory, **switches, progress=not arguments.quiet)
    for folder, one in ({} if arguments.force else asked).items():  # before any of them takes its time
        if studio.compare(one, folder, resume=arguments.resume) is None:
            studio.require_free(one, folder)
    for folder, one in asked.items():
        code = create_one(studio, one, folder, arguments)
        if code:
            return code
    return 0


def create_one(studio, request: Request, folder: Path, arguments: argparse.Namespace) -> int:
    """One run in its folder, and its picture; returns the exit code."""
    from creativelib.creation import draw
    from creativelib.run_folder import hold

    with hold(folder):
        run = None if arguments.force else studio.open(request, folder, arguments.steps, resume=arguments.resume)
        if run is None:
            run = studio.make(request, folder, arguments.steps)
            persist(lambda: studio.keep(run, folder, force=arguments.force), "the same command")
        elif run.steps >= arguments.steps:
            print(f"{folder} holds this run, which has {run.steps} steps already; a larger --steps goes further")
        elif run.steps:
            print(f"{folder} holds this run: going on after {run.steps} steps")
        interrupted, again = False, "the same command" + arguments.force * " without --force"
        try:
            persist(lambda: run.run(arguments.steps, progress=not arguments.quiet, folder=folder), again)
        except KeyboardInterrupt:
            interrupted = True
        saved = f"the run itself is saved: make room there, then {again} draws the picture"
        before, after = persist(lambda: draw(run, folder, traced=not arguments.raw), again, saved)
    steps = max(arguments.steps, run.steps)
    print(f"surprise {before:.1f} -> {after:.1f} nats after {run.result_step} of {steps} steps; see {folder}")
    if run.stopped == "checker":
        refused = run.history[-1]["check"]
        print(f"the checker ended the search at step {run.steps} (P(yes) {refused:.2f}); step {run.result_step} is shown")
    elif run.stopped == "no answer":
        print(f"the checker's answer at step {run.steps} was no number; step {run.result_step} is shown; again asks it again")
    elif run.stopped == "not finite":
        print(
            f"the search ended at step {run.steps}: the loss was no longer finite; step {run.result_step} is shown; a lower "
            "learning rate helps"
        )
    elif run.stopped == "target":
        print(f"the search ended at step {run.steps}: it reached its target")
    return 130 if interrupted else 0


def persist(write, again: str, saved: str = ""):
    """``write()``, again and again while the disk is full and somebody is there to make room.

    Args:
        again: the command that goes on once there is room. saved: what to say of what is on the disk, where nobody is there.

    Raises:
        OSError: it cannot be written, and nobody is there or it is no matter of room.
    """
    from creativelib.loading import disk_is_full
    from creativelib.run import NotSaved

    while True:
        try:
            return write()
        except OSError as error:
            full, lost = disk_is_full(error), isinstance(error, NotSaved)
            if not full and not lost:
                raise
            said = f"out: cannot write to {error.folder} ({error.reason})" if lost else str(error)
            if lost:
                there = f"the first {error.saved_step} steps are" if error.saved_step else "no step is"
                saved = f"{there} saved there: make room, then {again} goes on"
            if not (full and answered(said)):
                saved = saved or f"make room there, then {again} goes on"
                raise OSError(f"{said}; {saved}" if full else f"{said}; what was not saved before is lost") from error


def answered(said: str) -> bool:
    """Show somebody what is wrong and wait for the Enter key; whether it came."""
    if sys.stdin is None or not sys.stdin.isatty():  # None: a program without a terminal
        return False
    print("creativelib: " + " ".join(said.split()), file=sys.stderr)
    print("Nothing is lost while this waits: free some space there, then press Enter (Ctrl-C gives up).", file=sys.stderr)
    try:
        input()
    except EOFError:
        return False
    return True
