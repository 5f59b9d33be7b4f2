"""The checker of Pocket Kandinsky: a tiny LLaVA, asked "Is this still a vehicle? Yes or No." (sections 5.3, S2.4).

A vision transformer and a language model of together 2.5 M parameters behind the interface of every larger checker
(``AutoModelForImageTextToText`` + ``AutoProcessor`` with a chat template). It shares no weights with the CLIP pair,
so that what fools the anchor loss need not fool the checker. It learns from the corpus, from mildly spoilt copies of
it (a decoder draws softer than the corpus), and from what a drifting run produces: blends, noise, smears, a small
motif on something else.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from creativelib.generator import with_article
from creativelib.pocket import corpus
from creativelib.pocket.clip import image_processor

PATCH = 16
IMAGE_TOKENS = (corpus.SIZE // PATCH) ** 2
VOCABULARY = 1536
MAX_DIALOGUE = 24  # tokens of a question and its answer in training; longer labels are cut
QUESTION = "Is this still {a}? Yes or No."
KIND_QUESTION = "What kind of {x} is in this photo?"
OTHER_QUESTIONS = (
    "Is this {a}? Yes or No.",
    "Is this {a}?",
    "Is it {a}? Answer Yes or No.",
    "Is there {a} in this photo? Yes or No.",
)
IMAGE_TOKEN, USER, ASSISTANT, END, PAD = "<image>", "<|user|>", "<|assistant|>", "<|end|>", "<|pad|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% set content = message['content'] %}"
    "{% set parts = [{'type': 'text', 'text': content}] if content is string else content %}"
    "{% for part in parts if part['type'] == 'image' %}<image>{% endfor %}"
    "{{ '<|assistant|>' if message['role'] == 'assistant' else '<|user|>' }}"
    "{% for part in parts if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}"
    "{% if message['role'] == 'assistant' %}<|end|>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


# ---------------------------------------------------------------------------------- tokenizer and model
def train_tokenizer(phrases: list[str]) -> PreTrainedTokenizerFast:
    """A lower-casing byte-level BPE tokenizer made from ``phrases``; any text tokenises.

    ``Yes`` and ``No`` are single tokens of their own, with or without a space before them. Pads on the left, so that
    the answer of every prompt of a batch comes after its last position.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY - 7, initial_alphabet=alphabet, show_progress=False)
    questions = [
        question.format(a=f"{article} thing", x="thing")
        for question in (QUESTION, KIND_QUESTION, *OTHER_QUESTIONS)
        for article in ("a", "an")
    ]
    tokenizer.train_from_iterator(phrases + 50 * questions, trainer)
    special = {"pad_token": PAD, "eos_token": END}
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, padding_side="left", model_max_length=256, **special)
    wrapped.add_special_tokens({"additional_special_tokens": [IMAGE_TOKEN, USER, ASSISTANT]})
    # as words of their own before the lower-casing, or "Yes" could come out as "yes" or in two pieces
    wrapped.add_tokens([AddedToken(word, single_word=True, lstrip=True, normalized=False) for word in ("Yes", "No")])
    return wrapped


def answer_ids(tokenizer) -> tuple[int, int]:
    """Token ids of ``Yes`` and ``No``. Raises ValueError if either is not a single token."""
    ids = [tokenizer.encode(word, add_special_tokens=False) for word in ("Yes", "No")]
    if any(len(pieces) != 1 for pieces in ids):
        raise ValueError(f"The tokenizer splits Yes or No into pieces ({ids}): use a tokenizer that keeps each whole.")
    return ids[0][0], ids[1][0]


def build_processor(tokenizer: PreTrainedTokenizerFast) -> LlavaProcessor:
    """Tokenizer, image processor and chat template in one; 64 image tokens a picture."""
    return LlavaProcessor(
        image_processor=image_processor(),
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,  # the class token, which the "default" strategy drops again
        chat_template=CHAT_TEMPLATE,
        image_token=IMAGE_TOKEN,
    )


def build(tokenizer: PreTrainedTokenizerFast) -> LlavaForConditionalGeneration:
    """A new checker for ``tokenizer``: 4 vision layers of width 160, 3 language layers of width 128."""
    vision = CLIPVisionConfig(
        hidden_size=160,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=corpus.SIZE,
        patch_size=PATCH,
        projection_dim=128,
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=192,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=vision,
            text_config=text,
            image_token_index=tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
            image_seq_length=IMAGE_TOKENS,
            vision_feature_layer=-1,
            vision_feature_select_strategy="default",
            tie_word_embeddings=True,
        )
    )
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model


@dataclass
class Checking:
    """A loaded checker: ``model`` (float32) and its ``processor``."""

    model: LlavaForConditionalGeneration
    processor: LlavaProcessor


def save(model: LlavaForConditionalGeneration, processor: LlavaProcessor, folder: Path) -> None:
    """Write a checker in half precision to ``folder``; the model that was passed in stays as it is."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    dtype = next(model.parameters()).dtype
    model.half().save_pretrained(folder)
    model.to(dtype)
    processor.save_pretrained(folder)


def load(folder: Path, device: str = "cpu") -> Checking:
    """Load a saved checker by the Auto classes, offline. Raises FileNotFoundError when ``folder`` holds none."""
    folder = Path(folder)
    if not (folder / "config.json").exists():
        raise FileNotFoundError(f"There is no checker in {folder}. Train it with: make pocket")
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
    return Checking(model.to(device).eval(), processor)


# ---------------------------------------------------------------------------------- asking
def check_pictures(images: np.ndarray, name: str = "images") -> None:
    """Raise ValueError unless ``images`` is a uint8 array (N, H, W, 3)."""
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        got = f"{images.dtype} {images.shape}" if isinstance(images, np.ndarray) else type(images).__name__
        raise ValueError(f"{name} must be a uint8 array of shape (N, H, W, 3), got {got}: stack RGB pictures with numpy.stack.")


@torch.no_grad()
def answer_logits(model, processor, images: np.ndarray, subjects: list[str] | str, batch: int = 64) -> torch.Tensor:
    """Logits of *Yes* and of *No* as the first new token of "Is this still a {subject}? Yes or No.": (N, 2) float32.

    ``images`` are uint8 (N, H, W, 3); ``subjects`` holds one word or phrase for each picture, or is one for all.
    Works with any model and processor that follow the same interface. Raises ValueError when the shapes or counts do
    not fit.
    """
    check_pictures(images)
    subjects = [subjects] * len(images) if isinstance(subjects, str) else list(subjects)
    if len(subjects) != len(images):
        raise ValueError(f"subjects must hold one phrase for each of the {len(images)} images, got {len(subjects)}.")
    if any(not subject.strip() for subject in subjects):
        raise ValueError("subjects must not hold an empty phrase.")
    ids = list(answer_ids(processor.tokenizer))
    device, parts = next(model.parameters()).device, [torch.empty(0, 2)]
    for start in range(0, len(images), batch):
        prompts = []
        for subject in subjects[start : start + batch]:
            question = QUESTION.format(a=with_article(subject))
            content = [{"type": "image"}, {"type": "text", "text": question}]
            message = [{"role": "user", "content": content}]
            prompts.append(processor.apply_chat_template(message, add_generation_prompt=True, tokenize=False))
        inputs = processor(images=list(images[start : start + batch]), text=prompts, padding=True, return_tensors="pt").to(
            device
        )
        parts.append(model(**inputs, logits_to_keep=1).logits[:, -1, ids].float().cpu())
    return torch.cat(parts)


def probability_of_yes(checking: Checking, images: np.ndarray, subjects: list[str] | str, batch: int = 64) -> np.ndarray:
    """P(Yes) against No for each picture, (N,) float64; arguments as in ``answer_logits``."""
    logits = answer_logits(checking.model, checking.processor, images, subjects, batch)
    return (logits[:, 0] - logits[:, 1]).double().sigmoid().numpy()
