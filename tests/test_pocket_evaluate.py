"""Measuring Pocket Kandinsky: each number on pictures whose answer is known, and the whole of it once, in small."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from creativelib import search
from creativelib.metrics import drawing
from creativelib.pocket import (
    dissolved,
    evaluate,
    evaluate_checker,
    evaluate_creative,
    evaluate_finish,
    evaluate_pictures,
    measured,
    model_card,
)
from creativelib.pocket.evaluate_checker import Dictionary
from creativelib.pocket.measured import Amounts, Measured, Plain
from creativelib.storage import data_folder

POCKET = data_folder() / "pocket"
SMALL = Amounts(samples=8, runs=1, noise_seeds=2, baseline=120, steps=2, kinds=2, possible=16, finished=2, repeats=1)


def picture(index: int, fill=(200, 30, 30), side: int = 128) -> np.ndarray:
    """A house, a wheel, a bar ...: six different whole drawings in one colour, ruled so that they have edges inside."""
    page = Image.new("RGB", (side, side), "white")
    pen, shift = ImageDraw.Draw(page), 4 * (index // 6)
    box = (20 + shift, 24, 92 + shift, 100)
    shapes = (
        lambda: pen.rectangle(box, fill=fill),
        lambda: pen.ellipse(box, fill=fill),
        lambda: pen.polygon([(64, 12), (116, 110), (12, 110)], fill=fill),
        lambda: pen.rectangle((8, 50 + shift, 120, 80 + shift), fill=fill),
        lambda: pen.rectangle((52 + shift, 8, 78 + shift, 120), fill=fill),
        lambda: pen.pieslice(box, 20, 200 + shift, fill=fill),
    )
    shapes[index % 6]()
    drawn = np.array(page)
    drawn[::8][(drawn[::8] < 255).any(-1)] //= 2
    return drawn


def strokes(index: int) -> np.ndarray:
    page = Image.new("RGB", (128, 128), "white")
    for y in range(8 + index % 5, 120, 16):
        ImageDraw.Draw(page).line((4, y, 124, y + 3), fill="black", width=2)
    return np.asarray(page)


@pytest.fixture
def corpus_folder(tmp_path):
    """A work folder with a corpus of two subjects, and possible pictures of them."""
    images, records = [], []
    for noun, colour in (("vehicle", (200, 30, 30)), ("fruit", (30, 160, 30))):
        for index in range(18):
            split = ("train", "held-out rendering", "held-out concept")[index % 3]
            record = {"concept": f"{noun}{index // 2}", "label": f"{noun} {index // 2}", "tags": [], "nouns": [noun]}
            records.append(record | {"set": "test", "style": "flat", "split": split})
            images.append(picture(index, colour))
    folder = tmp_path / "work"
    (folder / "corpus").mkdir(parents=True)
    np.save(folder / "corpus" / "images.npy", np.stack(images))
    (folder / "corpus" / "records.json").write_text(json.dumps(records))
    made = [{"nouns": [records[i]["nouns"][0]], "sources": [i], "operations": ["palette"]} for i in (*range(8), *range(18, 26))]
    (folder / "possible" / "held-out").mkdir(parents=True)
    blue = [picture(i, (40, 40, 220)) for i in range(len(made))]
    np.save(folder / "possible" / "held-out" / "0000000.npy", np.stack(blue))
    (folder / "possible" / "held-out" / "0000000.json").write_text(json.dumps(made))
    return folder


def of(corpus_folder, tmp_path, amounts=SMALL):
    one = Measured(corpus_folder, POCKET, tmp_path / "scratch", tmp_path / "sheets", amounts, subjects=("vehicle", "fruit"))
    one.open_scratch()
    return one


# --- keeping ------------------------------------------------------------------------------------------------------------


def test_what_is_kept_is_made_once_and_an_interrupted_evaluation_goes_on(corpus_folder, tmp_path):
    calls = []
    one = of(corpus_folder, tmp_path)
    assert one.part("counts", lambda m: calls.append(1) or {"a": 1}) == {"a": 1}
    arrays = one.kept("rows", lambda: calls.append(2) or {"x": np.arange(3)})
    again = of(corpus_folder, tmp_path)  # another process, the same weights and amounts
    assert again.part("counts", lambda m: calls.append(3)) == {"a": 1}
    assert np.array_equal(again.kept("rows", lambda: calls.append(4))["x"], arrays["x"])
    assert calls == [1, 2]


def test_other_weights_or_amounts_begin_anew(corpus_folder, tmp_path):
    of(corpus_folder, tmp_path).part("counts", lambda m: {"a": 1})
    (tmp_path / "scratch" / "mine.txt").write_text("stays")
    other = of(corpus_folder, tmp_path, Amounts(samples=9))
    assert other.part("counts", lambda m: {"a": 2}) == {"a": 2}
    assert (tmp_path / "scratch" / "mine.txt").exists()


def test_weights_are_told_apart_by_what_they_are(tmp_path):
    for name in ("one", "other"):
        (tmp_path / name / "prior").mkdir(parents=True)
        (tmp_path / name / "generator.json").write_text("{}")
        (tmp_path / name / "prior" / "model.safetensors").write_bytes(b"weights")
    assert measured.weights_of(tmp_path / "one") == measured.weights_of(tmp_path / "other")
    (tmp_path / "other" / "prior" / "model.safetensors").write_bytes(b"others")
    assert measured.weights_of(tmp_path / "one") != measured.weights_of(tmp_path / "other")


def test_parts_alone_need_an_evaluation_of_the_same_weights(corpus_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate, "PARTS", {"counts": lambda m: {"n": 1}, "cost": lambda m: {"machine": "this"}})
    one = of(corpus_folder, tmp_path)
    with pytest.raises(ValueError, match="^only: no evaluation of these weights"):
        evaluate.evaluate(one, ["counts"], {"weights": "others", "cost": {}})
    before = {"weights": measured.weights_of(POCKET), "cost": {"machine": "that"}}
    assert evaluate.evaluate(one, ["counts"], before)["counts"] == {"n": 1}
    assert evaluate.evaluate(one, ["counts"], before)["machine"] == "that"


def test_a_quick_evaluation_never_lands_beside_the_model(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["evaluate", "--quick", "--model", str(tmp_path)])
    with pytest.raises(SystemExit):
        evaluate.main()
    assert "--quick measures too little for a card" in capsys.readouterr().err


# --- creative results ---------------------------------------------------------------------------------------------------


def run_of(pictures, defaults, judged, result_step=25, stopped="target"):
    code = evaluate_creative.STOPS.index(stopped)
    count = len(pictures)
    return {
        "pictures": pictures, "defaults": defaults, "judged": np.array(judged), "nats": np.full(count, 100.0),
        "steps": np.array(25), "result_step": np.array(result_step), "stopped": np.array(code),
    }  # fmt: skip


@pytest.fixture
def plain(corpus_folder, tmp_path, monkeypatch):
    one = of(corpus_folder, tmp_path)
    source = np.random.default_rng(0)
    one._plain["vehicle"] = Plain(
        torch.zeros(8, 4), one.images[:8], np.array([True] * 6 + [False] * 2), source.normal(size=(8, 5))
    )
    monkeypatch.setattr(evaluate_creative, "features", lambda images: source.normal(size=(len(images), 5)))
    return one


def test_a_recoloured_drawing_has_not_changed_and_another_one_has(plain):
    defaults = np.stack([picture(i) for i in range(6)])
    grey = np.stack([picture(i, (84, 84, 84)) for i in range(6)])  # the same lightness
    others = np.stack([picture((i + 2) % 6) for i in range(6)])
    same = evaluate_creative.figures_of(plain, "vehicle", [run_of(grey, defaults, [True] * 6)])
    moved = evaluate_creative.figures_of(plain, "vehicle", [run_of(others, defaults, [True] * 6)])
    assert same["structure_change"] < 0.1 and same["correlation"] > 0.95
    assert 0.7 < moved["structure_change"] < 1.3
    assert moved["correlation"] == pytest.approx(moved["correlation_of_seeds"], abs=0.25)


def test_what_the_runs_of_a_subject_come_to(plain):
    defaults = np.stack([picture(i) for i in range(4)])
    lines = np.stack([strokes(i) for i in range(4)])
    runs = [
        run_of(defaults, defaults, [True, True, True, False]),
        run_of(lines, defaults, [False] * 4, result_step=0, stopped="checker"),
    ]
    figures = evaluate_creative.figures_of(plain, "vehicle", runs)
    assert figures["judge"] == 3 / 8 and figures["judge_plain"] == 6 / 8
    assert figures["stopped"]["target"] == 1 and figures["stopped"]["checker"] == 1 and figures["unchanged"] == 1
    assert figures["filled"] <= 0.5 and [run["stopped"] for run in figures["by_run"]] == ["target", "checker"]


def test_noise_seeds_are_those_of_the_command_line():
    from creativelib.seeds import derive_seed

    assert evaluate_creative.figure_seeds(3, 2) == [derive_seed(3, "figure", 0), derive_seed(3, "figure", 1)]


# --- plain samples ------------------------------------------------------------------------------------------------------


def test_compared_sets_hold_the_subjects_alike():
    real = {"a": np.zeros(10), "b": np.zeros(30), "c": np.zeros(0)}
    plain = {"a": np.full(50, 1), "b": np.full(60, 2), "c": np.full(9, 3)}
    assert np.bincount(evaluate_pictures.in_proportion(plain, real)).tolist() == [0, 20, 60]


def test_wholeness_is_within_the_range_of_real_drawings(corpus_folder, tmp_path):
    limits = of(corpus_folder, tmp_path).wholeness_range("vehicle")
    whole = evaluate_pictures.wholeness(np.stack([picture(i) for i in range(6)]), limits)
    loose = evaluate_pictures.wholeness(np.stack([strokes(i) for i in range(6)]), limits)
    assert whole["filled"] >= 0.6 and loose == {"filled": 0.0, "whole": 0.0}
    assert set(limits) == {"filled", "parts"} and drawing.is_whole(strokes(0)[None], limits).tolist() == [False]


RED, BLUE, GREEN, PURPLE = (210, 20, 40), (30, 60, 220), (20, 160, 40), (140, 40, 200)


@pytest.mark.parametrize(
    ("colour", "fill", "other"), [("red", RED, BLUE), ("blue", BLUE, GREEN), ("green", GREEN, PURPLE), ("purple", PURPLE, RED)]
)
def test_the_main_hue_has_a_name(colour, fill, other):
    assert evaluate_pictures.has_colour(picture(0, fill), colour)
    assert not evaluate_pictures.has_colour(picture(0, other), colour)
    assert not evaluate_pictures.has_colour(picture(0, (90, 90, 90)), colour)


# --- checker and judge --------------------------------------------------------------------------------------------------


def test_an_answer_means_the_nouns_of_its_longest_known_ending():
    records = [
        {"label": "oncoming taxi", "nouns": ["vehicle"]}, {"label": "dog face", "nouns": ["pet", "animal"]},
        {"label": "face", "nouns": ["face"]},
    ]  # fmt: skip
    known = Dictionary(records)
    assert known.nouns("oncoming taxi") == {"vehicle"} and known.nouns("big oncoming taxi") == {"vehicle"}
    assert known.nouns("dog face") == {"pet", "animal"} and known.nouns("happy face") == {"face"}
    assert known.nouns("vehicle") == {"vehicle"} and known.nouns("pile of stones") == set() and known.nouns("") == set()


def test_answers_are_the_checkers_own_words():
    from creativelib.pocket import checker

    images = np.stack([picture(i, side=128) for i in range(3)])
    checking = checker.load(POCKET / "checker")
    said = evaluate_checker.answers(checking, images, checker.KIND_QUESTION.format(x="vehicle"), batch=2)
    one = evaluate_checker.answers(checking, images[2:], checker.KIND_QUESTION.format(x="vehicle"))
    assert len(said) == 3 and all(said) and said == [answer.lower() for answer in said] and said[2:] == one


class ColourJudge:
    """Calls what is blue a vehicle, and nothing else."""

    def probabilities(self, images):
        return torch.from_numpy(images[:, 60, 60].astype(np.float32))

    def verdict(self, chances, noun):
        return ((chances[:, 2] > 150) & (chances[:, 0] < 100)).numpy() & (noun == "vehicle")

    def is_subject(self, images, noun):
        return self.verdict(self.probabilities(images), noun)


def test_the_judges_error_on_pictures_whose_nouns_are_known(corpus_folder, tmp_path, monkeypatch):
    one = of(corpus_folder, tmp_path)
    monkeypatch.setattr(dissolved, "load", lambda: {"vehicle": np.stack([picture(0, (9, 9, 220)), picture(0)])})
    made = [
        {"nouns": ["vehicle"], "sources": [0], "operations": ["palette"]},
        {"nouns": ["vehicle"], "sources": [0], "operations": []},
        {"nouns": ["fruit"], "sources": [18], "operations": ["palette", "worn"]},
        {"nouns": ["fruit"], "sources": [18], "operations": ["worn"]},
        {"nouns": [], "sources": [0, 18], "operations": ["halves of two kinds"]},  # half a vehicle: no right answer
    ]
    fills = [(0, 0, 220), (220, 0, 0), (0, 0, 220), (0, 220, 0), (0, 0, 220)]
    one.__dict__["possible"] = (np.stack([picture(0, fill) for fill in fills]), made)
    one.__dict__["judge"] = ColourJudge()
    one.images = one.images.copy()
    one.images[[0, 18]] = np.stack([picture(0, (0, 0, 220)), picture(0, (220, 0, 0))])  # the drawings as they were
    figures = evaluate_checker.measure_judge(one)
    assert figures["subjects"]["vehicle"] == {"pictures": 2, "recall": 0.5, "recall_as_drawn": 1.0, "false_alarms": 0.5}
    assert figures["subjects"]["fruit"] == {"pictures": 2, "recall": 0.0, "recall_as_drawn": 0.0, "false_alarms": 0.0}
    assert figures["recall_as_drawn"] == 0.5 and figures["kept"] == 0.5  # of two blue vehicles one is still blue
    assert figures["recall"] == 0.25 and figures["false_alarms"] == 0.25 and figures["error"] == pytest.approx(0.5)
    assert figures["recall_by_operation"]["palette"] == {"pictures": 2, "recall": 0.5}
    assert figures["recall_by_operation"]["none"] == {"pictures": 1, "recall": 0.0}
    assert figures["dissolved_accepted"] == 0.5


def test_without_the_dissolved_set_the_rest_is_still_measured(corpus_folder, tmp_path, monkeypatch, capsys):
    def missing():
        raise FileNotFoundError("There is no set.")

    one = of(corpus_folder, tmp_path)
    monkeypatch.setattr(dissolved, "load", missing)
    one.__dict__["generator"] = SimpleNamespace(decoder_pipeline=SimpleNamespace(movq=None))
    one.__dict__["judge"] = ColourJudge()
    assert evaluate_checker.measure_dissolved(one) == {"roc_auc": None, "subjects": {}}
    assert evaluate_checker.measure_judge(one)["dissolved_accepted"] is None
    assert capsys.readouterr().out.count("There is no set. Nothing is measured on them.") == 2


def test_a_checker_that_says_yes_to_what_is_whole_tells_it_from_what_is_dissolved(corpus_folder, tmp_path, monkeypatch):
    one = of(corpus_folder, tmp_path)
    whole, loose = (np.stack([draw(i) for i in range(4)]) for draw in (picture, strokes))
    one.__dict__["possible"] = (whole, [{"nouns": ["vehicle"], "sources": [0], "operations": []}] * 4)
    monkeypatch.setattr(dissolved, "load", lambda: {"vehicle": loose, "fruit": loose})
    red = lambda _, images, noun: (images[:, 60, 60, 0] > images[:, 60, 60, 1]).astype(float)  # noqa: E731
    monkeypatch.setattr(evaluate_checker.checker, "probability_of_yes", red)
    figures = evaluate_checker.measure_dissolved(one)
    assert figures["roc_auc"] == figures["subjects"]["vehicle"]["roc_auc_as_made"] == 1.0
    assert figures["subjects"]["vehicle"] | {"roc_auc": 1.0} == {
        "strange": 4, "dissolved": 4, "roc_auc": 1.0, "roc_auc_as_made": 1.0, "yes_to_strange": 1.0, "yes_to_dissolved": 0.0,
    }  # fmt: skip
    assert list(figures["subjects"]) == ["vehicle"]  # no strange picture of a fruit is there


# --- dissolved pictures -------------------------------------------------------------------------------------------------


def test_dissolved_is_what_the_judge_refuses(corpus_folder, tmp_path):
    one = of(corpus_folder, tmp_path)
    one.__dict__["judge"] = ColourJudge()
    assert dissolved.dissolved(one, "vehicle", np.stack([picture(0), picture(0, (0, 0, 220)), strokes(0)])).tolist() == [
        True, False, True,
    ]  # fmt: skip


def test_the_set_comes_back_from_its_files(corpus_folder, tmp_path):
    one = of(corpus_folder, tmp_path)
    one.__dict__["judge"] = ColourJudge()
    for noun, count in (("vehicle", 30), ("fruit", 3)):
        far = np.stack([strokes(i) for i in range(count)] + [picture(0, (0, 0, 220))])
        one.kept(f"far-{noun}", lambda far=far: {"pictures": far, "nats": np.arange(len(far), dtype=float)})
    about = dissolved.make(one, tmp_path / "set")
    shown = dissolved.load(tmp_path / "set")
    assert {noun: len(pictures) for noun, pictures in shown.items()} == {"vehicle": dissolved.KEPT, "fruit": 4}  # no blue fruit
    far = {"fruit": (shown["fruit"][:3], range(3)), "vehicle": (shown["vehicle"][[0, -1]], (0, 29))}  # evenly over all of them
    for pictures, numbers in far.values():
        for found, number in zip(pictures, numbers, strict=True):
            apart = [np.abs(found.astype(int) - strokes(other)).mean() for other in range(5)]  # there are five
            assert np.argmin(apart) == number % 5 and min(apart) < 4  # the file is small, and not quite lossless
    assert about["subjects"]["vehicle"]["dissolved"] == 30 and about["subjects"]["vehicle"]["far"] == 31
    with pytest.raises(FileNotFoundError, match="no set of dissolved pictures"):
        dissolved.load(tmp_path)


def test_the_finish_is_compared_with_the_very_pictures_that_it_traced(corpus_folder, tmp_path):
    one = of(corpus_folder, tmp_path, Amounts(finished=2))
    one.__dict__["judge"] = ColourJudge()
    fields = (np.indices((128, 128)) // 16).sum(0) % 2  # wider than what tracing takes for a speck
    blue = np.stack([np.where(fields[..., None], 255, fill).astype(np.uint8) for fill in 2 * [(0, 0, 220)] + [(200, 30, 30)]])
    for noun, judged in (
        ("vehicle", [True, True, False]),
        ("fruit", [True, False, False]),
    ):  # the first fruit is lost in tracing
        one._plain[noun] = Plain(torch.zeros(3, 4), blue, np.array(judged), np.zeros((3, 5)))
    figures = evaluate_finish.measure_finish(one)
    assert figures["pictures"] == 4 and figures["judge_raw"] == 0.75 and figures["judge_traced"] == 0.5
    assert figures["judge_points"] == pytest.approx(-25) and 0.1 < figures["kilobytes"] < 50 and figures["seconds"] > 0
    real = one.images[sorted({row for noun in one.subjects for row in one.rows(noun)})]
    assert 0.5 < figures["sharpness"] / drawing.sharpness(np.concatenate([blue[:2], blue[:2]]), real) < 1.5


# --- all of it ----------------------------------------------------------------------------------------------------------


def test_the_possible_world_is_read_as_far_as_asked_and_shown(corpus_folder, tmp_path):
    one = of(corpus_folder, tmp_path, Amounts(possible=12))
    images, records = one.possible
    assert len(images) == len(records) == 12 and np.array_equal(images[3], picture(3, (40, 40, 220)))
    assert len(evaluate_checker.strange(one, "vehicle")) == 8
    assert evaluate.show_possible(one) == {"held_out": 12, "sheet_of": ["vehicle"]}  # of four fruits no row is full
    assert (tmp_path / "sheets" / "possible.jpg").stat().st_size > 1000


ELSEWHERE = ("checker", "possible", "judge")  # what needs the possible world or the dissolved set has tests of its own


def test_all_is_measured_in_small_and_nothing_twice(corpus_folder, tmp_path, monkeypatch):
    one = of(corpus_folder, tmp_path)
    decoded, decode = [], one.generator.decode
    monkeypatch.setattr(search, "ANCHOR_SAMPLES", 50)  # how good the pictures and the measurements are is not asked here
    few = {"steps": 2}
    monkeypatch.setattr(one.generator, "decode", lambda e, **kw: decoded.append(len(e)) or decode(e, **kw | few), raising=False)
    parts = {name: measure for name, measure in evaluate.PARTS.items() if name not in ELSEWHERE}
    monkeypatch.setattr(evaluate_pictures, "WORDS", evaluate_pictures.WORDS[:1])
    monkeypatch.setattr(evaluate_pictures, "WORD_SAMPLES", 4)
    monkeypatch.setattr(evaluate, "PARTS", parts)
    result = json.loads(json.dumps(evaluate.evaluate(one), allow_nan=False))
    assert set(parts) <= set(result)
    card = model_card.render(result)
    assert "## What the search finds" in card and "## Judge" not in card
    for name in ("creative", "creative_defaults", "words", "corpus", "held_out_decodes", "samples_vehicle"):
        assert (tmp_path / "sheets" / f"{name}.jpg").stat().st_size > 1000, name
    assert result["creative"]["subjects"]["fruit"]["pictures"] == 2
    assert sum(decoded) < 150  # plain samples are drawn once, whoever asks
    before = len(decoded)
    assert evaluate.evaluate(one)["weights"] == result["weights"] and len(decoded) == before
