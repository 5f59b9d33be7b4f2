"""The aims of Pocket Kandinsky and its card: pure functions of the numbers, each line judged on its own."""

import copy

import pytest

from creativelib.pocket import aims, model_card, taxonomy

NOUNS = taxonomy.SUBJECTS


@pytest.fixture(autouse=True)
def before(monkeypatch):
    """What the second generation was measured at, in round numbers."""
    seconds = {"decode_16_seconds": 1.1, "prior_5000_seconds": 7.0, "fifty_steps_seconds": 2.1}
    monkeypatch.setattr(aims, "SECOND_GENERATION", {"kernel_distance": 0.08, **seconds})


def perfect() -> dict:
    """An evaluation that meets every aim, and just so."""
    distance = 0.04
    creative = {
        "judge": 0.72, "judge_plain": 0.8, "structure_change": 0.5, "correlation": 0.7, "correlation_of_seeds": 0.4,
        "filled": 0.85, "whole": 0.8, "sharpness": 0.9, "novelty": 1.4, "nats": 90.0, "steps": 60.0,
        "stopped": {"target": 4, "checker": 1}, "unchanged": 0,
    }  # fmt: skip
    prior = {
        "samples": 200, "judge": 0.9, "judge_on_real_held_out": 0.85, "judge_on_autoencoded": 0.8, "judge_on_decoded": 0.68,
        "real_held_out": 30, "checker": 0.9, "variance": 90.0, "variance_real": 100.0, "vendi": 7.0, "vendi_real": 10.0,
        "concepts_nearest": 20, "dims_for_95_percent": 90, "variance_in_50_dims": 0.9,
    }  # fmt: skip
    split = {
        "images": 100, "subject_images": 80, "zero_shot_subjects": 0.85, "zero_shot_all_nouns": 0.5, "retrieval_at_5": 0.5,
        "retrieval_queries": 50, "retrieval_pool": 100,
    }  # fmt: skip
    kinds = {"pictures": 64, "noun": 0.85, "different": 15, "most_common": [["taxi", 9]], "noun_on_real": None}
    areas = {
        "roc_auc": 0.9, "roc_auc_as_made": 0.95, "strange": 50, "dissolved": 20, "yes_to_strange": 0.9, "yes_to_dissolved": 0.1,
    }  # fmt: skip
    answered = {"questions": 100, "accuracy": 0.9, "roc_auc": 0.95}
    judged = {"pictures": 40, "recall": 0.7, "recall_as_drawn": 0.75, "false_alarms": 0.02}
    return {
        "weights": "0",
        "machine": "a machine",
        "training": {"device": "CPU", "torch": "2", "steps": {"decoder": 1000}},
        "counts": {
            "train": 80, "held-out concept": 10, "held-out rendering": 10, "concepts": 50,
            "subjects": {noun: [9, 3] for noun in NOUNS},
        },
        "clip": {"nouns": 47, "held-out concept": split, "held-out rendering": split, "train": split},
        "autoencoder": {"images": 9, "psnr_db": 30.0, "perceptual": 0.2, "perceptual_of_unrelated_pictures": 2.0},
        "decoder": {"images": 9, "round_trip_cosine": 0.9, "same_concept_cosine": 0.6, "any_two_cosine": 0.3},
        "prior": {noun: dict(prior) for noun in NOUNS},
        "quality": {
            "samples": 900, "real_held_out": 300, "kernel_distance": distance, "kernel_distance_real": distance / 9,
            "sharpness": 0.85, "subjects": {noun: {"sharpness": 0.9, "filled": 0.9, "whole": 0.8} for noun in NOUNS},
        },
        "creative": {"nats": 100.0, "runs": 5, "noise_seeds": 16, "subjects": {noun: dict(creative) for noun in NOUNS}},
        "checker": {
            "real": answered, "generated": answered,
            "dissolved": {"roc_auc": 0.9, "subjects": {noun: dict(areas) for noun in NOUNS}},
        },
        "kinds": {"noun": 0.85, "subjects": {noun: dict(kinds) for noun in NOUNS}},
        "possible": {"held_out": 1000, "sheet_of": list(NOUNS)},
        "judge": {
            "possible": 1000, "recall": 0.7, "recall_as_drawn": 0.75, "kept": 0.9, "false_alarms": 0.02, "error": 0.16,
            "dissolved_accepted": 0.0,
            "subjects": {noun: judged for noun in NOUNS}, "recall_by_operation": {"palette": {"pictures": 90, "recall": 0.8}},
        },
        "finish": {
            "pictures": 9, "judge_raw": 0.9, "judge_traced": 0.88, "judge_points": -2.0, "sharpness": 0.95, "seconds": 0.1,
            "kilobytes": 20.0,
        },
        "memorisation": {
            "generated": 9, "held_out": 9, "cosine_generated": 0.9, "cosine_held_out": 0.8, "share_above_0.98": 0.0,
            "share_above_0.98_held_out": 0.0, "pixel_rmse_of_nearest": 50.0,
        },
        "words": {"red car": {"samples": 8, "subject": "vehicle", "judge": 0.9, "colour": None}},
        "cost": {
            "prior_5000_seconds": 10.5, "decode_16_seconds": 1.65, "creative_step_seconds": 0.063, "peak_memory_gib": 2.0,
        },
        "files": {"largest_mib": 15.0, "model_mib": 48.0, "tree_mib": 60.0},
    }  # fmt: skip


def test_an_evaluation_that_just_reaches_every_aim_meets_them_all():
    lines = aims.aims_met(perfect())
    assert [line.what for line in lines if line.met is not True] == []
    assert len(lines) == 24


WORSE = [
    ("creative.subjects.fruit.judge", 0.59, "every subject"),
    ("creative.subjects.fruit.judge", 0.1, "the same, mean"),
    ("creative.subjects.alien.structure_change", 0.49, "structure"),
    ("creative.subjects.chair.filled", 0.84, "hull"),
    ("quality.kernel_distance", 1.0, "kernel distance"),
    ("quality.sharpness", 0.84, "sharpness"),
    ("prior.pet.judge", 0.84, "judge's share, against"),
    ("prior.pet.judge_on_decoded", 0.6, "Decodes"),
    ("prior.pet.judge_on_decoded", 0.6, "20 or more"),
    ("prior.alien.vendi", 6.9, "Vendi"),
    ("kinds.noun", 0.84, "the noun is"),
    ("kinds.subjects.vehicle.different", 14, "different answers"),
    ("checker.dissolved.roc_auc", 0.89, "dissolved"),
    ("finish.judge_points", -2.1, "traced"),
    ("finish.sharpness", 0.94, "Finish: sharpness"),
    ("finish.kilobytes", 21.0, "time and size"),
    ("cost.prior_5000_seconds", 10.6, "prior samples"),
    ("cost.decode_16_seconds", 1.7, "decodes"),
    ("cost.creative_step_seconds", 0.064, "50 creative"),
    ("files.largest_mib", 15.1, "Largest"),
    ("files.model_mib", 48.1, "model's files"),
    ("files.tree_mib", 60.1, "whole tree"),
]


@pytest.mark.parametrize(("path", "value", "what"), WORSE)
def test_a_worse_number_misses_its_own_aim(path, value, what):
    result = copy.deepcopy(perfect())
    *way, last = path.split(".")
    part = result
    for key in way:
        part = part[key]
    part[last] = value
    missed = [line.what for line in aims.aims_met(result) if not line.met]
    assert any(what in line for line in missed), missed
    assert len(missed) <= 4


@pytest.mark.parametrize(("split", "value"), [("held-out concept", 0.74), ("held-out rendering", 0.84)])
def test_zero_shot_has_an_aim_for_each_split(split, value):
    result = perfect()
    result["clip"][split] = {**result["clip"][split], "zero_shot_subjects": value}
    assert [line.aim for line in aims.aims_met(result) if not line.met] == [f">= {75 if 'concept' in split else 85} %"]


def test_the_weakest_subject_is_named():
    result = perfect()
    result["creative"]["subjects"]["dinosaur"]["judge"] = 0.4
    line = next(line for line in aims.aims_met(result) if "every subject" in line.what)
    assert line.measured == "lowest 50 % (dinosaur)" and line.met is False


def test_a_judge_that_does_not_know_the_real_thing_says_nothing_of_the_drawn_one():
    result = perfect()
    result["prior"]["dinosaur"] |= {"judge": 0.0, "judge_on_real_held_out": 0.05}
    assert next(line for line in aims.aims_met(result) if "against its share of real" in line.what).met


def test_a_judge_that_knows_nothing_real_meets_nothing():
    result = perfect()
    for figures in result["prior"].values():
        figures |= {"judge_on_real_held_out": 0.0, "real_held_out": 5}
    missed = [line for line in aims.aims_met(result) if not line.met]
    assert len(missed) == 3 and all("–" in line.measured for line in missed)


@pytest.mark.parametrize("part", ["creative", "quality", "prior", "clip", "kinds", "checker", "finish", "cost", "files"])
def test_what_was_not_measured_is_neither_met_nor_missed(part):
    result = perfect()
    del result[part]
    unmeasured = [line for line in aims.aims_met(result) if line.met is None]
    assert [line.measured for line in unmeasured] == ["not measured"]
    assert "| not measured | – |" in model_card.render(result)


def test_the_card_has_a_section_for_every_part_and_whole_tables():
    result, card = perfect(), model_card.render(perfect())
    for title in ("What the search finds", "The possible world", "Judge", "Words outside", "Plain samples against", "Checker"):
        assert f"## {title}" in card
    heads = None
    for line in card.splitlines():
        heads = (heads or line.count("|")) if line.startswith("|") else None
        assert heads is None or line.count("|") == heads, line
    for name in ("creative", "creative_defaults", "possible", "words", "corpus", *(f"samples_{noun}" for noun in NOUNS)):
        assert f"(sheets/{name}.jpg)" in card
    assert "None" not in card and "nan" not in card
    for part in result:  # a card of any single missing part can still be written
        if part not in ("machine", "weights", "training"):
            assert model_card.render({k: v for k, v in result.items() if k != part}).startswith("# Model card")


def test_without_the_dissolved_set_the_card_says_nothing_of_it():
    result = perfect()
    assert "It accepts 0 % of the dissolved" in model_card.render(result)
    result["judge"]["dissolved_accepted"], result["checker"]["dissolved"] = None, {"roc_auc": None, "subjects": {}}
    card = model_card.render(result)
    assert "It accepts" not in card and "Strange but whole" not in card and "| not measured | – |" in card


def test_the_card_says_what_was_tried_where_an_aim_is_missed():
    result = perfect()
    assert "was tried" not in model_card.render(result)
    said = "- **Sharpness.** 79 %."
    result["training"] = result.get("training", {}) | {"device": "CPU", "torch": "2", "steps": {}, "tried": said}
    card = model_card.render(result)
    assert card.index("what was reached") < card.index(f"what was tried\n\n{said}\n\n## ") < card.index("## Corpus")


def test_the_cards_own_words_have_one_blank_line_between_blocks():
    assert "\n\n\n" not in model_card.render(perfect()) and model_card.render(perfect()).endswith("\n")
