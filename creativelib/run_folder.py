"""The folder of a run: who may write to it, what is in it, how it is read back.

================================  ======================================================================================
``run.safetensors``               the state to go on from, in full precision, with the facts below in its header
``run.json``                      the same facts to read: settings, steps done, why it ended
``history.jsonl``                 one line a step, added as the run goes
``snapshots/000010.safetensors``  parameters after 10 steps, to look at, written once
``typicality.safetensors``        the typicality model; where its baseline came from is in ``typicality.json``
``clusters/0.safetensors``        negative clusters, where the run has any
================================  ======================================================================================

The state is renamed into place last, so it decides: what is younger than it is cut off when the run is read back.
"""

import json
import math
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from creativelib.run_files import PLACES, STATE, interrupted, recover, remains
from creativelib.storage import checked_path, clear_temporaries, read_facts, read_tensors, real_path, write_tensors

LOCK = ".lock"
KIND, FORMAT = "creative run", 2  # format 1: everything in run.safetensors
SOFT = ("device", "dtype", "sampling_dtype", "versions")  # settings that change float noise only: a warning, no refusal


_HELD: dict[Path, tuple] = {}  # what each folder that this process holds was when it was locked


class FolderInUse(OSError):
    """Another process works in the folder."""


@contextmanager
def hold(folder: str | Path) -> Iterator[Path]:
    """Lock ``folder`` (made where it is missing) against other processes; held twice in one process it counts.

    What a killed program left there is put in order first; a warning says what became of a run that was being replaced. If
    nothing is written, nothing is left: the lock goes again, and so do folders that were made for it.

    Raises:
        ValueError: a name that is no text. FolderInUse: another process holds it. OSError: it cannot be written to.
    """
    folder = real_path(folder, "folder")
    lock = FileLock(folder / LOCK, timeout=0, is_singleton=True)
    absent = [one for one in (folder, *folder.parents) if not one.exists()]  # the innermost first
    try:
        if not lock.is_locked:
            folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise FolderInUse(
            f"folder: {folder} is in use by another program; wait until that has ended, or choose another folder"
        ) from None
    except OSError as error:
        _leave_nothing(folder, absent)
        raise _not_writable(folder, error) from error
    try:
        if lock.lock_counter == 1:
            _put_in_order(folder)
        yield folder
    finally:
        if lock.lock_counter == 1 and folder in _HELD:
            with suppress(OSError):  # another folder is in its place
                require_held(folder)
                _leave_nothing(folder, absent)
            del _HELD[folder]
        lock.release()


def _leave_nothing(folder: Path, made: Sequence[Path]) -> None:
    """Remove the lock of a folder that holds nothing else, and the folders that were ``made`` for it. Whoever opened the lock
    meanwhile sees that it is gone, and makes another."""
    with suppress(OSError):  # somebody else's file came
        if all(path.name == LOCK for path in folder.iterdir()):
            (folder / LOCK).unlink(missing_ok=True)
            for one in made:
                one.rmdir()


def _not_writable(folder: Path, error: OSError) -> OSError:
    return OSError(f"folder: cannot write to {folder} ({error.strerror or error}); choose another folder")


def _put_in_order(folder: Path) -> None:
    """Remove what killed programs left in a folder that was just locked, and remember which folder it is."""
    try:
        _HELD[folder] = _identity(folder), _identity(folder / LOCK)
        for place in (folder, *(folder / name for name in PLACES)):
            clear_temporaries(place, older=0)
        said = recover(folder)
    except OSError as error:
        raise _not_writable(folder, error) from error
    if said:
        warnings.warn(said, stacklevel=4)


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file or folder it is, whatever it is called; ``None`` where there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def require_held(folder: Path) -> None:
    """Refuse to write where the folder that was locked is no more.

    Raises:
        OSError: it was deleted, moved or replaced, or its lock was and so is another process's.
    """
    place, lock = _HELD[folder]
    if _identity(folder) != place or _identity(folder / LOCK) not in (lock, None):
        raise OSError("it was deleted, moved or replaced while the run worked in it")


def find_run(folder: str | Path) -> dict | None:
    """The facts of the run that is saved in ``folder`` (``settings``, ``steps``, ``stopped`` ...); ``None``: there is none.

    Raises:
        ValueError: its file is damaged, or holds something else. OSError: the folder cannot be read.
    """
    folder = checked_path(folder, "folder")
    path = folder / STATE
    try:
        if interrupted(folder):
            with suppress(OSError), hold(folder):  # which puts it in order, unless another process works there
                pass
        if not path.is_file():
            return None
    except OSError as error:  # a name that is too long, a folder that is closed to us
        raise OSError(f"folder: cannot read {folder} ({error.strerror}); choose another folder") from error
    facts = read_facts(path)
    if facts.get("kind") != KIND:
        raise ValueError(f"folder: {path} holds a {facts.get('kind')!r} and no {KIND}; choose another folder")
    if facts.get("format", 1) > FORMAT:
        raise ValueError(f"folder: {path} was written by a newer version of creativelib; update the package to open it")
    return facts


def require_free(folder: Path) -> None:
    """Refuse a folder that holds a run, or what remains of one.

    Raises:
        FileExistsError: says which, and what to do.
    """
    found = find_run(folder)
    if found is not None:
        settings, steps = found["settings"], found.get("steps", 0)
        raise FileExistsError(
            f"folder: {folder} holds another run ({settings['subject']}, {settings['space']}, seed {settings['seed']}, "
            f"{steps} steps); choose another folder, or replace it by force=True"
        )
    if names := remains(folder):
        raise FileExistsError(
            f"folder: {folder} holds files that a run would overwrite ({names}), but no {STATE}: the rest of a run that was "
            "deleted, or files of your own; choose another folder, or replace them by force=True"
        )


# --- state ------------------------------------------------------------------------------------------------------------


def write_state(folder: Path, tensors: dict[str, torch.Tensor], facts: dict) -> None:
    """Write the state, the last of what a save writes."""
    write_tensors(folder / STATE, tensors, {"kind": KIND, "format": FORMAT, **facts})


def read_state(folder: str | Path) -> tuple[dict[str, torch.Tensor], dict]:
    """Tensors and facts of the state, the history of an older file among the latter.

    Raises:
        FileNotFoundError: there is no run. ValueError: the file is damaged, or holds something else.
    """
    if find_run(folder) is None:
        raise FileNotFoundError(f"folder: no run is saved in {folder} (there is no {STATE})")
    return read_tensors(Path(folder) / STATE)


def differences(found: dict, wanted: dict, older: bool = False, place: str = "") -> list[str]:
    """Where the settings of a saved run differ from those wanted, each as ``"seed is 0, not 3"``; float noise does not count.

    Args:
        older: the run was saved by a version that kept less: what it does not say is taken to agree.
    """
    lines = []
    for key in [*wanted, *(key for key in found if key not in wanted)]:
        if older and key not in found:
            continue
        name, one, other = f"{place}{key}", found.get(key), wanted.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            lines += differences(one, other, older, f"{name}.")
        elif isinstance(one, float) and isinstance(other, float) and math.isclose(one, other, rel_tol=1e-6):
            continue
        elif one != other:
            lines.append(f"{name} is {one!r}, not {other!r}")
    return lines


def describe_aims(facts: dict) -> str:
    """The targets of a saved run that was given others on its way, in words; ``""`` if it had the same all the time."""
    first, *others = facts.get("aims") or [[0, None]]
    told = "".join(f", {'none' if target is None else f'{target:g}'} from step {step} on" for step, target in others)
    return told and f"{'none' if first[1] is None else f'{first[1]:g}'} at first{told}"


# --- history ----------------------------------------------------------------------------------------------------------


def encode_row(row: dict) -> str:
    """One line of the history. JSON has no ``NaN``: numbers that are not finite are written as texts."""
    return json.dumps({key: _texts(value) for key, value in row.items()})


def _texts(value):
    if isinstance(value, dict):
        return {key: _texts(one) for key, one in value.items()}
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def decode_row(line: str) -> dict:
    """The row that ``encode_row`` wrote."""
    return {key: value if key == "kind" else _numbers(value) for key, value in json.loads(line).items()}


def _numbers(value):
    if isinstance(value, dict):
        return {key: _numbers(one) for key, one in value.items()}
    return float(value) if isinstance(value, str) else value


class History:
    """``history.jsonl``: rows are added and forced to the disk; a row that is written twice counts as written last."""

    def __init__(self, folder: Path):
        self.path, self._lines, self._good = folder / "history.jsonl", 0, 0  # rows, and the bytes that hold whole ones
        self._last = ""  # line

    def write(self, history: Sequence[dict]) -> None:
        """Add the rows that are not written yet, the last one again if it was checked since. An ``OSError`` adds nothing."""
        changed = self._lines > 0 and encode_row(history[self._lines - 1]) != self._last
        lines = [encode_row(row) for row in history[self._lines - changed :]]
        if not lines:
            return
        text = "".join(f"{line}\n" for line in lines).encode()
        with open(self.path, "r+b" if self.path.exists() else "wb") as file:
            file.truncate(self._good)  # half a line of an earlier attempt
            file.seek(self._good)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        self._good, self._lines, self._last = self._good + len(text), len(history), lines[-1]

    def read(self, steps: int) -> list[dict]:
        """The rows of the first ``steps`` steps; later ones are cut off by the next ``write``.

        Raises:
            ValueError: some are missing or damaged.
        """
        rows, self._good = {}, 0
        if steps and not self.path.is_file():
            raise ValueError(f"folder: {self.path} is missing, with the {steps} steps that were done; put back a copy")
        with open(self.path, "rb") if steps else nullcontext([]) as file:
            for line in file:
                try:
                    row = decode_row(line.decode())
                    number = row["step"]
                except (ValueError, AttributeError, KeyError):
                    break  # the half-written end, or no row of ours
                if number >= steps:
                    break
                rows[number] = row
                self._good += len(line)
        if sorted(rows) != list(range(steps)):
            raise ValueError(f"folder: {self.path} is damaged: it holds {len(rows)} of {steps} steps; put back a copy")
        self._lines, self._last = steps, encode_row(rows[steps - 1]) if steps else ""
        return [rows[step] for step in range(steps)]
