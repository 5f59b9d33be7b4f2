"""Loading models of others by folder or hub id, and saying in one sentence why one could not be loaded."""

import errno
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diffusers
import huggingface_hub
import torch
import transformers
from huggingface_hub import errors
from safetensors import SafetensorError, safe_open

PATIENCE = 3.0  # seconds that the hub has to answer; the environment variable HF_HUB_ETAG_TIMEOUT sets another limit
LFS_POINTER = b"version https://git-lfs.github.com/spec/"


def find_device(device: str | torch.device | None = None) -> torch.device:
    """A device that works here; CUDA where there is one, else the CPU.

    Raises:
        ValueError: there is no such device on this machine.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        if found.type == "meta" or (found.type == "cpu" and found.index):  # which take a tensor, and hold or know nothing
            raise RuntimeError(f"no device {found}")
        torch.zeros(1, device=found)
    except (RuntimeError, AssertionError, TypeError) as error:  # each build of PyTorch has its own way to refuse
        there = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
        there += ["mps"] if torch.backends.mps.is_available() else []
        hint = "" if torch.version.cuda or "cuda" not in str(device) else " (this PyTorch is built for the CPU only)"
        raise ValueError(f"device: got {str(device)!r}{hint}; there is: {', '.join(there)}") from error
    return found


def fast_precision(device: torch.device) -> torch.dtype:
    """What to compute in where no gradient is needed: bfloat16 on CUDA, where the card multiplies it, else float32.

    On CUDA it also lets PyTorch multiply float32 matrices in TF32 from now on, in the whole process: their entries are rounded
    to ten bits, sums are kept in float32.
    """
    if device.type != "cuda":
        return torch.float32
    torch.set_float32_matmul_precision("high")
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32


_ONE_AT_A_TIME = threading.RLock()  # loading changes what transformers and diffusers share: how tensors are made, their logs


@contextmanager
def quiet_loading() -> Iterator[None]:
    """No bars and no advice of diffusers and transformers while files are loaded; as it was before, afterwards.

    One thread at a time: another one waits.
    """
    logs = (diffusers.utils.logging, transformers.utils.logging)
    with _ONE_AT_A_TIME:
        before = [(log.get_verbosity(), log.is_progress_bar_enabled()) for log in logs]
        for log in logs:
            log.set_verbosity_error()
            log.disable_progress_bar()
        try:
            yield
        finally:
            for log, (verbosity, bars) in zip(logs, before, strict=True):
                log.set_verbosity(verbosity)
                if bars:
                    log.enable_progress_bar()


def load_pretrained(what: str, where: str, index: str, load: Callable[..., Any], revision: str = "main") -> Any:
    """``load(where, **options)`` for a folder or a hub id, quietly; without waiting for a hub that does not answer.

    The hub is asked once. Where it cannot give the files, those that are on this machine are taken.

    Args:
        what: the argument that an error names, e.g. ``"model"``.
        where: a folder, or a hub id.
        index: the file that every such model has, e.g. ``"config.json"``.
        load: a ``from_pretrained`` that knows ``revision``.
        revision: of a hub id: a commit, a tag or a branch.

    Raises:
        OSError: it cannot be loaded; one sentence says which part of it and why.
    """
    folder, refusal, options = Path(where), None, {}
    if not folder.is_dir():
        refusal, options = hub_refusal(where, index, revision), {"revision": revision}
        folder = _cached_folder(where, index, revision)
        if refusal and folder is None:
            raise OSError(f"{what}: {where} is not on this machine, and {refusal}")
    elif not (folder / index).is_file():
        kind = "it is a model of another kind, or incomplete"
        raise OSError(f"{what}: the folder {where} cannot be loaded: it has no {index}; {kind}")
    try:
        with quiet_loading():  # a hub that refuses is not asked again: its files on this machine are a folder like any other
            return load(str(folder)) if refusal or not options else load(where, **options)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever a file of somebody else brings about
        reason = (broken_file(folder) if folder else None) or first_cause(error)
        where = where if options else f"the folder {where}"
        raise OSError(f"{what}: {where} cannot be loaded: {reason}" + (f" ({refusal})" if refusal else "")) from error


# --- the hub ----------------------------------------------------------------------------------------------------------


def hub_refusal(where: str, index: str, revision: str = "main") -> str | None:
    """Why the hub does not give the file ``index`` of ``where``, as the end of a sentence; ``None`` if it does.

    One request, no retries, ``PATIENCE`` seconds in all: no time-out of a request covers a name server that is silent.
    """
    patience = float(os.environ.get("HF_HUB_ETAG_TIMEOUT") or PATIENCE)
    caught: list[BaseException | None] = []

    def ask() -> None:
        try:
            url = huggingface_hub.hf_hub_url(where, index, revision=revision)
            huggingface_hub.get_hf_file_metadata(url, timeout=patience, retry_on_errors=False)
            caught.append(None)
        except Exception as error:
            caught.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(patience)
    error = caught[0] if caught else TimeoutError(f"no answer within {patience:g} s; HF_HUB_ETAG_TIMEOUT sets another limit")
    return None if error is None else _told(error, where, index, revision)


def _told(error: BaseException, where: str, index: str, revision: str) -> str:
    """What an answer of the hub means, and what to do."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.OfflineModeIsEnabled):
        return "the hub is not asked because HF_HUB_OFFLINE is set; unset it, and connect to the internet once"
    if isinstance(error, errors.HFValidationError):
        return "that is neither a folder nor a name on the model hub (owner/name); check the spelling"
    if isinstance(error, errors.GatedRepoError) or status == 403:
        return f"the hub refuses it ({status}): ask for access on its page there, then run 'hf auth login'"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"the hub has no revision {revision!r} of it; name a commit, or 'main'"
    if isinstance(error, errors.EntryNotFoundError):
        return f"on the hub it has no {index}: it is a model of another kind"
    if isinstance(error, errors.RepositoryNotFoundError) or status in (401, 404):
        return f"the hub has no model of this name and revision {revision!r}, or a private one ({status}); check the spelling"
    if status == 429:
        return "the hub answers 'too many requests' (429); wait some minutes, or run 'hf auth login'"
    if status is not None:
        return f"the hub has trouble of its own (it answers {status}); try again later"
    if isinstance(error, ImportError):
        return f"the hub cannot be asked: {first_cause(error)} (for a SOCKS proxy: pip install socksio, or unset ALL_PROXY)"
    return (
        f"the hub cannot be reached ({first_cause(error)}); connect to the internet once, or use 'pocket', "
        "which needs no download"
    )


def _cached_folder(where: str, index: str, revision: str) -> Path | None:
    """The folder of this revision on this machine, if its index was fetched before."""
    try:
        found = huggingface_hub.try_to_load_from_cache(where, index, revision=revision)
    except errors.HFValidationError:
        return None
    return Path(found).parent if isinstance(found, str) else None


# --- causes -----------------------------------------------------------------------------------------------------------


def chain(error: BaseException) -> Iterator[BaseException]:
    """An error and those that it came from, the first last."""
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def disk_is_full(error: BaseException) -> OSError | None:
    """The error in the chain that says that a disk is full, or one's share of it is used up; ``None`` if none does."""
    full = (errno.ENOSPC, errno.EDQUOT)
    return next((one for one in chain(error) if isinstance(one, OSError) and one.errno in full), None)


def first_cause(error: BaseException) -> str:
    """What began a chain of errors, in one line of at most 200 characters."""
    if full := disk_is_full(error):
        return f"the disk is full ({full.filename or full.strerror}); free some space"
    *_, error = chain(error)
    line = " ".join((str(error).strip() or type(error).__name__).split())
    return line if len(line) <= 200 else line[:199] + "…"


def broken_file(folder: Path) -> str | None:
    """The first file under ``folder`` that cannot be read as what it is called, and what is wrong with it."""
    for path in sorted(folder.rglob("*")):
        if path.suffix not in (".safetensors", ".json") or not path.is_file():
            continue
        try:
            with path.open("rb") as file:
                pointer = file.read(len(LFS_POINTER)) == LFS_POINTER
            if pointer:
                return f"{path} is a Git LFS pointer, not the file itself; install git-lfs, then run 'git lfs pull'"
            if path.suffix == ".json":
                json.loads(path.read_text(encoding="utf-8"))
            else:
                with safe_open(path, framework="pt"):
                    pass
        except (OSError, ValueError, SafetensorError) as error:
            return f"{path} is damaged or incomplete ({first_cause(error)}); delete it and fetch it again"
    return None
