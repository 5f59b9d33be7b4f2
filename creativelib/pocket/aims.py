"""What Pocket Kandinsky is to reach, and whether an evaluation reaches it: pure functions of ``evaluation.json``."""

import math
from collections.abc import Callable, Iterable
from statistics import fmean
from typing import NamedTuple

SECOND_GENERATION = {"kernel_distance": 0.373, "decode_16_seconds": 1.1, "prior_5000_seconds": 7.0, "fifty_steps_seconds": 2.1}
"""The model that taught one world alone, measured in the same way: times on two idle cores of an x86_64 machine."""

MIB = {"largest_mib": 15, "model_mib": 48, "tree_mib": 60}


class Aim(NamedTuple):
    """One line of the card. ``met`` is None where nothing was measured."""

    what: str
    aim: str
    measured: str
    met: bool | None


def percent(value: float | None) -> str:
    """``0.853`` -> ``"85 %"``; None (nothing to measure) -> a dash."""
    return "–" if value is None else f"{100 * value:.0f} %"


def lowest(values: dict[str, float | None], written: Callable[[float], str] = percent) -> tuple[str, float]:
    """``"0.61 (fruit)"`` and 0.61: the smallest of the subjects' values, and whose it is; None counts for nothing.

    Where nothing is left it is a dash, and less than any aim.
    """
    known = {noun: value for noun, value in values.items() if value is not None}
    if not known:
        return "–", -math.inf
    noun = min(known, key=known.get)
    return f"{written(known[noun])} ({noun})", known[noun]


def mean(values: Iterable[float | None]) -> float:
    """Of those that are not None; 0 where none is left."""
    known = [value for value in values if value is not None]
    return fmean(known) if known else 0.0


def ratio(value: float | None, other: float | None) -> float | None:
    """``value / other``, None where either is missing or there is nothing to divide by."""
    return value / other if value is not None and other else None


def creative_aims(creative: dict) -> list[Aim]:
    """Of results at the target: still the subject, another drawing, whole."""
    what = f"Creative results (target: plain + {creative['nats']:.0f} nats)"
    subjects = creative["subjects"]
    kept = {noun: ratio(figures["judge"], figures["judge_plain"]) for noun, figures in subjects.items()}
    moved = {noun: figures["structure_change"] for noun, figures in subjects.items()}
    least, share = lowest(kept)
    least_moved, change = lowest(moved, lambda value: f"{value:.2f}")
    filled = mean(figures["filled"] for figures in subjects.values())
    return [
        Aim(f"{what}: judge's share of its share of plain samples, every subject", ">= 75 %", f"lowest {least}", share >= 0.75),
        Aim("the same, mean", ">= 85 %", percent(mean(kept.values())), mean(kept.values()) >= 0.85),
        Aim(
            "the same results: structure, from the default's (0) to another seed's (1), every subject",
            ">= 0.5", f"lowest {least_moved}, mean {mean(moved.values()):.2f}", change >= 0.5,
        ),
        Aim("the same results: hull as filled as in the corpus (its 5 to 95 %)", ">= 85 %", percent(filled), filled >= 0.85),
    ]  # fmt: skip


def quality_aims(quality: dict) -> list[Aim]:
    """Of plain samples against held-out real pictures."""
    sharp, distance, before = quality["sharpness"], quality["kernel_distance"], SECOND_GENERATION["kernel_distance"]
    what = "Plain samples: kernel distance to held-out real pictures, in features that taught nothing"
    if before is None:
        first = missing(what, "half of the second generation's")
    else:
        first = Aim(what, f"<= {before / 2:.4f} (half of the second generation's)", f"{distance:.4f}", distance <= before / 2)
    return [first, Aim("Plain samples: sharpness of edges, of real ones", ">= 85 %", percent(sharp), sharp >= 0.85)]


def prior_aims(prior: dict) -> list[Aim]:
    """Of plain samples and decodes, by the judge; and of their variety."""
    margin = {  # a judge that does not know the real thing says nothing of the drawn one
        noun: f["judge"] - min(0.85, f["judge_on_real_held_out"])
        for noun, f in prior.items()
        if (f["judge_on_real_held_out"] or 0) >= 0.1
    }
    seen = [f for f in prior.values() if f["real_held_out"]]
    real = sum(f["judge_on_real_held_out"] * f["real_held_out"] for f in seen)
    decoded = sum(f["judge_on_decoded"] * f["real_held_out"] for f in seen)
    many = {
        noun: ratio(f["judge_on_decoded"], f["judge_on_real_held_out"]) for noun, f in prior.items() if f["real_held_out"] >= 20
    }
    varied = {noun: ratio(f["vendi"], f["vendi_real"]) for noun, f in prior.items()}
    worst, least = lowest(margin, lambda value: f"{100 * value:+.0f} points")
    least_decoded, decoded_share = lowest(many)
    least_varied, variety = lowest(varied, lambda value: f"{value:.2f}")
    return [
        Aim(
            "Plain samples: judge's share, against its share of real held-out pictures or 85 %, every subject",
            ">= 0 points", f"lowest {worst}", least >= 0,
        ),
        Aim(
            "Decodes of held-out pictures: judge's share of its share of the real ones",
            ">= 80 %", percent(ratio(decoded, real)), (ratio(decoded, real) or 0) >= 0.8,
        ),
        Aim("the same, every subject with 20 or more of them", ">= 80 %", f"lowest {least_decoded}", decoded_share >= 0.8),
        Aim("Plain samples: Vendi score over the corpus's, every subject", ">= 0.7", f"lowest {least_varied}", variety >= 0.7),
    ]  # fmt: skip


def clip_aims(clip: dict) -> list[Aim]:
    """Zero-shot accuracy over the eight subjects on held-out pictures."""
    splits = {"held-out concept": ("of concepts held out whole", 0.75), "held-out rendering": ("of renderings held out", 0.85)}
    lines = []
    for split, (words, aim) in splits.items():
        hits = clip[split]["zero_shot_subjects"]
        lines.append(
            Aim(f"Zero-shot, eight subjects, pictures {words}", f">= {percent(aim)}", percent(hits), (hits or 0) >= aim)
        )
    return lines


def kind_aims(kinds: dict) -> list[Aim]:
    """Of the answers to "What kind of ...?"."""
    least, _ = lowest({noun: figures["noun"] for noun, figures in kinds["subjects"].items()})
    share, vehicle = kinds["noun"], kinds["subjects"]["vehicle"]
    different = vehicle["different"]
    what = '"What kind of {subject} is in this photo?", plain samples'
    return [
        Aim(f"{what}: the noun is the subject's", ">= 85 %", f"{percent(share)}, lowest {least}", share >= 0.85),
        Aim(f"{what}: different answers among {vehicle['pictures']} vehicles", ">= 15", str(different), different >= 15),
    ]


def checker_aims(checker: dict) -> list[Aim]:
    """Of the checker on what is dissolved."""
    what, figures = "Checker: dissolved against strange but whole, area under the ROC curve", checker.get("dissolved")
    if not figures or figures["roc_auc"] is None:
        return [missing(what, ">= 0.9")]
    least, _ = lowest({noun: f["roc_auc"] for noun, f in figures["subjects"].items()}, lambda value: f"{value:.2f}")
    return [Aim(what, ">= 0.9", f"{figures['roc_auc']:.2f}, lowest {least}", figures["roc_auc"] >= 0.9)]


def finish_aims(finish: dict) -> list[Aim]:
    """Of the traced drawing against the decoder's raw picture."""
    points, sharp, seconds = finish["judge_points"], finish["sharpness"], finish["seconds"]
    return [
        Aim("Finish: judge's share, traced against raw", ">= -2 points", f"{points:+.1f} points", points >= -2),
        Aim("Finish: sharpness of edges, of real ones", ">= 95 %", percent(sharp), sharp >= 0.95),
        Aim("Finish: time and size of a picture", "<= 0.1 s, <= 20 kB", f"{seconds:.2f} s, {finish['kilobytes']:.0f} kB",
            seconds <= 0.1 and finish["kilobytes"] <= 20),
    ]  # fmt: skip


def cost_aims(cost: dict) -> list[Aim]:
    """Of the times: no slower than one and a half times the second generation."""
    seconds = {
        "16 decodes": (cost["decode_16_seconds"], SECOND_GENERATION["decode_16_seconds"]),
        "5,000 prior samples": (cost["prior_5000_seconds"], SECOND_GENERATION["prior_5000_seconds"]),
        "50 creative steps": (50 * cost["creative_step_seconds"], SECOND_GENERATION["fifty_steps_seconds"]),
    }
    return [
        Aim(what, f"<= {1.5 * before:.1f} s", f"{now:.1f} s", now <= 1.5 * before) for what, (now, before) in seconds.items()
    ]


def file_aims(files: dict) -> list[Aim]:
    """Of sizes."""
    names = {"largest_mib": "Largest file", "model_mib": "The model's files", "tree_mib": "The whole tree"}
    lines = []
    for key, name in names.items():
        if files[key] is None:
            lines.append(missing(name, f"<= {MIB[key]} MiB"))
        else:
            lines.append(Aim(name, f"<= {MIB[key]} MiB", f"{files[key]:.1f} MiB", files[key] <= MIB[key]))
    return lines


def missing(what: str, aim: str) -> Aim:
    """A line of something that this evaluation has not measured."""
    return Aim(what, aim, "not measured", None)


GROUPS: dict[str, tuple[Callable[[dict], list[Aim]], tuple[str, str]]] = {
    "creative": (creative_aims, ("Creative results: judge, structure, wholeness", ">= 75 %, >= 0.5, >= 85 %")),
    "quality": (quality_aims, ("Plain samples: kernel distance, sharpness", "half of the second generation's, >= 85 %")),
    "prior": (prior_aims, ("Plain samples and decodes: judge, variety", ">= 80 %, >= 0.7")),
    "clip": (clip_aims, ("Zero-shot, eight subjects", ">= 75 %")),
    "kinds": (kind_aims, ('"What kind of {subject} is in this photo?"', ">= 85 %, >= 15 answers")),
    "checker": (checker_aims, ("Checker: dissolved against strange but whole", ">= 0.9")),
    "finish": (finish_aims, ("Finish: judge, edges, time, size", ">= -2 points, >= 95 %, <= 0.1 s, <= 20 kB")),
    "cost": (cost_aims, ("Times", "<= 1.5 times the second generation's")),
    "files": (file_aims, ("Sizes", "<= 15, 48, 60 MiB")),
}


def aims_met(result: dict) -> list[Aim]:
    """Every aim, in the order of the card; one line "not measured" for a part that ``result`` lacks."""
    lines = []
    for part, (judge_part, unmeasured) in GROUPS.items():
        lines += judge_part(result[part]) if result.get(part) else [missing(*unmeasured)]
    return lines
