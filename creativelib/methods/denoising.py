"""Sampling the prior by hand, for methods that step in between two denoising steps."""

from collections.abc import Callable

import torch

from creativelib.generator import Generator
from creativelib.prior_sampling import CachedPrior, noise_sources


def denoise(generator: Generator, seed: int, predict: Callable[[torch.Tensor, int, int | None], torch.Tensor]) -> torch.Tensor:
    """One embedding (1, d): the loop of ``sample_embeddings`` for one noise seed, with the prediction left to ``predict``.

    Args:
        predict: called with noisy latents (1, d), the timestep and the next one (``None`` at the last); gives the predicted
            clean latents (1, d). Latents are what the prior works in, before ``post_process_latents``.
    """
    scheduler, (source,) = generator.scheduler, noise_sources([seed])
    scheduler.set_timesteps(generator.settings.prior_steps)
    times = scheduler.timesteps.tolist()
    latents = torch.randn(1, generator.embedding_dim, generator=source).to(generator.device) * scheduler.init_noise_sigma
    for time, following in zip(times, [*times[1:], None], strict=True):
        clean = predict(latents, time, following).detach()
        latents = scheduler.step(clean, timestep=time, sample=latents, generator=[source], prev_timestep=following).prev_sample
    return generator.prior.post_process_latents(latents)


def guided(generator: Generator, prior: CachedPrior, latents: torch.Tensor, time: int) -> torch.Tensor:
    """Classifier-free guidance with the family's weight; ``prior`` holds [what to leave, what to seek], or the latter alone."""
    predicted = prior(latents, time)
    if len(predicted) == 1:
        return predicted[0]
    return predicted[0] + generator.settings.prior_guidance * (predicted[1] - predicted[0])
