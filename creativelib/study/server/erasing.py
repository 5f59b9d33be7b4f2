"""A person who withdrew is taken out of every file in a study's folder, whoever put it there and under whatever name."""

import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path

from creativelib.study import csv_files, tidy, transfer
from creativelib.study.schema import WITHDRAWN
from creativelib.study.store import Store

SQLITE = b"SQLite format 3\0"
REPORT = b"<title>Rating study:"
KINDS = (csv_files.KIND, tidy.KIND)  # of exports


def erase(folder: Path, store: Store, words: Sequence[str]) -> list[Path]:
    """Remove exports and reports in ``folder``, which can be made again, and take who withdrew from ``store`` out of backups.

    Known by what is in them, for a teacher may have moved or renamed them. The store's own file stays as it is.

    Args:
        words: the code and the id of who withdrew.

    Returns:
        Files in which one of these still stands, also packed: of other programs, or of an export that was interrupted; and
        backups that another program holds.
    """
    rows = transfer.rows_of(store.database, store.place)[WITHDRAWN]
    gone = [(place, row) for place, row in rows if row["joined_to"] is None]
    own = {Path(f"{store.place}{ending}") for ending in ("", "-wal", "-shm", "-journal")}
    left = set()
    for path in [path for path in folder.rglob("*") if path not in own]:
        try:
            _take_out(path, gone)
        except OSError:  # another program holds it
            left.add(path)
    files = [path for path in folder.rglob("*") if path.is_file()]
    return sorted(left | {path for path in files if words and any(word.encode() in _unpacked(path) for word in words)})


def is_report(path: Path) -> bool:
    """Whether a file is a report of a study, of which another can be made, and no file of somebody's own."""
    return path.is_file() and REPORT in _content(path)[:1000]


def _take_out(path: Path, gone: list) -> None:
    """Take who withdrew out of one file, or remove it. Raises OSError where that cannot be done now."""
    beginning = _content(path)[:1000] if path.is_file() else b""
    if path.name == tidy.MANIFEST:
        _remove_export(path)
    elif beginning.startswith(SQLITE):
        _mend(path, gone)
    elif REPORT in beginning or zipfile.is_zipfile(path) and _is_export(path):
        path.unlink(missing_ok=True)


def _content(path: Path) -> bytes:
    """Nothing for a file of an export that is removed by now."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def _unpacked(path: Path) -> bytes:
    """The content, and that of what is in it: of a folder that was packed, of a workbook."""
    try:
        content = _content(path)
    except OSError:  # named already: nothing could be taken out of it
        return b""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return content + b"\n".join(archive.read(name) for name in archive.namelist())
    except Exception:  # none, broken in one of a dozen ways, or with a password
        return content


def _mend(path: Path, gone: list) -> None:
    try:
        copy = Store(path)
    except ValueError:
        return  # another program's, or broken
    try:
        transfer.take_in(copy.database, {WITHDRAWN: gone})
    finally:
        copy.close()


def _remove_export(manifest: Path) -> None:
    try:
        facts = json.loads(manifest.read_bytes())
        names = list(facts["files"]) if facts["kind"] in KINDS else []
    except (ValueError, KeyError, TypeError):
        return  # another program's
    for name in names:
        (manifest.parent / Path(name).name).unlink(missing_ok=True)
    if names:
        manifest.unlink(missing_ok=True)
        if not any(manifest.parent.iterdir()):
            manifest.parent.rmdir()


def _is_export(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return tidy.BOOK in {Path(name).name for name in archive.namelist()}
    except zipfile.BadZipFile:
        return False
