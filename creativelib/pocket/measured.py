"""The shipped model while it is measured, with what it is measured against; what takes long is made once and kept.

Every part of the evaluation reads the same plain samples, their pictures and the judge's answers from here, so that nothing is
sampled, decoded or judged twice, and an evaluation that was interrupted goes on where it was.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from creativelib.generator import Generator, load_generator, positive_prompt
from creativelib.metrics import drawing, pictures
from creativelib.metrics.features import features
from creativelib.pocket import checker, clip, corpus, judge, possible, sheets, taxonomy
from creativelib.prior_sampling import sample_prior

PARTS_OF_MODEL = ("prior", "decoder", "checker", "judge")  # the folders that decide what is drawn and how it is judged


@dataclass(frozen=True)
class Amounts:
    """How much is measured. The default is what the card is made from; ``QUICK`` only shows that everything works.

    Attributes:
        samples: plain samples of each subject. runs, noise_seeds: searches of each subject, and pictures of each search.
        baseline: prior samples that a typicality model is fitted to. steps: at most, of a search.
        kinds: plain pictures of each subject that are asked "What kind of ...?". possible: held-out possible pictures.
        finished: plain pictures of each subject that are traced.
        repeats: of what is timed; the fastest counts.
    """

    samples: int = 200
    runs: int = 5
    noise_seeds: int = 16
    baseline: int = 5000
    steps: int = 300
    kinds: int = 64
    possible: int = 1000
    finished: int = 32
    repeats: int = 3


QUICK = Amounts(samples=16, runs=1, noise_seeds=4, baseline=200, steps=12, kinds=4, possible=100, finished=4, repeats=1)


@dataclass(frozen=True)
class Plain:
    """Plain samples of one subject: ``embeddings`` (n, d), ``pictures`` (n, 128, 128, 3) uint8, ``judged`` (n,) bool, whether
    the judge calls each the subject, ``features`` (n, 1280) in the network that taught nothing.
    """

    embeddings: torch.Tensor
    pictures: np.ndarray
    judged: np.ndarray
    features: np.ndarray


def weights_of(model: Path) -> str:
    """A digest of the weights and settings in a model's folder: equal where two evaluations measured the same model."""
    digest = hashlib.sha256((model / "generator.json").read_bytes())
    for part in PARTS_OF_MODEL:
        for path in sorted((model / part).rglob("*.safetensors")):
            digest.update(path.relative_to(model).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:16]


class Measured:
    """A model in ``model``, the worlds in ``work``, and what has been measured so far in ``scratch``.

    Args:
        work: the work folder with the corpus and the held-out possible world. model: the shipped model.
        scratch: where arrays and parts are kept until the evaluation is done. sheets: where contact sheets go.
        amounts: how much is measured. subjects: of which.
    """

    def __init__(
        self,
        work: Path,
        model: Path,
        scratch: Path,
        sheets: Path,
        amounts: Amounts | None = None,
        subjects: tuple[str, ...] = taxonomy.SUBJECTS,
    ):
        self.work, self.model, self.scratch, self.sheets = Path(work), Path(model), Path(scratch), Path(sheets)
        self.amounts, self.subjects = amounts or Amounts(), subjects
        self.images, self.records = corpus.load(self.work)  # (N, 128, 128, 3), N records
        self._plain: dict[str, Plain] = {}

    # --- the model ----------------------------------------------------------------------------------------------------

    @cached_property
    def generator(self) -> Generator:
        return load_generator(str(self.model), device="cpu")

    @cached_property
    def judge(self) -> judge.Judge:
        return judge.Judge.load(self.model / "judge")

    @cached_property
    def checking(self) -> checker.Checking:
        return checker.load(self.model / "checker")

    # --- the worlds ---------------------------------------------------------------------------------------------------

    def rows(self, noun: str | None = None, split: str = "") -> list[int]:
        """Rows of the corpus that carry ``noun`` and whose split begins with ``split``: ``"held-out"`` takes both of them."""
        return [i for i, r in enumerate(self.records) if (noun is None or noun in r["nouns"]) and r["split"].startswith(split)]

    @cached_property
    def embeddings(self) -> torch.Tensor:
        """Image embeddings (N, d) of the corpus."""
        kept = self.kept("corpus", lambda: {"embeddings": clip.embed_images(self.image_encoder, self.images).numpy()})
        return torch.from_numpy(kept["embeddings"])

    @property
    def image_encoder(self):
        return self.generator.prior_pipeline.image_encoder

    @cached_property
    def possible(self) -> tuple[np.ndarray, list[dict]]:
        """Held-out possible pictures, as many as the amounts say, and their records."""
        blocks, records = possible.load(self.work, "held-out")
        count, chosen = 0, []
        for block in blocks:
            chosen.append(np.asarray(block[: self.amounts.possible - count]))
            count += len(chosen[-1])
        return np.concatenate(chosen), records[:count]

    def wholeness_range(self, noun: str) -> dict[str, tuple[float, float]]:
        """Where the middle 90 % of the corpus's drawings of a subject lie."""
        return drawing.wholeness_range(self.images[self.rows(noun)])

    # --- plain samples ------------------------------------------------------------------------------------------------

    def plain(self, noun: str) -> Plain:
        """Plain samples of one of the eight subjects."""
        if noun not in self._plain:

            def draw() -> dict[str, np.ndarray]:
                drawn = sample_prior(
                    self.generator, positive_prompt(noun), n=self.amounts.samples, seed=1, progress=False
                ).embeddings
                images = pictures.stack(self.generator.decode(drawn, seed=2))
                judged = self.judge.is_subject(images, noun)
                return {"embeddings": drawn.numpy(), "pictures": images, "judged": judged, "features": features(images)}

            kept = self.kept(f"plain-{noun}", draw)
            self._plain[noun] = Plain(**{**kept, "embeddings": torch.from_numpy(kept["embeddings"])})
            sheets.sheet(kept["pictures"][:64], self.sheets / f"samples_{noun}.jpg")
        return self._plain[noun]

    # --- keeping ------------------------------------------------------------------------------------------------------

    def kept(self, name: str, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """Named arrays: from ``scratch/name.npz`` if they are there, else made and put there."""
        path = self.scratch / f"{name}.npz"
        if not path.exists():
            made, partial = make(), path.with_suffix(".partial")
            path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                np.savez(file, **made)
            partial.replace(path)
        with np.load(path) as file:  # nothing is unpickled: numpy's default
            return dict(file)

    def part(self, name: str, measure: Callable[["Measured"], dict]) -> dict:
        """One part of the evaluation: from ``scratch/name.json`` if it is there, else measured and put there."""
        path = self.scratch / f"{name}.json"
        if not path.exists():
            text, partial = json.dumps(measure(self), indent=1), path.with_suffix(".json.partial")
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(text)
            partial.replace(path)
        return json.loads(path.read_text())

    def open_scratch(self, fresh: bool = False) -> None:
        """Begin, or go on with what an interrupted evaluation of the same weights and amounts left; else begin anew."""
        about = {"weights": weights_of(self.model), "amounts": asdict(self.amounts)}
        path = self.scratch / "about.json"
        if self.scratch.exists() and (fresh or not path.exists() or json.loads(path.read_text()) != about):
            self.clear_scratch()
        self.scratch.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(about))

    def clear_scratch(self) -> None:
        """Delete what was kept, and nothing else that lies there."""
        for path in [p for pattern in ("*.npz", "*.json", "*.partial") for p in self.scratch.glob(pattern)]:
            path.unlink()
