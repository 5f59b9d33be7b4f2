"""Checkers of the published sizes, with random weights: saved, loaded as anybody would, and asked once."""

import pytest
import torch
from miniature_checkers import as_smolvlm2, template
from miniature_tokenizers import KINDS
from PIL import Image
from transformers import Idefics3Processor, JanusProcessor
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.janus.image_processing_pil_janus import JanusImageProcessorPil

from creativelib.full_size import checker_model, configuration
from creativelib.pullback import load_checker

PICTURE = Image.effect_noise((512, 100), 60).convert("RGB")  # wide: SmolVLM2 reads a square in seventeen tiles, this in five


def save_janus(folder, facts) -> int:
    """Janus' processor; returns how many tokens a picture is."""
    marks = {"image_token": "<image_placeholder>", "boi_token": "<begin_of_image>", "eoi_token": "<end_of_image>"}
    ids = {"<image_placeholder>": facts["image_token_id"], "<begin_of_image>": 100016, "<end_of_image>": 100593}
    tokenizer = KINDS["qwen"](16384, tuple(marks.values()), ids)
    tokenizer._set_model_specific_special_tokens(marks)
    side, count = facts["vision_config"]["image_size"], facts["vision_config"]["num_image_tokens"]
    images = JanusImageProcessorPil(size={"height": side, "width": side})
    chat = template(marks["image_token"])
    JanusProcessor(images, tokenizer, chat_template=chat, num_image_tokens=count).save_pretrained(folder)
    return count


def save_smolvlm2(folder, facts) -> int:
    """SmolVLM2's: a picture is enlarged to a width of 2,048, and read in tiles of 512 and as a whole."""
    rows = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
    marks = ("<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>", *rows)
    places = dict(zip(marks, range(49200, 49200 + len(marks)), strict=True)) | {"<image>": facts["image_token_id"]}
    tokenizer = KINDS["smollm"](8192, marks, places)
    side = facts["vision_config"]["image_size"]
    images = Idefics3ImageProcessorPil(size={"longest_edge": 4 * side}, max_image_size={"longest_edge": side})
    count = (side // facts["vision_config"]["patch_size"] // facts["scale_factor"]) ** 2
    Idefics3Processor(images, tokenizer, image_seq_len=count, chat_template=template("<image>")).save_pretrained(folder)
    as_smolvlm2(folder)
    return 5 * count


@pytest.mark.slow
@pytest.mark.parametrize(("name", "save"), [("smolvlm2-256m", save_smolvlm2), ("janus-pro-1b", save_janus)])
def test_a_checker_of_the_published_size_answers(name, save, tmp_path):
    model = checker_model(name)
    model.save_pretrained(tmp_path)
    size = sum(parameter.nbytes for parameter in model.parameters())
    del model
    facts = configuration(name)
    pieces = save(tmp_path, facts)
    checker = load_checker(tmp_path, device="cpu", dtype="auto")
    assert checker.settings["dtype"] == "bfloat16" and sum(one.nbytes for one in checker.model.parameters()) == size
    assert int((checker.inputs(PICTURE, "vehicle")["input_ids"] == facts["image_token_id"]).sum()) == pieces
    verdict = checker.check(PICTURE, "vehicle")
    assert 0 < verdict.probability < 1 and verdict.yes == (verdict.probability >= 0.5)
    assert checker.model.config.text_config.num_hidden_layers == facts["text_config"]["num_hidden_layers"]
    assert checker.model.dtype == torch.bfloat16
