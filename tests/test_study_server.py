"""The web server of a study without a browser: who gets in, what is kept, and what an attacker cannot."""

import asyncio
import http.client
import json
import os
import re
import select
import socket
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from studies import Person, Server, app, finished, make_study, new_name, person, study, teacher  # noqa: F401

from creativelib.study import database
from creativelib.study.report import report
from creativelib.study.server import guard
from creativelib.study.server.app import make_app
from creativelib.study.server.folder import Study
from creativelib.study.server.guard import LARGEST_BODY, LONGEST_READ, RATER, TEACHER, Signer
from creativelib.study.store import Store
from creativelib.study.tidy import write, zipped

PYPROJECT = (Path(__file__).resolve().parents[1] / "pyproject.toml").read_text()


# --- taking part ------------------------------------------------------------------------------------------------------


def test_from_the_link_to_the_code(person, study):
    assert person.web.get("/").status_code == 403 and person.web.get(f"/join/{person.link}").status_code == 200
    assert person.web.get("/api/state").json() == {"joined": False, "open": True}
    state = person.join()
    assert state["joined"] and len(state["order"]) == 11 and not state["finished"] and state["rated"] == {}
    state = person.finish(4)
    assert state["finished"] and re.fullmatch("[0-9A-F]{8}", state["completion"]["code"])
    assert study.store.ratings()["value"].tolist() == [4] * 11 and len(study.store.choices()) == 2
    with study.store.database.reading() as connection:  # what was agreed to is kept
        assert connection.exec_driver_sql("SELECT text FROM consents").scalar() == study.consent()


def test_the_page_and_its_answers_say_nothing_of_a_picture(person, study):
    sent = person.web.get(f"/join/{person.link}").text + str(person.join())
    for word in ("surprise", "iteration", "outsider", "repeat", "nats", "seed", "70."):
        assert word not in sent
    one = study.session.store.order(study.store.sessions()["session"][0])[0]
    answer = person.web.get(f"/picture/{one}.png")
    assert answer.headers["content-type"] == "image/png" and b"tEXt" not in answer.content


def test_git_takes_nothing_of_a_study(tmp_path):
    """A class's ratings and the teacher's key lie where the command was given, as often as not in a clone of this project."""
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    make_study(tmp_path / "aliens")
    status = subprocess.run(["git", "-C", tmp_path, "status", "--porcelain"], check=True, capture_output=True, text=True)
    assert status.stdout == "" and (tmp_path / "aliens" / "keys.json").is_file()


def test_a_study_counts_once_its_pictures_its_key_and_its_secrets_are_on_the_disk(tmp_path, monkeypatch):
    synced, fsync, replace = set(), os.fsync, os.replace

    def noted(handle):
        synced.add(os.fstat(handle).st_ino)
        fsync(handle)

    def checked(source, target):
        files = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != ".gitignore"]
        assert [path.name for path in files if path.stat().st_ino not in synced] == []
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(os, "replace", checked)
    study = make_study(tmp_path / "aliens", runs=1)
    assert {path.name for path in study.iterdir()} >= {"study.json", "keys.json", "stimuli"}


def test_the_same_browser_is_the_same_person_however_often_it_joins(person, study):
    codes = {person.join()["code"] for _ in range(3)}
    assert len(codes) == 1 and len(study.store.sessions()) == 1


def test_a_personal_link_is_one_person_on_every_device(app, study):
    link = Signer(study.secret).token("person", 7)
    codes = {Person(app, study).join(link=link)["code"] for _ in range(3)}
    assert len(codes) == 1 and len({Person(app, study).join()["code"] for _ in range(2)}) == 2


def test_ones_own_link_goes_on_elsewhere(person, app, study):
    state = person.join()
    person.rate(state["order"][0], 5)
    other = TestClient(app)
    assert other.get(state["link"]).status_code == 200
    assert other.get("/api/state").json()["rated"] == {state["order"][0]: 5}
    assert TestClient(app).get(state["link"][:-3]).status_code == 403


def test_an_answer_that_is_sent_again_counts_once(person, study):
    first, second = person.join()["order"][:2]
    name = new_name()
    for expected in ("kept", "known", "known"):
        assert person.rate(first, 3, answer=name).json()["done"] == {name: expected}
    assert person.rate(first, 5).json()["rated"] == {first: 3}  # the other tab was slower
    person.rate(second, 1)
    back = new_name()
    for expected in ("kept", "known"):
        assert person.send({"do": "back", "stimulus": first, "answer": back}).json()["done"] == {back: expected}
    person.rate(first, 5)
    assert person.rate(first, 3, answer=name).json()["rated"] == {first: 5, second: 1}  # late from a bad network
    assert person.send({"do": "back", "stimulus": first, "answer": back}).json()["rated"] == {first: 5, second: 1}
    assert len(study.store.ratings()) == 2


def test_a_locked_database_is_told_and_the_answer_comes_again(person, study, monkeypatch):
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.2)
    order, name = person.join()["order"], new_name()
    other = sqlite3.connect(study.store.place, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    answer = person.rate(order[0], 3, answer=name)
    assert answer.status_code == 503 and "Nothing is lost: this page tries again" in answer.json()["message"]
    other.rollback()
    other.close()
    assert person.rate(order[0], 3, answer=name).json()["done"] == {name: "kept"}


def test_withdrawing_deletes_everything_everywhere(person, app, study, tmp_path):
    Person(app, study).finish()
    code = person.finish(4)["code"]
    write(study.store, study.settings, study.folder / "exports" / "export-1")
    study.store.backup(study.folder / "backups" / "monday.sqlite")
    rater = study.store.known(code)
    found = [path for path in study.folder.rglob("*") if path.is_file() and code.encode() in path.read_bytes()]
    assert {path.name for path in found} >= {"ratings.csv", "monday.sqlite", "ratings.sqlite"}
    assert person.web.post("/api/withdraw", json={}).status_code == 400
    assert person.web.post("/api/withdraw", json={"sure": True}).json()["joined"] is False
    for path in study.folder.rglob("*"):
        assert not path.is_file() or code.encode() not in path.read_bytes() and rater.encode() not in path.read_bytes()
    copy = Store(study.folder / "backups" / "monday.sqlite")
    assert copy.ratings()["rater"].nunique() == 1
    copy.close()
    assert person.web.get("/api/state").json() == {"joined": False, "open": True}
    assert person.join().get("error") == "gone"  # a browser that tries the old name again
    person.key = new_name()
    assert person.join()["joined"] and study.store.sessions()["rater"].nunique() == 2


def test_withdrawing_finds_copies_wherever_in_the_folder(person, app, study):
    other = Person(app, study).finish()["code"]
    code = person.finish(4)["code"]
    rater = study.store.known(code)
    study.store.backup(study.folder / "before lunch.db")
    study.store.backup(study.folder / "old" / "deep" / "copy")
    study.store.export_csv(study.folder / "raw")
    write(study.store, study.settings, study.folder / "for Ann")
    (study.folder / "ratings (1).zip").write_bytes(zipped(study.store, study.settings))
    study.change(open=False)
    (study.folder / "draft.html").write_text(report(study))
    notes, page = study.folder / "notes.txt", study.folder / "page.html"
    notes.write_text(f"{code} left early"), page.write_text("<title>mine</title>")
    foreign = study.folder / "bookmarks.sqlite"
    with closing(sqlite3.connect(foreign)) as connection:
        connection.execute("CREATE TABLE sessions (title)")
        connection.execute("INSERT INTO sessions VALUES (?)", (code,))
        connection.commit()
    assert study.delete(code) == [foreign, notes]  # what is not ours is named
    notes.unlink(), foreign.unlink()
    for path in study.folder.rglob("*"):
        assert not path.is_file() or not any(word.encode() in path.read_bytes() for word in (code, rater))
    left = {path.name for path in study.folder.iterdir()}
    assert page.exists() and not left & {"raw", "for Ann", "ratings (1).zip", "draft.html"}
    for path in ("before lunch.db", "old/deep/copy"):
        copy = Store(study.folder / path)
        assert set(copy.ratings()["rater"]) == {other}
        copy.close()


def test_parameters_of_a_panel_provider_come_back(app, tmp_path):
    url = "https://app.prolific.com/submissions/complete?cc={code}&p={PROLIFIC_PID}"
    study = Study(make_study(tmp_path / "paid", runs=1, pairs=0, completion_url=url, completion_code="C0DE"))
    person = Person(make_app(study), study)
    person.join(source={"PROLIFIC_PID": "5f/&x", "evil": "1", "STUDY_ID": 3})
    state = person.finish()
    assert state["completion"] == {"code": "C0DE", "url": "https://app.prolific.com/submissions/complete?cc=C0DE&p=5f%2F%26x"}
    assert study.store.source(study.store.known(state["code"])) == {"PROLIFIC_PID": "5f/&x"}
    assert "parameters of the panel" in study.consent()
    study.close()


def test_parameters_are_not_kept_where_the_consent_page_does_not_say_so(app, study):
    """Somebody pastes a panel's link into a study of a class."""
    person = Person(app, study)
    person.join(source={"PROLIFIC_PID": "5f2a"})
    assert "parameters" not in study.consent()
    assert study.store.source(study.store.known(person.finish()["code"])) == {}


def test_every_fourth_is_asked_the_other_question(tmp_path):
    study = Study(make_study(tmp_path / "two", runs=2, pairs=0, scales=("creative", "creative", "creative", "surprising")))
    app = make_app(study)
    states = [Person(app, study).join() for _ in range(8)]
    assert [state["scale"] for state in states] == ["creative", "creative", "creative", "surprising"] * 2
    assert states[3]["question"] == "How surprising is this alien?" and states[3]["words"][0] == "not at all surprising"
    study.close()


# --- strangers --------------------------------------------------------------------------------------------------------


def test_forged_links_and_cookies_open_nothing(person, app, study):
    state = person.join()
    signer, other = Signer(study.secret), Signer("another key")
    for link in ("", "x", person.link[:-1], person.link + "x", other.token("class", "class"), signer.token("rater", "class")):
        assert Person(app, study).join(link=link).get("error") == "refused"
    for token in ("", "x", other.token("rater", ["a", "b"]), signer.token("class", ["a", "b"]), state["link"][4:-2]):
        web = TestClient(app, cookies={RATER: token})
        assert web.get("/api/state").json() == {"joined": False, "open": True}
        assert web.post("/api/answers", json={"answers": []}).status_code == 401
        assert web.post("/api/withdraw", json={"sure": True}).status_code == 401
        assert web.get(f"/picture/{state['order'][0]}.png").status_code == 401
        web = TestClient(app, cookies={TEACHER: token}, follow_redirects=False)
        assert web.get("/teacher/").status_code == 303 and web.get("/teacher/export.zip").status_code == 303
    assert len(study.store.sessions()) == 1


def test_ones_own_answers_only(person, app, study, tmp_path):
    person.join()
    unseen = "f" * 12
    for name in (unseen, "../keys", "..%2f..%2fkeys.json", "%2e%2e/study.json"):
        assert person.web.get(f"/picture/{name}").status_code == 404
        assert person.web.get(f"/static/{name}").status_code == 404
    answer = person.rate(unseen, 3)
    assert "refused: stimulus: 'ffffffffffff' is not one of this session's" in answer.json()["done"].values()
    other = Person(app, study)
    theirs = other.join()
    person.web.post("/api/answers", json={"answers": [], "session": theirs["link"], "rater": theirs["code"]})
    assert other.web.get("/api/state").json()["rated"] == {} and study.store.ratings().empty


EVIL = (
    "'; DROP TABLE ratings;--",
    "<script>alert(1)</script>",
    "=1+1",
    "\0",
    "\ud800",
    -1,
    1e400,
    True,
    None,
    [],
    {},
    "left" * 99,
)


@pytest.mark.parametrize("field", ["stimulus", "value", "milliseconds", "answer", "do", "left", "right", "chosen"])
def test_injection_into_every_field_keeps_nothing(person, study, field):
    state = person.join()
    left, right, _ = state["pairs"][0]
    rating = {"do": "rate", "stimulus": state["order"][0], "value": 3, "milliseconds": 9, "answer": new_name()}
    choice = {"do": "choose", "left": left, "right": right, "chosen": "left", "answer": new_name()}
    for evil in EVIL:
        if field == "milliseconds" and evil is None:
            continue  # how long is not known
        body = json.dumps({"answers": [(rating if field in rating else choice) | {field: evil}]})
        answer = person.web.post("/api/answers", content=body, headers={"content-type": "application/json"})
        said = [one.partition(":")[0] for one in answer.json().get("done", {}).values()]
        assert answer.status_code == 400 or said == ["refused"]
    assert study.store.ratings().empty and study.store.choices().empty and len(study.store.sessions()) == 1


def test_injection_into_joining_is_refused_or_kept_as_text(app, study):
    for evil in EVIL:
        assert Person(app, study).join(link=evil).get("error") == "refused"
        for field in ("key", "agreed", "version"):
            person = Person(app, study)
            person.join(**{field: evil})
            assert person.answer.status_code in (400, 409) or field == "agreed" and evil is True
    joined = len(study.store.sessions())
    for evil in EVIL:
        person = Person(app, study)
        assert person.join(source={"PROLIFIC_PID": evil, "more": evil})["joined"]
        person.finish(3)
    assert len(study.store.sessions()) == joined + len(EVIL)


def test_half_a_letter_in_a_provider_s_parameter_still_leads_back(app, tmp_path):
    url = "https://app.prolific.com/complete?cc={code}&who={PROLIFIC_PID}"
    study = Study(make_study(tmp_path / "panel", runs=1, pairs=0, completion_url=url))
    person = Person(TestClient(make_app(study)).app, study)
    person.join(source={"PROLIFIC_PID": "a\ud800b"})
    assert person.finish(3)["completion"]["url"].endswith("&who=ab")
    study.close()


def test_a_browser_that_is_somebody_else_s_by_now_sends_nothing_for_them(person, study):
    """Two people, one browser, two tabs: the second one's cookie does not make the first one's answers theirs."""
    mine = person.join()
    person.key = new_name()
    theirs = person.join()
    assert mine["who"] != theirs["who"]
    rating = {"do": "rate", "stimulus": theirs["order"][0], "value": 3, "milliseconds": 900, "answer": new_name()}
    for path, body in (("answers", {"answers": [rating]}), ("withdraw", {"sure": True}), ("leave", {})):
        refused = person.web.post(f"/api/{path}", json=body | {"who": mine["who"]})
        assert refused.status_code == 409 and "Somebody else goes on in this browser" in refused.json()["message"]
    assert study.store.ratings().empty and len(study.store.sessions()) == 2
    assert person.web.post("/api/answers", json={"answers": [rating], "who": theirs["who"]}).json()["rated"]


def test_a_late_answer_of_a_second_tab_does_not_come_back_after_an_undo(person, study):
    first = person.join()["order"][0]
    slow = new_name()
    person.rate(first, 3)
    assert person.rate(first, 5, answer=slow).json()["done"] == {slow: "known"}
    person.send({"do": "back", "stimulus": first})
    assert person.rate(first, 5, answer=slow).json()["rated"] == {}


def test_a_form_of_the_teacher_without_its_fields_is_refused(teacher, study):
    for path in ("delete", "rename", "unite", "links.csv"):
        answer = teacher.post(f"/teacher/{path}", data={"form": teacher.form})
        assert answer.status_code == 400 and "got" in answer.text
    for path in ("delete", "rename", "unite"):
        for evil in ("\0", "\u202e", "<script>", "=1+1", "x" * 999):
            fields = dict.fromkeys(("code", "sure", "new", "other"), evil)
            answer = teacher.post(f"/teacher/{path}", data=fields | {"form": teacher.form})
            assert answer.status_code == 400 and "<script>" not in answer.text


@pytest.mark.parametrize(
    ("path", "body"), [("/api/join", {"key": "x"}), ("/api/join", []), ("/api/answers", {}), ("/api/answers", {"answers": [1]}),
                       ("/api/answers", {"answers": [{}] * 51}), ("/api/answers", "text"), ("/api/withdraw", {"sure": "yes"})]
)  # fmt: skip
def test_bodies_of_another_shape_are_refused(person, path, body):
    person.join()
    assert person.web.post(path, json=body).status_code == 400


def test_oversized_bodies_are_refused(person, teacher, study):
    person.join()
    for size in (LARGEST_BODY + 1, 20 * LARGEST_BODY):
        large = b'{"answers": [], "x": "' + b"x" * size + b'"}'
        kind = {"content-type": "application/json"}
        assert person.web.post("/api/answers", content=large, headers=kind).status_code == 413
        assert person.web.post("/api/answers", content=iter([large]), headers=kind).status_code == 413  # size not announced
        form = {"content-type": "application/x-www-form-urlencoded"}
        assert teacher.post("/teacher/delete", content=b"code=" + large, headers=form).status_code == 413
    nested = b"[" * 60_000
    assert person.web.post("/api/answers", content=nested, headers={"content-type": "application/json"}).status_code == 400


def test_a_body_is_read_to_its_end_before_it_is_refused(study):
    """Whoever answers while bytes still come closes the connection on them, and a proxy that still sends loses the answer."""
    server = Server(study.folder)
    person = Person(server, study)
    person.join()
    cookie = "; ".join(f"{name}={value}" for name, value in person.web.cookies.items())
    answers, json_kind, text = "/api/answers", "application/json", "text/plain"
    try:
        cases = (
            (answers, json_kind, cookie, 413),
            (answers, text, cookie, 415),
            (answers, text, "", 401),
            ("/no", text, "", 404),
        )
        for path, kind, known, status in cases:
            one = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
            one.connect()
            one.auto_open = False  # each refusal but the last leaves the connection as it was
            for size, whole in ((LARGEST_BODY + 1, True), (200_000, True), (LONGEST_READ + 1, False)):
                one.putrequest("POST", path)
                for name, value in {"content-type": kind, "content-length": str(size), "cookie": known}.items():
                    one.putheader(name, value)
                one.endheaders()
                one.send(b"x" * 100)
                at_once = select.select([one.sock], [], [], 0.2 if whole else 60)[0]
                assert at_once == ([] if whole else [one.sock]), f"{path}: {size}"
                if whole:
                    one.send(b"x" * (size - 100))
                answer = one.getresponse()
                assert answer.status == status and answer.read()
            one.close()
        assert person.rate(person.web.get("/api/state").json()["order"][0], 3).status_code == 200
    finally:
        server.stop()


def test_a_body_that_never_ends_holds_nothing_up(study):
    """A phone in a tunnel: the server answers others, ends when it is told to, and writes no traceback."""
    server = Server(study.folder)
    person = Person(server, study)
    person.join()
    cookie = "; ".join(f"{name}={value}" for name, value in person.web.cookies.items())
    head = "host: x\r\ncontent-type: application/json\r\ncontent-length: 99"
    try:
        held = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(3)]
        for one, path, known in zip(held, ("/no", "/api/answers", "/api/answers"), ("", cookie, cookie), strict=True):
            one.sendall(f"POST {path} HTTP/1.1\r\n{head}\r\ncookie: {known}\r\n\r\n{{".encode())
        held[2].close()
        assert person.rate(person.web.get("/api/state").json()["order"][0], 3).status_code == 200
        assert "Traceback" not in server.log.read_text()
    finally:
        server.stop()  # fails where the process is still there after a minute


def test_what_waits_before_it_sends_is_refused_at_once_and_a_body_that_stalls_after_a_while(monkeypatch):
    async def refuse(scope, receive, send):
        await send({"type": "http.response.start", "status": 404, "headers": []})

    async def silence():
        await asyncio.sleep(60)

    async def status(headers) -> int:
        sent = []

        async def send(message):
            sent.append(message["status"])

        await guard.WholeRequests(refuse)({"type": "http", "headers": headers}, silence, send)
        return sent[0]

    length = (b"content-length", b"99")
    assert finished(asyncio.wait_for(status([length, (b"expect", b"100-continue")]), 5)) == 404
    monkeypatch.setattr(guard, "PATIENCE", 0.1)
    assert finished(asyncio.wait_for(status([length]), 5)) == 404


def test_other_sites_cannot_make_a_browser_send(person, teacher, study):
    person.join()
    for headers in ({"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}, {"origin": "null"}):
        assert person.web.post("/api/withdraw", json={"sure": True}, headers=headers).status_code == 403
        form = {"form": teacher.form, "open": "no"}
        assert teacher.post("/teacher/open", data=form, headers=headers).status_code == 403
    assert person.web.post("/api/withdraw", data={"sure": "true"}).status_code == 415  # what a form can send
    assert person.web.post("/api/withdraw", content='{"sure": true}', headers={"content-type": "text/plain"}).status_code == 415
    assert teacher.post("/teacher/open", data={"open": "no", "form": "0" * 64}).status_code == 403
    assert teacher.post("/teacher/open", files={"open": b"no"}).status_code == 415  # no uploads
    assert study.settings.open and len(study.store.sessions()) == 1


def test_too_many_requests_are_refused_for_a_while(study):
    app = make_app(study, joins_per_minute=5)
    answers = [Person(app, study).join().get("joined") for _ in range(8)]
    assert answers.count(True) == 5
    late = Person(app, study)
    late.join()
    assert late.answer.status_code == 429 and int(late.answer.headers["retry-after"]) >= 1
    web = TestClient(app)
    tries = [web.post("/teacher/sign-in", data={"token": f"guess {number}"}).status_code for number in range(11)]
    assert tries == [403] * 10 + [429]


def test_every_answer_has_its_headers_and_asks_nobody_else(person, teacher):
    person.join()
    pages = [person.web.get(path) for path in ("/", "/api/state", "/static/study.js", "/nowhere", "/teacher/sign-in")]
    for answer in (*pages, teacher.get("/teacher/")):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff" and answer.headers["referrer-policy"] == "same-origin"
        assert "server" not in answer.headers
        assert not re.search(r"(src|href)=\"(https?:)?//(?!testserver)", answer.text)
        assert not re.search(r"<script(?! src=)|<style|\son\w+=|style=", answer.text)  # nothing inline
    assert pages[1].headers["cache-control"] == "no-store"
    cookie = person.answer.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=lax" in cookie


def test_text_of_the_settings_is_text_on_the_pages(tmp_path):
    evil = "<script>alert(1)</script>{{ 7 * 7 }}"
    study = Study(make_study(tmp_path / "evil", runs=1, pairs=0, purpose=evil))
    page = Person(make_app(study), study)
    text = page.web.get(f"/join/{page.link}").text
    assert "<script>alert" not in text and "&lt;script&gt;" in text and "{{ 7 * 7 }}" in text
    study.close()


def test_what_is_secret_is_in_no_page_and_no_address(person, teacher, study):
    person.finish()
    texts = [person.web.get(path).text for path in ("/", "/api/state")] + [teacher.get("/teacher/").text]
    assert not [text for text in texts if study.secret in text or study.teacher_token in text]
    assert (study.folder / "keys.json").stat().st_mode & 0o077 == 0 and study.folder.stat().st_mode & 0o077 == 0
    assert TestClient(make_app(study)).get(f"/teacher/?token={study.teacher_token}").url.path == "/teacher/sign-in"
