"""The commands ``creativelib study new``, ``serve``, ``links``, ``export``, ``report`` and ``delete``."""

import argparse
import inspect
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from creativelib.cli_arguments import path, seed, whole

FOLDER = "folder of the study"


def register(commands) -> None:
    """Add ``study`` with its own commands to those of ``creativelib``."""
    study = commands.add_parser("study", help="a rating study on the web: new, serve, links, export, report, delete")
    actions = study.add_subparsers(dest="action", required=True, metavar="ACTION")

    new = actions.add_parser("new", help="make the folder of a study")
    new.add_argument("folder", type=path, help="a new folder")
    new.add_argument("--subject", required=True, help="what the pictures show: alien")
    new.add_argument("--contact", required=True, help="whom raters can ask: a name and how to reach them")
    new.add_argument("--stimuli", type=path, default=None, help="folder of save_stimuli (default: made anew with the model)")
    new.add_argument("--per-rater", type=whole(1), default=None, help="pictures for each person (default: all)")
    new.add_argument("--pairs", type=whole(0), default=6, help="paired choices after the ratings (default: 6)")
    new.add_argument("--surprise", action="store_true", help="ask every fourth person how surprising instead")
    new.add_argument("--purpose", default=None, help="a sentence on the consent page")
    new.add_argument("--retention", default=None, help="a sentence on the consent page: when the answers are deleted")
    new.add_argument("--age", type=whole(0), default=16, help="least age of raters (default: 16)")
    new.add_argument("--completion-url", default="", help="where raters go at the end (Prolific, MTurk), https://...")
    new.add_argument("--completion-code", default="", help="what they show there (default: one of their own)")
    new.add_argument("--seed", type=seed, default=0, help="of all orders (default: 0)")
    new.set_defaults(run=_new)

    serve = actions.add_parser("serve", help="let people rate with their browsers")
    serve.add_argument("folder", type=path, help=FOLDER)
    serve.add_argument("--host", default="0.0.0.0", help="address to listen on (default: all of this machine's)")
    serve.add_argument("--port", type=whole(0, 65535), default=8000, help="port (default: 8000; 0: any free one)")
    serve.add_argument("--db", default=None, help="database, postgresql+psycopg://... (default: a file in the folder)")
    serve.add_argument(
        "--address", default="", help="address that browsers use, where it is another one: https://study.example"
    )
    serve.add_argument("--proxy", default="", help="address of a reverse proxy that tells who asks (X-Forwarded-For)")
    serve.add_argument("--joins-per-minute", type=whole(1), default=240, help="new people from one address (default: 240)")
    serve.set_defaults(run=_serve)

    for name, run, text in (
        ("links", _links, "print personal links, one for each person"),
        ("export", _export, "write the ratings as CSV with a codebook"),
        ("report", _report, "write a report of a closed study, one HTML file"),
        ("delete", _delete, "delete a person from every file of the study"),
    ):
        action = actions.add_parser(name, help=text)
        action.add_argument("folder", type=path, help=FOLDER)
        action.add_argument("--db", default=None, help="database, where it is not in the folder")
        action.set_defaults(run=run)
        if name == "links":
            action.add_argument("--count", type=whole(1, 10_000), default=30, help="how many (default: 30)")
            action.add_argument(
                "--first", type=whole(1), default=1, help="number of the first: a link is one person (default: 1)"
            )
            action.add_argument("--address", required=True, help="address of the server: http://192.168.1.5:8000")
        elif name in ("export", "report"):
            action.add_argument("--out", type=path, default=None, help="where to (default: in the folder)")
        else:
            action.add_argument("code", help="whose")


def _new(arguments: argparse.Namespace) -> int:
    from creativelib.study.server.folder import Settings, Study, free
    from creativelib.study.stimuli import load_stimuli

    free(arguments.folder)  # before minutes of searching
    texts = {name: getattr(arguments, name) for name in ("purpose", "retention") if getattr(arguments, name) is not None}
    if arguments.surprise:
        texts["scales"] = ("creative", "creative", "creative", "surprising")
    names = ("subject", "contact", "per_rater", "pairs", "age", "completion_url", "completion_code", "seed")
    settings = Settings(**{name: getattr(arguments, name) for name in names}, **texts)
    stimuli = load_stimuli(arguments.stimuli) if arguments.stimuli else _made(arguments)
    study = Study.new(arguments.folder, stimuli, settings)
    print(f"{study.folder}: {len(study.stimuli)} pictures, {study.session.per_rater} for each person")
    print(f"What is fixed beforehand stands in study.json, SHA-256 {study.digest()}: publish it before anybody rates. Next:")
    print(f"  creativelib study serve {study.folder}")
    study.close()
    return 0


def _made(arguments: argparse.Namespace) -> list:
    from creativelib.generator import load_generator
    from creativelib.study.rounds import make_stimuli

    _require_room(make_stimuli, arguments.per_rater)
    return make_stimuli(load_generator(), arguments.subject, seed=arguments.seed)


def _require_room(make: Callable, per_rater: int | None) -> None:
    """Refuse a number of pictures that does not fit the design of ``make``, before minutes of searching for them."""
    from creativelib.study.orders import rating_order
    from creativelib.study.stimuli import CONDITIONS, Stimulus

    number = {name: one.default for name, one in inspect.signature(make).parameters.items()}
    images = [Stimulus(f"{run} {name}", "image", b"", seed=run) for run in range(number["runs"]) for name in CONDITIONS]
    again = [Stimulus(f"{one.id} again", "repeat", b"", of=one.id) for one in images if one.id.endswith(CONDITIONS[0])]
    others = [Stimulus(f"other {place}", "outsider", b"") for place in range(number["outsiders"])]
    try:
        rating_order([*images, *again, *others], 0, count=per_rater)
    except ValueError as error:
        raise ValueError(str(error).replace("count:", "per_rater:")) from None


def _serve(arguments: argparse.Namespace) -> int:
    import uvicorn

    from creativelib.study.server.app import make_app
    from creativelib.study.server.folder import Study
    from creativelib.study.server.guard import Signer
    from creativelib.study.server.network import local_address, qr_text

    study = Study(arguments.folder, arguments.db)
    options = {"log_level": "warning", "server_header": False, "date_header": False, "timeout_keep_alive": 20}
    options |= {"timeout_graceful_shutdown": 5}  # seconds for whoever is in the middle of something; a phone may never end it
    options |= {"proxy_headers": bool(arguments.proxy), "forwarded_allow_ips": arguments.proxy or None}
    config = uvicorn.Config(lambda: None, host=arguments.host, port=arguments.port, **options)
    try:
        listening = config.bind_socket()
    except SystemExit:  # uvicorn has logged why
        raise OSError(f"port: {arguments.port} of {arguments.host} cannot be used; choose another with --port") from None
    port = listening.getsockname()[1]
    host = arguments.host if arguments.host not in ("0.0.0.0", "::") else local_address()
    address = arguments.address.rstrip("/") or f"http://{host}:{port}"
    config.app = make_app(study, joins_per_minute=arguments.joins_per_minute, address=address)
    link = f"{address}/join/{Signer(study.secret).token('class', 'class')}"
    if sys.stdout.isatty():
        print(qr_text(link))
    print(f"For the class:  {link}")
    print(f"For the teacher: {address}/teacher/  with the token  {study.teacher_token}")
    print(f"Ratings are kept in {study.store.place}. Stop with Ctrl-C; nobody loses anything.", flush=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        uvicorn.Server(config).run(sockets=[listening])
    except KeyboardInterrupt:
        pass
    finally:
        study.close()
    return 0


def _opened(arguments: argparse.Namespace):
    from creativelib.study.server.folder import Study

    return Study(arguments.folder, arguments.db)


def _links(arguments: argparse.Namespace) -> int:
    from creativelib.study.server.guard import Signer

    study = _opened(arguments)
    for number in range(arguments.first, arguments.first + arguments.count):
        print(f"{arguments.address.rstrip('/')}/join/{Signer(study.secret).token('person', number)}")
    study.close()
    return 0


def _export(arguments: argparse.Namespace) -> int:
    from creativelib.study.tidy import write

    study = _opened(arguments)
    _require_people(study)
    out = arguments.out or _free(study.folder / "exports", "export", "")
    print(_without_late_withdrawals(study, lambda: write(study.store, study.settings, out, study.fixed())))
    study.close()
    return 0


def _report(arguments: argparse.Namespace) -> int:
    from creativelib.study.report import report
    from creativelib.study.server.erasing import is_report

    study = _opened(arguments)
    if study.settings.open:
        raise ValueError("folder: this study is open; close it on the teacher's page first, so that no result ends it")
    _require_people(study)
    out = arguments.out or study.folder / "report.html"
    if out.exists() and not is_report(out):
        raise FileExistsError(f"out: {out} is there already, and is no report of a study; choose another name")

    def make() -> Path:
        out.write_text(report(study), encoding="utf-8")
        return out

    print(_without_late_withdrawals(study, make))
    study.close()
    return 0


def _require_people(study) -> None:
    """Raises ValueError for a study without anybody: its ratings may be in another database."""
    if study.store.sessions().empty:
        raise ValueError(f"db: nobody has taken part by {study.store.place}; where the ratings are elsewhere say so with --db")


def _without_late_withdrawals(study, make: Callable[[], Path]) -> Path:
    """What ``make`` writes, once more where somebody withdrew meanwhile: what was read before would bring them back."""
    while True:
        before = study.store.withdrawals()
        path = make()
        if study.store.withdrawals() == before:
            return path
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def _delete(arguments: argparse.Namespace) -> int:
    study = _opened(arguments)
    left = study.delete(arguments.code)
    print(f"{arguments.code} is deleted, for good; exports and reports outside of {study.folder} are yours to delete")
    for other in left:
        print(f"{arguments.code} still stands in {other}: it is no file of this study's; delete it")
    study.close()
    return 0


def _free(folder: Path, name: str, ending: str) -> Path:
    number = 1
    while (folder / f"{name}-{number}{ending}").exists():
        number += 1
    return folder / f"{name}-{number}{ending}"
