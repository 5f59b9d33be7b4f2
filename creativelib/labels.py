"""Labels of disliked images: which image belongs to which negative cluster, kept on disk mark by mark (section 5.4)."""

import fcntl
import hashlib
import json
import os
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

FORMAT = "creativelib labels 1"
# White text on each of them has a contrast of 4.5 to 1 or more.
COLOURS = ("#b3261e", "#0b5cad", "#6b3fa0", "#0f6b4f", "#8a4b00", "#a3195b", "#3d4a57", "#005f73")
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Cluster:
    """A negative cluster: its name, a colour (repeats after eight) and a sign in letters (never repeats)."""

    name: str
    colour: str
    sign: str

    @classmethod
    def numbered(cls, name: str, index: int) -> "Cluster":
        """The cluster that was named as number ``index``, from 0."""
        again, letter = divmod(index, len(LETTERS))
        return cls(name, COLOURS[index % len(COLOURS)], LETTERS[letter] + (str(again + 1) if again else ""))


def cluster_name(name: str) -> str:
    """The name as it is kept: composed Unicode (NFC), single spaces. Raises ValueError where nothing is left."""
    kept = " ".join(unicodedata.normalize("NFC", name).split()) if isinstance(name, str) else ""
    if not kept:
        raise ValueError(f"cluster: got {name!r}; give a name, for example 'blotchy'")
    return kept


def fingerprint(ids: Sequence[str]) -> str:
    """16 hexadecimal digits of the SHA-256 of the ids; their order does not matter."""
    return hashlib.sha256(json.dumps(sorted(ids)).encode()).hexdigest()[:16]


def _line(record: dict) -> bytes:
    return json.dumps(record, ensure_ascii=False).encode() + b"\n"


def _records(lines: bytes, path: Path) -> list[dict]:
    """The records of whole journal lines. Raises ValueError quoting the first line that is none."""
    records = []
    for line in lines.split(b"\n")[:-1]:
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if not isinstance(record, dict):
            raise ValueError(f"path: {path} is no journal of labels: it has the line {line[:40]!r}. Choose another path")
        records.append(record)
    return records


class Labels:
    """Image ids, each with the name of the negative cluster that a reader put it in, or with none.

    The state is what the journal says: one JSON line a change, written and synced to disk (``os.fsync``) before the method
    that made it returns, so a killed process loses nothing that was confirmed. A last line that it left torn is dropped with
    a warning and kept in ``dropped``.

    Several processes may use one journal: each change first locks the file (``flock``) and takes in what others wrote.
    They share one history, so ``undo`` takes back the last change of any of them.

    Args:
        path: the journal; made, with its folder, where there is none.
        ids: of the images, all different; whole numbers become text. Let them say which images they are ("seed3-step50-7"),
            for a journal is refused only if its ids are others.

    Raises:
        ValueError: no ids or no list of them, an id twice, or a journal of other images or of something else.
    """

    def __init__(self, path: str | Path, ids: Sequence[str | int]):
        if isinstance(ids, str):
            raise ValueError(f"ids: got the text {ids!r}; give a list of ids")
        self.path, self.ids = Path(path), [str(image) for image in ids]
        if not self.ids or len(set(self.ids)) < len(self.ids):
            raise ValueError(f"ids: got {len(self.ids)}, {len(set(self.ids))} of them different; give one or more, each once")
        self.dropped = ""
        self._known, self._header = set(self.ids), {"format": FORMAT, "images": fingerprint(self.ids), "count": len(self.ids)}
        self._file, self._offset = None, 0  # which file (inode) was read, and to where (bytes)
        self._done: list[dict] = []  # the changes that were not taken back
        self._labels, self._clusters = {}, []
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.touch()
        with self._locked() as file:
            if not self._offset:
                self._append(file, _line(self._header))
                folder = os.open(self.path.parent, os.O_RDONLY)
                os.fsync(folder)  # the file's name too is on disk
                os.close(folder)

    # --- marking ------------------------------------------------------------------------------------------------------

    def mark(self, image: str | int, cluster: str) -> None:
        """Put one image into a cluster, out of any other. Raises ValueError for an unknown id or an empty name."""
        self.mark_many([image], cluster)

    def mark_many(self, images: Sequence[str | int], cluster: str) -> None:
        """Put several images into a cluster as one change, which one ``undo`` takes back. Raises as ``mark``; none given."""
        name, images = cluster_name(cluster), self._ids(images)
        with self._locked() as file:
            changed = [image for image in images if self._labels.get(image) != name]
            if changed:
                self._write(file, {"mark": changed, "cluster": name})

    def clear(self, image: str | int) -> None:
        """Take one image out of its cluster. Raises ValueError for an unknown id."""
        (image,) = self._ids([image])
        with self._locked() as file:
            if image in self._labels:
                self._write(file, {"clear": [image]})

    def add(self, cluster: str) -> str:
        """Name a cluster that has no image yet; returns the name as it is kept. Raises ValueError for an empty name."""
        name = cluster_name(cluster)
        with self._locked() as file:
            if name not in self._clusters:
                self._write(file, {"cluster": name})
        return name

    def undo(self) -> str:
        """Take back the last change that was not taken back yet; returns it in words, or ``""`` if there is none."""
        with self._locked() as file:
            if not self._done:
                return ""
            last = self._done[-1]
            self._write(file, {"undo": True})
        if "mark" in last:
            return f"marking {len(last['mark'])} as {last['cluster']}"
        return f"clearing {len(last['clear'])}" if "clear" in last else f"naming {last['cluster']}"

    def refresh(self) -> None:
        """Take in what other processes wrote to the journal since the last change here."""
        with self._locked():
            pass

    def replay(self, path: str | Path) -> int:
        """Do again what another journal of the same images says, such as the reference labels in ``data/``.

        Returns:
            How many images are then labelled by it; 0 where a reader has already changed anything here, which is left alone.

        Raises:
            FileNotFoundError: no such journal. ValueError: it belongs to other images.
        """
        whole, _, _ = Path(path).read_bytes().rpartition(b"\n")
        changes = self._changes(_records(whole + b"\n", Path(path)), Path(path), at_start=True)
        with self._locked() as file:
            if self._done:
                return 0
            self._write(file, *changes)
        return self.progress[0]

    # --- looking ------------------------------------------------------------------------------------------------------

    @property
    def labels(self) -> dict[str, str]:
        """Cluster name by image id, in the order of ``ids``; images with none are left out."""
        return {image: self._labels[image] for image in self.ids if image in self._labels}

    @property
    def clusters(self) -> list[Cluster]:
        """The clusters in the order they were named in."""
        return [Cluster.numbered(name, index) for index, name in enumerate(self._clusters)]

    @property
    def counts(self) -> dict[str, int]:
        """Number of images by cluster name."""
        marked = list(self._labels.values())
        return {name: marked.count(name) for name in self._clusters}

    @property
    def progress(self) -> tuple[int, int]:
        """How many images are labelled, and how many there are."""
        return len(self._labels), len(self.ids)

    def of(self, cluster: str) -> list[str]:
        """Ids of the images in a cluster, in the order of ``ids``. Raises ValueError naming the clusters that there are."""
        name = cluster_name(cluster)
        if name not in self._clusters:
            raise ValueError(f"cluster: got {cluster!r}; there are {self._clusters}")
        return [image for image in self.ids if self._labels.get(image) == name]

    def indices(self, cluster: str) -> list[int]:
        """Rows of ``of(cluster)`` in arrays that are in the order of ``ids``, such as the embeddings (N, d)."""
        members = set(self.of(cluster))
        return [index for index, image in enumerate(self.ids) if image in members]

    # --- keeping ------------------------------------------------------------------------------------------------------

    def to_json(self) -> str:
        """Ids, clusters and labels as JSON text, without the history."""
        facts = {"format": FORMAT, "ids": self.ids, "clusters": self._clusters, "labels": self.labels}
        return json.dumps(facts, ensure_ascii=False, indent=1)

    @classmethod
    def from_json(cls, text: str, path: str | Path) -> "Labels":
        """Labels as ``to_json`` gave them, in a new journal. Raises ValueError for other text, or if ``path`` has changes."""
        try:
            facts = json.loads(text)
            if facts["format"] != FORMAT:
                raise KeyError("format")
            ids, names, marked = facts["ids"], facts["clusters"], facts["labels"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"text: got {text[:40]!r}; give what to_json returned") from error
        if not set(marked) <= set(ids) or not set(marked.values()) <= set(names):
            raise ValueError("text: it has labels of other images or clusters than it lists; give what to_json returned")
        labels = cls(path, ids)
        with labels._locked() as file:
            if labels._done:
                raise ValueError(f"path: {path} already has {len(labels._done)} changes; choose another path")
            labels._write(file, *({"cluster": name} for name in names))
            groups = {name: [image for image in marked if marked[image] == name] for name in names}
            labels._write(file, *({"mark": group, "cluster": name} for name, group in groups.items() if group))
        return labels

    # --- the journal --------------------------------------------------------------------------------------------------

    def _ids(self, images: Sequence[str | int]) -> list[str]:
        if isinstance(images, str) or not len(images):
            raise ValueError(f"images: got {images!r}; give a list of one id or more")
        ids = list(dict.fromkeys(map(str, images)))
        for image in ids:
            if image not in self._known:
                few = ", ".join(map(repr, self.ids[:8])) + (", ..." if len(self.ids) > 8 else "")
                raise ValueError(f"image: got {image!r}; allowed are the {len(self.ids)} ids {few}")
        return ids

    @contextmanager
    def _locked(self) -> Iterator:
        """The open journal, locked against other processes, with all that they wrote taken in."""
        if not self.path.exists():
            raise ValueError(f"path: {self.path} is gone; make Labels again")
        with open(self.path, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # until it is closed
            found = os.fstat(file.fileno())
            self._file = self._file or found.st_ino
            if found.st_ino != self._file or found.st_size < self._offset:
                raise ValueError(f"path: {self.path} was replaced by another file; make Labels again")
            self._take_in(file)
            yield file

    def _take_in(self, file) -> None:
        """Read on from where the last change ended; drop a torn last line."""
        file.seek(self._offset)
        whole, newline, torn = file.read().rpartition(b"\n")
        if torn and not self._offset and not newline and not _line(self._header).startswith(torn):
            raise ValueError(f"path: {self.path} is no journal of labels. Choose another path")
        changes = self._changes(_records(whole + newline, self.path), self.path, at_start=not self._offset)
        self._offset += len(whole + newline)
        self._apply(changes)
        if torn:
            file.truncate(self._offset)
            self.dropped = torn.decode(errors="replace")
            # 5: the line that called the public method
            warnings.warn(f"{self.path}: dropped a last line that was never finished: {self.dropped!r}", stacklevel=5)

    def _changes(self, records: list[dict], path: Path, at_start: bool) -> list[dict]:
        """The records, which must be changes, without the header, which must be that of these images."""
        if at_start and records:
            header, *records = records
            if header.get("format") != FORMAT:
                raise ValueError(f"path: {path} is no journal of labels ({FORMAT!r}). Choose another path")
            if header != self._header:
                raise ValueError(
                    f"path: {path} belongs to other images: {header.get('count')} with fingerprint "
                    f"{header.get('images')}, not {len(self.ids)} with {self._header['images']}. Choose another path"
                )
        for record in records:
            if not record.keys() & {"mark", "clear", "cluster", "undo"}:
                raise ValueError(f"path: {path} has an unknown change, {record}; a newer creativelib may have written it")
        return records

    def _write(self, file, *changes: dict) -> None:
        """One line each, all on disk before this returns; only then they count."""
        self._append(file, b"".join(map(_line, changes)))
        self._apply(changes)

    def _append(self, file, lines: bytes) -> None:
        file.seek(self._offset)
        file.write(lines)
        file.flush()
        os.fsync(file.fileno())
        self._offset += len(lines)

    def _apply(self, changes: Sequence[dict]) -> None:
        """Bring the history and the labels that follow from it up to date."""
        for change in changes:
            if "undo" not in change:
                self._done.append(change)
            elif self._done:
                self._done.pop()
        labels, names = {}, {}
        for record in self._done:
            if "cluster" in record:
                names[record["cluster"]] = None
            labels.update(dict.fromkeys(record.get("mark", ()), record.get("cluster")))
            for image in record.get("clear", ()):
                labels.pop(image, None)
        self._labels, self._clusters = labels, list(names)
