"""ProCreate (Lu et al., ECCV 2024): the predicted picture is pushed away from its nearest reference in an independent space.

The references are plain pictures of the subject. At every step of the prior the predicted clean embedding is drawn with
gradient, put through a network that the metrics do not use, and moved against the gradient of its cosine to the nearest one.

Two differences to the release, both because the prior predicts the clean embedding itself: it is moved directly, where
ProCreate adds to the predicted noise (at the prior's first step that would be divided by the root of a signal share of 2e-9);
and the step has a fixed length, which is what ProCreate's clipping of the gradient comes to at its published weights.
"""

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from diffusers import KandinskyPipeline
from torch.nn import functional

from creativelib.arguments import finite_number, whole_number
from creativelib.generator import Generator
from creativelib.methods.budget import BACKWARD, Cost, sample_cost
from creativelib.methods.denoising import denoise, guided
from creativelib.methods.method import Desk, Method
from creativelib.prior_sampling import CachedPrior

SIDE = 128  # pixels that pictures are scaled to for the network


def lite0(pixels: torch.Tensor) -> torch.Tensor:
    """Pooled features (N, 1280) of EfficientNet-Lite0 of pixels (N, 3, H, W) in [-1, 1]; differentiable."""
    from creativelib.pocket.teachers import imagenet_normalise

    pixels = functional.interpolate(pixels, size=(SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)
    return _network(str(pixels.device)).extract_features(imagenet_normalise(pixels)).mean((2, 3))


@cache
def _network(device: str) -> torch.nn.Module:
    from creativelib.pocket.teachers import efficientnet

    return efficientnet(0).to(device)


def repelled(clean: torch.Tensor, gradient: torch.Tensor, strength: float) -> torch.Tensor:
    """``clean`` (1, d), moved against ``gradient`` by ``strength`` of its own length."""
    length = gradient.norm().clamp(min=torch.finfo(gradient.dtype).tiny)
    return clean - strength * clean.norm() * gradient / length


class Repel(Method):
    """Repulsion from plain pictures, at every step but the last.

    Args:
        strength: length of a push, as a share of the predicted embedding's own.
        references: how many plain pictures to keep away from, of those that are made once for a subject.
        decoder_steps: with which the predicted embedding is drawn.
        encoder: pixels (N, 3, H, W) in [-1, 1] to features (N, f), differentiable; by default EfficientNet-Lite0. Its name is
            part of the settings.
    """

    name = "repel"
    description = "ProCreate: pushed away from plain pictures in an independent network's space"

    def __init__(
        self,
        strength: float = 0.3,
        references: int = 8,
        decoder_steps: int = 4,
        encoder: Callable[[torch.Tensor], torch.Tensor] = lite0,
    ):
        self.references = whole_number("references", references, 1)
        self.decoder_steps = whole_number("decoder_steps", decoder_steps, 1)
        self.strength, self.encoder = finite_number("strength", strength, hint="at least 0"), encoder
        if self.strength < 0:
            raise ValueError(f"strength: got {strength!r}; give a number of at least 0")
        if not callable(encoder) or not hasattr(encoder, "__name__"):
            raise ValueError(f"encoder: got {encoder!r}; give a function of pixels that has a name, which a text cannot be")

    @property
    def settings(self) -> dict:
        return dict(vars(self)) | {"encoder": self.encoder.__name__}

    def price(self, generator: Generator) -> Cost:
        """Of sampling, drawing every prediction but the last with gradient, and the picture."""
        steps, all_steps = generator.settings.prior_steps, generator.settings.decoder_steps
        look = math.ceil(BACKWARD * self.decoder_steps / all_steps)  # a drawing in fewer steps costs its share
        back = sample_cost(generator).prior // steps * (steps - 1) * (BACKWARD - 1)
        return sample_cost(generator) + Cost(prior=back, decodes=look * (steps - 1) + 1)

    def search(self, desk: Desk) -> tuple[torch.Tensor, None]:
        desk.release()
        plain = desk.subject.plain_pictures[: self.references]
        if len(plain) < self.references:
            kept = f"of {desk.subject.words!r} {len(plain)} plain pictures are kept"
            raise ValueError(f"references: got {self.references}; {kept}, give at most as many")
        pixels = torch.from_numpy(np.stack([np.asarray(picture.convert("RGB")) for picture in plain]))
        with torch.no_grad():
            known = self.encoder(pixels.permute(0, 3, 1, 2).float().to(desk.generator.device) / 127.5 - 1)
        rows, cosines = [], []
        for seed in desk.noise_seeds:
            desk.meter.charge(self.price(desk.generator) - Cost(decodes=1))
            row, seen = self.sample(desk, seed, known)
            rows.append(row)
            cosines.append(seen)
        desk.facts["nearest_cosine"] = cosines
        return torch.cat(rows), None

    def sample(self, desk: Desk, seed: int, known: torch.Tensor) -> tuple[torch.Tensor, list[float]]:
        """One embedding (1, d), and the cosine of each prediction to the nearest of the references' features (R, f)."""
        generator, cosines = desk.generator, []
        prior = CachedPrior(generator.prior, [generator.unconditional, desk.subject.condition])

        def predict(latents: torch.Tensor, time: int, following: int | None) -> torch.Tensor:
            if following is None:  # no step is left in which the prior could make the push plausible
                with torch.no_grad():
                    return guided(generator, prior, latents, time)
            latents = latents.detach().requires_grad_()
            clean = guided(generator, prior, latents, time)
            moved, cosine = self.push(generator, latents, clean, seed, known)
            cosines.append(round(cosine, 6))
            return moved

        return denoise(generator, seed, predict), cosines

    def push(self, generator: Generator, latents, clean, seed: int, known: torch.Tensor) -> tuple[torch.Tensor, float]:
        """The predicted latents ``clean`` (1, d), moved, and their cosine to the nearest reference before.

        The gradient is that with respect to the noisy ``latents`` (1, d), through the prior, as in ProCreate.
        """
        seen = self.encoder(draw(generator, generator.prior.post_process_latents(clean), [seed], self.decoder_steps))
        nearest = functional.cosine_similarity(seen, known).max()
        (gradient,) = torch.autograd.grad(nearest, latents)
        return repelled(clean.detach(), gradient, self.strength), float(nearest.detach())


def draw(generator: Generator, embeddings: torch.Tensor, seeds: list[int], steps: int) -> torch.Tensor:
    """Pixels (N, 3, H, W) in about [-1, 1] of embeddings (N, d), by diffusers' own decoder with gradient."""
    pipeline = generator.decoder_pipeline
    words = {"prompt": [""] * len(embeddings)} if isinstance(pipeline, KandinskyPipeline) else {}
    chosen = embeddings.to(generator.device, generator.dtype)
    images = (
        type(pipeline)
        .__call__.__wrapped__(
            pipeline,
            **words,
            image_embeds=chosen,
            negative_image_embeds=generator.zero_image_embedding.to(chosen).expand_as(chosen),
            height=generator.settings.image_size,
            width=generator.settings.image_size,
            num_inference_steps=steps,
            guidance_scale=generator.settings.decoder_guidance,
            output_type="pt",
            **generator._start(chosen, [torch.Generator().manual_seed(one) for one in seeds]),
        )
        .images
    )
    return images.float()
