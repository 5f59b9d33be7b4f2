"""Which files of a folder are those of a run, and how one run takes the place of another.

What is replaced is first moved into a folder beside it, and deleted once the first state of the new run is on the disk. A
program that is killed at any moment leaves one of the two whole, and ``recover`` finds out which:

==================  =====================  ==========================================================================
beside the run      ``run.safetensors``    what happened
==================  =====================  ==========================================================================
``.replaced.part``  there or not           it was killed while the earlier files were moved: they are moved back
``.replaced``       not there              the new run was not saved yet: what there is of it goes, the earlier comes back
``.replaced``       there                  the new run is saved: the earlier one goes
==================  =====================  ==========================================================================
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from creativelib.disk import sync
from creativelib.storage import SUFFIXES

STATE = "run.safetensors"  # written last: where it is, there is a run
TYPICALITY = "typicality.safetensors"
NAMES = (STATE, "run.json", "history.jsonl", TYPICALITY, "typicality.json")
PLACES = ("snapshots", "clusters")  # folders of files that are called by numbers
ASIDE, MOVING = ".replaced", ".replaced.part"


def run_files(folder: Path) -> list[Path]:
    """The files in ``folder`` that have the names of a run's."""
    numbered = [path for place in PLACES for path in sorted((folder / place).glob("*"))]
    numbered = [path for path in numbered if path.stem.isdigit() and path.suffix in SUFFIXES]
    return [path for path in [*(folder / name for name in NAMES), *numbered] if path.is_file()]


def remains(folder: Path) -> str:
    """Names of the files of a run in a ``folder`` that lacks the one that makes them a run; ``""`` where it is not so."""
    names = [path.relative_to(folder).as_posix() for path in run_files(folder)]
    return "" if STATE in names else ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def interrupted(folder: Path) -> bool:
    """Whether one run was being replaced by another."""
    return any((folder / name).is_dir() for name in (ASIDE, MOVING))


@contextmanager
def replacing(folder: Path) -> Iterator[None]:
    """A block that writes a new run into ``folder``, up to its first state; if it fails, the earlier files are as they were."""
    try:
        _set_aside(folder)
        yield
    except BaseException:
        _bring_back(folder)
        raise
    with suppress(OSError):  # the next start tries again
        recover(folder)


def recover(folder: Path) -> str:
    """End what a killed program left half done; returns in words what that was, ``""`` for nothing."""
    if not interrupted(folder):
        return ""
    if (folder / ASIDE).is_dir() and (folder / STATE).is_file():
        shutil.rmtree(folder / ASIDE)
        return f"{folder}: a run was replaced when the program ended; the new one was saved, the earlier one is removed now"
    back = _bring_back(folder)
    return f"{folder}: a run was being replaced when the program ended; the earlier one is back, as it was" if back else ""


def _set_aside(folder: Path) -> None:
    """Move the files of a run into ``ASIDE``, which has its name once all of them are there."""
    recover(folder)  # what the last one could not delete
    moving = folder / MOVING
    moving.mkdir()
    _move(folder, moving)
    moving.rename(folder / ASIDE)
    sync(folder)


def _bring_back(folder: Path) -> bool:
    """Undo ``_set_aside``, wherever it or the new run was stopped; returns whether there was an earlier run."""
    aside, moving = folder / ASIDE, folder / MOVING
    if aside.is_dir():
        for path in run_files(folder):  # of the new run; its state first, so that no kill makes it count
            path.unlink()
        for place in PLACES:
            with suppress(OSError):
                (folder / place).rmdir()
        aside.rename(moving)
    if not moving.is_dir():
        return False
    found = bool(run_files(moving))
    _move(moving, folder)
    moving.rmdir()
    sync(folder)
    return found


def _move(source: Path, target: Path) -> None:
    """Move the files of a run, and forget the folders that are empty then."""
    for path in run_files(source):
        there = target / path.relative_to(source)
        there.parent.mkdir(exist_ok=True)
        path.replace(there)
    for place in PLACES:
        if (target / place).is_dir():
            sync(target / place)
        with suppress(OSError):  # it is not there, or holds what is somebody else's
            (source / place).rmdir()
    sync(target)
