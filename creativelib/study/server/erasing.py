"""A person who withdrew is taken out of every file in a study's folder, whoever put it there and under whatever name."""

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
        Files in which one of these still stands: of other programs, or of an export that was interrupted.
    """
    rows = transfer.rows_of(store.database, store.place)[WITHDRAWN]
    gone = [(place, row) for place, row in rows if row["joined_to"] is None]
    own = {Path(f"{store.place}{ending}") for ending in ("", "-wal", "-shm", "-journal")}
    for path in [path for path in folder.rglob("*") if path not in own]:
        if not path.is_file():  # a folder, or a file of an export that is removed by now
            continue
        beginning = path.read_bytes()[:1000]
        if path.name == tidy.MANIFEST:
            _remove_export(path)
        elif beginning.startswith(SQLITE):
            _mend(path, gone)
        elif REPORT in beginning or zipfile.is_zipfile(path) and _is_export(path):
            path.unlink()
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return [path for path in files if any(word.encode() in path.read_bytes() for word in words)]


def _mend(path: Path, gone: list) -> None:
    try:
        copy = Store(path)
    except (ValueError, OSError):
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
        manifest.unlink()
        if not any(manifest.parent.iterdir()):
            manifest.parent.rmdir()


def _is_export(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return tidy.BOOK in {Path(name).name for name in archive.namelist()}
    except zipfile.BadZipFile:
        return False
