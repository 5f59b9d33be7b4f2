"""The autoencoder of Pocket Kandinsky: diffusers' ``VQModel``, 128 px to 16 x 16 x 8 latents of unit variance.

Trained without its codebook, as the Kandinsky decoders use it (``force_not_quantize=True``): L1, edges, and a perceptual
distance on early ImageNet features, all on 64 px crops. Later, when the latents must no longer change, ``pixels`` trains the
decoding half alone.
"""

from pathlib import Path

import numpy as np
import torch
from diffusers import VQModel
from torch import nn
from torch.nn import functional

from creativelib.pocket import corpus, teachers, training

LATENT_CHANNELS = 8
COLOURS_WEIGHT = 5.0  # of the linear read-back of the colours beside the reconstruction
CROP = 64
"""Side of the crops that it is trained on, in pixels: 8 x 8 latents."""


def build() -> VQModel:
    """A new autoencoder, 2.6 M parameters."""
    return VQModel(
        block_out_channels=(16, 32, 64, 128),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        vq_embed_dim=LATENT_CHANNELS,
        num_vq_embeddings=16,  # present in the format, unused
        norm_num_groups=8,
        sample_size=corpus.SIZE,
        mid_block_add_attention=False,
    )


def to_tensor(images: np.ndarray) -> torch.Tensor:
    """uint8 (N, H, W, 3) to float in [-1, 1], (N, 3, H, W)."""
    return (
        torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0).contiguous(memory_format=torch.channels_last)
    )


def to_images(pixels: torch.Tensor) -> np.ndarray:
    """The inverse of ``to_tensor``."""
    return pixels.clamp(-1, 1).add(1).mul(127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()


def augment(images: np.ndarray, generator: torch.Generator) -> np.ndarray:
    """Mirror every second picture and permute the colour channels of every fourth: more colours than the sets have."""
    images = images.copy()
    draws = torch.rand(len(images), 2, generator=generator).numpy()
    for i, (mirror, colour) in enumerate(draws):
        if mirror < 0.5:
            images[i] = images[i][:, ::-1]
        if colour < 0.25:
            images[i] = images[i][..., torch.randperm(3, generator=generator).numpy()]
    return images


def reconstruction_loss(pixels: torch.Tensor, target: torch.Tensor, perceptual: nn.Module) -> tuple[torch.Tensor, dict]:
    """L1 + L1 of the finite differences (edges) + perceptual distance + mean colour; (N, 3, H, W) each.

    Without the colour term shapes come out sharp within minutes while rare hues stay brown and grey for hours.
    """
    l1 = functional.l1_loss(pixels, target)
    colour = (
        (functional.avg_pool2d(pixels - target, 4) - functional.avg_pool2d(pixels - target, 4).mean(1, keepdim=True))
        .abs()
        .mean()
    )
    edges = sum(functional.l1_loss(pixels.diff(dim=d), target.diff(dim=d)) for d in (2, 3))
    features = perceptual(pixels, target)
    mse = functional.mse_loss(pixels.detach(), target)
    return l1 + edges + 0.3 * features + 4 * colour, {
        "psnr": float(10 * torch.log10(4 / mse)),
        "features": float(features.detach()),
        "colour": float(colour.detach()),
    }


def worth_seeing(drawn: np.ndarray, generator: torch.Generator, grid: int) -> tuple[int, int]:
    """Top left corner, in multiples of ``grid`` pixels, of a crop that shows something; ``drawn`` (H, W) is true off white."""
    places = (corpus.SIZE - CROP) // grid + 1
    for _ in range(4):
        top, left = (grid * torch.randint(places, (2,), generator=generator)).tolist()
        if drawn[top : top + CROP, left : left + CROP].mean() > 0.3:
            break
    return top, left


def train(
    images: np.ndarray,
    work: Path,
    device: str,
    steps: int,
    peak_lr: float = 2e-3,
    seed: int = 0,
    warm: VQModel | None = None,
) -> VQModel:
    """Both halves, from ``warm`` or anew; ``images`` are the training pictures, uint8 (N, 128, 128, 3).

    The colours, averaged over the 8 px of a latent, must be read back from the latents by a *linear* map. Left to itself the
    encoder hid green so deep (3.6 % of its variance was linear in the latents) that neither the space nor the painting, both
    linear, could learn it, and meadows came out teal or red.
    """
    torch.manual_seed(seed)  # the initial weights; everything after draws from its own generator
    model = warm or build()
    pair = nn.ModuleDict({"autoencoder": model, "read_colours": nn.Conv2d(LATENT_CHANNELS, 3, 1)})
    pair = pair.to(device, memory_format=torch.channels_last)
    perceptual = teachers.PerceptualDistance().to(device)
    drawn = (images < 245).any(-1)

    def loss_of(pair: nn.ModuleDict, generator: torch.Generator, step: int) -> tuple[torch.Tensor, dict]:
        model, chosen = pair["autoencoder"], []
        for index in torch.randint(len(images), (16,), generator=generator).tolist():
            top, left = worth_seeing(drawn[index], generator, 1)
            chosen.append(images[index, top : top + CROP, left : left + CROP])
        target = to_tensor(augment(np.stack(chosen), generator)).to(device)
        latents = model.encode(target).latents
        noise = torch.randn(latents.shape, generator=generator).to(device)
        pixels = model.decode(latents + 0.05 * latents.detach().std() * noise, force_not_quantize=True).sample
        loss, figures = reconstruction_loss(pixels, target, perceptual)
        thumbnail = functional.avg_pool2d(target, target.shape[-1] // latents.shape[-1])
        read = functional.mse_loss(pair["read_colours"](latents).float(), thumbnail)
        loss = loss + COLOURS_WEIGHT * read + 1e-3 * latents.square().mean()
        return loss, figures | {"read_colours": float(read.detach())}

    training.train("autoencoder", pair, loss_of, work=work, steps=steps, peak_lr=peak_lr, seed=seed)
    normalise(model, images[:: max(1, len(images) // 512)])
    return model


@torch.no_grad()
def normalise(model: VQModel, images: np.ndarray) -> None:
    """Fold the latents' mean and spread into the two 1 x 1 convolutions, so that diffusion sees zero mean and unit variance."""
    latents = encode(model, images)
    mean, std = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    after = model.post_quant_conv
    after.bias += (after.weight[..., 0, 0] @ mean[:, None])[:, 0]
    after.weight *= std[None, :, None, None]
    model.quant_conv.weight /= std[:, None, None, None]
    model.quant_conv.bias.sub_(mean).div_(std)


@torch.no_grad()
def encode(model: VQModel, images: np.ndarray, batch: int = 64) -> torch.Tensor:
    """Latents (N, 8, 16, 16) of uint8 pictures."""
    device = next(model.parameters()).device
    return torch.cat(
        [model.encode(to_tensor(images[i : i + batch]).to(device)).latents.float() for i in range(0, len(images), batch)]
    )


@torch.no_grad()
def decode(model: VQModel, latents: torch.Tensor, batch: int = 32) -> np.ndarray:
    """uint8 pictures (N, 128, 128, 3) of latents (N, 8, 16, 16)."""
    parts = [model.decode(latents[i : i + batch], force_not_quantize=True).sample for i in range(0, len(latents), batch)]
    return np.concatenate([to_images(part.float()) for part in parts])
