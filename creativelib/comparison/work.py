"""What a worker does: prepare a subject, or compute a cell. Depends on its arguments and the weights alone."""

import copy
import os
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from creativelib import weights as identities
from creativelib.comparison.plan import Cell, Settings
from creativelib.generator import Generator, load_generator
from creativelib.methods import make_method
from creativelib.methods.budget import run_budget
from creativelib.methods.method import CALIBRATION, Result, Subject
from creativelib.metrics.change import apart, colour_distance, structure_change
from creativelib.metrics.drawing import edge_strength, filled, loose_parts
from creativelib.metrics.features import VIEWS, features
from creativelib.metrics.pictures import stack
from creativelib.pocket.judge import Judge
from creativelib.prior_sampling import noise_sources, sample_embeddings
from creativelib.pullback import load_checker
from creativelib.storage import data_folder
from creativelib.threads import one_thread
from creativelib.typicality import TypicalityModel

REFERENCES = 8  # plain pictures that go with a prepared subject, for methods that keep away from some

Kept = tuple[dict[str, torch.Tensor], dict]  # what is written to a file


@lru_cache(maxsize=1)
def machinery(model: str, checker: str, device: str) -> tuple[Generator, object, Judge]:
    """Generator, checker and judge, loaded once in a process."""
    generator = load_generator(model, device=device)
    return generator, load_checker(checker, memory=generator.memory), Judge.load(data_folder() / "pocket" / "judge")


def identity(settings: Settings) -> dict[str, str]:
    """Which weights a worker has: of generator, checker and judge, by their sha256 or the hub's commit, and which settings."""
    return weights_of(machinery(settings.model, settings.checker, settings.device)[0], settings.checker)


def weights_of(generator: Generator, checker: str) -> dict[str, str]:
    """Of a generator, of the checker that ``load_checker`` finds by that name, and of the judge; and the generator's settings:
    with others the same weights draw other pictures.
    """
    shipped = data_folder() / "pocket"
    where = str(shipped / "checker") if checker == "pocket" else os.path.expanduser(checker)
    name, _, revision = (where, "", "") if Path(where).is_dir() else where.partition("@")
    digest = identities.weights_of(name, revision or "main", "config.json")
    settings = ", ".join(
        f"{name} {value:g}" if isinstance(value, int | float) else f"{name} {value}"  # 4 and 4.0 are one
        for name, value in asdict(generator.settings).items()
    )
    judge = identities.folder_digest(shipped / "judge")
    return {**generator.weights, "settings": settings, "checker": digest, "judge": judge}


class OtherWeights(ValueError):
    """A worker has other weights than the rest."""


def require_weights(settings: Settings, weights: dict[str, str]) -> None:
    """Refuse to work with other weights than the rest.

    Raises:
        OtherWeights: this worker has others.
    """
    own = identity(settings)
    if own != weights:
        other = ", ".join(name for name in weights if own.get(name) != weights[name])
        raise OtherWeights(f"weights: a worker has another {other} than this machine; give all of them the same files")


def prepare(settings: Settings, subject: str, weights: dict[str, str]) -> Kept:
    """Baseline, typicality model, checker's thresholds and features of plain pictures of one subject."""
    with one_thread():
        require_weights(settings, weights)
        generator, checker, judge = machinery(settings.model, settings.checker, settings.device)
        made = Subject(generator, subject, checker, samples=settings.samples, dims=settings.dims)
        drawn = made.baseline.embeddings[: settings.plain]
        model, pictures = made.typicality, generator.decode(drawn, prompt=made.prompt, seed=made.seed)
        if len(pictures) >= CALIBRATION:
            made.plain_pictures = pictures[:CALIBRATION]  # the same ones
        images = stack(pictures)
        tensors = {"mean": model.mean, "components": model.components, "variances": model.variances}
        tensors |= {f"plain/{view}": torch.from_numpy(features(images, view, device=settings.device)).float() for view in VIEWS}
        tensors["pictures"] = torch.from_numpy(images[:REFERENCES])
        facts = {
            "total_variance": model.total_variance,
            "n": model.n,
            "provenance": model.provenance,
            "limit": made.limit,
            "threshold": made.checker.threshold,
            "cosines": list(made.cosines),
            "apart": apart(images[:64]),
            "edge_strength": float(edge_strength(images).mean()),
            "judge": float(judge.is_subject(images[:200], subject, settings.device).mean()),
            "preparation": asdict(made.preparation),
        }
        return tensors, facts


def subject_of(settings: Settings, words: str, prepared: Kept) -> Subject:
    """The subject as ``prepare`` left it, without its baseline: nothing of it is made again."""
    tensors, facts = prepared
    generator, checker, _ = machinery(settings.model, settings.checker, settings.device)
    subject = Subject(generator, words, checker, samples=settings.samples, dims=settings.dims)
    parts = (tensors[name] for name in ("mean", "components", "variances"))
    subject.typicality = TypicalityModel(*parts, facts["total_variance"], facts["n"], facts["provenance"])
    subject.checker = copy.copy(checker)
    subject.checker.threshold = facts["threshold"]
    subject.limit, subject.cosines = facts["limit"], tuple(facts["cosines"])
    subject.plain_pictures = [Image.fromarray(picture) for picture in tensors["pictures"].numpy()]
    return subject


def compute(settings: Settings, cell: Cell, prepared: Kept, weights: dict[str, str]) -> Kept:
    """One cell: run the method, and measure its pictures as far as that needs a network."""
    with one_thread():
        require_weights(settings, weights)
        subject = subject_of(settings, cell.subject, prepared)
        method = make_method(cell.method)
        budget = run_budget(subject.generator, cell.budget, settings.results)
        result = method.run(subject, cell.seed, budget, settings.results)
        return measured(settings, subject, result, method.paired, prepared[1]["apart"])


def measured(settings: Settings, subject: Subject, result: Result, paired: bool, unit: float) -> Kept:
    """Pictures, embeddings and features of a result; and facts of each picture, as JSON values."""
    generator, checker, judge = machinery(settings.model, settings.checker, settings.device)
    images = stack(result.images)
    facts = {
        "surprise": subject.typicality.surprise(result.embeddings).tolist(),
        "judge": judge.is_subject(images, subject.words, settings.device).tolist(),
        "checker": [float(checker.check(image, subject.words).probability) for image in result.images],
        "filled": filled(images).tolist(),
        "parts": loose_parts(images).tolist(),
        "edge_strength": edge_strength(images).tolist(),
    }
    if paired:  # the plain picture of the same noise
        with torch.no_grad():
            plain = sample_embeddings(generator, subject.condition, noise_sources(result.noise_seeds))
        defaults = stack(generator.decode(plain, prompt=subject.prompt, seed=result.noise_seeds))
        facts["structure_change"] = structure_change(images, defaults, unit).tolist()
        facts["colour_distance"] = colour_distance(images, defaults).tolist()
    tensors = {"embeddings": result.embeddings, "images": torch.from_numpy(images)}
    tensors |= {view: torch.from_numpy(features(images, view, device=settings.device)).float() for view in VIEWS}
    return tensors, {"pictures": facts, "provenance": result.provenance, "accepted_from": np.round(subject.limit, 6).item()}
