"""Ratings for other programs (R, JASP, spreadsheets): one rating a row, a codebook, and nothing that runs as a formula."""

import hashlib
import io
import json
import shutil
import zipfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from creativelib.study import HIGHEST, LOWEST
from creativelib.study.exclusions import Rule, exclusions, rule
from creativelib.study.store import Store

FORMULA = ("=", "+", "-", "@", "\t", "\r")
BOOK, MANIFEST, KIND = "codebook.csv", "manifest.json", "creativelib tidy ratings"
COLUMNS = {
    "ratings.csv": {
        "rater": ("text", "pseudonym of the person"),
        "scale": ("text", "what was asked: how creative, or how surprising; never both of one person"),
        "place": ("whole number from 1", "place of the picture in the person's order"),
        "picture": ("text", "id of the picture, the name of its file"),
        "kind": ("text", "image; repeat: an image shown again; outsider: shows something else; anchor"),
        "repeats": ("text, or NA", "of a repeat: the picture that it repeats"),
        "run": ("whole number, or NA", "number of the search that the picture comes from"),
        "iteration": ("whole number, or NA", "steps of the search; 0 is the default picture"),
        "nats": ("number, or NA", "surprise under the typicality model, in nats; not what people see"),
        "value": (f"whole number, {LOWEST} to {HIGHEST}", "the rating"),
        "seconds": ("number, or NA", "how long the picture was seen; hidden pages do not count; at most 3600"),
        "given": ("text", "when the server wrote it, UTC, ISO 8601"),
        "left_out": ("0 or 1", "1 where the rule below leaves the person out of the analysis"),
    },
    "choices.csv": {
        "rater": ("text", "pseudonym of the person"),
        "scale": ("text", "what was asked: which is more creative, or more surprising"),
        "left": ("text", "id of the left picture"),
        "right": ("text", "id of the right picture"),
        "chosen": ("left or right", "which was chosen"),
        "left_out": ("0 or 1", "as in ratings.csv"),
    },
    "raters.csv": {
        "rater": ("text", "pseudonym of the person"),
        "scale": ("text", "what was asked"),
        "turn": ("whole number, or NA", "number of the person in the design"),
        "agreed": ("text", "when the person agreed to take part, UTC, ISO 8601"),
        "rated": ("whole number", "pictures that have a rating"),
        "of": ("whole number", "pictures that the person was to rate"),
        "left_out": ("0 or 1", "as in ratings.csv"),
        "reason": ("text, or NA", "why"),
    },
}


def tables(store: Store, numbers: Rule) -> dict[str, pd.DataFrame]:
    """The three tables by file name, and ``codebook.csv``: file, column, type, meaning."""
    ratings, sessions, choices = store.ratings(), store.sessions(), store.choices()
    reasons = exclusions(ratings, numbers)
    places = {
        (row["session"], one): place for row in sessions.to_dict("records") for place, one in enumerate(row["stimuli"], start=1)
    }
    out = lambda frame: frame["rater"].isin(reasons).astype(int)  # noqa: E731
    tidy = ratings.rename(
        columns={"stimulus": "picture", "of": "repeats", "seed": "run", "surprise": "nats", "rated_at": "given"}
    )
    pairs = zip(ratings["session"], ratings["stimulus"], strict=True)
    seconds = pd.to_numeric(ratings["milliseconds"], errors="coerce") / 1000
    tidy = tidy.assign(place=[places.get(pair) for pair in pairs], seconds=seconds, left_out=out(ratings))
    raters = sessions.rename(columns={"consented_at": "agreed"})
    raters = raters.assign(of=raters["stimuli"].map(len), reason=raters["rater"].map(reasons), left_out=out(raters))
    found = {"ratings.csv": tidy, "choices.csv": choices.assign(left_out=out(choices)), "raters.csv": raters}
    found = {name: _whole(found[name][list(columns)]) for name, columns in COLUMNS.items()}
    book = [
        {"file": name, "column": column, "type": kind, "meaning": meaning}
        for name, columns in COLUMNS.items()
        for column, (kind, meaning) in columns.items()
    ]
    return found | {BOOK: pd.DataFrame(book)}


def _whole(frame: pd.DataFrame) -> pd.DataFrame:
    """Whole numbers stay whole where some are missing."""
    names = [name for name in ("run", "iteration", "turn", "place") if name in frame]
    return frame.assign(**{name: pd.to_numeric(frame[name], errors="coerce").astype("Int64") for name in names})


def safe(cell: object) -> object:
    """A text that a spreadsheet would take for a formula begins with an apostrophe."""
    return "'" + cell if isinstance(cell, str) and cell.startswith(FORMULA) else cell


def files(store: Store, numbers: Rule, fixed: Mapping | None = None) -> dict[str, bytes]:
    """All files of an export by name: the tables as CSV (UTF-8, commas, NA where nothing is known), and a manifest.

    Args:
        fixed: what was fixed beforehand, see ``server.folder.Study.fixed``; it stands in the manifest.
    """
    found = {}
    for name, frame in tables(store, numbers).items():
        found[name] = frame.map(safe).to_csv(index=False, na_rep="NA", lineterminator="\n").encode()
    count = {name: content.count(b"\n") - 1 for name, content in found.items()}
    facts = {
        "kind": KIND,
        "made_at": datetime.now(UTC).isoformat(),
        "left out": rule(numbers),
        "study.json at the first join": fixed,
    }
    facts["files"] = {name: {"rows": count[name], "sha256": hashlib.sha256(found[name]).hexdigest()} for name in found}
    return found | {MANIFEST: (json.dumps(facts, indent=1) + "\n").encode()}


def zipped(store: Store, numbers: Rule, fixed: Mapping | None = None) -> bytes:
    """The same as one ZIP file."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files(store, numbers, fixed).items():
            archive.writestr(name, content)
    return buffer.getvalue()


def write(store: Store, numbers: Rule, folder: str | Path, fixed: Mapping | None = None) -> Path:
    """Write the files to a new folder, whole or not at all. Raises FileExistsError where there is one."""
    folder = Path(folder).expanduser().absolute()
    if folder.exists():
        raise FileExistsError(f"folder: {folder} is there already; choose another name")
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of one that was killed
    partial.mkdir()
    try:
        for name, content in files(store, numbers, fixed).items():
            (partial / name).write_bytes(content)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder
