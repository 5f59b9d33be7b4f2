"""The frozen text-to-image model: text -> prior -> image embedding -> decoder -> image (section 4 of the paper).

Pocket Kandinsky, Kandinsky 2.1 and Kandinsky 2.2 load through the same classes and run through the same code.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from diffusers import DiffusionPipeline, KandinskyPipeline
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file

from creativelib import finish
from creativelib.arguments import MOST_SEED, any_words, finite_number, seed_number, whole_number
from creativelib.loading import broken_file, fast_precision, find_device, first_cause
from creativelib.memory import PRIOR_WORK_PER_SAMPLE, Ledger, decoder_work, in_batches, memory_limit
from creativelib.pipelines import DECODER_PARTS, PRIOR_PARTS, load_pipeline, repair_pooling
from creativelib.prior_sampling import noise_sources, sample_embeddings, whole_prior_steps
from creativelib.sources import PUBLISHED, Source, find_source
from creativelib.text import POSITIVE_PROMPT, TextCondition, TextReader, positive_prompt, split_article, with_article
from creativelib.weights import weights_of

__all__ = ["Generator", "NotFinite", "load_generator"]
__all__ += ["POSITIVE_PROMPT", "TextCondition", "positive_prompt", "split_article", "with_article"]  # the words for it

DECODE_BATCH = 16  # images at once, at most


@torch.no_grad()
def embed_images(images: Sequence[Image.Image], processor, encoder: torch.nn.Module, batch_size: int = 64) -> torch.Tensor:
    """Embeddings (N, d), float32, of pictures by a CLIP image encoder and its processor, on the encoder's device."""
    rows = []
    if not len(images):
        raise ValueError("images: got none; give at least one picture")
    for start in range(0, len(images), batch_size):
        batch = [image.convert("RGB") for image in images[start : start + batch_size]]
        pixels = processor(batch, return_tensors="pt").pixel_values
        rows.append(encoder(pixels.to(encoder.device, encoder.dtype)).image_embeds.float())
    return torch.cat(rows)


class NotFinite(ValueError):
    """Embeddings that cannot be drawn: some of their values are NaN, infinite, or too large for the decoder's dtype."""


class Generator(TextReader):
    """A loaded model, frozen. Made by ``load_generator``.

    Attributes:
        name: what it was loaded as; part of the provenance of everything that is sampled from it.
        settings: the defaults of its family.
        prior_pipeline: diffusers' prior pipeline, whose modules are also ``prior``, ``text_encoder``, ``tokenizer``,
            ``scheduler``.
        device: where it runs. dtype: of image encoder and decoder; prior and text encoder stay in float32, because
            gradients flow through them. sampling_dtype: what the prior computes in where none do: bfloat16 on CUDA.
        memory: the ledger of what is on the device: the prior always, the others once they are asked for.
    """

    def __init__(
        self,
        source: Source,
        prior_pipeline: DiffusionPipeline,
        device: torch.device,
        dtype: torch.dtype,
        memory: Ledger | None = None,
    ):
        self.name, self.source, self.settings = source.name, source, source.settings
        self.device, self.dtype, self.memory = device, dtype, memory or Ledger(device)
        self.sampling_dtype = fast_precision(device)
        self._prior_pipeline = prior_pipeline
        self.prior, self.tokenizer, self.scheduler = prior_pipeline.prior, prior_pipeline.tokenizer, prior_pipeline.scheduler
        repair_pooling(prior_pipeline.text_encoder, self.tokenizer.eos_token_id)
        self.memory.keep("prior", self.prior)
        self.memory.guest("text encoder", prior_pipeline.text_encoder)
        self.memory.guest("image encoder", prior_pipeline.image_encoder)

    @property
    def prior_pipeline(self) -> DiffusionPipeline:
        """diffusers' prior pipeline, all of it on the device."""
        self.memory.need("text encoder", "image encoder")
        return self._prior_pipeline

    @property
    def text_encoder(self) -> torch.nn.Module:
        """CLIP's text tower, on the device."""
        self.memory.need("text encoder")
        return self._prior_pipeline.text_encoder

    @property
    def image_encoder(self) -> torch.nn.Module:
        """CLIP's vision tower, on the device."""
        self.memory.need("image encoder")
        return self._prior_pipeline.image_encoder

    @property
    def embedding_dim(self) -> int:
        """d, the width of an image embedding: 320 (pocket), 768 (2.1), 1280 (2.2)."""
        return self.prior.config.embedding_dim

    @property
    def adapted(self) -> torch.nn.Module:
        """The network that adapters are hung into."""
        return self.prior

    @property
    def decoder_pipeline(self) -> DiffusionPipeline:
        """diffusers' decoder pipeline, on the device; loaded when it is first needed."""
        pipeline = self._decoder_pipeline
        self.memory.need("decoder")
        return pipeline

    @cached_property
    def _decoder_pipeline(self) -> DiffusionPipeline:
        pipeline = self._load_decoder()
        modules = [module for module in pipeline.components.values() if isinstance(module, torch.nn.Module)]
        self.memory.guest("decoder", *modules)
        pipeline.movq.decode = in_batches(pipeline.movq.decode, lambda: self._decoder_work(DECODE_BATCH)[1])
        return pipeline

    def _load_decoder(self) -> DiffusionPipeline:
        """diffusers' decoder pipeline, in the computer's own memory."""
        return load_pipeline(self.source.decoder, self.source.decoder_revision, DECODER_PARTS, {"default": self.dtype})

    def _decoder_work(self, most: int) -> tuple[int, int, float]:
        """Images that the UNet draws and MoVQ decodes at once, at most ``most``, and the bytes that they take."""
        return decoder_work(self.memory.room("decoder"), most, self.settings.image_size, self.dtype)

    @cached_property
    def coarse(self) -> dict[str, torch.Tensor] | None:
        """The matrix from embeddings to the coarse latents that Pocket Kandinsky's decoder starts from, weight (c*h*w, d) and
        bias (c*h*w,), and the range low and high (c*h*w,) that it may paint; ``None`` for the published decoders.
        """
        path = Path(self.source.decoder) / "coarse.safetensors"
        if not path.is_file():
            return None
        try:
            tensors = load_file(path)
        except (OSError, SafetensorError) as error:
            raise OSError(f"model: {broken_file(path.parent) or f'{path} cannot be read ({first_cause(error)})'}") from error
        return {name: tensor.to(self.device, self.dtype) for name, tensor in tensors.items()}

    @cached_property
    def weights(self) -> dict[str, str]:
        """Which weights ``prior`` and ``decoder`` have: ``"sha256:..."`` of their files, or ``"hub:..."`` with the commit."""
        prior, decoder = self.source.prior, self.source.decoder
        parts = {"prior": (prior, self.source.prior_revision), "decoder": (decoder, self.source.decoder_revision)}
        return {part: weights_of(*where, "model_index.json") for part, where in parts.items()}

    @property
    def sampling_weights(self) -> str:
        """Which weights embeddings are sampled with."""
        return self.weights["prior"]

    @property
    def run_settings(self) -> dict:
        """What a run's course depends on beside its own choices, as JSON values."""
        family, reading = self.settings, self.source.reads_text
        decoder = {"steps": family.decoder_steps, "guidance": family.decoder_guidance, "image_size": family.image_size}
        return {
            "model": self.name,
            "weights": self.weights,
            "decoder": decoder | ({"prompt": family.decoder_prompt} if reading else {}),
            **({"anchor": family.anchor} if reading else {}),
            "device": self.device.type,
            "dtype": str(self.dtype).removeprefix("torch."),
            **({} if self.sampling_dtype == torch.float32 else {"sampling_dtype": str(self.sampling_dtype)[6:]}),
        }

    @property
    def origin(self) -> str:
        """What ``load_generator`` has to be given to load it again: its name, or its folder."""
        return self.name if self.name in ("pocket", *PUBLISHED) else str(Path(self.source.prior).resolve().parent)

    # --- text ---------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def text_embedding(self, prompt: str, encoder: str | None = None) -> torch.Tensor:
        """Text embedding (1, d) of a prompt, float32: phi(P) of Eq. 6.

        Args:
            encoder: ``"prior"``, whose CLIP the prior reads, or ``"decoder"``, the extended (multilingual) one of Kandinsky
                2.1; by default the one that ``settings.anchor`` names.

        Raises:
            ValueError: the decoder has no text encoder, or ``prompt`` is no text.
        """
        prompt = any_words("prompt", prompt)
        if (encoder or self.settings.anchor) == "prior":
            return self.encode_text(prompt).text_embedding.float()
        pipeline = self.decoder_pipeline
        if not isinstance(pipeline, KandinskyPipeline):
            raise ValueError(f"encoder: the decoder of {self.name!r} reads no text; choose 'prior'")
        return pipeline._encode_prompt([prompt], self.device, 1, False)[0].float()

    # --- embeddings ---------------------------------------------------------------------------------------------------

    def sampling(self, steps: int | None = None, guidance: float | None = None, name: str = "steps") -> dict:
        """The options of ``sample``, the family's by default, checked; ``name`` is what the caller calls ``steps``.

        Raises:
            ValueError: a number that makes no sense.
        """
        guidance = self.settings.prior_guidance if guidance is None else guidance
        return {"steps": whole_prior_steps(self, steps, name), "guidance": finite_number("guidance", guidance)}

    def sample(
        self,
        condition: TextCondition,
        sources: list[torch.Generator],
        *,
        steps: int | None = None,
        guidance: float | None = None,
    ) -> torch.Tensor:
        """Image embeddings (N, d), float32, one a random source, differentiable: see ``sample_embeddings``."""
        if not torch.is_grad_enabled():  # else an encoder could be sent away whose gradient is still to come
            self.memory.need(work=PRIOR_WORK_PER_SAMPLE * len(sources) * self.sampling_dtype.itemsize / 2)
        return sample_embeddings(self, condition, sources, steps=steps, guidance=guidance)

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
        """Embeddings (N, d) of noise ``seeds``, and a picture of each, whose decoder's noise has the same seed.

        Raises:
            NotFinite: some embeddings cannot be drawn.
        """
        embeddings = self.sample(condition, noise_sources(seeds), steps=steps, guidance=guidance)
        return embeddings, self.decode(embeddings, prompt=prompt, seed=seeds)

    # --- images -------------------------------------------------------------------------------------------------------

    def encode_images(self, images: Sequence[Image.Image], batch_size: int = 64) -> torch.Tensor:
        """Image embeddings (N, d), float32, on the device."""
        return embed_images(images, self._prior_pipeline.image_processor, self.image_encoder, batch_size)

    @cached_property
    def zero_image_embedding(self) -> torch.Tensor:
        """Embedding of the all-zero input, (1, d): what diffusers guides the decoder away from."""
        self.memory.need("image encoder")
        with torch.no_grad():
            return self._prior_pipeline.get_zero_embed(device=self.device).float()

    def decode(
        self,
        embeddings: torch.Tensor,
        *,
        prompt: str | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        seed: int | Sequence[int] = 0,
        batch_size: int = DECODE_BATCH,
    ) -> list[Image.Image]:
        """Draw one image for each embedding.

        Args:
            embeddings: (N, d), any dtype and device; a tensor, an array or lists.
            prompt: of the pictures. Only a decoder that reads text (Kandinsky 2.1) is told it, and only where
                ``settings.decoder_prompt`` is ``"subject"``.
            steps, guidance: of the decoder; the family's by default. Guidance of 1 or less turns it off.
            seed: of the decoder's noise. A number ``s`` gives the i-th image the seed ``s + i``; or one seed an image.
            batch_size: images at once, fewer where the memory is short; does not change what is drawn but for float noise.

        Raises:
            ValueError: a wrong shape, a number that makes no sense. NotFinite: embeddings or pictures that are not finite.
        """
        try:
            embeddings = torch.as_tensor(embeddings)
        except (TypeError, ValueError, RuntimeError):  # torch has one for each way to be wrong
            raise ValueError(f"embeddings: got {type(embeddings).__name__}; give numbers (N, {self.embedding_dim})") from None
        if embeddings.ndim != 2 or embeddings.shape[1] != self.embedding_dim:
            raise ValueError(f"embeddings: got shape {tuple(embeddings.shape)}; give (N, {self.embedding_dim})")
        prompt = "" if prompt is None else any_words("prompt", prompt)
        if bad := int((~embeddings.detach().to(self.dtype).isfinite()).any(1).sum()):
            raise NotFinite(
                f"embeddings: {bad} of {len(embeddings)} rows hold NaN, infinite or for {self.dtype} too large values, which "
                "would be drawn black; leave those rows out"
            )
        if isinstance(seed, Sequence) or getattr(seed, "ndim", 0) == 1:
            seeds = [seed_number("seed", one) for one in seed]
        else:
            seeds = [(seed_number("seed", seed) + index) % (MOST_SEED + 1) for index in range(len(embeddings))]
        steps = whole_number("steps", self.settings.decoder_steps if steps is None else steps, 1)
        guidance = finite_number("guidance", self.settings.decoder_guidance if guidance is None else guidance)
        batch_size = whole_number("batch_size", batch_size, 1)
        if len(seeds) != len(embeddings):
            raise ValueError(f"seed: got {len(seeds)} seeds for {len(embeddings)} embeddings; give one each, or one number")
        nothing = self.zero_image_embedding.to(self.dtype)  # (1, d); before the decoder comes, whose room it may need
        pipeline, images, told = self.decoder_pipeline, [], prompt if self.settings.decoder_prompt == "subject" else ""
        whole_number(
            "steps", steps, 1, pipeline.scheduler.config.num_train_timesteps, "as many as the decoder was trained with"
        )
        batch_size, _, work = self._decoder_work(batch_size)
        self.memory.need("decoder", work=work)
        for start in range(0, len(embeddings), batch_size):
            chosen = embeddings[start : start + batch_size].detach().to(self.device, self.dtype)
            words = {"prompt": [told] * len(chosen)} if isinstance(pipeline, KandinskyPipeline) else {}
            drawn = pipeline(
                **words,
                image_embeds=chosen,
                negative_image_embeds=nothing.expand_as(chosen),
                height=self.settings.image_size,
                width=self.settings.image_size,
                num_inference_steps=steps,
                guidance_scale=guidance,
                output_type="np",
                **self._start(chosen, [torch.Generator().manual_seed(one) for one in seeds[start : start + batch_size]]),
            ).images  # (n, side, side, 3)
            if bad := int((~np.isfinite(drawn)).any((1, 2, 3)).sum()):
                raise NotFinite(
                    f"embeddings: {bad} of {len(chosen)} rows are too far out for the decoder in {self.dtype}: what it draws "
                    "of them is no number, and would be shown black; leave those rows out"
                )
            images += pipeline.numpy_to_pil(drawn)
        return images

    def finish(self, images: Sequence[Image.Image], side: int = finish.SIDE) -> list[Image.Image]:
        """Pictures as they are shown: of a model that draws, traced to clean contours and ``side`` pixels wide; of the
        published ones as they are. Display only: what is measured is what ``decode`` returns.
        """
        return finish.finish(images, side) if self.settings.drawings else list(images)

    def _start(self, embeddings: torch.Tensor, generators: list[torch.Generator]) -> dict:
        """Where the decoder starts: in the noise of ``generators``, alone or over the coarse latents of embeddings (N, d)."""
        if self.coarse is None:
            return {"generator": generators}
        channels = self.decoder_pipeline.movq.config.latent_channels
        painted = torch.nn.functional.linear(embeddings, self.coarse["weight"], self.coarse["bias"])
        if "low" in self.coarse:  # the range of real latents: a matrix extrapolates without bound, and a search goes far
            painted = painted.clamp(self.coarse["low"], self.coarse["high"])
        side = round((painted.shape[1] / channels) ** 0.5)
        painted = painted.unflatten(1, (channels, side, side))
        noise = torch.cat([torch.randn(1, *painted.shape[1:], generator=generator) for generator in generators]).to(painted)
        signal = float(self.decoder_pipeline.scheduler.alphas_cumprod[-1])
        return {"latents": signal**0.5 * painted + (1 - signal) ** 0.5 * noise, "generator": generators}


def load_generator(
    name: str | Path | Source | None = None,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    revisions: tuple[str, str] | None = None,
    memory: str | float | None = None,
    anchor: str | None = None,
    decoder_prompt: str | None = None,
) -> Generator:
    """Load a generator.

    Args:
        name: ``"pocket"``, ``"kandinsky-2.1"``, ``"kandinsky-2.2"``, or a folder that holds ``prior/`` and ``decoder/``
            (and, if it likes, ``generator.json`` with the fields of ``Settings``), or what ``find_source`` gave. By default
            the environment variable ``CREATIVELIB_MODEL``, else ``"pocket"``.
        device: CUDA where there is one, else the CPU.
        dtype: of image encoder and decoder: float16 on CUDA, else float32.
        revisions: hub commits of prior and decoder, for the published checkpoints; see ``Source``.
        memory: how much of the device's memory to use, e.g. ``"12GB"``; by default what a GPU has. Parts that do not fit
            together take turns, see ``memory``.
        anchor, decoder_prompt: of Kandinsky 2.1, see ``Settings``; by default as in the paper, ``"decoder"`` and ``"empty"``.

    Raises:
        ValueError: unknown name, or no such device here. OSError: files are missing, damaged or of another kind, or the hub
            does not give them; the message says which and why.
    """
    device = find_device(device)
    dtype = dtype or (torch.float16 if device.type == "cuda" else torch.float32)
    source = name if isinstance(name, Source) else find_source(name, revisions)
    source = source.switched(anchor=anchor, decoder_prompt=decoder_prompt)
    ledger = Ledger(device, memory_limit(memory, device))
    dtypes = {"image_encoder": dtype, "default": torch.float32}
    return Generator(source, load_pipeline(source.prior, source.prior_revision, PRIOR_PARTS, dtypes), device, dtype, ledger)
