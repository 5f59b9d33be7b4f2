"""Random-weight miniatures of the vision-language models that can be a checker, each in its published layout."""

from functools import partial
from pathlib import Path

from miniature import SIDE, randomise
from miniature_tokenizers import KINDS
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3Processor,
    JanusConfig,
    JanusForConditionalGeneration,
    JanusProcessor,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextProcessor,
    LlavaProcessor,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
)
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.janus.configuration_janus import JanusVisionConfig, JanusVQVAEConfig
from transformers.models.janus.image_processing_pil_janus import JanusImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

LENGTH = 256


def template(image: str) -> str:
    """A chat template that writes ``image`` where a message has a picture."""
    return (
        "{% for message in messages %}{% for part in message['content'] %}"
        "{% if part['type'] == 'image' %}" + image + " {% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endfor %}"
    )


def language(tokenizer) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=LENGTH,
    )  # fmt: skip


def vision() -> CLIPVisionConfig:
    return CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=SIDE, patch_size=16
    )


def build_llava(folder: Path, kind: str = "clip") -> Path:
    """A Llava, its processor and a chat template, with a tokenizer of this kind: the shipped checker's is CLIP's."""
    tokenizer = KINDS[kind](LENGTH, ("<image>",))
    config = LlavaConfig(
        vision_config=vision(), text_config=language(tokenizer), image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=4, vision_feature_select_strategy="default", vision_feature_layer=-1,
    )  # fmt: skip
    randomise(LlavaForConditionalGeneration(config), seed=7, scale=0.3).save_pretrained(folder)
    images = CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    LlavaProcessor(
        images, tokenizer, patch_size=16, vision_feature_select_strategy="default", chat_template=template("<image>"),
        num_additional_image_tokens=1,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def build_llava_next(folder: Path) -> Path:
    """A LLaVA-NeXT: it sees an image whole and in tiles, so the number of image tokens depends on the image's shape."""
    tokenizer = KINDS["llama"](LENGTH, ("<image>",))
    tiles = [[SIDE, 2 * SIDE], [2 * SIDE, SIDE], [2 * SIDE, 2 * SIDE]]
    config = LlavaNextConfig(
        vision_config=vision(), text_config=language(tokenizer), image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=tiles, image_seq_length=4, vision_feature_layer=-1,
    )  # fmt: skip
    randomise(LlavaNextForConditionalGeneration(config), seed=7, scale=0.3).save_pretrained(folder)
    images = LlavaNextImageProcessorPil(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}, image_grid_pinpoints=tiles
    )
    LlavaNextProcessor(
        images, tokenizer, patch_size=16, vision_feature_select_strategy="default", chat_template=template("<image>"),
        num_additional_image_tokens=1,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def build_janus(folder: Path) -> Path:
    """A Janus: it can also draw, which its processor has to be told not to prepare for."""
    marks = {"image_token": "<image_placeholder>", "boi_token": "<begin_of_image>", "eoi_token": "<end_of_image>"}
    tokenizer = KINDS["qwen"](LENGTH, tuple(marks.values()))
    tokenizer._set_model_specific_special_tokens(marks)
    config = JanusConfig(
        text_config=language(tokenizer),
        vision_config=JanusVisionConfig(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=SIDE, patch_size=16, mlp_ratio=1.0,
            projection_dim=16, num_image_tokens=4,
        ),
        vq_config=JanusVQVAEConfig(
            embed_dim=4, num_embeddings=8, latent_channels=4, base_channels=32, channel_multiplier=(1, 1), num_res_blocks=1,
            num_patches=2, projection_dim=16, image_token_embed_dim=16,
        ),
        image_token_id=tokenizer.convert_tokens_to_ids(marks["image_token"]),
    )  # fmt: skip
    randomise(JanusForConditionalGeneration(config), seed=7, scale=0.3).save_pretrained(folder)
    images = JanusImageProcessorPil(size={"height": SIDE, "width": SIDE})
    JanusProcessor(
        images, tokenizer, chat_template=template(marks["image_token"]), num_image_tokens=4
    ).save_pretrained(folder)  # fmt: skip
    return folder


def build_smolvlm(folder: Path, second: bool = False) -> Path:
    """A SmolVLM, which is an Idefics3: tiles with row and column marks, and the whole image last; or a SmolVLM2 (``second``),
    whose files name classes of its own, and whose processor also wants packages for videos.
    """
    rows = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
    marks = ("<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>", *rows)
    tokenizer = KINDS["smollm"](LENGTH, marks)
    config = (SmolVLMConfig if second else Idefics3Config)(
        vision_config={
            "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": SIDE,
            "patch_size": 8,
        },
        text_config=language(tokenizer), image_token_id=tokenizer.convert_tokens_to_ids("<image>"), scale_factor=2,
    )  # fmt: skip
    model = SmolVLMForConditionalGeneration(config) if second else Idefics3ForConditionalGeneration(config)
    randomise(model, seed=7, scale=0.3).save_pretrained(folder)
    images = Idefics3ImageProcessorPil(size={"longest_edge": 2 * SIDE}, max_image_size={"longest_edge": SIDE})
    Idefics3Processor(images, tokenizer, image_seq_len=4, chat_template=template("<image>")).save_pretrained(folder)
    if second:
        as_smolvlm2(folder)
    return folder


def as_smolvlm2(folder: Path) -> None:
    """Let the files of an Idefics3's processor name the classes that SmolVLM2's name."""
    for path in folder.glob("*processor*.json"):
        path.write_text(path.read_text().replace("Idefics3", "SmolVLM"))


BUILDERS = {
    "pocket": build_llava,
    "llava": partial(build_llava, kind="llama"),
    "llava_next": build_llava_next,
    "janus": build_janus,
    "smolvlm": build_smolvlm,
}
