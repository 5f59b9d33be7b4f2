"""The published architectures at their full size, with random weights: for timings, memory and equality without a download.

The configurations are those of the published checkpoints (``published/*.json``). What is computed has the cost and the shapes
of the real thing, and means nothing.
"""

import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DiffusionPipeline,
    KandinskyPipeline,
    KandinskyPriorPipeline,
    KandinskyV22Pipeline,
    KandinskyV22PriorPipeline,
    PriorTransformer,
    UnCLIPScheduler,
    UNet2DConditionModel,
    VQModel,
)
from diffusers.pipelines.kandinsky.text_encoder import MCLIPConfig, MultilingualCLIP
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    XLMRobertaTokenizer,
)
from transformers.initialization import no_init_weights
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from creativelib.generator import Generator
from creativelib.memory import Ledger, memory_limit
from creativelib.pipelines import freeze
from creativelib.sources import PUBLISHED, READS_TEXT, Settings, Source

FOLDER = Path(__file__).parent / "published"
FAMILIES = ("kandinsky-2.1", "kandinsky-2.2")
CHECKERS = ("janus-pro-1b", "smolvlm2-256m")
BLOCK = 1_000_003  # random numbers that weights are made of: a prime, so that rows of no width repeat
WORDS = "professional high quality photo of a an vehicle photorealistic hq alien fruit handbag".split()  # one token each
PARTS: dict[tuple[str, str], Callable[[dict], torch.nn.Module]] = {
    ("prior", "prior"): lambda facts: PriorTransformer(**facts),
    ("prior", "text_encoder"): lambda facts: CLIPTextModelWithProjection(CLIPTextConfig(**facts)),
    ("prior", "image_encoder"): lambda facts: CLIPVisionModelWithProjection(CLIPVisionConfig(**facts)),
    ("decoder", "unet"): lambda facts: UNet2DConditionModel(**facts),
    ("decoder", "movq"): lambda facts: VQModel(**facts),
    ("decoder", "text_encoder"): lambda facts: MultilingualCLIP(MCLIPConfig(**facts)),
}


@cache
def _read(name: str) -> str:
    return (FOLDER / f"{name}.json").read_text(encoding="utf-8")


def configuration(name: str) -> dict:
    """The configuration of one of ``FAMILIES`` (by pipeline and part) or of ``CHECKERS`` (as transformers reads it).

    Raises:
        ValueError: unknown name.
    """
    if name not in (*FAMILIES, *CHECKERS):
        raise ValueError(f"name: got {name!r}; choose one of {', '.join((*FAMILIES, *CHECKERS))}")
    return json.loads(_read(name))


def make_part(family: str, pipeline: str, part: str) -> torch.nn.Module:
    """One part of a family, on the current default device and in the default dtype, its weights whatever the memory holds.

    Args:
        pipeline: ``"prior"`` or ``"decoder"``. part: its name there, e.g. ``"unet"``.
    """
    with no_init_weights():
        return PARTS[pipeline, part](configuration(family)[pipeline][part])


def make_checker(name: str) -> torch.nn.Module:
    """A checker's model, as ``make_part``."""
    with no_init_weights():
        return AutoModelForImageTextToText.from_config(AutoConfig.for_model(**configuration(name)))


@torch.no_grad()
def randomise(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Random weights that keep signals at their size: norms of one, no biases, all else normal with variance 1 / inputs.

    Each parameter begins at another place of one block of numbers. Where all began at its first, queries were keys, every token
    saw itself alone, and what a prior predicted did not depend on its noise.
    """
    source = torch.Generator().manual_seed(seed)
    block = torch.randn(BLOCK, generator=source)
    for name, parameter in module.named_parameters():
        if parameter.ndim < 2 and name.endswith(("weight", "bias")):
            parameter.fill_(float(name.endswith("weight")))
            continue
        flat, scale = parameter.view(-1), (parameter.shape[0] / parameter.numel()) ** 0.5
        part = (block.roll(int(torch.randint(BLOCK, (), generator=source))) * scale).to(parameter)
        for start in range(0, len(flat), BLOCK):
            piece = flat[start : start + BLOCK]
            piece.copy_(part[: len(piece)])
    return module.eval().requires_grad_(False)


def _ready(make: Callable[..., torch.nn.Module], *names: str, dtype: torch.dtype, seed: int) -> torch.nn.Module:
    """A part with weights, in ``dtype`` from the start: no moment at which it takes twice its size."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        module = make(*names)
    finally:
        torch.set_default_dtype(before)
    return randomise(module, seed)


def byte_pairs(words: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Pieces and merges of a tokenizer of CLIP's kind that reads each of ``words`` as one token, and all else by letters."""
    symbols = sorted(ByteLevel.alphabet())
    pieces, merges = symbols + [symbol + "</w>" for symbol in symbols], []
    for word in words:
        left = word[0]
        for symbol in [*word[1:-1], word[-1] + "</w>"] if len(word) > 1 else []:
            if (left, symbol) not in merges:
                merges.append((left, symbol))
                pieces.append(left + symbol)
            left += symbol
    return list(dict.fromkeys(pieces)), merges


def clip_tokenizer() -> CLIPTokenizer:
    """A CLIP tokenizer that reads ``WORDS`` as one token each, with CLIP's own special tokens."""
    pieces, merges = byte_pairs(WORDS)
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    vocabulary |= {"<|startoftext|>": 49406, "<|endoftext|>": 49407}
    return CLIPTokenizer(vocabulary, merges, model_max_length=77)


def prior_pipeline(family: str, dtypes: dict[str, torch.dtype] | None = None, seed: int = 0) -> DiffusionPipeline:
    """diffusers' prior pipeline of a family; ``dtypes`` by part, float32 by default."""
    facts = configuration(family)["prior"]
    parts = {
        part: _ready(make_part, family, "prior", part, dtype=(dtypes or {}).get(part, torch.float32), seed=seed + number)
        for number, part in enumerate(("prior", "text_encoder", "image_encoder"))
    }
    with torch.no_grad():
        parts["prior"].clip_std.fill_(1.0)  # trained statistics that are not in the configuration
        parts["prior"].clip_mean.zero_()
    kind = KandinskyPriorPipeline if family == "kandinsky-2.1" else KandinskyV22PriorPipeline
    pipeline = kind(
        **parts,
        tokenizer=clip_tokenizer(),
        scheduler=UnCLIPScheduler(**facts["scheduler"]),
        image_processor=CLIPImageProcessorPil(),
    )
    pipeline.set_progress_bar_config(disable=True)
    return freeze(pipeline)


def decoder_pipeline(family: str, dtype: torch.dtype = torch.float32, seed: int = 3) -> DiffusionPipeline:
    """diffusers' decoder pipeline of a family."""
    facts = configuration(family)["decoder"]
    names = [part for part in ("unet", "movq", "text_encoder") if part in facts]
    parts = {
        part: _ready(make_part, family, "decoder", part, dtype=dtype, seed=seed + number) for number, part in enumerate(names)
    }
    if family == "kandinsky-2.2":
        pipeline = KandinskyV22Pipeline(**parts, scheduler=DDPMScheduler(**facts["scheduler"]))
    else:
        marks = [(mark, 0.0) for mark in ("<s>", "<pad>", "</s>", "<unk>")]
        tokenizer = XLMRobertaTokenizer([*marks, *((f"▁{word}", -1.0) for word in WORDS), ("▁", -2.0), ("<mask>", 0.0)])
        pipeline = KandinskyPipeline(**parts, tokenizer=tokenizer, scheduler=DDIMScheduler(**facts["scheduler"]))
    pipeline.set_progress_bar_config(disable=True)
    return freeze(pipeline)


def checker_model(name: str = "janus-pro-1b", dtype: torch.dtype = torch.bfloat16, seed: int = 6) -> torch.nn.Module:
    """A checker's model with random weights."""
    return _ready(make_checker, name, dtype=dtype, seed=seed)


class FullSize(Generator):
    """A generator of a published architecture with random weights; what is sampled from it says nothing.

    Args:
        family: one of ``FAMILIES``. device, dtype, memory: as ``load_generator`` takes them.
    """

    def __init__(self, family: str, device: torch.device, dtype: torch.dtype, memory: str | float | None = None):
        ledger = Ledger(device, memory_limit(memory, device))
        reads_text = PUBLISHED[family].reads_text
        source = Source(f"{family}, random", "", "", READS_TEXT if reads_text else Settings(), reads_text=reads_text)
        self.family = family
        super().__init__(source, prior_pipeline(family, {"image_encoder": dtype}), device, dtype, ledger)

    @property
    def weights(self) -> dict[str, str]:
        return {"prior": "random", "decoder": "random"}

    def _load_decoder(self) -> DiffusionPipeline:
        return decoder_pipeline(self.family, self.dtype)
