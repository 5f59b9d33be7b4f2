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
from torch import nn
from torch.nn import functional
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
from creativelib.pocket import captions, corpus, taxonomy, training
from creativelib.pocket.autoencoder import augment, to_tensor
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
NEGATIVE_KINDS = ("blend", "noise", "smear", "blob", "pasted")
# Nouns so close in meaning that a picture of one is never a "No" for another (two of the eight subjects still are).
CLOSE_NOUNS = (
    {"pet", "animal", "bird", "sea animal", "insect"},
    {"alien", "creature", "character"},
    {"person", "character", "sport", "hand", "body part", "face", "celebration", "art", "award"},
    {"plant", "flower", "vegetable", "fruit"},
    {"food", "dessert", "vegetable", "fruit", "drink", "dishware"},
    {"building", "place", "landscape"},
    {"landscape", "weather", "place", "celebration"},
    {"handbag", "clothing"},
    {"chair", "furniture"},
    {"book", "stationery", "mail", "money"},
    {"tool", "device", "science", "medicine", "instrument", "clock", "stationery", "furniture", "sport", "game"},
)
VAGUE_NOUNS = {"object"}  # never a "No": everything is an object


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


# ---------------------------------------------------------------------------------- what is true of a picture
def yes_words(record: dict) -> list[str]:
    """All that a picture may be called: its nouns, their synonyms, its label, words of it that are also tags."""
    words = list(record["nouns"])
    for noun in record["nouns"]:
        words += captions.SYNONYMS.get(noun, ())
    parts = set(record["label"].split())
    return list(dict.fromkeys([*words, record["label"], *(tag for tag in record["tags"] if tag in parts)]))


def related(one: dict, other: dict) -> bool:
    """Whether two records share a noun, a label or a tag that names either, or have nouns close in meaning."""
    if (
        set(one["nouns"]) & set(other["nouns"])
        or set(yes_words(one)) & {*yes_words(other), *other["tags"]}
        or set(yes_words(other)) & set(one["tags"])
    ):
        return True
    return one["nouns"][0] != other["nouns"][0] and any(is_close(a, b) for a in one["nouns"] for b in other["nouns"])


def is_close(noun: str, other: str) -> bool:
    """Whether two nouns are too close in meaning for one to be a "No" for the other; two of the eight never are."""
    if noun == other:
        return True
    if noun in taxonomy.SUBJECTS and other in taxonomy.SUBJECTS:
        return False
    return any(noun in group and other in group for group in CLOSE_NOUNS)


def nouns_against(noun: str, record: dict) -> list[str]:
    """The nouns of a record that ``noun`` is held against.

    Only its subjects where ``noun`` is one too: *animal*, which both carry, would keep a dinosaur from being "no pet".
    """
    subjects = [known for known in record["nouns"] if known in taxonomy.SUBJECTS]
    return subjects if subjects and noun in taxonomy.SUBJECTS else record["nouns"]


class Refusals:
    """Draws words that a picture is *not*: often one of the eight subjects, else a noun or another label."""

    def __init__(self, records: list[dict]):
        self.records = records
        self.nouns = sorted({noun for record in records for noun in record["nouns"]} - VAGUE_NOUNS)

    def draw(self, sources: list[dict], generator: torch.Generator) -> str:
        """A word that none of the ``sources`` may be called (any word when there are none)."""
        called = {word for record in sources for word in (*yes_words(record), *record["tags"])}
        for _ in range(100):
            kind = float(torch.rand(1, generator=generator))
            if kind < 0.55:
                noun = captions.pick(taxonomy.SUBJECTS, generator)
            elif kind < 0.8:
                noun = captions.pick(self.nouns, generator)
            else:
                other = captions.pick(self.records, generator)
                if other["label"] not in called and not any(related(other, record) for record in sources):
                    return other["label"]
                continue
            if noun not in called and not any(
                is_close(noun, known) for record in sources for known in nouns_against(noun, record)
            ):
                words = [word for word in captions.SYNONYMS.get(noun, (noun,)) if word not in called]
                return captions.pick(words, generator) if kind < 0.35 else noun
        return "submarine sandwich made of concrete"  # every word was near: a phrase that nothing is called


# ---------------------------------------------------------------------------------- pictures
def uniform(low: float, high: float, generator: torch.Generator) -> float:
    """One number between ``low`` and ``high``."""
    return low + (high - low) * float(torch.rand(1, generator=generator))


def blur(pixels: torch.Tensor, sigma: float) -> torch.Tensor:
    """Gaussian blur of (3, H, W) by ``sigma`` pixels, edges repeated."""
    radius = max(1, round(2.5 * sigma))
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2)
    kernel = (kernel / kernel.sum()).to(pixels)
    padded = functional.pad(pixels[:, None], (radius,) * 4, mode="replicate")
    return functional.conv2d(functional.conv2d(padded, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))[:, 0]


def resize(pixels: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """(3, H, W) to (3, *size), smoothly in both directions."""
    return functional.interpolate(pixels[None].float(), size=size, mode="bilinear", antialias=True, align_corners=False)[0]


def degrade(picture: np.ndarray, generator: torch.Generator) -> np.ndarray:
    """A mildly spoilt copy of a picture (128, 128, 3) that still shows the same thing.

    Each at random: mirrored, colour channels permuted, made smaller or moved a few pixels, blurred (sigma up to 2.5
    px), blocky, of less contrast, noisy (standard deviation up to 0.12 of the half range), its white background
    tinted.
    """
    chance = torch.rand(8, generator=generator).tolist()
    pixels = to_tensor(picture[None])[0]
    if chance[0] < 0.5:
        pixels = pixels.flip(-1)
    if chance[1] < 0.25:
        pixels = pixels[torch.randperm(3, generator=generator)]
    if chance[2] < 0.6:
        side = round(corpus.SIZE * uniform(0.75, 1.0, generator))
        free = corpus.SIZE - side
        left, top = (int(torch.randint(free + 1, (1,), generator=generator)) for _ in range(2))
        pixels = functional.pad(resize(pixels, (side, side)), (left, free - left, top, free - top), value=1.0)
    if chance[3] < 0.2:
        tint = torch.empty(3, 1, 1).uniform_(0.3, 1.0, generator=generator)
        pixels = torch.where((pixels > 0.92).all(0, keepdim=True), tint, pixels)
    if chance[4] < 0.4:
        pixels = blur(pixels, uniform(0.4, 2.5, generator))
    if chance[5] < 0.1:  # blocky, like a strongly compressed file
        pixels = functional.interpolate(functional.avg_pool2d(pixels[None], 2), scale_factor=2)[0]
    if chance[6] < 0.2:
        pixels = pixels * uniform(0.6, 1.0, generator) + uniform(-0.15, 0.15, generator)
    if chance[7] < 0.3:
        pixels = pixels + uniform(0.02, 0.12, generator) * torch.randn(pixels.shape, generator=generator)
    return to_picture(pixels)


def to_picture(pixels: torch.Tensor) -> np.ndarray:
    """(3, H, W) in [-1, 1] to a uint8 picture (H, W, 3)."""
    return pixels.clamp(-1, 1).add(1).mul(127.5).round().byte().permute(1, 2, 0).contiguous().numpy()


def blend(one: np.ndarray, other: np.ndarray, generator: torch.Generator) -> np.ndarray:
    """An alpha blend of two pictures, 35 to 65 % of each, the second one mirrored half of the time."""
    alpha = uniform(0.35, 0.65, generator)
    if float(torch.rand(1, generator=generator)) < 0.5:
        other = other[:, ::-1]
    return np.round(alpha * one + (1 - alpha) * other).astype(np.uint8)


def noise(generator: torch.Generator) -> np.ndarray:
    """Pure noise: Gaussian or uniform, in colour or grey, in grains of 1, 2 or 4 pixels, around a random colour."""
    grain = captions.pick((1, 1, 2, 4), generator)
    side = corpus.SIZE // grain
    channels = captions.pick((1, 3, 3), generator)
    drawn = torch.randn(1, channels, side, side, generator=generator) * uniform(0.3, 1.0, generator)
    if float(torch.rand(1, generator=generator)) < 0.3:
        drawn = torch.rand(1, channels, side, side, generator=generator) * 2 - 1
    centre = torch.empty(3, 1, 1).uniform_(-0.7, 0.9, generator=generator)
    return to_picture(functional.interpolate(drawn, scale_factor=grain)[0] + centre)


def smear(picture: np.ndarray, generator: torch.Generator) -> np.ndarray:
    """A picture spoilt beyond recognition: blurred by 12 to 20 px, averaged to 4 x 4 to 6 x 6, or dragged far."""
    pixels, kind = to_tensor(picture[None])[0], float(torch.rand(1, generator=generator))
    if kind < 0.35:  # at a quarter of the size, where so wide a blur loses nothing and costs a sixtieth
        quarter = blur(functional.avg_pool2d(pixels, 4), uniform(12, 20, generator) / 4)
        pixels = resize(quarter, pixels.shape[1:])
    elif kind < 0.65:
        side = captions.pick((4, 5, 6), generator)
        pixels = functional.interpolate(
            resize(pixels, (side, side))[None], size=pixels.shape[1:], mode="bicubic", align_corners=False
        )[0]
    else:
        length = int(uniform(60, 100, generator)) // 2
        kernel = (1, 2 * length + 1) if float(torch.rand(1, generator=generator)) < 0.5 else (2 * length + 1, 1)
        pad = (length, length, 0, 0) if kernel[0] == 1 else (0, 0, length, length)
        pixels = functional.avg_pool2d(functional.pad(pixels[None], pad, mode="replicate"), kernel, stride=1)[0]
        pixels = blur(pixels, uniform(1.0, 4.0, generator))
    if float(torch.rand(1, generator=generator)) < 0.3:
        pixels = pixels + 0.1 * torch.randn(pixels.shape, generator=generator)
    return to_picture(pixels)


def blob(generator: torch.Generator) -> np.ndarray:
    """Low-pass noise: soft blobs of random colours, half of the time on white."""
    side = captions.pick((3, 4, 5, 6, 8, 10), generator)
    drawn = uniform(0.4, 1.2, generator) * torch.randn(1, 3, side, side, generator=generator)
    pixels = functional.interpolate(drawn, size=(corpus.SIZE, corpus.SIZE), mode="bicubic", align_corners=False)[0]
    if float(torch.rand(1, generator=generator)) < 0.5:
        shape = torch.randn(1, 1, side, side, generator=generator)
        mask = functional.interpolate(shape, size=pixels.shape[1:], mode="bicubic", align_corners=False)[0]
        pixels = torch.lerp(torch.ones_like(pixels), pixels, (mask * 6).sigmoid())
    return to_picture(pixels)


def plain(generator: torch.Generator) -> np.ndarray:
    """A background that shows nothing: white, one colour, a gradient, stripes or fine noise."""
    kind = float(torch.rand(1, generator=generator))
    ends = torch.empty(2, 3, 1, 1).uniform_(-1, 1, generator=generator)
    ramp = torch.linspace(0, 1, corpus.SIZE)
    ramp = ramp.view(1, 1, -1) if float(torch.rand(1, generator=generator)) < 0.5 else ramp.view(1, -1, 1)
    if kind < 0.25:
        ends = torch.ones_like(ends)
    elif kind < 0.5:
        ends = ends[:1].expand(2, -1, -1, -1)
    elif kind < 0.75:
        ramp = (ramp * uniform(4, 16, generator) % 1 > 0.5).float()
    pixels = torch.lerp(ends[0], ends[1], ramp.expand(3, corpus.SIZE, corpus.SIZE))
    if kind > 0.9:
        pixels = pixels + 0.3 * torch.randn(pixels.shape, generator=generator)
    return to_picture(pixels)


def paste(motif: np.ndarray, background: np.ndarray, generator: torch.Generator) -> np.ndarray:
    """The drawn part of ``motif``, its longer side 25 to 35 % of the picture's, somewhere on ``background``."""
    rows, columns = (np.flatnonzero((motif < 245).any(-1).any(axis)) for axis in (1, 0))
    if len(rows) and len(columns):
        motif = motif[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = uniform(0.25, 0.35, generator) * corpus.SIZE / max(motif.shape[:2])
    height, width = (max(2, round(side * scale)) for side in motif.shape[:2])
    small = to_picture(resize(to_tensor(motif[None])[0], (height, width)))
    top, left = (int(torch.randint(corpus.SIZE - side + 1, (1,), generator=generator)) for side in (height, width))
    result = background.copy()
    area = result[top : top + height, left : left + width]
    drawn = (small < 245).any(-1, keepdims=True)
    area[:] = np.where(drawn, small, area)
    return result


@dataclass
class HardNegatives:
    """Pictures (N, 128, 128, 3) uint8 about which the right answer is No, one list of words and one kind for each."""

    images: np.ndarray
    subjects: list[list[str]]
    kinds: list[str]


def hard_negatives(
    images: np.ndarray,
    records: list[dict],
    count: int,
    generator: torch.Generator,
    questions: int = 1,
    weights: torch.Tensor | None = None,
) -> HardNegatives:
    """What a drifting run produces, ``count`` pictures of the ``NEGATIVE_KINDS`` in turn, ``questions`` words each.

    - *blend*: two pictures over each other, asked about something that neither is;
    - *noise*, *blob*: asked about anything;
    - *smear*: a picture beyond recognition, first asked about what it was;
    - *pasted*: a small motif on a picture of something unrelated or on a plain ground, first asked about the motif's
      subject.

    ``weights`` (N,) are the chances of each picture as a source (default: all alike). Raises ValueError on fewer
    pictures than records, or when nothing unrelated can be found to paste a motif on.
    """
    check_pictures(images)
    if len(images) != len(records) or not records:
        raise ValueError(f"images and records must be as many, at least one: got {len(images)} and {len(records)}.")
    weights = torch.ones(len(records)) if weights is None else weights
    ladder = weights.double().cumsum(0)
    refusals = Refusals(records)

    def source() -> int:
        drawn = torch.rand(1, dtype=torch.float64, generator=generator) * ladder[-1]
        return min(int(torch.searchsorted(ladder, drawn)), len(records) - 1)

    pictures, words, kinds = [], [], []
    for index in range(count):
        kind = NEGATIVE_KINDS[index % len(NEGATIVE_KINDS)]
        first, sources = [], []
        if kind == "blend":
            one, other = source(), source()
            picture, sources = blend(images[one], images[other], generator), [records[one], records[other]]
        elif kind == "noise":
            picture = noise(generator)
        elif kind == "blob":
            picture = blob(generator)
        elif kind == "smear":
            one = source()
            picture, first = smear(images[one], generator), [subject_word(records[one], generator)]
        else:
            motif = source()
            tries = 0 if float(torch.rand(1, generator=generator)) < 0.4 else 30
            host = next((h for h in (source() for _ in range(tries)) if not related(records[h], records[motif])), None)
            background = plain(generator) if host is None else images[host]
            picture, first = paste(images[motif], background, generator), [subject_word(records[motif], generator)]
            sources = [records[motif]] + ([] if host is None else [records[host]])
        pictures.append(picture)
        words.append(first + [refusals.draw(sources, generator) for _ in range(questions - len(first))])
        kinds.append(kind)
    stacked = np.stack(pictures) if pictures else np.empty((0, corpus.SIZE, corpus.SIZE, 3), np.uint8)
    return HardNegatives(stacked, [w[:questions] for w in words], kinds)


def subject_word(record: dict, generator: torch.Generator) -> str:
    """What a picture is asked about when the answer is Yes: mostly its first noun, else any of its words."""
    return (
        record["nouns"][0] if float(torch.rand(1, generator=generator)) < 0.6 else captions.pick(yes_words(record), generator)
    )


# ---------------------------------------------------------------------------------- training
class Eyes(nn.Module):
    """A vision tower with read-outs of ImageNet features (f) and of nouns from its mean patch; they are not shipped."""

    def __init__(self, tower: nn.Module, features: int, nouns: int):
        super().__init__()
        width = tower.config.hidden_size
        self.tower = tower
        self.norm = nn.LayerNorm(width)
        self.read_features = nn.Linear(width, features)
        self.read_noun = nn.Linear(width, nouns)

    def loss(self, visual: torch.Tensor, features: torch.Tensor, nouns: torch.Tensor) -> tuple[torch.Tensor, dict[str, float]]:
        """How far patches (N, P, width) are from telling features (N, f) and noun indices (N,); and figures to show."""
        seen = self.norm(visual.mean(1))
        read = self.read_features(seen).float()
        distil = functional.mse_loss(read, features)
        # features of one picture must also be nearer to it than those of the others: a sharper signal than the distance
        alike = 20 * functional.normalize(read, dim=-1) @ functional.normalize(features, dim=-1).T
        agree = functional.cross_entropy(alike, torch.arange(len(alike), device=alike.device))
        named = self.read_noun(seen).float()
        noun = functional.cross_entropy(named, nouns, label_smoothing=0.1)
        hit = (named.detach().argmax(1) == nouns).float().mean()
        return distil + 0.3 * agree + 0.5 * noun, {"distil": float(distil.detach()), "noun_hit": float(hit)}


class Learner(nn.Module):
    """What the second stage trains: the checker, and the read-outs of its eyes."""

    def __init__(self, checker: LlavaForConditionalGeneration, eyes: Eyes):
        super().__init__()
        self.checker, self.eyes = checker, eyes


@torch.no_grad()
def initialise_eyes(tower: nn.Module, images: np.ndarray, generator: torch.Generator) -> None:
    """A start that knows pictures, because so few are there to learn from.

    Patches are projected on their principal components, positions start as sines, and attention layers start near what
    trained ones look like (Trockman & Kolter, *Mimetic initialization of self-attention layers*, 2023).
    """
    embeddings, width = tower.embeddings, tower.config.hidden_size
    chosen = torch.randint(len(images), (512,), generator=generator).numpy()
    patches = functional.unfold(to_tensor(images[chosen]).contiguous(), PATCH, stride=PATCH).transpose(1, 2).flatten(0, 1)
    mean = patches.mean(0)
    values, vectors = torch.linalg.eigh((patches - mean).T @ (patches - mean) / len(patches))
    rows = vectors[:, -width:].T * values[-width:, None].clamp(min=1e-4) ** -0.25  # half-way to whitened
    rotation, _ = torch.linalg.qr(torch.randn(width, width, generator=generator))
    rows = rotation @ rows
    rows = 0.5 * rows / ((patches - mean) @ rows.T).std()
    embeddings.patch_embedding.weight.copy_(rows.unflatten(1, (3, PATCH, PATCH)))
    side = corpus.SIZE // PATCH
    rates = 10.0 ** -torch.linspace(0, 1.5, width // 4)
    angles = torch.arange(side)[:, None] * rates * 1.5
    waves = torch.cat([angles.sin(), angles.cos()], 1)  # (side, width / 2)
    grid = torch.cat([waves[:, None].expand(-1, side, -1), waves[None].expand(side, -1, -1)], -1).flatten(0, 1)
    embeddings.position_embedding.weight[1:] = 0.3 * grid - rows @ mean
    for layer in tower.encoder.layers:
        attention = layer.self_attn
        head = width // tower.config.num_attention_heads
        for start in range(0, width, head):
            noise = torch.randn(width, width, generator=generator) / width**0.5
            left, size, right = torch.linalg.svd(0.7 * noise + 0.7 * torch.eye(width))
            root = size[:head].sqrt()[:, None]
            attention.q_proj.weight[start : start + head] = root * left[:, :head].T
            attention.k_proj.weight[start : start + head] = root * right[:head]
        noise = torch.randn(width, width, generator=generator) / width**0.5
        left, size, right = torch.linalg.svd(0.4 * noise - 0.4 * torch.eye(width))
        attention.v_proj.weight.copy_(size.sqrt()[:, None] * right)
        attention.out_proj.weight.copy_(left * size.sqrt())


def some_patches(share: float, generator: torch.Generator) -> torch.Tensor | None:
    """Indices, in order, of a random ``share`` of the patches; None for all of them."""
    if share >= 1:
        return None
    return torch.randperm(IMAGE_TOKENS, generator=generator)[: max(1, round(IMAGE_TOKENS * share))].sort().values


def visual_tokens(tower: nn.Module, pixels: torch.Tensor, kept: torch.Tensor | None = None) -> torch.Tensor:
    """Last hidden states of the patches (N, P, width), no class token; of the patches ``kept`` (P,) only, if given.

    Half of the patches cost half of the time and are enough to learn from (Liu et al., *PatchDropout*, 2022).
    """
    hidden = tower.embeddings(pixels)
    if kept is not None:
        hidden = torch.cat([hidden[:, :1], hidden[:, 1:][:, kept.to(hidden.device)]], 1)
    return tower.encoder(inputs_embeds=tower.pre_layrnorm(hidden)).last_hidden_state[:, 1:]


def packed_answers(
    model: LlavaForConditionalGeneration,
    visual: torch.Tensor,
    questions: torch.Tensor,
    kept: torch.Tensor | None = None,
) -> torch.Tensor:
    """Hidden states of several questions about each picture at the cost of one sequence: (N, K, L, width).

    ``visual`` are patches (N, P, v), ``questions`` token ids (N, K, L) padded on the right. Every question sees the
    picture and itself, never another question, and counts its positions from the picture on, exactly as when asked
    alone.
    """
    count, asked, length = questions.shape
    picture = model.model.multi_modal_projector(visual)
    words = model.get_input_embeddings()(questions).flatten(1, 2)
    device, patches = visual.device, visual.shape[1]
    segment = torch.arange(asked, device=device).repeat_interleave(length)
    segment = torch.cat([torch.full((patches,), -1, device=device), segment])
    order = torch.arange(len(segment), device=device)
    sees = (order[None] <= order[:, None]) & ((segment[None] == -1) | (segment[None] == segment[:, None]))
    where = torch.arange(patches, device=device) if kept is None else kept.to(device)
    after = IMAGE_TOKENS + torch.arange(length, device=device)
    positions = torch.cat([where, after.repeat(asked)])
    hidden = model.model.language_model(
        inputs_embeds=torch.cat([picture, words.to(picture.dtype)], 1),
        attention_mask=sees[None, None].expand(count, 1, -1, -1),
        position_ids=positions[None].expand(count, -1),
        use_cache=False,
    ).last_hidden_state
    return hidden[:, patches:].unflatten(1, (asked, length))


def dialogue(word: str, answer: str | None, generator: torch.Generator | None = None, label: str = "") -> str:
    """A question about ``word`` and its answer as the chat template writes them; None asks for the kind."""
    if answer is None:
        return f"{USER}{KIND_QUESTION.format(x=word)}{ASSISTANT}{label}{END}"
    question = QUESTION
    if generator is not None and float(torch.rand(1, generator=generator)) < 0.1:
        question = captions.pick(OTHER_QUESTIONS, generator)
    return f"{USER}{question.format(a=with_article(word))}{ASSISTANT}{answer}{END}"


def train(
    images: np.ndarray,
    records: list[dict],
    features: torch.Tensor,
    work: Path,
    device: str,
    steps: int,
    batch: int = 32,
    seed: int = 0,
    eye_steps: int | None = None,
    patch_share: float = 0.4,
) -> Checking:
    """Train a checker on the training split and save it to ``work/shipped/checker``.

    First the vision tower alone, for ``eye_steps`` (default: ``steps``) of 64 pictures, learns to tell ``features``
    (N, f), the ImageNet features of all ``images``, and the noun; then all learns to answer, for ``steps`` of
    ``batch`` pictures, a quarter of them hard negatives. Only ``patch_share`` of the patches are seen, until the last
    quarter of the steps. Resumable. Raises ValueError when images, records and features are not as many, or no record
    is of the training split.
    """
    check_pictures(images)
    if not len(images) == len(records) == len(features):
        raise ValueError(f"images, records and features must be as many: got {len(images)}, {len(records)}, {len(features)}.")
    kept, known, weights = training.training_split(records)
    if not known:
        raise ValueError('No record has the split "train": build the corpus with make pocket-corpus.')
    shown = images[kept.numpy()]
    seen = features[kept].float()
    seen = ((seen - seen.mean(0)) / (seen.std(0, correction=0) + 1e-3)).clamp(-6, 6)
    names = sorted({record["nouns"][0] for record in known})
    nouns = torch.tensor([names.index(record["nouns"][0]) for record in known])
    phrases = [word for record in known for word in (record["label"], *record["nouns"])]
    phrases += 20 * [word for words in captions.SYNONYMS.values() for word in words] + captions.all_phrases(known)
    tokenizer = train_tokenizer(phrases)
    processor = build_processor(tokenizer)
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # the initial weights; everything after draws from its own generator
        model = build(tokenizer)
        initialise_eyes(model.model.vision_tower, shown, training.step_generator(seed, 0))
        eyes = Eyes(model.model.vision_tower, seen.shape[1], len(names))
        learner = Learner(model, eyes).to(device)
    eye_steps = steps if eye_steps is None else eye_steps
    refusals = Refusals(known)
    assistant = tokenizer.convert_tokens_to_ids(ASSISTANT)
    yes, no = answer_ids(tokenizer)
    bad = batch // 4
    real = batch - bad
    asked = 4

    def eye_loss(eyes: Eyes, generator: torch.Generator, step: int) -> tuple[torch.Tensor, dict]:
        rows = torch.multinomial(weights, min(64, 2 * batch), replacement=True, generator=generator)
        pixels = to_tensor(augment(shown[rows.numpy()], generator)).to(device)
        across, down = torch.randint(-8, 9, (2,), generator=generator).tolist()
        pixels = functional.pad(pixels, (across, -across, down, -down), value=1.0)
        pixels = pixels + 0.05 * torch.randn(pixels.shape, generator=generator).to(device)
        visual = visual_tokens(eyes.tower, pixels, some_patches(patch_share, generator))
        return eyes.loss(visual, seen[rows].to(device), nouns[rows].to(device))

    def loss_of(learner: Learner, generator: torch.Generator, step: int) -> tuple[torch.Tensor, dict]:
        rows = torch.multinomial(weights, real, replacement=True, generator=generator)
        pictures = [degrade(shown[row], generator) for row in rows.tolist()]
        talks = []
        for row in rows.tolist():
            record = known[row]
            other = refusals.draw([record], generator)
            talks += [dialogue(subject_word(record, generator), "Yes", generator), dialogue(other, "No", generator)]
            if float(torch.rand(1, generator=generator)) < 0.5:
                talks.append(dialogue(captions.pick(yes_words(record), generator), "Yes", generator))
            else:
                talks.append(dialogue(refusals.draw([record], generator), "No", generator))
            kind = other if float(torch.rand(1, generator=generator)) < 0.1 else captions.pick(record["nouns"], generator)
            talks.append(dialogue(kind, None, label=record["label"]))
        negatives = hard_negatives(shown, known, bad, generator, asked, weights)
        talks += [dialogue(word, "No", generator) for words in negatives.subjects for word in words]
        tokens = tokenizer(talks, padding=True, padding_side="right", return_tensors="pt").input_ids
        tokens = tokens[:, :MAX_DIALOGUE].unflatten(0, (batch, asked)).to(device)
        pixels = to_tensor(np.concatenate([np.stack(pictures), negatives.images])).to(device)

        patches = some_patches(patch_share if step < 0.75 * steps else 1.0, generator)
        model = learner.checker
        visual = visual_tokens(model.model.vision_tower, pixels, patches)
        # words that know nothing yet would teach the eyes nonsense: at first they learn to read what is seen
        shown_to_words = visual.detach() if step < 0.3 * steps else visual
        hidden = packed_answers(model, shown_to_words, tokens, patches)
        # every token after the assistant's mark is to be foretold from the one before it
        answered = ((tokens == assistant).cumsum(-1) > 0)[..., :-1] & (tokens[..., 1:] != tokenizer.pad_token_id)
        target = tokens[..., 1:][answered]
        logits = model.lm_head(hidden[..., :-1, :][answered]).float()
        each = functional.cross_entropy(logits, target, reduction="none")
        positive, negative = target == yes, target == no
        verdict = 0.5 * (each[positive].mean() + each[negative].mean())  # balanced, whatever their counts
        naming = each[~positive & ~negative].mean()
        sight, sight_figures = learner.eyes.loss(visual[:real], seen[rows].to(device), nouns[rows].to(device))
        loss = 2 * verdict + 0.3 * naming + sight
        said = logits.detach()[:, yes] > logits.detach()[:, no]
        figures = {"verdict": float(verdict.detach()), "naming": float(naming.detach()), **sight_figures}
        figures |= {"yes": float(said[positive].float().mean()), "no": float((~said[negative]).float().mean())}
        return loss, figures

    options = {"work": work, "seed": seed, "ema_decay": 0.99, "weight_decay": 0.05}
    training.train("checker-eyes", eyes, eye_loss, steps=eye_steps, peak_lr=1.5e-3, **options)
    learner.train()
    training.train("checker", learner, loss_of, steps=steps, peak_lr=1e-3, **options)
    model = learner.checker.to("cpu").eval()
    save(model, processor, Path(work) / "shipped" / "checker")
    return Checking(model, processor)
