"""Sample image embeddings from the diffusion prior, differentiably (section 5.1 of the paper)."""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from tqdm.auto import tqdm

from creativelib.arguments import finite_number, seed_number, whole_number
from creativelib.plain_prior import PlainPrior, must_be_called
from creativelib.seeds import derive_seed
from creativelib.storage import read_tensors, require_equal, write_tensors
from creativelib.text import TextCondition


class Samples(Protocol):
    """What a baseline needs of a generator."""

    name: str
    sampling_dtype: torch.dtype

    @property
    def embedding_dim(self) -> int: ...
    @property
    def sampling_weights(self) -> str: ...
    def encode_text(self, prompt: str) -> TextCondition: ...
    def sampling(self, steps: int | None = None, guidance: float | None = None, name: str = "steps") -> dict: ...
    def sample(self, condition: TextCondition, sources: list[torch.Generator], **options) -> torch.Tensor: ...


class HasPrior(Protocol):
    """What sampling a prior needs of a generator."""

    prior: torch.nn.Module
    scheduler: Any
    settings: Any
    device: torch.device
    sampling_dtype: torch.dtype

    @property
    def embedding_dim(self) -> int: ...
    @property
    def unconditional(self) -> TextCondition: ...


def noise_sources(seeds: Iterable[int]) -> list[torch.Generator]:
    """One CPU random source a sample, as diffusers takes them: what is drawn does not depend on device or batch."""
    return [torch.Generator().manual_seed(seed_number("seeds", seed)) for seed in seeds]


def whole_prior_steps(generator: HasPrior, steps: int | None = None, name: str = "steps") -> int:
    """Denoising steps of the prior, the family's by default.

    Raises:
        ValueError: below 2, which the scheduler cannot make, or more than the prior was trained with; ``name`` is the argument.
    """
    most = generator.scheduler.config.num_train_timesteps
    steps = generator.settings.prior_steps if steps is None else steps
    return whole_number(name, steps, 2, most, "the prior's scheduler cannot take 1, and has no more")


class CachedPrior:
    """``PriorTransformer`` for one prompt, with the text read once instead of at every step for every sample.

    The prior reads ``[text tokens, text embedding | time, noisy embedding, PRD token]`` under a causal mask, so what comes
    before the bar knows nothing of the step or the sample. Its keys and values are computed once for each layer; a call
    runs the last three tokens only. Same numbers as the plain model but for float noise, and differentiable; the projections
    are called as modules, so that adapters (LoRA) act.

    Args:
        prior: diffusers' prior of the Kandinsky form (with a PRD token).
        conditions: C text conditions, e.g. the unconditional and the prompt; padding after the longest is dropped.
    """

    def __init__(self, prior: torch.nn.Module, conditions: Sequence[TextCondition]):
        if prior.prd_embedding is None or prior.encoder_hidden_states_proj is None:
            raise ValueError("prior: this PriorTransformer has no PRD token or reads no text; Kandinsky's priors do both")
        self.prior, self.dtype = prior, prior.dtype
        mask = torch.cat([condition.mask for condition in conditions])  # (C, T)
        text = torch.cat([condition.hidden_states for condition in conditions]).to(self.dtype)
        summary = torch.cat([condition.text_embedding for condition in conditions]).to(self.dtype)
        used = mask.shape[1] if mask.is_meta else int(mask.any(0).nonzero().max()) + 1  # meta tensors have no values
        if prior.embedding_proj_norm is not None:
            summary = prior.embedding_proj_norm(summary)
        positions = prior.positional_embedding
        if positions.shape[1] < mask.shape[1] + 4:  # an older form gives positions to the last tokens only
            positions = torch.nn.functional.pad(positions, (0, 0, mask.shape[1] + 2, 1))
        hidden = torch.cat([prior.encoder_hidden_states_proj(text[:, :used]), prior.embedding_proj(summary)[:, None]], dim=1)
        hidden = hidden + torch.cat([positions[:, :used], positions[:, mask.shape[1], None]], dim=1)
        hidden = prior.norm_in(hidden) if prior.norm_in is not None else hidden
        self.tail_positions = positions[:, mask.shape[1] + 1 : mask.shape[1] + 4]

        length = used + 1
        seen = torch.cat([mask[:, :used], mask.new_ones(len(mask), 1)], dim=1)[:, None, None, :]  # (C, 1, 1, length)
        causal = torch.ones(length, length, dtype=torch.bool, device=mask.device).tril()
        self.seen, self.keys, self.values = seen, [], []
        for block in prior.transformer_blocks:  # hidden: (C, length, w)
            query, key, value = self._heads(block, hidden)
            self.keys.append(key)
            self.values.append(value)
            hidden = self._finish(block, hidden, self._attend(query, key, value, seen & causal))

    @staticmethod
    def _heads(block, hidden: torch.Tensor) -> list[torch.Tensor]:
        """Query, key and value of a block, each (batch, heads, tokens, head width)."""
        normed = block.norm1(hidden)
        projections = (block.attn1.to_q, block.attn1.to_k, block.attn1.to_v)
        return [project(normed).unflatten(-1, (block.attn1.heads, -1)).transpose(1, 2) for project in projections]

    @staticmethod
    def _attend(query, key, value, allowed: torch.Tensor) -> torch.Tensor:
        mixed = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=allowed)
        return mixed.transpose(1, 2).flatten(2)

    @staticmethod
    def _finish(block, hidden: torch.Tensor, mixed: torch.Tensor) -> torch.Tensor:
        """Output projection, residual and feed-forward part of a block."""
        hidden = hidden + block.attn1.to_out[0](mixed)
        return hidden + block.ff(block.norm3(hidden))

    def __call__(self, noisy: torch.Tensor, timestep: int) -> torch.Tensor:
        """Predict the clean embeddings of ``noisy`` (N, d) under every condition, (C, N, d)."""
        return self.each(noisy.expand(len(self.seen), *noisy.shape), torch.full((1, 1), timestep, device=noisy.device))

    def each(self, noisy: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """Predict the clean embeddings of ``noisy`` (C, N, d), N for each condition, at ``timesteps``, (C, N) or (1, 1)."""
        prior, (conditions, samples, _), dtype = self.prior, noisy.shape, noisy.dtype
        noisy = noisy.to(self.dtype)
        time = prior.time_embedding(prior.time_proj(timesteps.flatten()).to(noisy.dtype)).unflatten(0, timesteps.shape)
        noisy = prior.proj_in(noisy)
        tail = torch.stack([time.expand_as(noisy), noisy, prior.prd_embedding.expand_as(noisy)], dim=2).flatten(0, 1)
        tail = tail + self.tail_positions
        hidden = prior.norm_in(tail) if prior.norm_in is not None else tail  # (C * N, 3, w)
        # Only the causal order among the three tails differs from token to token; the text before them is seen by all.
        causal = torch.ones(3, 3, dtype=torch.bool, device=noisy.device).tril().expand(conditions, 1, 3, 3)
        allowed = torch.cat([self.seen.expand(-1, -1, 3, -1), causal], dim=-1).repeat_interleave(samples, dim=0)

        def behind_text(shared: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
            """Of the text (C, heads, length, w) and of each sample (C * N, heads, 3, w), in one copy."""
            shared = shared[:, None].expand(-1, samples, -1, -1, -1)
            return torch.cat([shared, own.unflatten(0, (conditions, samples))], dim=3).flatten(0, 1)

        for block, key, value in zip(prior.transformer_blocks, self.keys, self.values, strict=True):
            query, own_key, own_value = self._heads(block, hidden)
            mixed = self._attend(query, behind_text(key, own_key), behind_text(value, own_value), allowed)
            hidden = self._finish(block, hidden, mixed)
        last = prior.norm_out(hidden)[:, -1].to(self.dtype)
        with _full_precision(last.device.type):  # guidance would multiply what is rounded here
            predicted = prior.proj_to_clip_embeddings(last)
        return predicted.unflatten(0, (conditions, samples)).to(dtype)


def _full_precision(device: str) -> AbstractContextManager:
    """A block without autocast, where there is autocast."""
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()


def sampling_precision(generator: HasPrior) -> AbstractContextManager:
    """A block in which the prior computes in ``generator.sampling_dtype``, where no gradient is needed; else as it is.

    bfloat16 changes embeddings of the shipped model by 1 %, and their surprise by a tenth of a nat, where plain samples differ
    by 6 to 12 (vehicles, aliens; on a CPU).
    """
    if torch.is_grad_enabled() or generator.sampling_dtype == torch.float32:
        return nullcontext()
    return torch.autocast(generator.device.type, generator.sampling_dtype)


def sample_embeddings(
    generator: HasPrior,
    condition: TextCondition,
    sources: list[torch.Generator],
    *,
    steps: int | None = None,
    guidance: float | None = None,
) -> torch.Tensor:
    """Sample the prior; gradients flow through all steps to the prior's adapters and to ``condition``.

    The same embeddings as diffusers' ``KandinskyPriorPipeline`` with ``generator=sources``, but for float noise. On a GPU that
    is the noise of ``generator.sampling_dtype`` where no gradient is asked for (under ``torch.no_grad``), else of float32.

    Args:
        condition: of the prompt, from ``Generator.encode_text``.
        sources: one random source a sample (see ``noise_sources``); they are advanced.
        steps: denoising steps, at least 2 (the scheduler cannot make 1); 5 in the paper.
        guidance: u + guidance (c - u), classifier-free; 1 or less turns it off.

    Returns:
        Image embeddings (N, d), float32.
    """
    guidance = generator.settings.prior_guidance if guidance is None else guidance
    if not sources:
        raise ValueError("sources: got none; give one torch.Generator a sample")
    steps = whole_prior_steps(generator, steps)
    guidance = finite_number("guidance", guidance)
    guided = guidance > 1
    kind = PlainPrior if must_be_called(generator.prior) else CachedPrior
    conditions = [generator.unconditional, condition] if guided else [condition]
    with sampling_precision(generator):
        predict = kind(generator.prior, conditions)
    scheduler, dim = generator.scheduler, generator.embedding_dim
    scheduler.set_timesteps(steps)
    times = scheduler.timesteps.tolist()
    start = [torch.randn(1, dim, generator=source) for source in sources]
    latents = torch.cat(start).to(generator.device) * scheduler.init_noise_sigma
    for time, next_time in zip(times, [*times[1:], None], strict=True):
        with sampling_precision(generator):
            predicted = predict(latents, time)
        predicted = predicted[0] + guidance * (predicted[1] - predicted[0]) if guided else predicted[0]
        latents = scheduler.step(
            predicted, timestep=time, sample=latents, generator=sources, prev_timestep=next_time
        ).prev_sample
    return generator.prior.post_process_latents(latents).float()


@dataclass
class PriorSamples:
    """Samples of the baseline distribution.

    Attributes:
        embeddings: (n, d), float32, on the CPU.
        provenance: what they depend on: model, prompt, steps, guidance, seed, n.
    """

    embeddings: torch.Tensor
    provenance: dict = field(default_factory=dict)

    def save(self, path: str | Path) -> Path:
        """Write ``path.safetensors`` and ``path.json``; returns the former."""
        return write_tensors(path, {"embeddings": self.embeddings}, {"kind": "prior samples", **self.provenance})

    @classmethod
    def load(cls, path: str | Path, **wanted) -> "PriorSamples":
        """Read samples back, refusing those whose provenance is not as ``wanted``, e.g. ``prompt="..."``.

        Raises:
            FileNotFoundError: no such file. ValueError: other provenance, or no samples.
        """
        tensors, facts = read_tensors(path)
        require_equal(facts, {"kind": "prior samples", **wanted}, path)
        return cls(tensors["embeddings"], {key: value for key, value in facts.items() if key != "kind"})


@torch.no_grad()
def sample_prior(
    generator: Samples,
    prompt: str,
    n: int = 5000,
    *,
    steps: int | None = None,
    guidance: float | None = None,
    batch_size: int = 500,
    seed: int = 0,
    progress: bool = True,
) -> PriorSamples:
    """Draw the baseline distribution of section 5.1: ``n`` embeddings of one prompt, from the prior, or, of a generator that
    has none (S3), from the pictures that it draws.

    Sample i depends on ``seed`` and i alone: a larger ``n`` begins with the same samples, and ``batch_size`` (500 in the
    paper) only sets speed and memory.

    Args:
        steps, guidance: of the prior; the family's by default.
        progress: show a bar.
    """
    n, batch_size, seed = whole_number("n", n, 1), whole_number("batch_size", batch_size, 1), seed_number("seed", seed)
    sampling = generator.sampling(steps, guidance)
    condition, embeddings = generator.encode_text(prompt), torch.empty(n, generator.embedding_dim)
    with tqdm(total=n, desc="sampling the prior", unit="sample", leave=False, disable=not progress) as bar:
        for start in range(0, n, batch_size):
            stop = min(start + batch_size, n)
            sources = noise_sources(derive_seed(seed, index) for index in range(start, stop))
            embeddings[start:stop] = generator.sample(condition, sources, **sampling).cpu()
            bar.update(stop - start)
    facts = {
        "model": generator.name,
        "weights": generator.sampling_weights,
        "prompt": prompt,
        **sampling,
        "seed": seed,
        "n": n,
    }
    if generator.sampling_dtype != torch.float32:
        facts["computed_in"] = str(generator.sampling_dtype).removeprefix("torch.")
    return PriorSamples(embeddings, facts)
