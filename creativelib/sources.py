"""Where a generator's files come from, and the defaults of its family."""

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from creativelib.storage import data_folder


@dataclass(frozen=True)
class Settings:
    """What suits one model family; each value is a default that an argument overrides.

    ``prior_steps`` of 5 and ``learning_rate`` of 1e-4 are the paper's (section 6). ``anchor_threshold`` (1 - cosine, S2.4)
    of ``None`` means: taken from the baseline samples. ``drawings``: it draws flat shapes, which
    ``finish`` may trace for display.

    Of a decoder that reads text (Kandinsky 2.1): ``anchor`` says which text encoder the anchor compares with, ``"prior"`` or
    ``"decoder"``, the extended (multilingual) one of section 6; ``decoder_prompt`` whether the decoder is told the prompt of
    its picture, ``"subject"``, or nothing, ``"empty"``, so that it draws what the embedding says and not what the words say.
    """

    prior_steps: int = 5
    prior_guidance: float = 4.0
    decoder_steps: int = 50
    decoder_guidance: float = 4.0
    image_size: int = 512
    learning_rate: float = 1e-4
    anchor_threshold: float | None = None
    drawings: bool = False
    anchor: str = "prior"
    decoder_prompt: str = "empty"


CHOICES = {"anchor": ("prior", "decoder"), "decoder_prompt": ("empty", "subject")}
READS_TEXT = Settings(anchor="decoder")  # defaults where the decoder has a text encoder of its own


@dataclass(frozen=True)
class Source:
    """Where the two pipelines of a generator come from, and the checker that goes with them: folders or hub ids.

    The published checkpoints are fetched at revision ``"main"`` unless a commit is named: for numbers that are to be
    cited, pin both by ``load_generator(..., revisions=(prior, decoder))`` or by ``CREATIVELIB_REVISIONS=prior,decoder``.
    """

    name: str
    prior: str
    decoder: str
    settings: Settings = Settings()
    checker: str | None = None
    reads_text: bool = False  # the decoder
    prior_revision: str = "main"
    decoder_revision: str = "main"

    def switched(self, **choices: str | None) -> "Source":
        """The same with other ``CHOICES`` for the settings; ``None`` leaves one as it is.

        Raises:
            ValueError: an unknown choice, or one that needs a decoder that reads text.
        """
        chosen = {name: value for name, value in choices.items() if value is not None}
        for name, value in chosen.items():
            if value not in CHOICES[name]:
                raise ValueError(f"{name}: got {value!r}; choose {' or '.join(map(repr, CHOICES[name]))}")
            if not self.reads_text and value != getattr(Settings(), name):
                raise ValueError(
                    f"{name}: got {value!r}, but the decoder of {self.name!r} reads no text; leave it out, or use Kandinsky 2.1"
                )
        return replace(self, settings=replace(self.settings, **chosen))


JANUS = "deepseek-community/Janus-Pro-1B"  # of the family that the paper asks (section 6)
PUBLISHED = {
    "kandinsky-2.1": Source(
        "kandinsky-2.1",
        "kandinsky-community/kandinsky-2-1-prior",
        "kandinsky-community/kandinsky-2-1",
        READS_TEXT,
        checker=JANUS,
        reads_text=True,
    ),
    "kandinsky-2.2": Source(
        "kandinsky-2.2", "kandinsky-community/kandinsky-2-2-prior", "kandinsky-community/kandinsky-2-2-decoder", checker=JANUS
    ),
}


def find_source(name: str | Path | None = None, revisions: Sequence[str] | None = None) -> Source:
    """The source of a published model, of the shipped one, or of a folder with ``prior/`` and ``decoder/``.

    Args:
        name: ``"pocket"``, a key of ``PUBLISHED``, or a folder (``~`` is the home folder); by default the environment
            variable ``CREATIVELIB_MODEL``, else ``"pocket"``.
        revisions: hub commits of prior and decoder; by default ``CREATIVELIB_REVISIONS``, else ``"main"``.

    Raises:
        ValueError: unknown name, revisions that are not two, or a ``generator.json`` that says something else.
        FileNotFoundError: the shipped model is not there.
    """
    name = str(name or os.environ.get("CREATIVELIB_MODEL") or "pocket")
    if name in PUBLISHED:
        pinned = revisions or [part for part in os.environ.get("CREATIVELIB_REVISIONS", "").split(",") if part]
        if not pinned:
            return PUBLISHED[name]
        if isinstance(pinned, str) or len(pinned) != 2:
            raise ValueError(f"revisions: got {pinned!r}; give two hub commits, of the prior and of the decoder")
        return replace(PUBLISHED[name], prior_revision=pinned[0], decoder_revision=pinned[1])
    folder = data_folder() / "pocket" if name == "pocket" else Path(os.path.expanduser(name))
    if not (folder / "prior").is_dir() or not (folder / "decoder").is_dir():
        if name == "pocket":
            raise FileNotFoundError(f"{folder} holds no prior/ and decoder/: fetch the whole repository, or run 'make pocket'")
        raise ValueError(
            f"model: got {name!r}; choose 'pocket', {', '.join(map(repr, PUBLISHED))}, or a folder with prior/ and decoder/"
        )
    reads_text = _reads_text(folder / "decoder" / "model_index.json")
    settings = read_settings(folder / "generator.json", READS_TEXT if reads_text else Settings())
    if settings.anchor == "decoder" and not reads_text:
        raise ValueError(f"model: {folder / 'generator.json'} has anchor = 'decoder', but its decoder reads no text")
    checker = str(folder / "checker") if (folder / "checker").is_dir() else None
    label = name if name == "pocket" else folder.resolve().name
    return Source(label, str(folder / "prior"), str(folder / "decoder"), settings, checker, reads_text)


def _reads_text(index: Path) -> bool:
    """Whether a decoder has a text encoder, by its ``model_index.json``; a damaged file is found out when it is loaded."""
    try:
        return "text_encoder" in json.loads(index.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False


def read_settings(path: Path, defaults: Settings = Settings()) -> Settings:
    """The settings in a ``generator.json``, whose other keys are ignored; the defaults where there is no such file.

    Raises:
        ValueError: the file is no JSON object, or a setting in it is not a sensible number or one of ``CHOICES``.
    """
    if not path.is_file():
        return defaults
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f'model: {path} is not JSON ({error}); write an object such as {{"image_size": 512}}') from error
    if not isinstance(given, dict):
        raise ValueError(f'model: {path} holds a {type(given).__name__}; write an object such as {{"image_size": 512}}')
    known = {field.name: given[field.name] for field in fields(Settings) if field.name in given}
    for name, value in known.items():
        if name == "anchor_threshold" and value is None:
            continue
        if name in CHOICES:
            if value not in CHOICES[name]:
                raise ValueError(f"model: {path} has {name} = {value!r}; write one of {', '.join(CHOICES[name])}")
            continue
        if name == "drawings":
            if not isinstance(value, bool):
                raise ValueError(f"model: {path} has drawings = {value!r}; write true or false")
            continue
        integer = isinstance(getattr(Settings(), name), int)
        number = isinstance(value, int if integer else int | float) and not isinstance(value, bool)
        if not number or not 0 < value < math.inf:
            raise ValueError(f"model: {path} has {name} = {value!r}; give a positive {'whole ' if integer else ''}number")
    return replace(defaults, **known)
