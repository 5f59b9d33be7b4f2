"""The pairs that teach the one-step model of Pocket Kandinsky: noise and text, and the latents that both stages draw of them.

Regression on pairs: a network of that size has no time to learn from anything weaker. What it shall be able to learn has to be
a function, and one that convolutions find, so the noise of a pair is laid out for it:

1. *The prior without chance.* The teacher's prior adds noise at every step; here it follows the deterministic path of the same
   diffusion (DDIM), so that an embedding is a smooth function of text and 320 normal numbers.
2. *Noise that lies where it acts.* The decoder's matrix says which latents each of the 320 numbers moves. They are read from a
   normal noise of 8 x 16 x 16 as the means of squares, rotated so that each lies nearest to where it acts (``noise_patterns``):
   the noise holds a small whitened picture of what it will change, and the student translates a picture instead of a code.
3. *The decoder without chance*: its own noise is the same for all pairs. What differs between two pictures of one text is their
   embedding.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import DDIMScheduler, KandinskyV22Pipeline, PriorTransformer, UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional
from tqdm.auto import tqdm
from transformers import CLIPTextModelWithProjection, CLIPTokenizer, CLIPVisionModelWithProjection

from creativelib.pocket import autoencoder, captions, clip, decoder, training
from creativelib.pocket.autoencoder import LATENT_CHANNELS
from creativelib.prior_sampling import CachedPrior
from creativelib.sources import read_settings
from creativelib.text import TextCondition, positive_prompt

SHAPE = (LATENT_CHANNELS, 16, 16)
PRIOR_STEPS = 20  # of the deterministic path; each takes a little of the spread, and few take much
TEXTS, SEEDS = 64, 4  # of a block of pairs: texts, and pictures of each
PLAIN_SHARE = 0.5  # of the texts: the paper's prompt of a noun; the others are captions of the corpus


@dataclass
class Teacher:
    """Both stages of Pocket Kandinsky, as a function of text and noise.

    Attributes:
        zero: (1, d), what the decoder is guided away from. prior_guidance, decoder_steps, decoder_guidance: as it is shipped.
    """

    tokenizer: object
    text_encoder: nn.Module
    prior: PriorTransformer
    unet: UNet2DConditionModel
    coarse: dict[str, torch.Tensor]
    zero: torch.Tensor
    device: str
    prior_guidance: float
    decoder_steps: int
    decoder_guidance: float

    @classmethod
    def load(cls, model: Path, device: str) -> "Teacher":
        """The model that is shipped in a folder, guided as it is by default; in float32."""
        prior, decoder_folder, settings = model / "prior", model / "decoder", read_settings(model / "generator.json")
        eyes = _part(CLIPVisionModelWithProjection, prior / "image_encoder")
        side = eyes.config.image_size
        with torch.no_grad():
            zero = eyes(pixel_values=torch.zeros(1, 3, side, side)).image_embeds
        return cls(
            CLIPTokenizer.from_pretrained(prior / "tokenizer"),
            _part(CLIPTextModelWithProjection, prior / "text_encoder"),
            _part(PriorTransformer, prior / "prior"),
            _part(UNet2DConditionModel, decoder_folder / "unet"),
            load_file(decoder_folder / "coarse.safetensors"),
            zero,
            device,
            settings.prior_guidance,
            settings.decoder_steps,
            settings.decoder_guidance,
        )

    def __post_init__(self):
        for module in (self.text_encoder, self.prior, self.unet):
            module.to(self.device).eval().requires_grad_(False)
        self.coarse = {name: tensor.float() for name, tensor in self.coarse.items()}
        self.patterns = noise_patterns(self.coarse["weight"] * self.prior.clip_std.cpu().float())
        kept = torch.randn(1, *SHAPE, generator=training.step_generator(0, 0)).flatten(1)
        # of the decoder's noise the part that says what to paint is left out: it would lean all pictures the same way
        self.noise = (kept - kept @ self.patterns @ self.patterns.T).unflatten(1, SHAPE)

    @property
    def mark(self) -> str:
        """Tells its pairs from those of another teacher."""
        digest = hashlib.sha256(repr((self.prior_guidance, self.decoder_steps, self.decoder_guidance, PRIOR_STEPS)).encode())
        states = [module.state_dict() for module in (self.text_encoder, self.prior, self.unet)]
        for tensor in [self.zero, *(tensor for state in (*states, self.coarse) for tensor in state.values())]:
            digest.update(tensor.cpu().float().numpy().tobytes())
        return digest.hexdigest()[:8]

    @torch.no_grad()
    def conditions(self, texts: Sequence[str]) -> list[TextCondition]:
        """What the prior and the student are told about each text."""
        tokens = self.tokenizer(texts, padding="max_length", max_length=clip.MAX_TOKENS, truncation=True, return_tensors="pt")
        output, mask = self.text_encoder(tokens.input_ids.to(self.device)), tokens.attention_mask.bool().to(self.device)
        parts = zip(output.text_embeds.split(1), output.last_hidden_state.split(1), mask.split(1), strict=True)
        return [TextCondition(*part) for part in parts]

    @torch.no_grad()
    def embeddings(self, texts: Sequence[str], noise: torch.Tensor) -> torch.Tensor:
        """Embeddings (texts, N, d) of prior noise (texts, N, d): the deterministic path."""
        noisy = noise.to(self.device)
        told = CachedPrior(self.prior, self.conditions(texts))
        untold = CachedPrior(self.prior, self.conditions([""]))
        path = DDIMScheduler(
            beta_schedule="squaredcos_cap_v2", prediction_type="sample", clip_sample_range=5.0, timestep_spacing="trailing",
        )  # fmt: skip
        path.set_timesteps(PRIOR_STEPS)
        for time in path.timesteps:
            at = torch.full((1, 1), int(time), device=self.device)
            plain = untold.each(noisy.flatten(0, 1)[None], at)[0].unflatten(0, noisy.shape[:2])
            clean = plain + self.prior_guidance * (told.each(noisy, at) - plain)
            noisy = path.step(clean, time, noisy).prev_sample
        return self.prior.post_process_latents(noisy).float()

    @torch.no_grad()
    def latents(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Latents (N, 8, 16, 16) that the decoder draws of embeddings (N, d), on the CPU."""
        pipeline = KandinskyV22Pipeline(unet=self.unet, scheduler=decoder.scheduler(), movq=autoencoder.build())
        pipeline.set_progress_bar_config(disable=True)
        signal = float(decoder.scheduler().alphas_cumprod[-1])
        painted = decoder.paint(self.coarse, embeddings.cpu())
        start = signal**0.5 * painted + (1 - signal) ** 0.5 * self.noise
        with training.autocast(torch.device(self.device)), training.float32_norms(self.unet):
            return pipeline(
                embeddings.to(self.device), self.zero.expand_as(embeddings).to(self.device), height=128, width=128,
                num_inference_steps=self.decoder_steps, guidance_scale=self.decoder_guidance, latents=start.to(self.device),
                output_type="latent",
            ).images.float().cpu()  # fmt: skip

    def draw(self, texts: Sequence[str], noise: torch.Tensor) -> torch.Tensor:
        """Latents (texts, N, 8, 16, 16) of noise (texts, N, 8, 16, 16)."""
        found = self.embeddings(texts, noise.flatten(2) @ self.patterns)
        drawn = [self.latents(part) for part in found.flatten(0, 1).split(32)]
        return torch.cat(drawn).unflatten(0, noise.shape[:2])


def _part(kind: type, folder: Path) -> nn.Module:
    """A shipped part, in float32."""
    return kind.from_pretrained(folder, dtype=torch.float32)


def noise_patterns(matrix: torch.Tensor) -> torch.Tensor:
    """Orthonormal patterns (2048, d) that carry the d numbers of an embedding's noise.

    A pattern is made of squares of 2 x 2 latents, so that convolutions find the numbers, and ignore the rest of the noise, at
    once: d squares are d places on an 8 x 8 grid, in those mixtures of the channels that the ``matrix`` (2048, d) paints most
    in. Which squares a number gets says the polar factor of the matrix on that grid: of all rotations the one that puts each
    number nearest to what it paints.
    """
    side, width = SHAPE[1] // 2, matrix.shape[1]
    painted = matrix.double().T.unflatten(1, SHAPE)  # (d, 8, 16, 16)
    coarse = 2 * functional.avg_pool2d(painted, 2)  # (d, 8, 8, 8), of unit squares
    mixing = torch.linalg.eigh(torch.einsum("dcij,deij->ce", coarse, coarse)).eigenvectors.flip(1)
    mixing = mixing[:, : -(-width // side**2)]  # (8, 5)
    u, _, v = torch.linalg.svd(torch.einsum("dcij,cm->mijd", coarse, mixing).flatten(0, 2), full_matrices=False)
    squares = torch.einsum("cm,mijd->dcij", mixing, (u @ v).unflatten(0, (-1, side, side)))
    return (squares / 2).repeat_interleave(2, 2).repeat_interleave(2, 3).flatten(1).T.float()


def draw_text(records: list[dict], weights: torch.Tensor, generator: torch.Generator) -> str:
    """A text of a pair: the paper's prompt of a picture's first noun, or one of its captions."""
    record = records[int(torch.multinomial(weights, 1, generator=generator))]
    if float(torch.rand(1, generator=generator)) < PLAIN_SHARE:
        return positive_prompt(record["nouns"][0])
    return captions.caption(record, generator)


@dataclass
class Pairs:
    """What the teacher drew.

    Attributes:
        texts: one a pair. noise, latents: (N, 8, 16, 16) float16. seeds: how many pairs of one text follow one another.
    """

    texts: list[str]
    noise: torch.Tensor
    latents: torch.Tensor
    seeds: int

    def __len__(self) -> int:
        return len(self.texts)

    def part(self, start: int, stop: int | None = None) -> "Pairs":
        """Some of them."""
        return Pairs(self.texts[start:stop], self.noise[start:stop], self.latents[start:stop], self.seeds)


def make_pairs(teacher: Teacher, records: list[dict], count: int, folder: Path, seed: int = 0) -> Pairs:
    """``count`` pairs or a few more, in blocks of at most ``TEXTS`` texts; those that ``folder`` holds are not made again.

    Args:
        records: training pictures of the corpus, whose captions and nouns are told. folder: of this teacher alone.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights, parts = captions.sampling_weights(records), []
    wanted = min(TEXTS, -(-count // SEEDS))  # texts of a block
    blocks = range(-(-count // (wanted * SEEDS)))
    for number in tqdm(blocks, desc="teacher's pairs", unit="block", leave=False, mininterval=10):
        path = folder / f"{number:05d}.safetensors"
        if not path.exists():
            generator = training.step_generator(seed, number)
            texts = [draw_text(records, weights, generator) for _ in range(wanted)]
            noise = torch.randn(wanted, SEEDS, *SHAPE, generator=generator).half()
            latents = teacher.draw(texts, noise.float()).half()
            partial = path.with_suffix(".partial")
            save_file({"noise": noise, "latents": latents}, partial, metadata={"texts": json.dumps(texts)})
            partial.replace(path)
        with safe_open(path, framework="pt") as file:
            texts = [text for text in json.loads(file.metadata()["texts"]) for _ in range(SEEDS)]
            parts.append(Pairs(texts, *(file.get_tensor(name).flatten(0, 1) for name in ("noise", "latents")), SEEDS))
    return Pairs(
        [text for part in parts for text in part.texts],
        torch.cat([part.noise for part in parts]),
        torch.cat([part.latents for part in parts]),
        SEEDS,
    )
