"""Which weights a model has: a digest of its files, or the commit that the model hub gave. A folder's name says neither."""

import hashlib
from functools import cache
from pathlib import Path

from huggingface_hub import try_to_load_from_cache

CHUNK = 2**22  # bytes read at once
TEXTS = (".json", ".txt", ".jinja")  # of which a checkout may have changed the line ends


@cache
def _file_digest(path: Path, size: int, changed: int) -> bytes:
    """SHA-256 of a file, once a process as long as it is not changed; line ends of texts count as ``\\n``."""
    if path.suffix in TEXTS:
        return hashlib.sha256(path.read_bytes().replace(b"\r\n", b"\n")).digest()
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.digest()


def folder_digest(folder: str | Path) -> str:
    """``"sha256:..."`` of all files of a model's folder, weights, configurations and vocabularies, by name and content.

    Hidden files do not count. About a second for each gigabyte, and nothing the second time.
    """
    folder, digest = Path(folder).resolve(), hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and not any(part.startswith(".") for part in name.parts):
            facts = path.stat()
            digest.update(name.as_posix().encode() + b"\0" + _file_digest(path, facts.st_size, facts.st_mtime_ns))
    return f"sha256:{digest.hexdigest()}"


def weights_of(where: str, revision: str, filename: str) -> str:
    """What identifies the weights of a folder or of a repository of the model hub: ``"sha256:..."`` or ``"hub:COMMIT"``.

    Args:
        where: folder or hub id, already loaded. revision: of the hub id. filename: one that the repository surely has.
    """
    if Path(where).is_dir():
        return folder_digest(where)
    found = try_to_load_from_cache(where, filename, revision=revision)
    return f"hub:{Path(found).parent.name if isinstance(found, str) else revision}"
