"""diffusers' pipelines: loaded by folder or hub id, checked for their parts, frozen."""

from collections.abc import Sequence
from types import SimpleNamespace

import torch
import transformers
from diffusers import DiffusionPipeline

from creativelib.loading import load_pretrained

PRIOR_PARTS = ("prior", "text_encoder", "image_encoder", "tokenizer", "scheduler")
DECODER_PARTS = ("unet", "movq", "scheduler")


def load_pipeline(where: str, revision: str, parts: Sequence[str], dtypes: dict[str, torch.dtype]) -> DiffusionPipeline:
    """One pipeline by folder or hub id, in the computer's own memory, each part in its own dtype (by name, else "default").

    Raises:
        OSError: it cannot be loaded, or has not the ``parts`` that it must have.
    """

    def load(where: str, **options) -> DiffusionPipeline:
        listed = DiffusionPipeline.load_config(where, **options)
        if "image_encoder" in listed and "image_processor" not in listed:
            options["image_processor"] = transformers.CLIPImageProcessor()  # early releases of the 2.1 prior do not list it
        return DiffusionPipeline.from_pretrained(where, dtype=dtypes, **options)

    pipeline = load_pretrained("model", where, "model_index.json", load, revision)
    absent = [part for part in parts if getattr(pipeline, part, None) is None]
    if absent:
        raise OSError(
            f"model: {where} is a {type(pipeline).__name__} without {', '.join(absent)}; Kandinsky's pipelines have it"
        )
    pipeline.set_progress_bar_config(disable=True)
    return freeze(pipeline)


def freeze(pipeline: DiffusionPipeline) -> DiffusionPipeline:
    """No parameter learns by accident: diffusers leaves even ``clip_mean`` and ``clip_std`` of the prior trainable."""
    for module in pipeline.components.values():
        if isinstance(module, torch.nn.Module):
            module.eval().requires_grad_(False)
    return pipeline


def repair_pooling(text_encoder: torch.nn.Module, eos_token_id: int) -> None:
    """Pool at the end-of-text token.

    Old CLIP configurations say ``eos_token_id = 2``, and then transformers pools at the *largest* id of the prompt: right
    until a token is added, whose id is larger still and is pooled instead.
    """
    if text_encoder.config.eos_token_id == 2 != eos_token_id:
        text_encoder.config.eos_token_id = eos_token_id
        getattr(text_encoder, "text_model", SimpleNamespace()).eos_token_id = eos_token_id
