"""Weights of a UNet in a quarter of their room: matrices and filters as whole numbers of eight bits, one scale for each output.

The largest weight of an output becomes 127, so each is off by at most 1/254 of it. Biases and norms stay in half precision. It
is a form to keep on disk: what is loaded computes in float32.
"""

import json
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file

FILE = "eight_bits.safetensors"  # beside diffusers' own config.json
SCALE = ".scale"


def pack(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """State of a model -> what is kept: int8 of the same shape and a float32 scale (outputs, 1, ...) for each tensor with more
    than one dimension, float16 for the others.
    """
    packed = {}
    for name, tensor in state.items():
        tensor = tensor.detach().float().cpu()
        if tensor.ndim < 2:
            packed[name] = tensor.half()
            continue
        scale = tensor.abs().amax(dim=tuple(range(1, tensor.ndim)), keepdim=True) / 127
        packed |= {name: (tensor / scale.clamp_min(torch.finfo(torch.float32).tiny)).round().char(), name + SCALE: scale}
    return packed


def unpack(packed: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state, in float32, of what ``pack`` made."""
    weights = {name: tensor.float() for name, tensor in packed.items() if not name.endswith(SCALE)}
    return {name: tensor * packed.get(name + SCALE, 1.0) for name, tensor in weights.items()}


def save_unet(model: UNet2DConditionModel, folder: Path) -> None:
    """Write ``config.json`` and the weights."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_config(folder)
    save_file({name: tensor.contiguous() for name, tensor in pack(model.state_dict()).items()}, folder / FILE)


def load_unet(folder: str | Path) -> UNet2DConditionModel:
    """The UNet that ``save_unet`` wrote, in float32.

    Raises:
        OSError, SafetensorError, RuntimeError, ValueError: a file is missing or damaged, or belongs to another UNet.
    """
    folder = Path(folder)
    model = UNet2DConditionModel.from_config(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    model.load_state_dict(unpack(load_file(folder / FILE)))
    return model.eval()
