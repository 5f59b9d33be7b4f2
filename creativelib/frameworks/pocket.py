"""The shipped one-step model: a UNet of its own, and the text encoder, autoencoder and eyes of Pocket Kandinsky.

Only the UNet lies in its folder (``eight_bits``); together they are a ``StableDiffusionPipeline`` as it is, which its
``save_pretrained`` writes whole.
"""

import hashlib
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, TCDScheduler, VQModel
from transformers import (
    CLIPImageProcessor,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionModelWithProjection,
)

from creativelib.frameworks.eight_bits import load_unet
from creativelib.frameworks.one_step import Eyes
from creativelib.loading import load_pretrained
from creativelib.storage import read_json
from creativelib.weights import folder_digest

FOLDER = "pocket-one-step"  # beside the folder of Pocket Kandinsky
LEARNED_FROM = {"latents": "decoder/movq", "text": "prior/text_encoder"}  # parts that the UNet was trained with
CERTAIN = -30.0  # log variance of a posterior that is a point


def scheduler() -> TCDScheduler:
    """One step from pure noise to the clean latents themselves, which the UNet predicts; no noise is added."""
    return TCDScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="sample", steps_offset=1)


@torch.no_grad()
def kl_autoencoder(movq: VQModel) -> AutoencoderKL:
    """The same autoencoder in the form that Stable Diffusion's pipelines take: equal latents (its posterior is a point), equal
    pictures without the codebook.

    Raises:
        ValueError: it has parts that the other form has not.
    """
    facts = movq.config
    if facts.norm_type != "group" or facts.vq_embed_dim not in (None, facts.latent_channels):
        raise ValueError(
            "movq: without group norms, or with a codebook of another width, it has not the form of an AutoencoderKL"
        )
    names = (
        "in_channels", "out_channels", "down_block_types", "up_block_types", "block_out_channels", "layers_per_block", "act_fn",
        "latent_channels", "norm_num_groups", "sample_size", "mid_block_add_attention",
    )  # fmt: skip
    model = AutoencoderKL(**{name: facts[name] for name in names}, scaling_factor=1.0)
    state, count = dict(movq.state_dict()), facts.latent_channels
    state = {name: tensor for name, tensor in state.items() if not name.startswith("quantize.")}
    for layer, certain in (("encoder.conv_out", 0.0), ("quant_conv", CERTAIN)):  # the second half says the log variance
        weight, bias = state[f"{layer}.weight"], state[f"{layer}.bias"]
        wide = weight.new_zeros(2 * count, model.get_submodule(layer).in_channels, *weight.shape[2:])
        wide[:count, : weight.shape[1]] = weight
        state |= {f"{layer}.weight": wide, f"{layer}.bias": torch.cat([bias, torch.full_like(bias, certain)])}
    model.load_state_dict(state)
    return model.eval()


def marks(movq: VQModel, text_encoder: CLIPTextModelWithProjection) -> dict[str, str]:
    """What tells the latents and the hidden states that a UNet learned from those of other weights; the half of the autoencoder
    that decodes may change, it does not change the latents.
    """

    def digest(*tensors: torch.Tensor) -> str:
        return hashlib.sha256(b"".join(tensor.detach().half().cpu().numpy().tobytes() for tensor in tensors)).hexdigest()[:16]

    quant = movq.quant_conv
    return {"latents": digest(quant.weight, quant.bias), "text": digest(*text_encoder.state_dict().values())}


def assemble(model: Path, student: Path) -> tuple[StableDiffusionPipeline, Eyes]:
    """Pipeline and eyes, in float32.

    Args:
        model: the folder of Pocket Kandinsky. student: that of the one-step UNet.

    Raises:
        OSError: files are missing or damaged, or the UNet was trained with other parts than those of ``model``.
    """

    def load(kind: type, folder: Path, index: str = "config.json"):
        options = {"dtype": torch.float32} if issubclass(kind, torch.nn.Module) else {}
        return load_pretrained("model", str(folder), index, lambda where: kind.from_pretrained(where, **options))

    if not (student / "unet").is_dir():
        raise FileNotFoundError(
            f"{student} holds no unet/: fetch the whole repository, or run the stage 'one-step' of 'make pocket'"
        )
    prior = model / "prior"
    movq, text = load(VQModel, model / "decoder" / "movq"), load(CLIPTextModelWithProjection, prior / "text_encoder")
    learned, found = read_json(student / "one_step.json").get("learned_from", {}), marks(movq, text)
    if other := [name for name, mark in found.items() if learned.get(name) != mark]:
        parts = " and ".join(LEARNED_FROM[name] for name in other)
        raise OSError(f"model: {student} was trained with another {parts} than {model} has; run the stage 'one-step' again")
    pipeline = StableDiffusionPipeline(
        vae=kl_autoencoder(movq),
        text_encoder=load(CLIPTextModel, prior / "text_encoder"),
        tokenizer=load(CLIPTokenizer, prior / "tokenizer", "tokenizer_config.json"),
        unet=load_pretrained("model", str(student / "unet"), "config.json", load_unet),
        scheduler=load(TCDScheduler, student / "scheduler", "scheduler_config.json"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    processor = load(CLIPImageProcessor, prior / "image_processor", "preprocessor_config.json")
    return pipeline, Eyes(load(CLIPVisionModelWithProjection, prior / "image_encoder"), text, processor)


def weights(model: Path, student: Path) -> dict[str, str]:
    """Which weights its parts have, by what they are."""
    folders = {"vae": model / "decoder" / "movq", "unet": student / "unet", "scheduler": student / "scheduler"}
    folders |= {part: model / "prior" / part for part in ("text_encoder", "tokenizer", "image_encoder")}
    return {part: folder_digest(folder) for part, folder in folders.items()}
