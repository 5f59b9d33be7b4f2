"""Running a study: what a teacher can do on the page and on the command line, its files, and how it is deployed."""

import csv
import hashlib
import io
import json
import re
import socket
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
import yaml
from studies import DEPLOY, Person, Server, app, make_study, new_name, stimuli, study, teacher  # noqa: F401

from creativelib.cli import build_parser, main
from creativelib.study.report import report
from creativelib.study.server.folder import Settings, Study
from creativelib.study.server.guard import Signer
from creativelib.study.stimuli import Stimuli, save_stimuli
from creativelib.study.store import Store
from creativelib.study.tidy import safe, write

PYPROJECT = (Path(__file__).resolve().parents[1] / "pyproject.toml").read_text()


# --- the teacher ------------------------------------------------------------------------------------------------------


def test_the_figure_is_hidden_until_the_study_is_closed(teacher, app, study):
    for value in (None, None, None, 4):
        Person(app, study).finish(value)
    for path in ("/teacher/figure.png", "/teacher/report.html"):
        assert teacher.get(path).status_code == 409
    assert "figure.png" not in teacher.get("/teacher/").text
    assert "What they say" in teacher.post("/teacher/open", data={"form": teacher.form, "open": "no"}).text
    assert teacher.get("/teacher/figure.png").content.startswith(b"\x89PNG")
    answer = teacher.get("/teacher/report.html")
    page, policy = answer.text, answer.headers.get_list("content-security-policy")
    assert len(policy) == 1 and policy[0].startswith("default-src 'none'; style-src 'sha256-") and "script" not in policy[0]
    assert "4 began; left out: 1; withdrawn: 0." in page and "Both tests hold" in page and "Krippendorff" in page
    assert "data:image/png;base64," in page and "http" not in re.sub(r"base64,[^\"]*", "", page)
    late = Person(app, study)
    assert late.join()["message"] == "The study is closed." and late.rate("x", 1).status_code == 401


def test_deleting_renaming_and_joining_people(teacher, app, study):
    codes = [Person(app, study).finish()["code"] for _ in range(3)]
    post = lambda path, **data: teacher.post(f"/teacher/{path}", data={"form": teacher.form} | data)  # noqa: E731
    assert "type the code" in post("delete", code=codes[0], sure="yes").text
    assert codes[0] not in post("delete", code=codes[0], sure=codes[0]).text
    assert "there is no rater" in post("delete", code=codes[0], sure=codes[0]).text
    assert "room-7-left" in post("rename", code=codes[1], new="Room 7 left").text
    assert codes[2] not in post("unite", code="room-7-left", other=codes[2]).text
    assert set(study.store.ratings()["rater"]) == {"room-7-left"} and len(study.store.ratings()) == 22


def test_links_for_everybody_and_a_code_to_scan(teacher, study):
    assert "<svg" in teacher.get("/teacher/qr.svg").text
    links = teacher.post("/teacher/links.csv", data={"form": teacher.form, "count": "3"}).text.split()
    signer = Signer(study.secret)
    assert [signer.read("person", link.rpartition("/")[2]) for link in links] == [1, 2, 3]
    more = teacher.post("/teacher/links.csv", data={"form": teacher.form, "count": "2", "first": "3"}).text.split()
    assert (
        more[0] == links[2] and signer.read("person", more[1].rpartition("/")[2]) == 4
    )  # a second class gets links of its own
    for field, value in (("count", "0"), ("count", "1001"), ("first", "0"), ("first", "²"), ("first", "9" * 5000)):
        answer = teacher.post("/teacher/links.csv", data={"form": teacher.form, "count": "3"} | {field: value})
        assert answer.status_code == 400 and f"{field}: got" in answer.text


def test_the_export_is_tidy_with_a_codebook(teacher, app, study):
    person = Person(app, study)
    person.finish(4)
    Person(app, study).rate("x", 1)
    archive = zipfile.ZipFile(io.BytesIO(teacher.get("/teacher/export.zip").content))
    text = {name: archive.read(name).decode() for name in archive.namelist()}
    tables = {name: list(csv.DictReader(io.StringIO(text[name]))) for name in text if name.endswith(".csv")}
    assert len(tables["ratings.csv"]) == 11 and {row["value"] for row in tables["ratings.csv"]} == {"4"}
    assert [int(row["place"]) for row in tables["ratings.csv"]] == list(range(1, 12))
    assert {row["left_out"] for row in tables["ratings.csv"]} == {"1"} and "something else" in tables["raters.csv"][0]["reason"]
    for name in ("ratings.csv", "choices.csv", "raters.csv"):
        assert list(tables[name][0]) == [row["column"] for row in tables["codebook.csv"] if row["file"] == name]
    manifest = json.loads(archive.read("manifest.json"))
    opened = (study.folder / "study.opened.json").read_bytes()
    fixed = {"sha256": hashlib.sha256(opened).hexdigest(), "changed": {}}
    assert manifest["study.json at the first join"] == fixed and opened == (study.folder / "study.json").read_bytes()
    for name, facts in manifest["files"].items():
        assert hashlib.sha256(archive.read(name)).hexdigest() == facts["sha256"] and facts["rows"] == len(tables[name])


def test_the_backup_opens(teacher, app, study, tmp_path):
    Person(app, study).finish(4)
    (tmp_path / "backup.sqlite").write_bytes(teacher.get("/teacher/backup.sqlite").content)
    copy = Store(tmp_path / "backup.sqlite")
    assert len(copy.ratings()) == 11
    copy.close()


def test_texts_of_an_export_are_no_formulas():
    assert [safe(cell) for cell in ("=1+1", "+1", "-1", "@a", "\t=1")] == ["'=1+1", "'+1", "'-1", "'@a", "'\t=1"]
    assert [safe(cell) for cell in ("fox", 3, None)] == ["fox", 3, None]


# --- the folder -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"subject": " "}, "subject: got ' '"),
        ({"contact": ""}, "contact: got ''"),
        ({"pairs": -1}, "pairs: got -1"),
        ({"age": True}, "age: got True"),
        ({"scales": "creative"}, "scales: got 'creative'; give a list"),
        ({"scales": ("creativ",)}, "scales: got .*one or more of creative, surprising"),
        ({"purpose": 5}, "purpose: got 5; give a text"),
        ({"open": "no"}, "open: got 'no'; give true or false"),
        ({"seed": "x"}, "seed: got 'x'"),
        ({"completion_url": "javascript:alert(1)"}, "completion_url: got .*; give an address that begins with https://"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, match):
    with pytest.raises(ValueError, match=match):
        Settings(**{"subject": "alien", "contact": "Ann"} | changes)


def test_a_study_is_made_whole_or_not_at_all(tmp_path):
    for there in (False, True):
        if there:
            (tmp_path / "study").mkdir()
        with pytest.raises(ValueError, match="per_rater"):
            make_study(tmp_path / "study", per_rater=1)
        assert (tmp_path / "study").exists() == there and not there or not any((tmp_path / "study").iterdir())
    make_study(tmp_path / "study", per_rater=3)
    assert (tmp_path / "study").stat().st_mode & 0o777 == 0o700


def test_an_export_that_was_killed_is_in_nobodys_way(study, tmp_path):
    (tmp_path / ".export.partial").mkdir()
    (tmp_path / ".export.partial" / "ratings.csv").write_text("rater")
    assert {path.name for path in write(study.store, study.settings, tmp_path / "export").iterdir()} >= {"ratings.csv"}


def test_a_folder_that_is_no_study_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no study in .*; make one with: creativelib study new"):
        Study(tmp_path)
    make_study(tmp_path / "study", runs=1)
    with pytest.raises(FileExistsError, match="holds something already"):
        make_study(tmp_path / "study", runs=1)
    (tmp_path / "study" / "keys.json").rename(tmp_path / "keys.json")
    with pytest.raises(ValueError, match="keys.json is missing or broken; fetch it from a backup"):
        Study(tmp_path / "study")
    (tmp_path / "keys.json").rename(tmp_path / "study" / "keys.json")
    (tmp_path / "study" / "study.json").write_text('{"kind": "creativelib study 1", "colour": 1}')
    with pytest.raises(ValueError, match="study.json cannot be read: unknown settings \\['colour'\\]"):
        Study(tmp_path / "study")


# --- deploying --------------------------------------------------------------------------------------------------------


def test_the_server_needs_no_torch():
    code = "import creativelib.study.server.app, creativelib.study.report, creativelib.study.cli, creativelib.study.tidy, sys;"
    code += "print(sorted({'torch', 'diffusers', 'transformers', 'anywidget', 'ipywidgets'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_compose_file_says_what_the_command_line_takes():
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    arguments = build_parser().parse_args(services["study"]["command"])
    assert (
        arguments.db == "postgresql+psycopg://study@db/study" and arguments.port == 8000 and str(arguments.folder) == "/study"
    )
    assert arguments.proxy == services["proxy"]["networks"]["inside"]["ipv4_address"]
    assert [name for name, service in services.items() if "ports" in service] == ["proxy"]  # nothing else can be reached
    assert "reverse_proxy {$STUDY_SERVER:study:8000}" in (DEPLOY / "Caddyfile").read_text()
    installed = (DEPLOY / "Dockerfile").read_text()
    for name in re.findall(r'^    "([a-z0-9-]+)', PYPROJECT.partition("study = [")[2].partition("]")[0], re.M):
        assert name in installed
    assert "torch" not in installed.partition("RUN")[2]


def test_the_parts_of_the_compose_file_as_processes(postgres, tmp_path):
    """PostgreSQL, the server, and what a proxy with TLS says about who asks."""
    address = "https://study.example.org"
    folder = make_study(tmp_path / "study", runs=2, pairs=1)
    words = ["--db", postgres, "--address", address, "--proxy", "127.0.0.1", "--joins-per-minute", "2"]
    server = Server(folder, *words)
    try:
        for number, told in enumerate(("198.51.100.7", "198.51.100.7", "198.51.100.7", "198.51.100.8")):
            headers = {"x-forwarded-for": told, "x-forwarded-proto": "https", "host": "study.example.org", "origin": address}
            with httpx.Client(base_url=server.base, headers=headers) as web:
                study = Study(folder, postgres)
                body = {"link": server.link, "key": new_name(), "agreed": True, "version": study.version(), "source": {}}
                answer = web.post("/api/join", json=body)
                study.close()
            assert answer.status_code == (429 if number == 2 else 200)  # the limit is that of the browser, not of the proxy
            assert answer.headers["strict-transport-security"]
            assert number == 2 or "secure" in answer.headers["set-cookie"].lower()
    finally:
        server.stop()


def test_as_a_teacher_would(tmp_path, capsys):
    """new, serve, ten phones rate, one withdraws, report, export, delete."""
    design = {"reach": 80.0, "candidates": [24], "checker": "the shipped one"}
    save_stimuli(Stimuli(stimuli(3, outsiders=1, repeats=1), design), tmp_path / "stimuli")
    folder = tmp_path / "aliens"
    run = lambda *words: main(["study", *map(str, words)])  # noqa: E731
    new = ["new", folder, "--subject", "alien", "--contact", "Ann Other", "--stimuli", tmp_path / "stimuli", "--pairs", "2"]
    assert run(*new) == 0 and "11 pictures" in capsys.readouterr().out
    assert run(*new) == 2 and "holds something already" in capsys.readouterr().err
    assert run(*new[:-4]) == 2 and "holds something already" in capsys.readouterr().err  # and no minutes of searching first
    assert run("links", folder, "--count", "2", "--address", "http://10.0.0.1:8000") == 0
    links = capsys.readouterr().out.split()
    assert len(links) == 2 and all(link.startswith("http://10.0.0.1:8000/join/") for link in links)
    assert run("links", folder, "--count", "2", "--first", "2", "--address", "http://10.0.0.1:8000/") == 0
    assert capsys.readouterr().out.split()[0] == links[1]  # a link is one person: another class begins where this one ends
    server = Server(folder)
    study = Study(folder)
    app = SimpleNamespace(base=server.base)
    try:
        people = [Person(app, study) for _ in range(10)]
        states = [person.finish() for person in people]
        assert all(state["finished"] for state in states)
        gone = states[3]["code"]
        assert people[3].web.post("/api/withdraw", json={"sure": True}).status_code == 200
    finally:
        server.stop()
    assert run("export", empty := make_study(tmp_path / "empty", runs=1)) == 2  # PostgreSQL has them
    assert "nobody has taken part by" in (said := capsys.readouterr().err) and "say so with --db" in said and empty.is_dir()
    assert run("report", folder) == 2 and "this study is open; close it on the teacher's page first" in capsys.readouterr().err
    study.change(open=False)
    assert run("report", folder) == 0 and run("export", folder) == 0
    texts = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert {"report.html", "ratings.csv", "codebook.csv"} <= {path.name for path in texts}
    assert not [path for path, content in texts.items() if gone.encode() in content]
    page = (folder / "report.html").read_text()
    assert "9 began; left out: 0; withdrawn: 1, and" in page and "Both tests hold" in page
    assert (
        "Made by this rule (names and numbers of make_stimuli): reach 80.0; candidates [24]; checker the shipped one." in page
    )
    assert run("delete", folder, states[0]["code"]) == 0
    assert not [path for path in folder.rglob("*") if path.is_file() and states[0]["code"].encode() in path.read_bytes()]
    assert run("delete", folder, states[0]["code"]) == 2
    study.close()


def test_a_number_of_pictures_that_does_not_fit_is_refused_before_minutes_of_searching(tmp_path, capsys, monkeypatch):
    def load(*_):
        raise RuntimeError("now it searches")

    monkeypatch.setattr("creativelib.generator.load_generator", load)
    new = ["study", "new", str(tmp_path / "aliens"), "--subject", "alien", "--contact", "Ann", "--per-rater"]
    for number in ("4", "53"):  # less than a run with the outsiders; more than all 16 with two repeats
        assert main([*new, number]) == 2 and f"per_rater: got {number}; give" in capsys.readouterr().err
    for number in ("5", "52"):
        with pytest.raises(RuntimeError, match="now it searches"):
            main([*new, number])
    assert not (tmp_path / "aliens").exists()


def test_the_report_says_what_each_question_found(tmp_path):
    """People of whom every fourth says how surprising: creative peaks in the middle, surprise rises all the way."""
    scales = ("creative", "creative", "creative", "surprising")
    study = Study(make_study(tmp_path / "two", runs=6, repeats=1, pairs=3, scales=scales))
    for number in range(12):
        rater = study.store.rater(f"rater {number}", consent=True, text=study.consent())
        view = study.store.view(session := study.session.deal(rater))
        means = (1, 4, 2) if view["scale"] == "creative" else (0, 2, 4)
        for place, name in enumerate(view["order"]):
            study.store.rate(session, name, means[study.stimuli[name].iteration // 24] + (place + number) % 2, 900)
        for left, right in study.pairs(view["order"], view["turn"]):
            steps = [study.stimuli[one].iteration for one in (left, right)]
            study.store.choose(session, left, right, "left" if steps[0] > steps[1] else "right")
    study.change(open=False)
    text = report(study)
    creative, surprising = re.split("<h2>Asked how ", text)[1:]
    assert "both differences with their intervals" in creative and "By iteration of the search" not in text
    assert "creative: 9 raters" in creative and "Both tests hold at 0.05 (p &lt; .001" in creative and "by chance" in creative
    assert "surprising: 3 raters" in surprising and "Both tests hold" not in surprising
    interval = r"\(95 % interval -?\d\.\d\d to -?\d\.\d\d\)"
    assert re.search(rf"Rank correlation with nats over 18 pictures: 0\.[89]\d {interval}; over default", surprising)
    assert re.search(rf"over default pictures alone, 6 pictures: -?\d\.\d\d {interval}\.", surprising)
    assert "more surprising?" in surprising and surprising.count("100%") >= 3 and "Not computed" not in text
    for image in re.findall("<img[^>]*>", text):
        assert re.search('alt="[^"]{20,}"', image)
    study.close()


def test_the_report_says_what_was_fixed_and_what_was_changed_since(app, study):
    digest = study.digest()
    assert study.fixed() is None and digest == hashlib.sha256((study.folder / "study.json").read_bytes()).hexdigest()
    first = Person(app, study)
    first.finish()
    study.change(open=False)
    assert study.fixed() == {"sha256": digest, "changed": {}}
    assert f"<code>{digest}</code> (study.opened.json). Changed since: nothing." in report(study)
    study.change(open=True, quickest=2000)
    assert first.web.post("/api/withdraw", json={"sure": True}).status_code == 200
    for _ in range(3):
        Person(app, study).finish()
    assert study.fixed() == {"sha256": digest, "changed": {"quickest": (500, 2000)}}
    assert "Changed since: quickest, then 500, now 2000." in report(study)
    again = Study(study.folder)
    assert again.fixed() == study.fixed()
    again.close()


def test_people_who_did_not_come_by_the_pages_leave_nothing_fixed(study):
    study.session.deal(study.store.rater("blue-fox", consent=True))
    study.deal(study.store.rater("red-fox", consent=True))  # not the first: what was fixed then nobody knows
    assert study.fixed() is None and "was not kept" in report(study)
    (study.folder / "study.opened.json").write_text("[1]")
    assert study.fixed()["changed"]["subject"] == (None, "alien")


def test_a_setting_that_was_changed_by_hand_holds_when_the_study_is_opened(app, study):
    """The orders are of the same settings as the page says, and as is kept as fixed."""
    path = study.folder / "study.json"
    path.write_text(path.read_text().replace('"per_rater": null', '"per_rater": 4'))
    study.change(open=True)
    assert len(Person(app, study).join()["order"]) == study.session.per_rater == 4
    assert json.loads((study.folder / "study.opened.json").read_text())["per_rater"] == 4


def test_the_report_says_what_everybody_would_say(app, study):
    for _ in range(3):
        Person(app, study).finish()
    assert "Nobody is left out." in report(study) and "With everybody" not in report(study)
    for _ in range(3):
        Person(app, study).finish(5)  # the outsider too, so they are left out
    page = report(study)
    found = dict(re.findall(r'<p(?: class="check")?>([A-Z][\w ,]*?)(?: \([^)]*\))?: ([^<]*)</p>', page))
    assert "3 raters" in found["Rise"] and "Both tests hold" in found["Rise"]
    assert "6 raters" in found["With everybody, nobody left out"]
    assert found["By order alone"].count("of comparisons") == 2


def test_where_the_rule_leaves_out_all_the_report_says_so(app, study):
    for _ in range(3):
        Person(app, study).finish(5)
    page = report(study)
    assert "Asked how creative: nobody who is not left out, 0 ratings" in page and "Nobody has rated" not in page
    assert "Not computed: ratings: got 0 rows" in page and "With everybody, nobody left out: Rise: +0.00 points" in page


def test_a_port_that_is_taken_is_said_in_one_line(tmp_path, capsys):
    folder = make_study(tmp_path / "study", runs=1)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["study", "serve", str(folder), "--host", "127.0.0.1", "--port", str(port)]) == 2
    assert f"port: {port} of 127.0.0.1 cannot be used; choose another with --port" in capsys.readouterr().err
