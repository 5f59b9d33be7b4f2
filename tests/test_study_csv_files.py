"""An export: written whole with its manifest, read back after Excel had it, refused with file and line where it is wrong."""

import json
import os

import pytest

from creativelib.study import csv_files
from creativelib.study.schema import TABLES
from creativelib.study.store import Store

SHA = "0" * 64


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "study.sqlite")
    store.add_stimuli({"id": f"image-{index}", "kind": "image", "sha256": SHA, "surprise": 70.5 + index} for index in range(3))
    session = store.begin(store.rater("zoë-3", consent=True, text='Say "yes",\nor no; it is free.'), ["image-0", "image-2"])
    store.rate(session, "image-2", 4, 900)
    yield store
    store.close()


@pytest.fixture
def folder(store, tmp_path):
    return store.export_csv(tmp_path / "csv")


@pytest.fixture
def other(tmp_path):
    other = Store(tmp_path / "other.sqlite")
    yield other
    other.close()


def change(path, how):
    path.write_bytes(how(path.read_bytes()))


def excel(data, separator=";", encoding="utf-8-sig", comma=True):
    """As Excel writes what it has read: quotes only where they must be, CRLF, a decimal comma."""
    lines = []
    for _, fields in csv_files._records("x", data.decode(), ","):
        cells = [text.replace(".", ",") if comma and bare and "." in text else text for text, bare in fields]
        cells = ['"' + cell.replace('"', '""') + '"' if set(cell) & set(separator + '"\n') else cell for cell in cells]
        lines.append(separator.join(cells) + "\r\n")
    return "".join(lines).encode(encoding)


@pytest.mark.parametrize(
    ("separator", "encoding"), [(",", "utf-8-sig"), (";", "utf-8-sig"), (";", "cp1252"), ("\t", "utf-16"), (",", "utf-8")]
)
def test_what_excel_has_saved_is_read(store, folder, other, separator, encoding):
    for table in TABLES:
        change(folder / f"{table.name}.csv", lambda data: excel(data, separator, encoding, separator != ","))
    report = other.import_csv(folder)
    assert set(report.changed) == {f"{table.name}.csv" for table in TABLES} and "changed since the export" in str(report)
    assert other.ratings().to_dict("list") == store.ratings().to_dict("list") and other.ratings()["surprise"].tolist() == [72.5]
    assert other.ratings()["rater"].tolist() == ["zoë-3"]


def test_blank_lines_are_skipped(folder, other):
    change(folder / "ratings.csv", lambda data: data + b"\n\r\n")
    assert other.import_csv(folder).new["ratings"] == 1


def test_an_untouched_export_says_so(folder, other, store):
    report = other.import_csv(folder)
    assert report.changed == [] and str(report) == "new: 1 raters, 1 sessions, 1 ratings, 3 stimuli"
    assert str(store.import_csv(folder)) == "new: nothing; known already: 1 raters, 1 sessions, 1 ratings, 3 stimuli"


@pytest.mark.parametrize(
    ("file", "how", "match"),
    [
        ("stimuli", lambda data: b"".join(data.splitlines(True)[:-1]), "stimuli.csv: got 2 rows, 3 were written"),
        ("ratings", lambda data: data.splitlines(True)[0], "ratings.csv: got 0 rows, 1 were written"),
        ("ratings", lambda data: data + data.splitlines(True)[1], "ratings.csv: got 2 rows, 1 were written"),
        ("stimuli", lambda data: data.replace(b",70.5,", b',7"0.5,'), "line 2: a quotation mark stands amid a field"),
        ("stimuli", lambda data: data.replace(b'"image-1"', b'"image-1'), "stimuli.csv, line 3: a quotation mark stands amid"),
        ("stimuli", lambda data: data.replace(b",70.5,", b",1e999,"), "line 2: surprise is inf; give a finite"),
        ("stimuli", lambda data: data.replace(b",70.5,", b",nan,"), "stimuli.csv, line 2: surprise is 'nan'; give a number"),
        ("ratings", lambda data: data.replace(b",4,", b",4_0,"), "ratings.csv, line 2: value is '4_0'; give a whole number"),
        ("ratings", lambda data: data.replace(b",900,", b",99999999999,"), "line 2: milliseconds is 99999999999; give"),
        ("ratings", lambda data: data.replace(b",900,", b"," + "²".encode() + b","), "milliseconds is '²'; give a whole"),
        ("raters", lambda data: data.replace("zoë-3".encode(), b"=1+1"), "raters.csv, line 2: code: got '=1\\+1'"),
        ("sessions", lambda data: data.replace(b'[""image-0""', b'[""image-0'), "line 2: stimuli is .*; give a JSON"),
        ("raters", lambda data: data.replace("ë".encode(), b"\x81"), "raters.csv, line 2: the text is neither UTF-8 nor"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_with_file_and_line(folder, other, file, how, match):
    path = folder / f"{file}.csv"
    before = path.read_bytes()
    change(path, how)
    assert path.read_bytes() != before
    with pytest.raises(ValueError, match=match):
        other.import_csv(folder)
    assert other.sessions().empty and other.known("zoë-3") is None


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "is no manifest of an export"),
        ("[]", "is no manifest of an export"),
        ('{"kind": "creativelib ratings", "format": 9, "files": {}}', "the export has the format 9; this version .* reads 2"),
    ],
)
def test_a_manifest_of_something_else_is_refused(folder, other, text, match):
    (folder / "manifest.json").write_text(text)
    with pytest.raises(ValueError, match=match):
        other.import_csv(folder)
    (folder / "manifest.json").unlink()
    with pytest.raises(FileNotFoundError, match="manifest.json is missing; give the whole folder"):
        other.import_csv(folder)


def test_an_export_is_written_whole_or_not_at_all(store, folder, tmp_path, monkeypatch):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    facts = json.loads(before["manifest.json"])
    assert facts["files"]["ratings.csv"]["rows"] == 1 and set(facts["files"]) == {f"{table.name}.csv" for table in TABLES}
    store.rate(store.sessions()["session"][0], "image-0", 1)
    written = []

    def full(path, text):
        written.append(path.name)
        if len(written) == 4:
            raise OSError(28, "No space left on device")
        return write(path, text)

    write = csv_files._write
    with monkeypatch.context() as patch:
        patch.setattr(csv_files, "_write", full)
        for target in (folder, tmp_path / "new"):
            written.clear()
            with pytest.raises(OSError, match="No space left"):
                store.export_csv(target)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert sorted(os.listdir(tmp_path)) == ["csv", "study.sqlite"]
    store.export_csv(folder)
    assert json.loads((folder / "manifest.json").read_text())["files"]["ratings.csv"]["rows"] == 2


def test_an_export_overwrites_nothing_else(store, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("precious")
    with pytest.raises(FileExistsError, match="thesis holds something else than an export; choose a new one"):
        store.export_csv(tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "precious"
