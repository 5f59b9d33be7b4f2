"""A store as a folder of CSV files: written whole with a manifest, read back without loss, also after Excel had them."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import sqlalchemy as sa

from creativelib.study.merging import NOTHING, Rows
from creativelib.study.schema import FORMAT, TABLES

MANIFEST = "manifest.json"
KIND = "creativelib ratings"
SEPARATORS = (",", ";", "\t")  # Excel writes the second where the comma is for decimals, the third as "Unicode text"


def write_folder(folder: Path, rows: dict[sa.Table, Iterable]) -> Path:
    """Write each table and the manifest, all or nothing: an export that is there already is replaced when the new one is whole.

    Raises:
        FileExistsError: the folder holds something else.
    """
    if folder.exists() and not folder.is_dir() or folder.is_dir() and any(folder.iterdir()) and not _is_export(folder):
        raise FileExistsError(f"folder: {folder} holds something else than an export; choose a new one")
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir()
        files = {}
        for table, lines in rows.items():
            names = [column.name for column in table.columns]
            texts = [",".join(map(_field, line)) + "\n" for line in (names, *lines)]
            files[f"{table.name}.csv"] = {
                "rows": len(texts) - 1,
                "sha256": _write(partial / f"{table.name}.csv", "".join(texts)),
            }
        manifest = {"kind": KIND, "format": FORMAT, "exported_at": datetime.now(UTC).isoformat(), "files": files}
        _write(partial / MANIFEST, json.dumps(manifest, indent=1) + "\n")
        if folder.is_dir():
            old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
            os.rename(folder, old)
            os.rename(partial, folder)
            shutil.rmtree(old)
        else:
            os.rename(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _is_export(folder: Path) -> bool:
    try:
        return json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["kind"] == KIND
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _write(path: Path, text: str) -> str:
    """Write, sync to disk, and return the SHA-256."""
    data = text.encode()
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return hashlib.sha256(data).hexdigest()


def _field(value: object) -> str:
    """A value as it stands in a file: NULL is nothing, an empty text is two quotes."""
    if value is None:
        return ""
    if isinstance(value, str):
        return '"' + value.replace('"', '""') + '"'
    return repr(value)


def read_folder(folder: Path) -> tuple[Rows, list[str]]:
    """Rows of what ``write_folder`` wrote, each with its file and line; and the files that were changed since.

    Raises:
        FileNotFoundError: a file is missing. ValueError: malformed, with file and line; fewer or more rows than were written.
    """
    for name in (*(f"{table.name}.csv" for table in TABLES), MANIFEST):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"folder: {folder / name} is missing; give the whole folder that export_csv wrote")
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8-sig"))
        written = {name: (int(facts["rows"]), str(facts["sha256"])) for name, facts in manifest["files"].items()}
        known = manifest["kind"] == KIND
    except (ValueError, KeyError, TypeError, AttributeError):
        known = False
    if not known:
        raise ValueError(
            f"folder: {folder / MANIFEST} is no manifest of an export; give the whole folder that export_csv wrote"
        )
    if manifest["format"] != FORMAT:
        raise ValueError(f"folder: the export has the format {manifest['format']}; this version of creativelib reads {FORMAT}")
    rows, changed = {}, []
    for table in TABLES:
        path = folder / f"{table.name}.csv"
        data = path.read_bytes()
        rows[table] = [(f"{path}, line {line}", row) for line, row in _rows(table, path, data)]
        count, digest = written.get(path.name, (-1, ""))
        if len(rows[table]) != count:
            raise ValueError(f"{path}: got {len(rows[table])} rows, {count} were written; the file was cut off; {NOTHING}")
        if hashlib.sha256(data).hexdigest() != digest:
            changed.append(path.name)
    return rows, changed


def _rows(table: sa.Table, path: Path, data: bytes) -> Iterator[tuple[int, dict]]:
    columns = list(table.columns)
    names = [column.name for column in columns]
    text = _decoded(path, data)
    separator = max(SEPARATORS, key=text.partition("\n")[0].count)
    for begin, fields in _records(path, text, separator):
        place = f"{path}, line {begin}"
        if begin == 1:
            if [field for field, _ in fields] != names:
                raise ValueError(f"{place}: got the columns {[field for field, _ in fields]}; give {names}")
            continue
        if len(fields) != len(columns):
            raise ValueError(f"{place}: got {len(fields)} fields; give {len(columns)}")
        row = {}
        for column, (field, bare) in zip(columns, fields, strict=True):
            row[column.name] = None if bare and not field else _value(column, field, place, separator)
            if row[column.name] is None and not column.nullable:
                raise ValueError(f"{place}: {column.name} is empty; give a value")
        yield begin, row


def _decoded(path: Path, data: bytes) -> str:
    """UTF-8 with or without a mark, UTF-16 with one, else what Windows calls ANSI."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        encodings = ["utf-16"]
    else:
        encodings = ["utf-8-sig", "cp1252"]
    for encoding in encodings:
        try:
            return data.decode(encoding).replace("\r\n", "\n")
        except UnicodeDecodeError as error:
            line = data[: error.start].count(b"\n") + 1
    raise ValueError(f"{path}, line {line}: the text is neither UTF-8 nor UTF-16 nor Windows-1252; save it as CSV UTF-8")


def _records(path: Path, text: str, separator: str) -> Iterator[tuple[int, list[tuple[str, bool]]]]:
    """Line of begin and fields of each record; a field is its text and whether it stands bare: only those can be NULL.

    Raises:
        ValueError: a quote where none may be, or an end amid a record.
    """
    quoted = re.compile(r'"((?:[^"]|"")*)"')
    bare = re.compile(f'[^"\n{re.escape(separator)}]*')
    position = line = 0
    while position < len(text):
        begin, fields = line + 1, []
        while True:
            found = quoted.match(text, position) if text.startswith('"', position) else bare.match(text, position)
            if found is None:
                raise ValueError(f"{path}, line {begin}: the line is not finished; the file was cut off")
            raw = found.group(0)
            is_bare = not raw.startswith('"')
            fields.append((raw if is_bare else found.group(1).replace('""', '"'), is_bare))
            line += raw.count("\n")
            position = found.end()
            if not text.startswith(separator, position):
                break
            position += len(separator)
        if position == len(text):
            raise ValueError(f"{path}, line {begin}: the line is not finished; the file was cut off")
        if text[position] != "\n":
            raise ValueError(f"{path}, line {begin}: a quotation mark stands amid a field; double it and quote the whole field")
        position, line = position + 1, line + 1
        if fields != [("", True)]:  # a blank line
            yield begin, fields


def _value(column: sa.Column, field: str, place: str, separator: str):
    kind = column.type.python_type
    if kind is str:
        return field
    number = field.strip()
    if kind is float and separator != ",":
        number = number.replace(",", ".")
    pattern = r"[+-]?\d+" if kind is int else r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"
    if not re.fullmatch(pattern, number, re.ASCII) or len(number) > 400:
        words = {int: "a whole number", float: "a number"}[kind]
        raise ValueError(f"{place}: {column.name} is {field[:40]!r}; give {words}")
    return kind(number)
