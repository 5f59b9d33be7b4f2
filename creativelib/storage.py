"""Where files live and how they are written: safetensors with their facts inside, beside a readable JSON copy."""

import glob
import json
import math
import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from creativelib.disk import sync

FACTS = "facts"  # the key of the JSON text in the safetensors header
SUFFIXES = (".safetensors", ".json")  # of the two files that a name stands for
WRITTEN = (*SUFFIXES, ".jsonl", ".png", ".svg", ".csv", ".gz", ".jpg", ".webp")  # of the files that are replaced as a whole
STALE_SECONDS = 600  # a temporary file that nobody wrote to for so long was left by a process that died, here or elsewhere


def data_folder() -> Path:
    """The folder of the shipped models: ``CREATIVELIB_DATA`` (``~`` is the home) or ``data/`` beside the package.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    chosen = os.environ.get("CREATIVELIB_DATA")
    folder = Path(chosen).expanduser() if chosen else Path(__file__).resolve().parents[1] / "data"
    if not folder.is_dir():
        raise FileNotFoundError(
            f"the data folder {folder} does not exist: set the environment variable CREATIVELIB_DATA to the "
            "data/ folder of a clone of this project"
        )
    return folder


def checked_path(path: str | Path, name: str = "path") -> Path:
    """``path``, where ``~`` is the home folder.

    Raises:
        ValueError: it is no text in UTF-8, as all that is kept in files is; or there is no such home. ``name`` is the argument.
    """
    if path == "":  # to pathlib it is the working directory
        raise ValueError(f"{name}: got ''; give a name, for example 'vehicle'")
    try:
        str(path).encode()
        return Path(path).expanduser()
    except UnicodeEncodeError:
        raise ValueError(f"{name}: got {str(path)!r}, which is not written in UTF-8; choose another name") from None
    except RuntimeError as error:  # ~somebody
        raise ValueError(f"{name}: got {str(path)!r}; there is no such home folder") from error


def real_path(path: str | Path, name: str = "path") -> Path:
    """``checked_path`` from the root on, with links followed; of a link that leads to itself, as far as that goes."""
    return Path(os.path.realpath(checked_path(path, name)))


def tensor_path(path: str | Path) -> Path:
    """``path.safetensors``. Only the two suffixes of ours are taken off: in ``vehicle-4.5`` the dot belongs to the name.

    Raises:
        ValueError: ``path`` names no file.
    """
    path = checked_path(path)
    if path.name in ("", ".."):
        raise ValueError(f"path: got {str(path)!r}, which names no file; give a name, for example 'vehicle'")
    return path.with_name(f"{path.stem if path.suffix in SUFFIXES else path.name}{SUFFIXES[0]}")


# --- writing ----------------------------------------------------------------------------------------------------------


def clear_temporaries(folder: Path, name: str = "*", older: float = STALE_SECONDS) -> None:
    """Remove what killed processes left half-written of the file ``name``, if nobody wrote to it for ``older`` seconds."""
    for left in folder.glob(f".{name if name == '*' else glob.escape(name)}.*"):
        ours = left.suffix[1:].isdigit() and Path(left.stem).suffix in WRITTEN
        with suppress(FileNotFoundError):  # another process was quicker
            written = left.stat().st_mtime
            if ours and time.time() - written >= older and not _may_be_writing(int(left.suffix[1:]), written):
                left.unlink()


def _may_be_writing(process: int, written: float) -> bool:
    """Whether the process of this number lives, and lived when a file was ``written``: numbers are given again."""
    try:
        return psutil.Process(process).create_time() <= written + 1
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:  # it lives, and tells us nothing
        return True


def replace(path: Path, write: Callable[[Path], object]) -> None:
    """Write through ``write(temporary path)``, then rename: whatever happens, the old file or the new one is there, whole.

    Raises:
        OSError: it cannot be written; names the file.
    """
    clear_temporaries(path.parent, path.name)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode  # as the user wants new files; some writers make them for the user alone
        write(temporary)
        with suppress(OSError):  # a file system without modes
            temporary.chmod(mode)
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    except (OSError, SafetensorError) as error:
        raise _not_written(path, error) from error
    finally:
        with suppress(OSError):  # of a name that is too long, for one
            temporary.unlink(missing_ok=True)


def _not_written(path: Path, error: Exception) -> OSError:
    """What went wrong with a file, by its name and, also where safetensors says so only in words, by its number."""
    number = getattr(error, "errno", None) or next(map(int, re.findall(r"os error (\d+)", str(error))), None)
    reason = getattr(error, "strerror", None) or (os.strerror(number) if number else str(error))
    told = OSError(f"path: {path} cannot be written ({reason})")
    told.errno = number
    return told


def write_tensors(path: str | Path, tensors: dict[str, torch.Tensor], facts: dict, *, readable: bool = True) -> Path:
    """Write ``path.safetensors`` and ``path.json`` (either suffix may be given), each atomically.

    The facts are also kept in the header of the safetensors file, which alone is read back: one file, renamed once,
    cannot disagree with itself. The JSON is for people and other programs.

    Args:
        path: where, ``~`` is the home; missing folders are made.
        tensors: any shapes and dtypes. Those on the CPU are written from where they are, without a copy.
        facts: JSON values, also NumPy's and torch's numbers; ``NaN`` is refused.
        readable: write the JSON too.

    Returns:
        The path of the safetensors file.

    Raises:
        ValueError: facts that JSON cannot hold. OSError: it cannot be written; names the file.
    """
    path = tensor_path(path)
    text = json.dumps(plain_json(facts), indent=1)
    plain = _apart({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})

    path.parent.mkdir(parents=True, exist_ok=True)
    replace(path, lambda temporary: save_file(plain, temporary, metadata={FACTS: text}))
    if readable:
        replace(path.with_suffix(SUFFIXES[1]), lambda temporary: temporary.write_text(text + "\n", encoding="utf-8"))
    return path


def plain_json(value, name: str = "facts"):
    """``value`` in Python's own JSON types: tuples become lists, NumPy's and torch's numbers Python's.

    Raises:
        ValueError: something that JSON cannot hold (``NaN`` too), named by its place below ``name``.
    """
    if isinstance(value, dict):
        return {str(key): plain_json(one, f"{name}.{key}") for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain_json(one, f"{name}[{index}]") for index, one in enumerate(value)]
    if not isinstance(value, bool | int | float | str | None) and getattr(value, "ndim", None) == 0:
        value = value.item()
    if isinstance(value, float) and math.isfinite(value):
        return float(value)  # also of NumPy's float64, which is a float
    if value is None or isinstance(value, bool | int | str):
        return value
    raise ValueError(f"{name}: got {value!r}, which cannot be kept in a file; give finite numbers, texts, lists, dicts or None")


def _apart(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same tensors without shared memory, which the format refuses: views of one another are copied."""
    seen, apart = set(), {}
    for name, tensor in tensors.items():
        memory = tensor.untyped_storage().data_ptr()
        apart[name] = tensor.clone() if memory in seen else tensor
        seen.add(memory)
    return apart


# --- reading ----------------------------------------------------------------------------------------------------------


def read_tensors(path: str | Path) -> tuple[dict[str, torch.Tensor], dict]:
    """Read what ``write_tensors`` wrote: tensors on the CPU, and the facts.

    Both come from the file as it was opened once: another process may put a newer one in its place meanwhile.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or holds no facts of ours.
        OSError: it cannot be read.
    """
    return _read(path, lambda file: {name: file.get_tensor(name) for name in file.keys()})


def read_facts(path: str | Path) -> dict:
    """The facts alone, however large the tensors beside them are.

    Raises:
        As ``read_tensors``.
    """
    return _read(path, lambda file: {})[1]


def _read(path: str | Path, take: Callable[[safe_open], dict]) -> tuple[dict, dict]:
    """What ``take`` takes from the file, and its facts."""
    path = tensor_path(path)
    if not path.is_file():
        raise FileNotFoundError(f"path: there is no file {path}")
    try:
        with open(path, "rb"), safe_open(path, framework="pt") as file:  # the latter does not say why it cannot read
            text, taken = (file.metadata() or {}).get(FACTS), take(file)
        facts = None if text is None else json.loads(text)
    except (SafetensorError, ValueError) as error:  # the latter: JSON
        raise ValueError(f"path: {path} is damaged or cut short ({error}); put back a copy, or make it anew") from error
    except OSError as error:
        raise OSError(f"path: {path} cannot be read ({error.strerror or error})") from error
    if not isinstance(facts, dict):
        raise ValueError(f"path: {path} was not written by creativelib (no '{FACTS}' in its header)")
    return taken, facts


def read_json(path: str | Path) -> dict:
    """A JSON object from a file.

    Raises:
        FileNotFoundError: there is no such file. ValueError: it is damaged, or holds something other than an object.
    """
    path = Path(path).expanduser()
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # JSON, or bytes that are no text
        raise ValueError(f"path: {path} is damaged or cut short ({error}); put back a copy") from error
    if not isinstance(found, dict):
        raise ValueError(f"path: {path} holds {type(found).__name__} where a JSON object ({{...}}) belongs")
    return found


def require_equal(found: dict, wanted: dict, path: str | Path) -> None:
    """Refuse a file whose facts differ from ``wanted`` in any key of ``wanted``.

    Raises:
        ValueError: names every key that differs, with both values.
    """
    differing = [f"{key} is {found.get(key)!r}, not {value!r}" for key, value in wanted.items() if found.get(key) != value]
    if differing:
        raise ValueError(f"path: {path} belongs to something else: {'; '.join(differing)}. Delete it or choose another path")
