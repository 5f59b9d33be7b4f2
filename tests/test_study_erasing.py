"""Who withdraws is gone from every file, also where that is interrupted, contested or late."""

import importlib
import sqlite3
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from studies import Person, app, person, study  # noqa: F401

from creativelib.cli import main
from creativelib.study.server import folder as study_folder
from creativelib.study.server.folder import Study
from creativelib.study.store import Store


def names_of(path):
    copy = Store(path)
    try:
        return set(copy.ratings()["rater"])
    finally:
        copy.close()


@pytest.mark.parametrize("again", ["the person presses again", "the server starts again"])
def test_an_interrupted_withdrawal_is_finished(person, app, study, monkeypatch, again):  # noqa: F811
    other, code = Person(app, study).finish()["code"], person.finish(4)["code"]
    backup = study.store.backup(study.folder / "backup.sqlite")
    with monkeypatch.context() as broken:
        broken.setattr(study_folder, "erase", lambda *_: exec("raise KeyboardInterrupt"))
        with pytest.raises(KeyboardInterrupt):  # the ratings are deleted, the files are not
            study.delete(code)
    assert set(study.store.ratings()["rater"]) == {other} and names_of(backup) == {other, code}
    if again == "the person presses again":
        assert person.web.post("/api/withdraw", json={"sure": True}).status_code == 200
    else:
        Study(study.folder).close()
    assert names_of(backup) == {other}
    assert not [path for path in study.folder.rglob("*") if path.is_file() and code.encode() in path.read_bytes()]


def test_a_backup_that_another_program_holds_is_named_and_mended_later(person, study, monkeypatch):  # noqa: F811
    code = person.finish(4)["code"]
    backup = study.store.backup(study.folder / "backup.sqlite")
    study.store.backup(study.folder / "x.sqlite")
    monkeypatch.setattr("creativelib.study.database.BUSY_SECONDS", 0.1)
    with closing(sqlite3.connect(backup)) as browser:
        browser.execute("BEGIN IMMEDIATE")
        assert study.delete(code) == [backup]
        assert names_of(study.folder / "x.sqlite") == set()  # the others are mended all the same
        browser.rollback()
    Study(study.folder).close()
    assert names_of(backup) == set()


def test_what_is_packed_is_looked_into(person, study):  # noqa: F811
    code = person.finish(4)["code"]
    backup = study.store.backup(study.folder.parent / "backup.sqlite")
    packed, table = study.folder / "monday.zip", study.folder / "ratings.xlsx"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(backup, "ratings.sqlite")
    with zipfile.ZipFile(table, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/sharedStrings.xml", f"<t>{code}</t>")
    (study.folder / "broken.zip").write_bytes(packed.read_bytes()[:300] + packed.read_bytes()[400:])
    assert study.delete(code) == [packed, table]


PLACES = {"report": "creativelib.study.report.report", "export": "creativelib.study.tidy.write"}


@pytest.mark.parametrize("action", PLACES)
def test_who_withdraws_while_a_file_is_made_is_not_in_it(person, app, study, monkeypatch, action):  # noqa: F811
    Person(app, study).finish()
    code = person.finish()["code"]
    study.change(open=False)
    module, name = PLACES[action].rsplit(".", 1)
    make = getattr(importlib.import_module(module), name)
    calls = []

    def slowly(*arguments):
        found = make(*arguments)
        calls.append(code)
        if len(calls) == 1:
            study.delete(code)
        return found

    monkeypatch.setattr(PLACES[action], slowly)
    assert main(["study", action, str(study.folder)]) == 0 and len(calls) == 2
    files = [path for path in study.folder.rglob("*") if path.is_file()]
    assert {"report": "report.html", "export": "ratings.csv"}[action] in {path.name for path in files}
    assert not [path for path in files if code.encode() in path.read_bytes()]


def test_a_report_replaces_nothing_but_a_report(person, app, study, tmp_path, capsys):  # noqa: F811
    person.finish()
    study.change(open=False)
    mine = tmp_path / "results.html"
    mine.write_text("<title>Rated by hand</title>")
    assert main(["study", "report", str(study.folder), "--out", str(mine)]) == 2
    assert f"out: {mine} is there already, and is no report" in capsys.readouterr().err and "by hand" in mine.read_text()
    mine.unlink()
    assert [main(["study", "report", str(study.folder), "--out", str(mine)]) for _ in range(2)] == [0, 0]


def test_two_who_withdraw_at_once_are_both_gone(app, study):  # noqa: F811
    people = [Person(app, study) for _ in range(4)]
    codes = [one.finish()["code"] for one in people]
    for number in range(3):
        study.store.backup(study.folder / f"{number}.sqlite")
        study.store.export_csv(study.folder / f"export {number}")
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(study.delete, codes)) == [[]] * 4
    words = [code.encode() for code in codes]
    assert not [path for path in study.folder.rglob("*") if path.is_file() and any(one in path.read_bytes() for one in words)]
