"""The pairs that teach the one-step model of Pocket Kandinsky: noise and text, and the latents that both stages draw of them.

Regression on pairs: a network of that size has no time to learn from anything weaker. What it shall be able to learn has to be
a function, and one that convolutions find, so a pair is laid out for it:

1. *A Gaussian in the prior's place.* What the prior draws of a text is described by a Gaussian (that is what the paper builds
   on), and what the decoder draws of this Gaussian's embeddings the judge calls the subject as often as what it draws of the
   prior's own (86 of 100 both, over eight subjects). Mean plus matrix times 320 normal numbers: a linear map. The prior's own
   path from noise through its denoising steps is a function of which this network learned nothing from 16,000 pairs.
2. *Noise that looks like what it paints.* The decoder's matrix says which latents each of the 320 numbers moves. They are read
   from a normal noise of 8 x 16 x 16 by the orthonormal patterns nearest to that (``noise_patterns``): the noise holds a
   whitened picture of what it will change, and the student colours a picture instead of reading a code.
3. *The decoder without chance*: its own noise is the same for all pairs. What differs between two pictures of one text is their
   embedding.

So the student knows the texts that it was taught, the eight subjects' prompts, and what a search makes of them.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import KandinskyV22Pipeline, UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tqdm.auto import tqdm
from transformers import CLIPVisionModelWithProjection

from creativelib.generator import load_generator
from creativelib.pocket import autoencoder, decoder, taxonomy, training
from creativelib.pocket.autoencoder import LATENT_CHANNELS
from creativelib.prior_sampling import sample_prior
from creativelib.sources import read_settings
from creativelib.text import positive_prompt

SHAPE = (LATENT_CHANNELS, 16, 16)
SAMPLES = 2500  # of the prior, that a text's Gaussian is fitted to
TEXTS, SEEDS = 64, 4  # of a block of pairs: texts, and pictures of each


@dataclass(frozen=True)
class Cloud:
    """What the prior draws of a text, as a Gaussian: mean (d,) and root (d, d), the symmetric root of the covariance; and what
    the student is told of the text, hidden states (T, w).
    """

    hidden: torch.Tensor
    mean: torch.Tensor
    root: torch.Tensor

    @classmethod
    def fit(cls, hidden: torch.Tensor, samples: torch.Tensor) -> "Cloud":
        """Of samples (n, d), more than d of them."""
        return cls(hidden, samples.mean(0), symmetric_root(torch.cov(samples.double().T)).float())


def symmetric_root(covariance: torch.Tensor) -> torch.Tensor:
    """Of a covariance (d, d): of all its roots the one that leaves each number nearest to its own axis."""
    variances, axes = torch.linalg.eigh(covariance)
    return (axes * variances.clamp(min=0).sqrt()) @ axes.T


@dataclass
class Teacher:
    """Both stages of Pocket Kandinsky, as a function of text and noise.

    Attributes:
        clouds: by text. zero: (1, d), what the decoder is guided away from. decoder_steps, decoder_guidance: as it is shipped.
        weights: tell whose they are.
    """

    clouds: dict[str, Cloud]
    unet: UNet2DConditionModel
    coarse: dict[str, torch.Tensor]
    zero: torch.Tensor
    device: str
    decoder_steps: int
    decoder_guidance: float
    weights: dict[str, str]

    @classmethod
    def load(cls, model: Path, device: str) -> "Teacher":
        """The model that is shipped in a folder, guided as it is by default; in float32."""
        generator, clouds = load_generator(str(model), device=device), {}
        for subject in taxonomy.SUBJECTS:
            prompt = positive_prompt(subject)
            samples = sample_prior(generator, prompt, SAMPLES, progress=False).embeddings.cpu()
            clouds[prompt] = Cloud.fit(generator.encode_text(prompt).hidden_states[0].float().cpu(), samples)
        eyes = CLIPVisionModelWithProjection.from_pretrained(model / "prior" / "image_encoder", dtype=torch.float32)
        side, settings = eyes.config.image_size, read_settings(model / "generator.json")
        with torch.no_grad():
            zero = eyes(pixel_values=torch.zeros(1, 3, side, side)).image_embeds
        return cls(
            clouds,
            UNet2DConditionModel.from_pretrained(model / "decoder" / "unet", dtype=torch.float32),
            load_file(model / "decoder" / "coarse.safetensors"),
            zero,
            device,
            settings.decoder_steps,
            settings.decoder_guidance,
            generator.weights,
        )

    def __post_init__(self):
        self.unet.to(self.device).eval().requires_grad_(False)
        self.coarse = {name: tensor.float() for name, tensor in self.coarse.items()}
        mean = sum(cloud.root.double() @ cloud.root.double() for cloud in self.clouds.values()) / len(self.clouds)
        self.patterns = noise_patterns(self.coarse["weight"] @ symmetric_root(mean).float())
        kept = torch.randn(1, *SHAPE, generator=training.step_generator(0, 0)).flatten(1)
        # of the decoder's noise the part that says what to paint is left out: it would lean all pictures the same way
        self.noise = (kept - kept @ self.patterns @ self.patterns.T).unflatten(1, SHAPE)

    @property
    def mark(self) -> str:
        """Tells its pairs from those of another teacher."""
        told = sorted(self.clouds), sorted(self.weights.items()), self.decoder_steps, self.decoder_guidance, SAMPLES
        return hashlib.sha256(repr(told).encode()).hexdigest()[:8]

    def hidden_states(self, texts: Sequence[str]) -> torch.Tensor:
        """What the student is told about texts, (N, T, w): last hidden states of the text encoder, as in Stable Diffusion."""
        return torch.stack([self.clouds[text].hidden for text in texts]).to(self.device)

    def embeddings(self, texts: Sequence[str], noise: torch.Tensor) -> torch.Tensor:
        """Embeddings (texts, N, d) of noise (texts, N, 8, 16, 16)."""
        numbers = noise.flatten(2) @ self.patterns
        clouds = [self.clouds[text] for text in texts]
        return torch.stack([cloud.mean + own @ cloud.root for cloud, own in zip(clouds, numbers, strict=True)])

    @torch.no_grad()
    def latents(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Latents (N, 8, 16, 16) that the decoder draws of embeddings (N, d), on the CPU."""
        pipeline = KandinskyV22Pipeline(unet=self.unet, scheduler=decoder.scheduler(), movq=autoencoder.build().to(self.device))
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
        at_once = 32 if torch.device(self.device).type == "cpu" else TEXTS * SEEDS
        drawn = [self.latents(part) for part in self.embeddings(texts, noise).flatten(0, 1).split(at_once)]
        return torch.cat(drawn).unflatten(0, noise.shape[:2])


def noise_patterns(matrix: torch.Tensor) -> torch.Tensor:
    """Orthonormal patterns (2048, d) that carry the d numbers of an embedding's noise: the polar factor of what the numbers
    paint, a matrix (2048, d). Of all orthonormal patterns the nearest, so that noise is only made larger or smaller where it
    lies, nowhere turned.
    """
    u, _, v = torch.linalg.svd(matrix.double(), full_matrices=False)
    return (u @ v).float()


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


def make_pairs(teacher: Teacher, count: int, folder: Path, seed: int = 0) -> Pairs:
    """``count`` pairs or a few more, in blocks of at most ``TEXTS`` texts; those that ``folder`` holds are not made again.

    Args:
        folder: of this teacher alone.
    """
    folder.mkdir(parents=True, exist_ok=True)
    known, parts = list(teacher.clouds), []
    wanted = min(TEXTS, -(-count // SEEDS))  # texts of a block
    blocks = range(-(-count // (wanted * SEEDS)))
    for number in tqdm(blocks, desc="teacher's pairs", unit="block", leave=False, mininterval=10):
        path = folder / f"{number:05d}.safetensors"
        if not path.exists():
            generator = training.step_generator(seed, number)
            texts = [known[number] for number in torch.randint(len(known), (wanted,), generator=generator).tolist()]
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
