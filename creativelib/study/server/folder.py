"""A study on disk: its settings, its keys, its pictures, its ratings."""

import hashlib
import hmac
import json
import os
import secrets
import shutil
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from urllib.parse import quote

from creativelib.study.codes import canonical
from creativelib.study.pairs import choice_pairs
from creativelib.study.scales import SCALES
from creativelib.study.schema import CREATIVE
from creativelib.study.server.erasing import erase
from creativelib.study.session import RatingSession
from creativelib.study.stimuli import Stimulus, load_stimuli, save_stimuli
from creativelib.study.store import Store
from creativelib.widgets import png

PICTURE = 512  # pixels, the longer side
KIND = "creativelib study 1"
OPENED = "study.opened.json"  # study.json as it was when the first person joined
ERASING = ".erasing"  # a file that is there while somebody is taken out of all the others
CONSENT = """You will see {count} pictures, one at a time, and rate each with a number from 0 to 5{then}. It takes about \
{minutes} minutes. {purpose}

Taking part is voluntary. You can stop at any time without giving a reason, and go on later with your personal link. \
"Withdraw" deletes everything that you gave, for good.

What is kept: a random code, when you agreed and to which text, your answers, and how long you looked at each picture. No \
name, no address, no e-mail, no cookie beyond this study.{parameters} {retention}

You must be at least {age} years old. Questions: {contact}."""


@dataclass(frozen=True)
class Settings:
    """What a teacher decides before the first person rates; kept in ``study.json``.

    Attributes:
        subject: what the pictures show, for example "alien". contact, purpose, retention, age: what the consent page says.
        per_rater: how many pictures a person rates; all by default. pairs: how many paired choices follow (Fig. 7).
        scales: dealt round to those who join. break_every: pictures between two breaks. seed: of all orders.
        failed_checks, quickest: who is left out of the analysis, see ``exclusions``; fixed before anybody rates.
        completion_code, completion_url: what a panel provider wants at the end; ``{code}`` and parameters are filled in.
        open: whether people may rate. While it is, no figure is shown.
    """

    subject: str
    contact: str
    purpose: str = "It is for a course on computational creativity: which pictures do people find creative?"
    retention: str = "The answers are deleted when the course ends, at the latest after one year."
    age: int = 16
    per_rater: int | None = None
    pairs: int = 6
    scales: Sequence[str] = (CREATIVE,)
    break_every: int = 30
    seed: int = 0
    failed_checks: int = 0
    quickest: int = 500
    completion_code: str = ""
    completion_url: str = ""
    open: bool = True
    name: str = field(default_factory=lambda: secrets.token_hex(4))

    def __post_init__(self):
        for name in ("subject", "contact"):
            if not getattr(self, name).strip():
                raise ValueError(f"{name}: got {getattr(self, name)!r}; say what the pictures show, and whom one can ask")
        for name in ("purpose", "retention", "completion_code", "completion_url", "name"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"{name}: got {getattr(self, name)!r}; give a text")
        if not isinstance(self.scales, (list, tuple)) or not self.scales or any(one not in SCALES for one in self.scales):
            raise ValueError(f"scales: got {self.scales!r}; give a list of one or more of {', '.join(SCALES)}")
        if not isinstance(self.open, bool):
            raise ValueError(f"open: got {self.open!r}; give true or false")
        least = {"age": 0, "pairs": 0, "break_every": 1, "seed": 0, "failed_checks": 0, "quickest": 0}
        for name, low in least.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < low:
                raise ValueError(f"{name}: got {value!r}; give a whole number of at least {low}")
        if self.completion_url and not self.completion_url.startswith("https://"):
            raise ValueError(f"completion_url: got {self.completion_url!r}; give an address that begins with https://")

    @property
    def paid(self) -> bool:
        """Whether people come from a panel provider, whose parameters are then kept, as the consent page says."""
        return bool(self.completion_url or self.completion_code)


class Study:
    """A folder with a study: ``study.json``, ``keys.json`` (secret), ``stimuli/``, and the ratings in ``ratings.sqlite`` or in
    another database.

    Args:
        folder: of ``Study.new``. database: a URL, where the ratings are not in the folder.

    Raises:
        FileNotFoundError: no study there. ValueError: a broken file, or pictures that cannot be rated.
    """

    def __init__(self, folder: str | Path, database: str | None = None):
        self.folder = Path(folder).expanduser().absolute()
        if not (self.folder / "study.json").is_file():
            raise FileNotFoundError(f"folder: there is no study in {self.folder}; make one with: creativelib study new")
        self.settings = self._read()
        try:
            keys = json.loads((self.folder / "keys.json").read_text())
            self.secret, self.teacher_token = str(keys["secret"]), str(keys["teacher"])
        except (OSError, ValueError, KeyError, TypeError):
            raise ValueError(f"folder: {self.folder / 'keys.json'} is missing or broken; fetch it from a backup") from None
        stimuli = load_stimuli(self.folder / "stimuli")
        self.stimuli, self.design = {one.id: one for one in stimuli}, stimuli.design  # by which rule they were made
        self._pixels: dict[str, bytes] = {}
        self._kept = (self.folder / OPENED).is_file()
        self._files = threading.RLock()  # nobody writes a copy of the ratings while somebody is taken out of the copies
        self.store = Store(database or self.folder / "ratings.sqlite")
        self.session = self._session()
        self.finish_erasing()

    @classmethod
    def new(cls, folder: str | Path, stimuli: Sequence[Stimulus], settings: Settings) -> "Study":
        """Make the folder of a study, whole or not at all.

        Raises:
            FileExistsError: there is something already. ValueError: pictures that cannot be rated with these settings.
        """
        folder = free(folder)
        there = folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)  # it holds the key, and says what the pictures are
        try:
            (folder / ".gitignore").write_text("*\n")  # in a clone of a project, neither keys nor ratings are to be committed
            save_stimuli(stimuli, folder / "stimuli")
            keys = {"secret": secrets.token_hex(32), "teacher": secrets.token_urlsafe(18)}
            with open(os.open(folder / "keys.json", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                json.dump(keys, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            _write(folder / "study.json", settings)
            return cls(folder)
        except BaseException:
            for path in folder.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            if not there:
                folder.rmdir()
            raise

    def _read(self) -> Settings:
        path = self.folder / "study.json"
        try:
            self._text = path.read_bytes()
            facts = json.loads(self._text)
            known = facts.pop("kind") == KIND
            names = {one.name for one in fields(Settings)}
            if not known or set(facts) - names:
                raise ValueError(f"unknown settings {sorted(set(facts) - names)}" if known else "it is of another version")
            settings = Settings(**facts)
            return replace(settings, scales=tuple(settings.scales))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"folder: {path} cannot be read: {error}") from None

    def _session(self) -> RatingSession:
        options = {"per_rater": self.settings.per_rater, "seed": self.settings.seed, "scales": self.settings.scales}
        return RatingSession(self.store, list(self.stimuli.values()), first=0, **options)

    def change(self, **changes) -> None:
        """Change settings, on disk too; for example ``open=False``."""
        _write(self.folder / "study.json", replace(self._read(), **changes))
        self.settings = self._read()
        self.session = self._session()

    # --- what was fixed beforehand --------------------------------------------------------------------------------------

    def digest(self) -> str:
        """SHA-256 of ``study.json`` as it is: to be published before anybody rates."""
        return hashlib.sha256(self._text).hexdigest()

    def deal(self, rater: str) -> str:
        """The session of a rater. Before the first of all ``study.json`` is kept as it is, so that a report can say what was
        fixed beforehand.
        """
        if not self._kept:
            with self._files:
                path = self.folder / OPENED
                if not path.exists() and self.store.sessions().empty and not self.store.withdrawals():
                    _write_whole(path, self._text)
                self._kept = True
        return self.session.deal(rater)

    def fixed(self) -> dict | None:
        """``study.json`` as it was when the first person joined: its ``sha256``, and what was ``changed`` since, by name (then,
        now). ``None`` where it was not kept, because people joined otherwise than by the pages.
        """
        if not (self.folder / OPENED).is_file():
            return None
        text, now = (self.folder / OPENED).read_bytes(), json.loads(json.dumps(asdict(self.settings)))
        try:
            then = dict(json.loads(text))
        except (ValueError, TypeError):  # somebody changed it: nothing is known to be as it was
            then = {}
        changed = {name: (then.get(name), value) for name, value in now.items() if name != "open" and then.get(name) != value}
        return {"sha256": hashlib.sha256(text).hexdigest(), "changed": changed}

    def close(self) -> None:
        """Let go of the database."""
        self.store.close()

    # --- people -------------------------------------------------------------------------------------------------------

    def consent(self) -> str:
        """The text that one agrees to."""
        settings, count = self.settings, self.session.per_rater
        parameters = ""
        if settings.paid:
            parameters = " The parameters of the panel that sent you here are kept so that you are paid."
        values = {name: str(getattr(settings, name)).strip() for name in ("purpose", "retention", "age", "contact")}
        then = "; then a few pairs follow" if settings.pairs else ""
        return CONSENT.format(count=count, minutes=max(2, round(count / 9)), then=then, parameters=parameters, **values)

    def version(self) -> str:
        """Of that text: the beginning of its SHA-256, by which the store keeps it."""
        return hashlib.sha256(self.consent().encode()).hexdigest()[:16]

    def rater_id(self, key: str) -> str:
        """The id of the person whose browser (or personal link) has this key: the same each time it asks."""
        return hmac.new(self.secret.encode(), key.encode(), "sha256").hexdigest()[:32]

    def pairs(self, order: Sequence[str], turn: int | None) -> list[tuple[str, str]]:
        """The paired choices of a session."""
        return choice_pairs([self.stimuli[one] for one in order], self.settings.pairs, turn or 0, seed=self.settings.seed)

    def completion_code(self, rater: str) -> str:
        """What somebody shows who has finished."""
        return self.settings.completion_code or self.rater_id(f"completion {rater}")[:8].upper()

    def completion_url(self, rater: str) -> str:
        """Where somebody goes who has finished; what their panel provider sent along is filled in."""
        url = self.settings.completion_url
        for name, value in self.store.source(rater).items():
            url = url.replace("{" + name + "}", quote(value, safe=""))
        return url.replace("{code}", quote(self.completion_code(rater), safe=""))

    def pixels(self, stimulus: Stimulus) -> bytes:
        """A picture as it is sent: without its file's metadata, and large enough to be looked at."""
        if stimulus.id not in self._pixels:
            image = stimulus.image
            image.thumbnail((PICTURE, PICTURE))
            self._pixels[stimulus.id] = png(image)
        return self._pixels[stimulus.id]

    def backup_bytes(self) -> bytes:
        """A backup as it is now."""
        with self._files, tempfile.TemporaryDirectory(dir=self.folder) as folder:
            return self.store.backup(Path(folder) / "ratings.sqlite").read_bytes()

    def delete(self, code: str) -> list[Path]:
        """Delete a person from the ratings and from every file in the study's folder: exports and reports, which can be made
        again, are removed, backups are mended, wherever in the folder they are. Where this is interrupted, whoever opens the
        study next goes on with it. Returns files that the person still stands in, see ``erase``. Raises ValueError for an
        unknown code.
        """
        if (rater := self.store.known(code)) is None:
            raise ValueError(f"code: there is no rater {canonical(code)!r}")
        with self._files:
            (self.folder / ERASING).touch()
            self.store.delete_rater(code)
            return self._erase([canonical(code), rater])

    def finish_erasing(self) -> None:
        """Take who has withdrawn out of the files where that was interrupted."""
        with self._files:
            if (self.folder / ERASING).exists():
                self._erase([])

    def _erase(self, words: Sequence[str]) -> list[Path]:
        left = erase(self.folder, self.store, words)
        if not left:  # else whoever opens the study next tries again
            (self.folder / ERASING).unlink(missing_ok=True)
        return left


def free(folder: str | Path) -> Path:
    """A folder for a new study, absolute. Raises FileExistsError where there is something already."""
    folder = Path(folder).expanduser().absolute()
    if folder.is_file() or folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"folder: {folder} holds something already; choose a new one")
    return folder


def _write(path: Path, settings: Settings) -> None:
    _write_whole(path, (json.dumps({"kind": KIND} | asdict(settings), indent=1) + "\n").encode())


def _write_whole(path: Path, data: bytes) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with open(partial, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
