"""``creativelib compare``: methods under the same compute, on one core or on a cluster; goes on where it was stopped."""

import argparse
import re
import sys
import tempfile
from pathlib import Path

from creativelib.cli_arguments import path, whole

SMALL = {"subjects": "vehicle,chair", "seeds": 2, "samples": 400, "plain": 60, "results": 2}


def register(commands) -> None:
    """Add the command to ``commands``."""
    parser = commands.add_parser("compare", help="compare methods under the same compute")
    option = parser.add_argument
    option("--methods", default=None, help="with commas; options in brackets: 'tail,creative[space=embedding]' (default: all)")
    option("--subjects", default=None, help="with commas (default: seven of the paper's)")
    option("--seeds", type=whole(1, 1000), default=None, help="how many of each (default: 5)")
    option("--budgets", default="50", help="steps of a creative run that costs as much, with commas (default: 50)")
    option("--stated", action="store_true", help="also what data/comparison/hypotheses.toml asks")
    option("--small", action="store_true", help="two subjects, two seeds, few plain pictures: minutes instead of hours")
    option("--results", type=whole(1, 100), default=None, help="pictures a cell (default: 4)")
    option("--samples", type=whole(51), default=None, help="baseline samples of a subject (default: 5000)")
    option("--plain", type=whole(20), default=None, help="plain pictures that novelty is measured against (default: 1000)")
    option("--out", type=path, default=Path("comparison"), help="folder to write to and to go on from (default: comparison)")
    option("--force", action="store_true", help="replace what was made otherwise, or is in the way, in --out")
    option("--jobs", type=whole(1), default=1, help="processes on this machine (default: 1)")
    option("--cluster", default=None, metavar="ADDRESS", help="of a Dask scheduler, like tcp://host:8786, instead of --jobs")
    option("--model", default="pocket", help="pocket, kandinsky-2.1, kandinsky-2.2 or a folder (default: pocket)")
    option("--checker", default="pocket", help="pocket, a folder or a hub id (default: pocket)")
    option("--device", default="cpu", help="cpu or cuda (default: cpu)")
    option("--quiet", action="store_true", help="no progress bars")
    parser.set_defaults(run=compare)


def require_writable(folder: Path) -> None:
    """Make ``folder`` and try to write in it, before hours are spent."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(f"out: cannot write to {folder} ({error.strerror}); choose another folder with --out") from error


def compare(arguments: argparse.Namespace) -> int:
    """The command ``compare``; returns the exit code. Raises ValueError or OSError with one clear sentence."""
    require_writable(arguments.out)
    budgets = [text.strip() for text in arguments.budgets.split(",")]
    if not all(re.fullmatch("[1-9][0-9]{0,5}", text) for text in budgets):
        raise ValueError(f"budgets: got {arguments.budgets!r}; give whole numbers of steps with commas, for example 50,300")

    from creativelib.comparison import answers, grid, plan, report
    from creativelib.methods import make_method, split_methods
    from creativelib.run_folder import hold

    names = list(plan.METHODS) if arguments.methods is None else split_methods(arguments.methods)
    for name in names:
        make_method(name)  # refuses what is no method, before anything is loaded
    chosen = {"subjects": ",".join(plan.SUBJECTS), "seeds": 5} | (SMALL if arguments.small else {})
    chosen |= {name: value for name in SMALL if (value := getattr(arguments, name)) is not None}
    subjects = [word.strip() for word in chosen.pop("subjects").split(",") if word.strip()]
    for option, given in (("methods", names), ("subjects", subjects)):
        if not given:  # an empty variable of a shell, say
            raise ValueError(
                f"{option}: got {getattr(arguments, option)!r}, which names none; name some, or leave the option away"
            )
    seeds = range(chosen.pop("seeds"))
    settings = plan.Settings(arguments.model, arguments.checker, arguments.device, **chosen)
    asked = plan.hypotheses()
    sides = [(name, int(budget)) for budget in budgets for name in names]
    sides += [side for side in (plan.stated_sides(asked) if arguments.stated else []) if side not in sides]
    cells, failed = plan.grid(sides, subjects, seeds), None
    with hold(arguments.out):
        if not arguments.force:
            report.require_free(arguments.out, subjects)
        try:
            options = {"jobs": arguments.jobs, "cluster": arguments.cluster, "force": arguments.force}
            weights = grid.run(cells, arguments.out, settings, progress=not arguments.quiet, **options)
        except grid.CellsFailed as error:
            if len(error.failed) == len(cells):
                raise  # there is nothing to write
            weights, failed = error.weights, error
        except KeyboardInterrupt:
            kept = f"the finished cells are in {arguments.out}: the same command goes on"
            print(f"creativelib: interrupted; {kept}", file=sys.stderr)
            return 130
        made = report.write(arguments.out, cells, asked, weights, settings)
    print(answers.summary(made.results, ("novelty", "structure", "judge", "whole")).round(2).to_string(index=False))
    if failed:
        raise failed
    return 0
