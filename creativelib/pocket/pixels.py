"""The decoding half of the autoencoder once more: clean edges from latents as the diffusion leaves them.

Latents that a diffusion drew are a little smooth, and a decoding half that was trained on those of real pictures smears them
like watercolour. Here a critic that compares what it draws with real drawings asks for clean edges.
"""

from pathlib import Path

import numpy as np
import torch
from diffusers import VQModel
from torch import nn
from torch.nn import functional

from creativelib.pocket import corpus, teachers, training
from creativelib.pocket.autoencoder import CROP, decode, reconstruction_loss, to_tensor, worth_seeing
from creativelib.pocket.worlds import Worlds

CRITIC_WEIGHT = 0.25  # of the critic's word beside the reconstruction
PAPER_WEIGHT = 2.0  # of white paper: a critic alone leaves a faint grey grain on it
PAPER = 0.92  # from here on, of -1 to 1, a colour is paper


class PatchCritic(nn.Module):
    """Tells drawings from what a decoder made, patch by patch: small heads on the frozen ImageNet features of a perceptual
    distance, as in adversarial distillation (Sauer et al. 2023). Called with features; returns one (N, 1, h, w) a head.
    """

    def __init__(self, channels: list[int], width: int = 48):
        super().__init__()
        self.heads = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(count, width, 1), nn.LeakyReLU(0.2), nn.Conv2d(width, width, 3, padding=1), nn.LeakyReLU(0.2),
                nn.Conv2d(width, 1, 1),
            )
            for count in channels
        )  # fmt: skip

    def forward(self, features: list[torch.Tensor]) -> list[torch.Tensor]:
        scaled = (tensor * tensor.shape[1] ** 0.5 for tensor in features)  # they come with unit length
        return [head(tensor) for head, tensor in zip(self.heads, scaled, strict=True)]


def away_from_cuts(top: int, left: int) -> torch.Tensor:
    """Of a crop with this corner: (1, CROP, CROP), false within 8 px of a side that is not the picture's own."""
    mask = torch.ones(1, CROP, CROP, dtype=torch.bool)
    for across, start in ((False, top), (True, left)):
        lines = mask.mT if across else mask
        if start > 0:
            lines[:, :8] = False
        if start < corpus.SIZE - CROP:
            lines[:, -8:] = False
    return mask


def off_white(pixels: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """How far pixels (N, 3, H, W) are below white where ``wanted``, alike, is paper; a mean over all of them."""
    paper = wanted.amin(1, keepdim=True) >= PAPER
    return (functional.relu(1 - pixels) * paper).mean()


def train(
    model: VQModel,
    worlds: Worlds,
    latents: torch.Tensor,
    drawn: torch.Tensor,
    work: Path,
    device: str,
    steps: int,
    batch: int = 16,
    seed: int = 0,
) -> VQModel:
    """The decoding half alone, so that latents and all that was trained on them stay as they are.

    Half of a batch are latents (rows, 8, 16, 16) of pictures of both worlds, which it must restore; the others are latents
    ``drawn`` (m, 8, 16, 16) by the diffusion, which are a little smooth and have no picture to be held against. Of these the
    colours in 4 px are kept as they were, and a critic that compares both with real drawings asks for clean edges. Paper is
    white in both halves. What lies along a cut is not looked at: a decoder that is asked for it guesses, and guesses grey, and
    takes the border of the whole picture for a cut.
    """
    model = model.to(device, memory_format=torch.channels_last)
    for module in (model.encoder, model.quant_conv, model.quantize):
        module.requires_grad_(False)
    perceptual = teachers.PerceptualDistance().to(device)
    with torch.no_grad():
        seen = perceptual.features(torch.zeros(1, 3, CROP, CROP, device=device))
        thumbnails = torch.cat([functional.avg_pool2d(to_tensor(decode(model, part)), 4) for part in drawn.float().split(64)])
    critic = PatchCritic([tensor.shape[1] for tensor in seen]).to(device)
    pair = nn.ModuleDict({"autoencoder": model, "critic": critic})
    half, side = batch // 2, CROP // 8

    def loss_of(pair: nn.ModuleDict, generator: torch.Generator, step: int) -> tuple[torch.Tensor, dict]:
        model, critic = pair["autoencoder"], pair["critic"]
        rows, some = worlds.draw(batch, generator), torch.randint(len(drawn), (half,), generator=generator)
        pictures = worlds.pictures(rows)
        shown = latents[rows[:half]].float()
        shown = shown + 0.1 * torch.randn(shown.shape, generator=generator)
        crops, targets, colours, corners = [], [], [], []
        for index, picture in enumerate(pictures):  # the second half: real drawings for the critic alone
            top, left = worth_seeing((picture < 245).any(-1), generator, 8)
            targets.append(picture[top : top + CROP, left : left + CROP])
            corners.append((top, left))
            if index < half:
                crops.append(shown[index, :, top // 8 : top // 8 + side, left // 8 : left // 8 + side])
        for index in some.tolist():
            top, left = worth_seeing((thumbnails[index] < 0.9).any(0).numpy().repeat(4, 0).repeat(4, 1), generator, 8)
            corners.append((top, left))
            crops.append(drawn[index, :, top // 8 : top // 8 + side, left // 8 : left // 8 + side].float())
            colours.append(thumbnails[index, :, top // 4 : top // 4 + 2 * side, left // 4 : left // 4 + 2 * side])
        whole = torch.stack([away_from_cuts(*corner) for corner in corners]).to(device)  # of the real ones, then of drawn ones
        target = to_tensor(np.stack(targets)).to(device).where(whole[:batch], 1.0)
        crops = torch.stack(crops).to(device).contiguous(memory_format=torch.channels_last)
        pixels = model.decode(crops, force_not_quantize=True).sample.where(torch.cat([whole[:half], whole[batch:]]), 1.0)
        loss, figures = reconstruction_loss(pixels[:half], target[:half], perceptual)
        wanted = torch.stack(colours).to(device).where(functional.avg_pool2d(whole[batch:].float(), 4) > 0, 1.0)
        kept = functional.l1_loss(functional.avg_pool2d(pixels[half:], 4), wanted)
        paper = off_white(pixels, torch.cat([target[:half], functional.interpolate(wanted, scale_factor=4)]))
        made = perceptual.features(pixels)
        with torch.no_grad():
            real = perceptual.features(target)
        frozen = {name: parameter.detach() for name, parameter in critic.named_parameters()}
        fooled = -sum(verdict.mean() for verdict in torch.func.functional_call(critic, frozen, (made,)))
        told = sum(functional.relu(1 - verdict).mean() for verdict in critic(real))
        told = told + sum(functional.relu(1 + verdict).mean() for verdict in critic([tensor.detach() for tensor in made]))
        figures |= {
            "kept": float(kept.detach()),
            "paper": float(paper.detach()),
            "fooled": float(fooled.detach()),
            "told": float(told.detach()),
        }
        ramp = CRITIC_WEIGHT * min(1.0, step / 500)  # the critic learns first
        return loss + 4 * kept + PAPER_WEIGHT * paper + ramp * fooled + told, figures

    training.train("pixels", pair, loss_of, work=work, steps=steps, peak_lr=5e-4, seed=seed + 1)
    return model.requires_grad_(True)
