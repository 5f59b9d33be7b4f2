"""Runs a plan: cells in parallel, each written as it ends; whatever is there already is not made again."""

import errno
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from joblib import Parallel, delayed, parallel_config
from tqdm.auto import tqdm

from creativelib.comparison.plan import Cell, Settings, require_affordable
from creativelib.comparison.work import OtherWeights, compute, identity, machinery, prepare
from creativelib.machine import first_line, machine_failed, memory_is_full
from creativelib.methods import make_method
from creativelib.methods.rates import RATES
from creativelib.run_folder import differences
from creativelib.storage import plain_json, read_facts, read_tensors, write_tensors

FORMAT = 1  # of the files; another one is made anew
CONNECT_SECONDS = 10
FULL = (errno.ENOSPC, errno.EDQUOT)  # of a disk
LOST = ("TerminatedWorkerError", "KilledWorker", "BrokenProcessPool", "CommClosedError")  # joblib's and Dask's errors


class WorkerLost(OSError):
    """A worker process ended before its cell did."""


class CellsFailed(ValueError):
    """Some cells could not be computed, after all others were.

    Attributes:
        failed: why, by cell. weights: that the others were made with.
    """

    def __init__(self, failed: dict[Cell, str], weights: dict[str, str]):
        self.failed, self.weights = failed, weights
        cell, reason = next(iter(failed.items()))
        super().__init__(
            f"cells: {len(failed)} failed and the others are kept; the first is {cell.method} of {cell.subject}, seed "
            f"{cell.seed}, budget {cell.budget}: {reason}"
        )


def header(kind: str, settings: Settings, weights: dict[str, str], **what) -> dict:
    """What must agree for a file to count as finished."""
    return {"kind": kind, "format": FORMAT, "settings": settings.facts, "weights": weights, **what}


def cell_header(cell: Cell, settings: Settings, weights: dict[str, str]) -> dict:
    """Of a cell's file. What the method's name leaves open counts too: its options, and the rates of the spaces."""
    options = make_method(cell.method).settings
    return header("comparison cell", settings, weights, cell=asdict(cell), options=options, rates=RATES)


def is_finished(path: Path, wanted: dict) -> bool:
    """Whether ``path`` holds exactly what is wanted; a file of other weights or settings, or a damaged one, does not."""
    try:
        facts = read_facts(path)
    except (OSError, ValueError):
        return False
    return all(facts.get(key) == value for key, value in wanted.items())


def require_same(tasks: Sequence[tuple[Path, dict, tuple[Callable, ...]]], out: Path) -> None:
    """Refuse a folder in which files of the tasks were made otherwise: hours may be in them. Damaged ones are no loss.

    Raises:
        FileExistsError: says how many, in what the first differs, and what to do.
    """
    others = []
    for path, wanted, _ in tasks:
        with suppress(OSError, ValueError):
            facts = read_facts(path)
            others += [differing] if (differing := differences({key: facts.get(key) for key in wanted}, wanted)) else []
    if others:
        raise FileExistsError(
            f"out: {out} holds another comparison: {len(others)} of its files were made with other settings "
            f"({'; '.join(others[0])}); choose another folder with --out, or make them anew by --force"
        )


def subject_path(out: Path, subject: str) -> Path:
    return Path(out) / "subjects" / f"{Cell('', subject, 0, 0).file}.safetensors"


def cells_folder(out: str | Path) -> Path:
    return Path(out) / "cells"


def cell_path(out: Path, cell: Cell) -> Path:
    return cells_folder(out) / f"{cell.file}.safetensors"


@contextmanager
def backend(jobs: int, cluster: str | None) -> Iterator[None]:
    """joblib's own processes, or the workers of a Dask scheduler at an address like ``tcp://host:8786``.

    Raises:
        OSError: nobody answers there. ImportError: Dask is not installed.
    """
    if cluster is None:
        with parallel_config(
            backend="loky" if jobs != 1 else "sequential", n_jobs=jobs, inner_max_num_threads=1 if jobs != 1 else None
        ):
            yield
        return
    try:
        from distributed import Client
    except ImportError as error:
        raise ImportError("cluster: needs the package distributed: pip install 'creativelib[cluster]'") from error
    try:
        client = Client(cluster, timeout=CONNECT_SECONDS, set_as_default=True)
    except (OSError, ValueError) as error:
        raise OSError(
            f"cluster: no Dask scheduler answers at {cluster}; start one with: dask scheduler, dask worker"
        ) from error
    with client, parallel_config(backend="dask", wait_for_workers_timeout=CONNECT_SECONDS):
        yield


def run(
    cells: Sequence[Cell],
    out: str | Path,
    settings: Settings = Settings(),  # noqa: B008 - frozen
    *,
    jobs: int = 1,
    cluster: str | None = None,
    progress: bool = True,
    force: bool = False,
) -> dict[str, str]:
    """Compute what is missing of the cells in the folder ``out``; returns the weights that it was made with.

    Killed at any moment, it goes on where it was: called again, also with more cells, on more processes or on a cluster. A cell
    depends on its own seed, so how the work is shared out changes no bit of it.

    Args:
        jobs: processes; -1 for as many as there are cores. cluster: address of a Dask scheduler instead.
        progress: a bar that counts cells and tells what is left.
        force: make anew what was made with other settings, weights, options or rates.

    Raises:
        FileExistsError: ``out`` holds some of the cells made otherwise, and not ``force``.
        ValueError: an unknown method or subject, a budget too small for one result; or, after all the others were computed,
            cells that could not be (``CellsFailed``).
        OSError: the folder cannot be written, the cluster is not there, a memory or disk is full, a card failed, or a worker
            died (``WorkerLost``). What was finished is kept; the same call goes on.
    """
    out, cells = Path(out).expanduser(), list(dict.fromkeys(cells))
    generator, _, judge = machinery(settings.model, settings.checker, settings.device)
    subjects = list(dict.fromkeys(cell.subject for cell in cells))
    unknown = [subject for subject in subjects if subject not in judge.classes]
    if unknown:
        raise ValueError(f"subject: got {unknown[0]!r}, which the judge does not know; it knows {', '.join(judge.classes)}")
    require_affordable(cells, generator, settings)
    weights = identity(settings)
    heads = {subject: header("comparison subject", settings, weights, subject=subject) for subject in subjects}
    begun = [(subject_path(out, one), head, (prepare, settings, one, weights)) for one, head in heads.items()]
    heads = {cell: cell_header(cell, settings, weights) for cell in cells}
    if not force:
        require_same([*begun, *((cell_path(out, cell), head, ()) for cell, head in heads.items())], out)
    with backend(jobs, cluster):
        _stage("subjects", begun, progress)
        prepared = {subject: _light(read_tensors(subject_path(out, subject))) for subject in subjects}
        tasks = [
            (cell_path(out, cell), head, (compute, settings, cell, prepared[cell.subject], weights))
            for cell, head in heads.items()
        ]
        failed = _stage("cells", tasks, progress, function=_tried)
    if failed:
        named = {cell_path(out, cell): cell for cell in cells}
        raise CellsFailed({named[path]: reason for path, reason in failed.items()}, weights)
    return weights


def _light(kept: tuple) -> tuple:
    """Without the features of plain pictures, which only the table needs: this goes to every worker."""
    tensors, facts = kept
    return {name: tensor for name, tensor in tensors.items() if not name.startswith("plain/")}, facts


def _numbered(number: int, function: Callable, *arguments) -> tuple:
    return number, function(*arguments)


def _tried(number: int, function: Callable, *arguments) -> tuple:
    """As ``_numbered``; but what one cell cannot do stops no other one: instead of tensors and facts its reason comes back."""
    try:
        _, (tensors, facts) = _numbered(number, function, *arguments)
        return number, (tensors, plain_json(facts))  # a checker's or a measure's NaN cannot be kept
    except Exception as error:
        if machine_failed(error) or isinstance(error, OtherWeights) or type(error).__name__ in LOST:
            raise  # of the machine, not of the cell: the next one would fail as well
        return number, f"{type(error).__name__}: {error}"


def _stage(
    name: str, tasks: list[tuple[Path, dict, tuple[Callable, ...]]], progress: bool, function: Callable = _numbered
) -> dict[Path, str]:
    """Compute the tasks that are not finished, and write each as it ends; returns why those were not that gave a reason."""
    missing = [(path, head, call) for path, head, call in tasks if not is_finished(path, head)]
    failed, done = {}, len(tasks) - len(missing)
    with ExitStack() as stack:
        bar = stack.enter_context(tqdm(total=len(tasks), initial=done, desc=name, unit=name[:-1], disable=not progress))
        calls = (delayed(function)(number, *call) for number, (_, _, call) in enumerate(missing))
        try:
            for number, made in Parallel(return_as="generator_unordered")(calls) if missing else ():
                path, head, _ = missing[number]
                if isinstance(made, str):
                    failed[path] = made
                    continue
                tensors, facts = made
                write_tensors(path, tensors, {**head, **facts}, readable=False)
                done += 1
                bar.update()
        except Exception as error:
            kept = f"{done} of {len(tasks)} {name} are kept; run the same command again"
            if type(error).__name__ in LOST:
                raise WorkerLost(f"jobs: a worker ended before its time, often because memory is full; {kept}") from error
            if memory_is_full(error):
                advice = "close other programs, or give fewer jobs"
                raise OSError(f"jobs: the memory is full ({first_line(error)}); {advice}; {kept}") from error
            if getattr(error, "errno", None) in FULL:
                free = shutil.disk_usage(_existing(tasks[0][0])).free / 2**20
                raise OSError(f"out: {error}; {free:.0f} MiB are free; {kept}") from error
            if machine_failed(error):
                raise OSError(f"{first_line(error)}; {kept}") from error
            raise
    return failed


def _existing(path: Path) -> Path:
    return next(parent for parent in path.absolute().parents if parent.exists())
