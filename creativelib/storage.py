"""Where files live and how they are written: safetensors with their facts inside, beside a readable JSON copy."""

import json
import os
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save

FACTS = "facts"  # the key of the JSON text in the safetensors header


def data_folder() -> Path:
    """The folder of the shipped models: ``CREATIVELIB_DATA`` or ``data/`` beside the package.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    chosen = os.environ.get("CREATIVELIB_DATA")
    folder = Path(chosen) if chosen else Path(__file__).resolve().parents[1] / "data"
    if not folder.is_dir():
        raise FileNotFoundError(
            f"the data folder {folder} does not exist: set the environment variable CREATIVELIB_DATA to the "
            "data/ folder of a clone of this project"
        )
    return folder


def _replace(path: Path, write) -> None:
    """Write through ``write(temporary path)``, then rename: a killed process leaves the old file or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_tensors(path: str | Path, tensors: dict[str, torch.Tensor], facts: dict) -> Path:
    """Write ``path.safetensors`` and ``path.json`` (any suffix of ``path`` is replaced), each atomically.

    The facts are also kept in the header of the safetensors file, which alone is read back: one file, renamed once,
    cannot disagree with itself. The JSON is for people and other programs.

    Args:
        path: where; missing folders are made.
        tensors: any shapes and dtypes.
        facts: JSON values; ``NaN`` is refused.

    Returns:
        The path of the safetensors file.
    """
    path = Path(path).with_suffix(".safetensors")
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(facts, indent=1, allow_nan=False)
    copies = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    _replace(path, lambda temporary: temporary.write_bytes(save(copies, metadata={FACTS: text})))
    _replace(path.with_suffix(".json"), lambda temporary: temporary.write_text(text + "\n"))
    return path


def read_tensors(path: str | Path) -> tuple[dict[str, torch.Tensor], dict]:
    """Read what ``write_tensors`` wrote: tensors on the CPU, and the facts.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file holds no facts of ours.
    """
    path = Path(path).with_suffix(".safetensors")
    if not path.is_file():
        raise FileNotFoundError(f"path: there is no file {path}")
    with safe_open(path, framework="pt") as file:
        text = (file.metadata() or {}).get(FACTS)
        if text is None:
            raise ValueError(f"path: {path} was not written by creativelib (no '{FACTS}' in its header)")
        return {name: file.get_tensor(name) for name in file.keys()}, json.loads(text)


def require_equal(found: dict, wanted: dict, path: str | Path) -> None:
    """Refuse a file whose facts differ from ``wanted`` in any key of ``wanted``.

    Raises:
        ValueError: names every key that differs, with both values.
    """
    differing = [f"{key} is {found.get(key)!r}, not {value!r}" for key, value in wanted.items() if found.get(key) != value]
    if differing:
        raise ValueError(f"path: {path} belongs to something else: {'; '.join(differing)}. Delete it or choose another path")
