"""The checker: its interface, its tokens, its questions, and the pictures that it learns to refuse."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from creativelib.metrics.drawing import filled, loose_parts
from creativelib.pocket import checker, checker_training, corpus, questions, searched, spoilt, worlds
from creativelib.pocket.autoencoder import to_tensor

NOUNS = ("vehicle", "fruit", "pet", "building", "chair", "face", "tool")


@pytest.fixture(scope="module")
def world():
    """28 random pictures, each with a drawn square on white, and their records."""
    rng = np.random.default_rng(0)
    images = np.full((28, corpus.SIZE, corpus.SIZE, 3), 255, np.uint8)
    images[:, 20:100, 30:110] = rng.integers(0, 200, (28, 80, 80, 3))
    records = [
        {"label": f"kind {noun} {i}", "tags": [f"tag{i}"], "nouns": [noun], "style": "flat", "split": "train"}
        for i, noun in enumerate(NOUNS * 4)
    ]
    return images, records


@pytest.fixture(scope="module")
def checking(world):
    torch.manual_seed(0)
    tokenizer = checker.train_tokenizer([word for record in world[1] for word in questions.yes_words(record)])
    return checker.Checking(checker.build(tokenizer).eval(), checker.build_processor(tokenizer))


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def ask(processor, question, picture):
    content = [{"type": "image", "image": Image.fromarray(picture)}, {"type": "text", "text": question}]
    return processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )


def test_size_of_the_full_model(world):
    phrases = [f"{a}{b}{c} thing" for a in "abcdefghijklmn" for b in "aeiou" for c in "bcdfghklmnprst"]
    model = checker.build(checker.train_tokenizer(phrases))
    assert 1.4e6 < sum(p.numel() for p in model.parameters()) < 2.0e6


def test_auto_classes_load_what_was_saved(checking, world, tmp_path):
    checker.save(checking.model, checking.processor, tmp_path)
    assert next(checking.model.parameters()).dtype == torch.float32
    assert (tmp_path / "model.safetensors").stat().st_size <= 5 * 2**20
    model = AutoModelForImageTextToText.from_pretrained(tmp_path, dtype=torch.float32)
    processor = AutoProcessor.from_pretrained(tmp_path)
    assert type(model).__name__ == "LlavaForConditionalGeneration" and type(processor).__name__ == "LlavaProcessor"
    before = checker.answer_logits(checking.model, checking.processor, world[0][:5], "vehicle")
    after = checker.answer_logits(model.eval(), processor, world[0][:5], "vehicle")
    torch.testing.assert_close(before, after, atol=2e-3, rtol=0)  # what half precision costs
    again = checker.load(tmp_path)
    assert torch.equal(after, checker.answer_logits(again.model, again.processor, world[0][:5], "vehicle"))


@pytest.mark.parametrize("text", ["Yes", " Yes", "No", " No"])
def test_answers_are_single_tokens(checking, text):
    tokenizer = checking.processor.tokenizer
    pieces = tokenizer.encode(text, add_special_tokens=False)
    assert len(pieces) == 1 and pieces[0] in checker.answer_ids(tokenizer)
    assert tokenizer.decode(pieces).strip() == text.strip()


def test_answers_do_not_break_longer_words(checking):
    tokenizer = checking.processor.tokenizer
    assert not set(checker.answer_ids(tokenizer)) & set(
        tokenizer.encode("Nothing northern, yesterday", add_special_tokens=False)
    )


def test_split_answers_are_refused(checking):
    class Splitting:
        def encode(self, word, add_special_tokens):
            return [1, 2]

    with pytest.raises(ValueError, match="splits Yes or No"):
        checker.answer_ids(Splitting())


def test_chat_template_holds_the_image_tokens(checking, world):
    inputs = ask(checking.processor, "Is this still a vehicle? Yes or No.", world[0][0])
    assert int((inputs["input_ids"] == checking.model.config.image_token_id).sum()) == checker.IMAGE_TOKENS == 64
    assert inputs["pixel_values"].shape == (1, 3, corpus.SIZE, corpus.SIZE)
    text = checking.processor.tokenizer.decode(inputs["input_ids"][0])
    assert text.endswith(checker.ASSISTANT) and "is this still a vehicle" in text
    new = checking.model.generate(**inputs, max_new_tokens=3, do_sample=False)
    assert new.shape[1] - inputs["input_ids"].shape[1] <= 3


def test_chat_template_takes_plain_text_and_answers(checking):
    messages = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "Yes"}]
    text = checking.processor.apply_chat_template(messages, tokenize=False)
    assert text == "<|user|>hello<|assistant|>Yes<|end|>"


def test_larger_pictures_are_resized(checking):
    big = np.full((1, 200, 300, 3), 90, np.uint8)
    assert checker.answer_logits(checking.model, checking.processor, big, "vehicle").shape == (1, 2)


def test_unknown_words_can_be_asked_about(checking, world):
    chances = checker.probability_of_yes(checking, world[0][:3], ["zeppelin", "Überraschung 🎈", "a b c d e f g h i j k l m n"])
    assert chances.shape == (3,) and ((chances > 0) & (chances < 1)).all()


def test_batches_give_what_single_questions_give(checking, world):
    words = ["vehicle", "means of transport", "x", "chair"]
    together = checker.answer_logits(checking.model, checking.processor, world[0][:4], words)
    alone = [checker.answer_logits(checking.model, checking.processor, world[0][i : i + 1], [w]) for i, w in enumerate(words)]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-4, rtol=1e-4)


def test_bad_questions_are_refused(checking, world):
    model, processor = checking.model, checking.processor
    with pytest.raises(ValueError, match="uint8 array"):
        checker.answer_logits(model, processor, world[0][:2].astype(np.float32), "vehicle")
    with pytest.raises(ValueError, match="uint8 array"):
        checker.answer_logits(model, processor, [world[0][0]], "vehicle")
    with pytest.raises(ValueError, match="one phrase for each"):
        checker.answer_logits(model, processor, world[0][:2], ["vehicle"])
    with pytest.raises(ValueError, match="empty phrase"):
        checker.answer_logits(model, processor, world[0][:1], [" "])
    assert checker.probability_of_yes(checking, world[0][:0], "vehicle").shape == (0,)


def test_missing_checker_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="make pocket"):
        checker.load(tmp_path)


@torch.no_grad()
def test_packed_questions_are_what_is_asked_alone(checking, world, generator):
    """Training packs several questions behind one picture; the answers must be those of the public interface."""
    model, tokenizer = checking.model, checking.processor.tokenizer
    words = ["vehicle", "means of transport", "chair"]
    talks = [questions.dialogue(word, "Yes") for word in words]
    tokens = tokenizer(talks, padding=True, padding_side="right", return_tensors="pt").input_ids[None]
    pixels = to_tensor(world[0][:1])
    hidden = checker_training.packed_answers(model, checker_training.visual_tokens(model.model.vision_tower, pixels), tokens)
    mark = tokens == tokenizer.convert_tokens_to_ids(checker.ASSISTANT)
    packed = model.lm_head(hidden[mark])[:, list(checker.answer_ids(tokenizer))]
    alone = checker.answer_logits(model, checking.processor, world[0][[0, 0, 0]], words)
    torch.testing.assert_close(packed, alone, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_all_patches_kept_is_the_whole_picture(checking, world):
    pixels = to_tensor(world[0][:2])
    whole = checker_training.visual_tokens(checking.model.model.vision_tower, pixels)
    assert torch.equal(
        whole, checker_training.visual_tokens(checking.model.model.vision_tower, pixels, torch.arange(checker.IMAGE_TOKENS))
    )
    assert checker_training.visual_tokens(checking.model.model.vision_tower, pixels, torch.tensor([3, 9])).shape == (
        2,
        2,
        whole.shape[-1],
    )


def test_hard_negatives_have_the_promised_form(world, generator):
    images, records = world
    before = images.copy()
    found = spoilt.hard_negatives(images, records, 24, generator, questions=3)
    assert found.images.shape == (24, corpus.SIZE, corpus.SIZE, 3) and found.images.dtype == np.uint8
    assert found.kinds == list(spoilt.NEGATIVE_KINDS) * 3
    assert all(len(words) == 3 and all(words) for words in found.subjects)
    assert np.array_equal(images, before)
    assert len({picture.tobytes() for picture in found.images}) == 24
    same = spoilt.hard_negatives(images, records, 24, torch.Generator().manual_seed(0), questions=3)
    assert np.array_equal(found.images, same.images) and found.subjects == same.subjects
    assert spoilt.hard_negatives(images, records, 0, generator).images.shape == (0, corpus.SIZE, corpus.SIZE, 3)


def test_hard_negatives_refuse_bad_input(world, generator):
    with pytest.raises(ValueError, match="as many"):
        spoilt.hard_negatives(world[0][:3], world[1], 2, generator)
    with pytest.raises(ValueError, match="uint8"):
        spoilt.hard_negatives(world[0].astype(float), world[1], 2, generator)


def test_pasted_motif_is_small(generator):
    motif = np.full((128, 128, 3), 255, np.uint8)
    motif[10:110, 30:90] = (200, 0, 0)
    for _ in range(10):
        pasted = spoilt.paste(motif, np.full_like(motif, 60), generator)
        rows = np.flatnonzero((pasted != 60).any(-1).any(1))
        assert 0.24 * 128 <= rows[-1] - rows[0] + 1 <= 0.36 * 128


def test_smear_leaves_no_edges(world, generator):
    for picture in world[0][:6]:
        smeared = spoilt.smear(picture, generator)
        assert smeared.shape == picture.shape and smeared.astype(float).std() < picture.astype(float).std()


def test_blend_lies_between(world, generator):
    one, other = np.full((128, 128, 3), 10, np.uint8), np.full((128, 128, 3), 210, np.uint8)
    mixed = spoilt.blend(one, other, generator)
    assert 10 + 0.34 * 200 < mixed.mean() < 10 + 0.66 * 200


def test_degrade_keeps_most_of_the_picture(world, generator):
    for picture in world[0][:8]:
        copy = spoilt.degrade(picture, generator)
        assert copy.shape == picture.shape and copy.dtype == np.uint8
        assert copy.astype(float).std() > 5  # still a drawing


def test_refusals_are_never_true(world, generator):
    refusals = questions.Refusals(world[1])
    for record in world[1]:
        for _ in range(20):
            assert refusals.draw([record], generator) not in questions.yes_words(record)


def test_what_is_too_close_to_refuse(generator):
    elephant = {"label": "elephant", "tags": [], "nouns": ["animal"]}
    dog = {"label": "dog face", "tags": ["dog"], "nouns": ["pet", "animal"]}
    sauropod = {"label": "sauropod", "tags": [], "nouns": ["dinosaur", "animal"]}
    assert {"pet", "animal", "dog face", "dog"} <= set(questions.yes_words(dog))
    assert questions.related(elephant, dog)
    refusals = questions.Refusals([elephant, dog, sauropod])
    drawn = {
        name: {refusals.draw([record], generator) for _ in range(300)}
        for name, record in (("elephant", elephant), ("dog", dog))
    }
    assert "pet" not in drawn["elephant"] and "dinosaur" in drawn["elephant"]
    assert "dinosaur" in drawn["dog"] and "animal" not in drawn["dog"]


@pytest.mark.parametrize("kind", ["strokes", "pieces", "melted"])
def test_a_dissolved_picture_keeps_its_colours_and_no_whole(kind, generator):
    """Of a disc: what was one full round shape fills less of its hull or falls apart, and nothing new is painted."""
    yy, xx = np.mgrid[:128, :128]
    disc = np.full((128, 128, 3), 255, np.uint8)
    disc[(yy - 64) ** 2 + (xx - 64) ** 2 < 45**2] = (30, 60, 200)
    for _ in range(6):
        spoiled = spoilt.SPOIL[kind](disc, generator)
        drawn = spoiled[(spoiled < 200).any(-1)]
        assert spoiled.shape == disc.shape and 100 < len(drawn)
        assert np.median(drawn[:, 2]) > np.median(drawn[:, 0]) + 60
        assert filled(spoiled[None])[0] < 0.93 or loose_parts(spoiled[None])[0] > 1


def both_worlds(images, records):
    """The pictures in both views, and four possible ones of which the last has no noun."""
    made = [
        {"nouns": record["nouns"], "sources": [i], "operations": ["palette"], "first": i}
        for i, record in enumerate(records[:4])
    ]
    made[3]["nouns"] = []
    blocks, count = [*worlds.views(images), images[:4] // 2], 2 * len(images)
    starts = np.cumsum([0, *map(len, blocks)])
    return worlds.Worlds(
        blocks, starts, 2 * records + made, torch.arange(count + 4) < count, torch.full((count + 4,), 1 / (count + 4))
    )


def drawn(both):
    """Two pictures as a decoder might draw them, the second of which no noun holds of."""
    rows = torch.tensor([0, len(both) - 1])
    return rows, both.pictures(rows) // 2 + 64


NOBODY = searched.Searched(np.empty((0, corpus.SIZE, corpus.SIZE, 3), np.uint8), [], np.empty(0, bool))


def test_what_searches_drew_is_the_subject_nearby_and_far_out_it_is_not(world, tmp_path, monkeypatch):
    both, said, asked = both_worlds(*world), [], []
    images = np.stack([np.full((corpus.SIZE, corpus.SIZE, 3), value, np.uint8) for value in (10, 20)])
    found = searched.Searched(images, ["pet", "fruit"], np.array([False, True]))
    features = torch.randn(len(both), 6, generator=torch.Generator().manual_seed(1))
    degrade, dialogue = checker_training.degrade, checker_training.dialogue
    monkeypatch.setattr(checker_training, "degrade", lambda picture, _: asked.append(picture) or degrade(picture, _))
    monkeypatch.setattr(
        checker_training,
        "dialogue",
        lambda word, answer, *_, **__: said.append((word, answer)) or dialogue(word, answer, *_, **__),
    )
    checker_training.train(both, features, *drawn(both), found, tmp_path, "cpu", 1, batch=8, eye_steps=1)
    # a batch of 8: five pictures of the worlds, one near, then of two negatives one far
    assert [int(picture[0, 0, 0]) for picture in asked[5:]] == [10, 20]
    near, far = said[20:24], said[24:28]
    called = {noun: set(questions.yes_words(questions.only_noun(noun))) for noun in ("pet", "fruit")}
    assert [answer for _, answer in near] == ["Yes", "Yes", "No", "No"] and {word for word, _ in near[:2]} <= called["pet"]
    assert [answer for _, answer in far] == ["No"] * 4 and {word for word, _ in far[:2]} <= called["fruit"]
    assert not {word for word, _ in near[2:]} & called["pet"]


def test_what_the_decoder_drew_is_shown_as_what_it_is_of(world, tmp_path, monkeypatch):
    both, asked = both_worlds(*world), []
    rows, pictures = drawn(both)
    pictures[0] = (1, 2, 3)  # so that it can be told from every other one
    pictures[1] = (3, 2, 1)
    features = torch.randn(len(both), 6, generator=torch.Generator().manual_seed(1))
    monkeypatch.setattr(checker_training, "degrade", lambda picture, _: asked.append(picture) or picture)
    monkeypatch.setattr(checker_training, "dialogue", lambda subject, answer, *_, **__: f"{subject} {answer}")
    checker_training.train(both, features, rows, pictures, NOBODY, tmp_path, "cpu", 2, batch=8, eye_steps=1)
    assert [bool((picture == (1, 2, 3)).all()) for picture in asked] == 2 * [True, False, False, False, False, False]
    assert not any((picture == (3, 2, 1)).all() for picture in asked)


def test_training_runs_saves_and_resumes(world, tmp_path):
    both = both_worlds(*world)
    features = torch.randn(len(both), 6, generator=torch.Generator().manual_seed(1))
    trained = checker_training.train(both, features, *drawn(both), NOBODY, tmp_path, "cpu", 2, batch=8)
    loaded = checker.load(tmp_path / "shipped/checker")
    images = world[0]
    logits = checker.answer_logits(loaded.model, loaded.processor, images[:2], "fruit")
    expected = checker.answer_logits(trained.model, trained.processor, images[:2], "fruit")
    torch.testing.assert_close(logits, expected, atol=5e-3, rtol=0)
    nothing = torch.zeros_like(features)  # done already: at once
    again = checker_training.train(both, nothing, *drawn(both), NOBODY, tmp_path, "cpu", 2, batch=8)
    torch.testing.assert_close(checker.answer_logits(again.model, again.processor, images[:2], "fruit"), expected)


def test_a_possible_picture_is_called_what_its_first_drawing_is(world):
    both = both_worlds(*world)
    record = questions.described(both.records[-2], both.records[:28])
    assert record["label"] == both.records[2]["label"] and record["nouns"] == both.records[2]["nouns"]
    assert questions.described(both.records[0], both.records[:28]) is both.records[0]


def test_training_refuses_bad_input(world, tmp_path):
    with pytest.raises(ValueError, match="one a picture"):
        both = both_worlds(*world)
        checker_training.train(both, torch.zeros(3, 6), *drawn(both), NOBODY, tmp_path, "cpu", 1)
