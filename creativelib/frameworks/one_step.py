"""A text-to-image model that draws in one step, behind the part of ``Generator`` that a search uses (S3, Figs. 13 and 14).

There is no prior whose embeddings could be improbable. So what is measured, and searched against, is what an image encoder
sees: noise and text -> UNet, one step -> VAE -> picture -> image encoder -> embedding, differentiable from end to end. The
paper gives no details of its extension; this is a reconstruction.
"""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from torch.nn import functional
from transformers import CLIPImageProcessor, CLIPTextModelWithProjection, CLIPVisionModelWithProjection

from creativelib import finish
from creativelib.generator import NotFinite, embed_images
from creativelib.loading import fast_precision
from creativelib.memory import ONE_STEP_WORK_PER_IMAGE, Ledger
from creativelib.pipelines import freeze, repair_pooling
from creativelib.prior_sampling import noise_sources
from creativelib.text import TextCondition, TextReader

AT_ONCE = 16  # pictures at once, at most, where no gradient is needed; fewer where the memory is short


@dataclass(frozen=True)
class OneStepSettings:
    """What suits a one-step model; each value is a default.

    ``eta`` is the scheduler's, where it has one (TCD: 1.0 for Hyper-SD). ``timestep`` is where the step starts: where the
    scheduler puts a single one, or, for a UNet that was distilled for another, that one. ``learning_rate`` and
    ``anchor_threshold`` as in ``sources.Settings``; ``drawings``: it draws flat shapes, which ``finish`` may trace for display.
    """

    image_size: int = 512
    eta: float = 1.0
    timestep: int | None = None
    learning_rate: float = 1e-4
    anchor_threshold: float | None = None
    drawings: bool = False


@dataclass(frozen=True)
class Eyes:
    """The pair of encoders that pictures are measured by, and what the image encoder is given.

    Attributes:
        image_encoder: pixels -> embeddings (N, d). text_encoder: into the same space, for the anchor.
        processor: how pictures are prepared; only their size, mean and spread are read from it.
    """

    image_encoder: CLIPVisionModelWithProjection
    text_encoder: CLIPTextModelWithProjection
    processor: CLIPImageProcessor

    def prepare(self, pixels: torch.Tensor) -> torch.Tensor:
        """What the processor makes of square pictures, of ``pixels`` (N, 3, H, H) in -1 to 1; differentiable."""
        side = self.image_encoder.config.image_size
        if pixels.shape[-1] != side:
            pixels = functional.interpolate(pixels, (side, side), mode="bicubic", antialias=True).clamp(-1, 1)
        mean, std = (
            pixels.new_tensor(values).view(1, 3, 1, 1) for values in (self.processor.image_mean, self.processor.image_std)
        )
        return ((pixels + 1) / 2 - mean) / std


class OneStep(TextReader):
    """A one-step model, frozen. Made by ``load_one_step``.

    Spaces, typicality models, clusters, checkers and runs take it in place of a ``Generator``; only the space ``"embedding"``
    does not, for nothing here draws an embedding.

    Attributes:
        name: what it was loaded as. origin: what loads it again. weights: which weights its parts have.
        pipeline: diffusers' pipeline; what is drawn here is what it draws. eyes: what the pictures are measured by.
        device: where it runs. sampling_dtype: what the UNet computes in: bfloat16 on CUDA; the others in float32.
        memory: the ledger; all parts stay, since each of them is in the path of the gradient.
    """

    def __init__(
        self,
        name: str,
        pipeline: StableDiffusionPipeline,
        eyes: Eyes,
        settings: OneStepSettings = OneStepSettings(),
        *,
        weights: dict[str, str],
        origin: str | None = None,
        memory: Ledger | None = None,
    ):
        self.name, self.settings, self.weights, self.origin = name, settings, weights, origin or name
        self.memory = memory or Ledger(torch.device("cpu"))
        self.device, self.dtype = self.memory.device, torch.float32
        self.sampling_dtype = fast_precision(self.device)
        self.pipeline, self.eyes, self.tokenizer = freeze(pipeline), eyes, pipeline.tokenizer
        self.text_encoder, self.adapted, self.vae = pipeline.text_encoder, pipeline.unet, pipeline.vae
        for encoder in (self.text_encoder, eyes.text_encoder):
            repair_pooling(encoder, self.tokenizer.eos_token_id)
        for encoder in (eyes.image_encoder, eyes.text_encoder):
            encoder.eval().requires_grad_(False)
        for part, module in {"UNet": self.adapted, "VAE": self.vae, "text encoder": self.text_encoder}.items():
            self.memory.keep(part, module)
        self.memory.keep("eyes", eyes.image_encoder, eyes.text_encoder)
        if settings.image_size > 256:  # what a step of the search would keep of these two is most of a card's memory
            self.adapted.enable_gradient_checkpointing()
            self.vae.enable_gradient_checkpointing()

    @property
    def embedding_dim(self) -> int:
        """d, the width of an image embedding."""
        return self.eyes.image_encoder.config.projection_dim

    @property
    def sampling_weights(self) -> str:
        """Which weights embeddings are sampled with: all of them."""
        return " ".join(self.weights.values())

    @property
    def run_settings(self) -> dict:
        """What a run's course depends on beside its own choices, as JSON values."""
        return {
            "model": self.name,
            "weights": self.weights,
            "framework": "one-step",
            "one_step": {"timestep": self.timestep, "eta": self.settings.eta, "image_size": self.settings.image_size},
            "device": self.device.type,
            "dtype": "float32",
            **({} if self.sampling_dtype == torch.float32 else {"sampling_dtype": str(self.sampling_dtype)[6:]}),
        }

    @cached_property
    def timestep(self) -> int:
        """Where the one step starts."""
        return int(self._set_timesteps())

    def _set_timesteps(self) -> torch.Tensor:
        """Have the scheduler begin anew; the timestep."""
        chosen = self.settings.timestep
        self.pipeline.scheduler.set_timesteps(**({"num_inference_steps": 1} if chosen is None else {"timesteps": [chosen]}))
        return self.pipeline.scheduler.timesteps[0]

    # --- text ---------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def text_embedding(self, prompt: str) -> torch.Tensor:
        """Text embedding (1, d) of a prompt by the eyes' text encoder, float32: phi(P) of Eq. 6."""
        ids, _, _ = self.tokenize(prompt)
        return self.eyes.text_encoder(ids).text_embeds.float()

    # --- noise to pictures, pictures to embeddings --------------------------------------------------------------------

    def sampling(self, steps: int | None = None, guidance: float | None = None, name: str = "steps") -> dict:
        """One step, and no guidance: there is nothing to choose.

        Raises:
            ValueError: something else is asked for; ``name`` is what the caller calls ``steps``.
        """
        for argument, value, only in ((name, steps, 1), ("guidance", guidance, 0.0)):
            if value is not None and value != only:
                raise ValueError(f"{argument}: got {value!r}; {self.name!r} draws in one step without guidance: leave it out")
        return {"steps": 1, "guidance": 0.0}

    def pixels(self, condition: TextCondition, sources: Sequence[torch.Generator]) -> torch.Tensor:
        """Pictures (N, 3, side, side) in -1 to 1, one a random source, differentiable: what ``pipeline`` draws."""
        side = self.settings.image_size // self.pipeline.vae_scale_factor
        shape = (1, self.adapted.config.in_channels, side, side)
        noise = torch.cat([torch.randn(shape, generator=source) for source in sources]).to(self.device)
        scheduler = self.pipeline.scheduler
        time = self._set_timesteps()
        noise = noise * scheduler.init_noise_sigma
        told = condition.hidden_states.expand(len(noise), -1, -1)
        exact = self.sampling_dtype == torch.float32
        with nullcontext() if exact else torch.autocast(self.device.type, self.sampling_dtype):
            output = self.adapted(scheduler.scale_model_input(noise, time), time, encoder_hidden_states=told).sample.float()
        options = self.pipeline.prepare_extra_step_kwargs(None, self.settings.eta)
        latents = scheduler.step(output, time, noise, **options, return_dict=False)[0]
        return self.vae.decode(latents / self.vae.config.scaling_factor).sample.clamp(-1, 1)

    def embed(self, pixels: torch.Tensor) -> torch.Tensor:
        """Embeddings (N, d) of pictures (N, 3, side, side) in -1 to 1, as the eyes see them; differentiable."""
        return self.eyes.image_encoder(self.eyes.prepare(pixels)).image_embeds

    def sample(
        self,
        condition: TextCondition,
        sources: list[torch.Generator],
        *,
        steps: int | None = None,
        guidance: float | None = None,
    ) -> torch.Tensor:
        """Embeddings (N, d), float32, of the pictures of random ``sources``; differentiable, as those of a ``Generator``.

        Raises:
            ValueError: no sources, or steps or guidance of another kind of model.
        """
        self.sampling(steps, guidance)
        return torch.cat([self.embed(pixels) for pixels in self._batches(condition, sources)])

    @torch.no_grad()
    def draw(
        self,
        condition: TextCondition,
        seeds: Sequence[int],
        *,
        prompt: str | None = None,
        steps: int | None = None,
        guidance: float | None = None,
    ) -> tuple[torch.Tensor, list[Image.Image]]:
        """Embeddings (N, d) of noise ``seeds``, and the pictures that they are of. ``prompt`` is told by ``condition`` already.

        Raises:
            NotFinite: some of them hold NaN.
        """
        self.sampling(steps, guidance)
        parts = list(self._batches(condition, noise_sources(seeds)))
        embeddings = torch.cat([self.embed(part) for part in parts])
        if bad := int((~embeddings.isfinite()).any(1).sum()):
            raise NotFinite(f"seeds: {bad} of {len(embeddings)} pictures hold NaN at the present parameters")
        images = [self.pipeline.image_processor.postprocess(part, output_type="pil") for part in parts]
        return embeddings, [image for part in images for image in part]

    def _batches(self, condition: TextCondition, sources: Sequence[torch.Generator]) -> Iterator[torch.Tensor]:
        """Pictures, as many at once as may be; all at once where a gradient is needed."""
        if not sources:
            raise ValueError("sources: got none; give one torch.Generator a sample")
        step = len(sources)
        if not torch.is_grad_enabled():
            work = ONE_STEP_WORK_PER_IMAGE * (self.settings.image_size / 512) ** 2
            step = max(1, int(min(AT_ONCE, self.memory.room() / work)))
            self.memory.need(work=step * work)  # guests, a checker for one, make room
        for start in range(0, len(sources), step):
            yield self.pixels(condition, sources[start : start + step])

    def encode_images(self, images: Sequence[Image.Image], batch_size: int = 64) -> torch.Tensor:
        """Image embeddings (N, d), float32, on the device."""
        return embed_images(images, self.eyes.processor, self.eyes.image_encoder, batch_size)

    def finish(self, images: Sequence[Image.Image], side: int = finish.SIDE) -> list[Image.Image]:
        """Pictures as they are shown, see ``Generator.finish``."""
        return finish.finish(images, side) if self.settings.drawings else list(images)
