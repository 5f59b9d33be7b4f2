"""Measure what Pocket Kandinsky draws when nothing is searched: plain samples, decodes of real pictures, other words."""

import colorsys

import numpy as np
from sklearn.decomposition import PCA
from torch.nn import functional
from vendi_score import vendi

from creativelib.generator import positive_prompt
from creativelib.metrics import drawing, pictures
from creativelib.metrics.features import features, kernel_distance
from creativelib.pocket import autoencoder, checker
from creativelib.pocket.evaluate_model import nearest
from creativelib.pocket.measured import Measured
from creativelib.pocket.sheets import sheet
from creativelib.prior_sampling import sample_prior

# Words outside the eight subjects: what is asked for, the subject that the judge should see, the colour that it should have.
WORDS = (
    ("red car", "vehicle", "red"),
    ("blue house", "building", "blue"),
    ("green chair", "chair", "green"),
    ("purple apple", "fruit", "purple"),
    ("striped cat", "pet", None),
    ("handbag with polka dots", "handbag", None),
    ("car with wings", "vehicle", None),
    ("dinosaur with wings", "dinosaur", None),
    ("castle", "building", None),
    ("robot", "alien", None),
)
WORD_SAMPLES = 8
HUES = {"red": (345, 20), "green": (75, 170), "blue": (185, 255), "purple": (255, 320)}  # degrees, from and to


def measure_prior(measured: Measured) -> dict:
    """Judge, checker, spread and variety of the plain samples of each subject, and where the subject gets lost."""
    return {noun: _prior_of(measured, noun) for noun in measured.subjects}


def _prior_of(measured: Measured, noun: str) -> dict:
    plain, embeddings, everything = measured.plain(noun), measured.embeddings, measured.rows(noun)
    kept = np.cumsum(PCA().fit(plain.embeddings.numpy()).explained_variance_ratio_)
    unit, unit_real = (functional.normalize(e, dim=-1).numpy() for e in (plain.embeddings, embeddings[everything]))
    concepts = nearest(plain.embeddings, embeddings[everything])[1].tolist()
    yes = checker.probability_of_yes(measured.checking, plain.pictures, noun)
    return {
        "samples": len(plain.pictures),
        "judge": float(plain.judged.mean()),
        **_on_the_way(measured, noun),
        "checker": float((yes > 0.5).mean()),
        "variance": float(plain.embeddings.var(0).sum()),
        "variance_real": float(embeddings[everything].var(0).sum()),
        "vendi": float(vendi.score_dual(unit, normalize=False)),
        "vendi_real": float(vendi.score_dual(unit_real, normalize=False)),
        "concepts_nearest": len({measured.records[everything[c]]["concept"] for c in concepts}),
        "dims_for_95_percent": int(np.searchsorted(kept, 0.95) + 1),
        "variance_in_50_dims": float(kept[min(49, len(kept) - 1)]),
    }


def _on_the_way(measured: Measured, noun: str) -> dict:
    """Where a subject gets lost: the judge on real held-out pictures, on the same after the autoencoder alone, and decoded
    from their embeddings.
    """
    rows = measured.rows(noun, "held-out")
    if not rows:
        return dict.fromkeys(("judge_on_real_held_out", "judge_on_autoencoded", "judge_on_decoded")) | {"real_held_out": 0}
    movq, real = measured.generator.decoder_pipeline.movq, measured.images[rows]
    stages = {
        "judge_on_real_held_out": real,
        "judge_on_autoencoded": autoencoder.decode(movq, autoencoder.encode(movq, real)),
        "judge_on_decoded": pictures.stack(measured.generator.decode(measured.embeddings[rows], seed=3)),
    }
    shares = {name: float(measured.judge.is_subject(images, noun).mean()) for name, images in stages.items()}
    return shares | {"real_held_out": len(rows)}


def in_proportion(plain: dict[str, np.ndarray], real: dict[str, np.ndarray]) -> np.ndarray:
    """As many of each subject's plain rows, from the first on, as make the proportions of the real ones: one array.

    Of two sets that are compared, both then hold the subjects alike.
    """
    asked = {noun: len(rows) for noun, rows in real.items() if len(rows)}
    times = min(len(plain[noun]) / count for noun, count in asked.items())
    return np.concatenate([plain[noun][: max(1, int(times * count + 1e-9))] for noun, count in asked.items()])


def measure_quality(measured: Measured) -> dict:
    """Plain samples against held-out real pictures: kernel distance, sharpness, wholeness.

    Kernel distance and sharpness are over all subjects, in the proportions of the held-out pictures; ``kernel_distance_real``
    is that of as many training pictures, what a perfect model would have. Wholeness is by subject, against the corpus's own
    range; the real ones' share in it is 90 % by definition.
    """
    real = {noun: measured.images[measured.rows(noun, "held-out")] for noun in measured.subjects}
    train = {noun: measured.images[measured.rows(noun, "train")] for noun in measured.subjects}
    drawn = {noun: measured.plain(noun).pictures for noun in measured.subjects}
    held_out = features(np.concatenate(list(real.values())))
    shown = in_proportion({noun: measured.plain(noun).features for noun in measured.subjects}, real)
    drawn_in_proportion = in_proportion(drawn, real)
    return {
        "samples": len(shown),
        "real_held_out": len(held_out),
        "kernel_distance": kernel_distance(shown, held_out),
        "kernel_distance_real": kernel_distance(features(in_proportion(train, real)), held_out),
        "sharpness": drawing.sharpness(drawn_in_proportion, np.concatenate(list(real.values()))),
        "subjects": {
            noun: {
                "sharpness": drawing.sharpness(drawn[noun], measured.images[measured.rows(noun)]),
                **wholeness(drawn[noun], measured.wholeness_range(noun)),
            }
            for noun in measured.subjects
        },
    }


def wholeness(images: np.ndarray, real_range: dict[str, tuple[float, float]]) -> dict[str, float]:
    """``filled``: share of pictures whose hull is filled as that of the middle 90 % of real ones; ``whole``: and that are in as
    many parts.
    """
    least, most = real_range["filled"]
    share = drawing.filled(images)
    return {
        "filled": float(((share >= least) & (share <= most)).mean()),
        "whole": float(drawing.is_whole(images, real_range).mean()),
    }


def main_hue(image: np.ndarray) -> float | None:
    """The hue (degrees) that most of the colour of a picture (H, W, 3) uint8 has, in steps of 15; None for a grey one."""
    colours = image.reshape(-1, 3)[::7] / 255
    hsv = np.array([colorsys.rgb_to_hsv(*colour) for colour in colours])
    strength = hsv[:, 1] * hsv[:, 2]
    if strength.sum() < 0.01 * len(strength):
        return None
    counts, edges = np.histogram(hsv[:, 0] * 360, bins=24, range=(0, 360), weights=strength)
    return float(edges[counts.argmax()] + 7.5)


def has_colour(image: np.ndarray, colour: str) -> bool:
    """Whether the main hue of a picture lies where ``HUES`` has the colour."""
    hue, (low, high) = main_hue(image), HUES[colour]
    if hue is None:
        return False
    return low <= hue <= high if low < high else hue >= low or hue <= high


def measure_words(measured: Measured) -> dict:
    """What is drawn for words outside the eight subjects: the judge's share of the subject, the share in the colour asked for.

    The sheet, one row for each, is for the eye: nothing here can judge stripes or wings.
    """
    result, rows = {}, []
    for words, noun, colour in WORDS:
        drawn = sample_prior(measured.generator, positive_prompt(words), n=WORD_SAMPLES, seed=1, progress=False).embeddings
        images = pictures.stack(measured.generator.decode(drawn, seed=2))
        rows.append(images)
        result[words] = {
            "samples": len(images),
            "subject": noun,
            "judge": float(measured.judge.is_subject(images, noun).mean()),
            "colour": None if colour is None else float(np.mean([has_colour(image, colour) for image in images])),
        }
    sheet(np.concatenate(rows), measured.sheets / "words.jpg", columns=WORD_SAMPLES)
    return result
