"""Train Pocket Kandinsky: ``python -m creativelib.pocket.train`` (``make pocket``).

Stages, each resumable on its own: autoencoder, space, text-encoder, image-encoder, prior, decoder, pixels (the decoding half of
the autoencoder once more), checker, judge; then ``export`` writes the folders that diffusers and transformers load, in half
precision, and ``one-step`` teaches a one-step model by what was written and puts it beside. The same code runs on a CPU and on
a GPU; ``--budget`` chooses how many steps each stage takes.
"""

import argparse
import hashlib
import json
import platform
import shutil
import time
from functools import cached_property
from pathlib import Path

import torch
from diffusers import KandinskyV22Pipeline, KandinskyV22PriorPipeline, PriorTransformer, UNet2DConditionModel, VQModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModelWithProjection, CLIPTokenizer, CLIPVisionModelWithProjection

from creativelib.pocket import (
    autoencoder,
    checker_training,
    clip,
    corpus,
    decoder,
    judge,
    one_step,
    pixels,
    possible,
    prior,
    searched,
    space,
    training,
    worlds,
)  # fmt: skip
from creativelib.pocket.measured import Amounts, Measured

# Steps of each stage. "cpu": about what the shipped weights took, see their ``training.json``; "one-step": about two hours on
# one core. "gpu": decoder and one-step model of 1,024 and 512 pictures a step, .06 and .12 s on an H100, where 4,500 steps of
# the decoder were too long for 35,000 possible pictures: chosen from that, for more of them; the rest is a guess, not yet
# tried. "test": seconds.
BUDGETS = {
    "cpu": {
        "autoencoder": 8600, "space": 2000, "text": 1800, "image": 9000, "prior": 16000, "decoder": 60500, "pixels": 12000,
        "checker-eyes": 1200, "checker": 6500, "possible": 34000, "possible-held-out": 2000, "drawn": 6000, "dissolved": 4000,
        "searched-runs": 16, "searched": 500, "baseline": 2000, "one-step-pairs": 16384, "one-step": 13000,
    },
    "gpu": {
        "autoencoder": 30000, "space": 3000, "text": 6000, "image": 30000, "prior": 40000, "decoder": 6000, "pixels": 60000,
        "checker-eyes": 8000, "checker": 8000, "possible": 200000, "possible-held-out": 4000, "drawn": 20000, "dissolved": 4000,
        "searched-runs": 24, "searched": 500, "baseline": 2000, "one-step-pairs": 200000, "one-step": 10000,
    },
    "test": {
        "autoencoder": 2, "space": 2, "text": 2, "image": 2, "prior": 2, "decoder": 2, "pixels": 2,
        "checker-eyes": 2, "checker": 2, "possible": 8, "possible-held-out": 4, "drawn": 8, "dissolved": 8,
        "searched-runs": 1, "searched": 4, "baseline": 100, "one-step-pairs": 8, "one-step": 2,
    },
}  # fmt: skip
STAGES = (
    "possible", "autoencoder", "space", "text-encoder", "image-encoder", "prior", "decoder", "pixels", "checker", "judge",
    "export", "one-step",
)  # fmt: skip
PARTS = {  # where each part lies in a shipped model
    "movq": "decoder/movq", "movq-drawing": "decoder/movq", "unet": "decoder/unet", "prior": "prior/prior",
    "text_encoder": "prior/text_encoder", "image_encoder": "prior/image_encoder", "tokenizer": "prior/tokenizer",
}  # fmt: skip
ENCODER_MARKS = ("quant_conv.weight", "quant_conv.bias")  # tell one autoencoder's latents from another's
DEFAULTS = {
    "prior_steps": 5, "prior_guidance": 1.5, "decoder_steps": 6, "decoder_guidance": 4.0, "image_size": corpus.SIZE,
    "learning_rate": 2e-4, "drawings": True,
}  # fmt: skip


def check_sizes(folder: Path) -> None:
    """Refuse models that break the shipping limits: 15 MiB a file, 48 MiB in all (without the sheets of the model card)."""
    sizes = {path: path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.parent.name != "sheets"}
    large = [f"{path} ({size / 2**20:.1f} MiB)" for path, size in sizes.items() if size > 15 * 2**20]
    total = sum(sizes.values()) / 2**20
    print(f"{folder}: {total:.1f} MiB in {len(sizes)} files")
    if large or total > 48:
        raise SystemExit(f"Too large to ship: {', '.join(large) or f'{total:.1f} MiB in all, 48 allowed'}")


def write_checksums(folder: Path) -> None:
    """``SHA256SUMS`` of everything in ``folder``, in the format of the sha256sum tool."""
    lines = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != "SHA256SUMS":
            lines.append(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder).as_posix()}\n")
    (folder / "SHA256SUMS").write_text("".join(lines))


def load_part(kind: type, name: str, work: Path | None, warm: Path | None):
    """The part ``name`` of ``PARTS`` from a work folder, or else from a shipped model, in float32."""
    if work is not None and (work / name).is_dir():
        part = kind.from_pretrained(work / name)
    elif warm is not None:
        part = kind.from_pretrained(warm / PARTS[name])
    else:
        raise FileNotFoundError(
            f"There is no {name} in {work}: run the stages before this one, or start --warm from a shipped model"
        )
    return part.float() if isinstance(part, torch.nn.Module) else part


def export(
    work: Path, out: Path, provenance: dict, warm: Path | None = None, answering: tuple[str, ...] = ("checker", "judge")
) -> None:
    """Write the shipped folders: ``prior/``, ``decoder/`` (diffusers pipelines), those that answer questions, settings."""
    out.mkdir(parents=True, exist_ok=True)

    def half(kind: type, name: str):
        return load_part(kind, name, work, warm).half()

    prior_pipeline = KandinskyV22PriorPipeline(
        prior=half(PriorTransformer, "prior"),
        image_encoder=half(CLIPVisionModelWithProjection, "image_encoder"),
        text_encoder=half(CLIPTextModelWithProjection, "text_encoder"),
        tokenizer=load_part(CLIPTokenizer, "tokenizer", work, warm),
        scheduler=prior.scheduler(),
        image_processor=clip.image_processor(),
    )
    drawing = "movq-drawing" if (work / "movq-drawing").is_dir() else "movq"
    decoder_pipeline = KandinskyV22Pipeline(
        unet=half(UNet2DConditionModel, "unet"), movq=half(VQModel, drawing), scheduler=decoder.scheduler()
    )
    for name, pipeline in {"prior": prior_pipeline, "decoder": decoder_pipeline}.items():
        shutil.rmtree(out / name, ignore_errors=True)
        pipeline.save_pretrained(out / name)
    coarse = load_file(work / "coarse.safetensors")
    save_file({name: tensor.half() for name, tensor in coarse.items()}, out / "decoder" / "coarse.safetensors")
    for name in answering:
        if (work / "shipped" / name).exists():
            shutil.copytree(work / "shipped" / name, out / name, dirs_exist_ok=True)
    shutil.rmtree(out / "logs", ignore_errors=True)  # no curve of a stage that is no more
    (out / "logs").mkdir()
    for log in sorted((work / "logs").glob("*.csv")):  # the training curves that notebook A1 shows
        shutil.copy(log, out / "logs" / log.name)
    (out / "generator.json").write_text(json.dumps(DEFAULTS, indent=2) + "\n")
    (out / "training.json").write_text(json.dumps(provenance, indent=2) + "\n")
    write_checksums(out)
    check_sizes(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("build/pocket"), help="work folder (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("data/pocket"), help="where the models go (default: %(default)s)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--budget", choices=BUDGETS, help="default: gpu on a GPU, else cpu")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES, help="default: all, in order")
    parser.add_argument("--warm", type=Path, help="a shipped model whose weights the stages start from (default: start anew)")
    parser.add_argument("--threads", type=int, help="CPU threads to use")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    budget = BUDGETS[options.budget or ("gpu" if options.device.startswith("cuda") else "cpu")]
    training_run = Training(options.work, options.out, options.device, budget, options.warm, options.seed)
    for stage in options.stages:
        begun = time.monotonic()
        print(f"== {stage}", flush=True)
        getattr(training_run, stage.replace("-", "_"))()
        print(f"== {stage}: {time.monotonic() - begun:.0f} s", flush=True)


class Training:
    """One method a stage; everything that a stage needs of earlier ones is read from ``work``.

    ``warm`` is a shipped model, or ``None``: the stages go on from its weights instead of starting anew, the space is turned
    towards its image encoder's embeddings.
    """

    def __init__(self, work: Path, out: Path, device: str, budget: dict, warm: Path | None = None, seed: int = 0):
        self.work, self.out, self.device, self.budget, self.warm, self.seed = work, out, device, budget, warm, seed
        self.images, self.records = corpus.load(work)

    @cached_property
    def worlds(self) -> worlds.Worlds:
        return worlds.load(self.work, self.images, self.records)

    @cached_property
    def latents(self) -> torch.Tensor:
        """Of both worlds, (rows, 8, 16, 16) float16; made anew for another autoencoder."""
        movq = self._part(VQModel, "movq").to(self.device, memory_format=torch.channels_last)

        def encode(pictures):
            with training.autocast(torch.device(self.device)), training.float32_norms(movq):
                return autoencoder.encode(movq, pictures).cpu()

        digest = hashlib.sha256(b"".join(movq.state_dict()[name].numpy().tobytes() for name in ENCODER_MARKS)).hexdigest()
        return worlds.described(self.worlds, self.work / f"latents-{digest[:8]}", encode)

    @property
    def embeddings(self) -> torch.Tensor:
        """Of both worlds in the space, (rows, 320); computed at each call, so that they are always the present space's."""
        return space.embeddings(self.work / "space.pt", worlds.features(self.worlds, self.work, 0), self.latents)

    @property
    def typical(self) -> tuple[list[dict], torch.Tensor]:
        """The n training records of the corpus and their embeddings (views, n, 320)."""
        records = training.training_split(self.records)[1]
        return records, self.embeddings[: 2 * len(records)].unflatten(0, (2, len(records)))

    @property
    def zero(self) -> torch.Tensor:
        """What the zero image, diffusers' *unconditional*, is embedded as, (1, 320); the same for all stages."""
        if self.warm is None:
            return torch.zeros(1, space.DIM)
        encoder = self._warm(CLIPVisionModelWithProjection, "image_encoder")
        with torch.no_grad():
            return encoder(pixel_values=torch.zeros(1, 3, corpus.SIZE, corpus.SIZE)).image_embeds

    @property
    def drawn_rows(self) -> torch.Tensor:
        """The rows that the decoder draws for the stages after it, (m,)."""
        return self.worlds.draw(self.budget["drawn"], training.step_generator(self.seed, 0))

    @property
    def drawn_file(self) -> Path:
        """Where the latents of ``drawn_rows`` are kept; those of other decoder settings lie elsewhere."""
        return self.work / f"drawn-{DEFAULTS['decoder_steps']}-{DEFAULTS['decoder_guidance']:g}.pt"

    def _part(self, kind: type, name: str):
        """A trained part; where its stage was left out, that of the warm start."""
        return load_part(kind, name, self.work, self.warm)

    def _warm(self, kind: type, name: str):
        return None if self.warm is None else load_part(kind, name, None, self.warm)

    # --- the stages -------------------------------------------------------------------------------------------------------

    def possible(self) -> None:
        possible.make(self.work, self.budget["possible-held-out"], "held-out")
        possible.make(self.work, self.budget["possible"], "train")

    def autoencoder(self) -> None:
        pictures = self.images[[i for i, record in enumerate(self.records) if record["split"] == "train"]]
        warm = self._warm(VQModel, "movq")
        model = autoencoder.train(pictures, self.work, self.device, self.budget["autoencoder"], seed=self.seed, warm=warm)
        model.save_pretrained(self.work / "movq")

    def space(self) -> None:
        space.train(
            self.worlds, worlds.features(self.worlds, self.work, 0), self.latents, self.work, self.device, self.budget["space"],
            seed=self.seed,
        )  # fmt: skip
        if self.warm is not None:
            rows = torch.arange(0, int(self.worlds.typical.sum()) // 2, 2)
            known = clip.embed_images(self._warm(CLIPVisionModelWithProjection, "image_encoder"), self.worlds.pictures(rows))
            space.turn_towards(self.work / "space.pt", self.embeddings[rows], known)

    def text_encoder(self) -> None:
        warm = None
        if self.warm is not None:
            warm = self._warm(CLIPTokenizer, "tokenizer"), self._warm(CLIPTextModelWithProjection, "text_encoder")
        clip.train_text_encoder(*self.typical, self.work, self.device, self.budget["text"], seed=self.seed, warm=warm)

    def image_encoder(self) -> None:
        warm = self._warm(CLIPVisionModelWithProjection, "image_encoder")
        clip.train_image_encoder(
            self.worlds, self.embeddings, self.zero, self.work, self.device, self.budget["image"], seed=self.seed, warm=warm
        )

    def prior(self) -> None:
        tokenizer = self._part(CLIPTokenizer, "tokenizer")
        encoder, warm = self._part(CLIPTextModelWithProjection, "text_encoder"), self._warm(PriorTransformer, "prior")
        records, embeddings = self.typical
        model = prior.train(
            records, embeddings, tokenizer, encoder, self.work, self.device, self.budget["prior"], seed=self.seed, warm=warm
        )
        model.save_pretrained(self.work / "prior")

    def decoder(self) -> None:
        warm = self._warm(UNet2DConditionModel, "unet")
        model = decoder.train(
            self.worlds, self.latents, self.embeddings, self.zero, self.work, self.device, self.budget["decoder"],
            seed=self.seed, warm=warm,
        )  # fmt: skip
        model.save_pretrained(self.work / "unet")

    def pixels(self) -> None:
        movq, unet = self._part(VQModel, "movq"), self._part(UNet2DConditionModel, "unet")
        if not self.drawn_file.exists():
            rows, embeddings = self.drawn_rows, self.embeddings
            shown, half = embeddings[rows], len(rows) // 2
            axes = decoder.search_axes(self.worlds, embeddings)  # every second one as a search leaves it
            shown[half:] = decoder.stray(shown[half:], axes, training.step_generator(self.seed, 1))
            coarse = load_file(self.work / "coarse.safetensors")
            drawn = decoder.sample(
                unet, coarse, shown, self.zero, self.device, steps=DEFAULTS["decoder_steps"],
                guidance=DEFAULTS["decoder_guidance"], seed=self.seed,
            )  # fmt: skip
            torch.save(drawn.half(), self.drawn_file)
        drawn = torch.load(self.drawn_file, weights_only=True)
        latents = self.latents
        model = pixels.train(movq, self.worlds, latents, drawn, self.work, self.device, self.budget["pixels"], seed=self.seed)
        model.save_pretrained(self.work / "movq-drawing")

    def checker(self) -> None:
        steps = {"steps": self.budget["checker"], "eye_steps": self.budget["checker-eyes"]}
        features = worlds.features(self.worlds, self.work, 0)
        rows = self.drawn_rows[: self.budget["drawn"] // 2]  # those whose embeddings were left as they are
        latents = torch.load(self.drawn_file, weights_only=True)[: len(rows)].float()
        drawn = autoencoder.decode(self._part(VQModel, "movq-drawing").to(self.device), latents.to(self.device))
        checker_training.train(
            self.worlds, features, rows, drawn, self.searched(), self.work, self.device, **steps, seed=self.seed
        )  # fmt: skip

    def searched(self) -> searched.Searched:
        """What searches draw of the prior and the decoder that were trained, made anew for others."""
        folder = self.work / "searched"
        export(self.work, folder / "model", {}, self.warm, answering=())
        amounts = Amounts(baseline=self.budget["baseline"], steps=self.budget["searched"])
        measured = Measured(self.work, folder / "model", folder, folder / "sheets", amounts)
        measured.open_scratch()
        return searched.search(measured, self.budget["searched-runs"], self.budget["searched"])

    def judge(self) -> None:
        judge.train(self.worlds, self.work, self.device, self.budget["dissolved"], seed=self.seed)

    def export(self) -> None:
        provenance = {
            "device": describe(self.device), "torch": torch.__version__, "steps": steps_done(self.work), "seed": self.seed
        }  # fmt: skip
        # written by hand: what was not trained by one run of this command; what was tried where an aim was missed (Markdown)
        for name, file in (("history", self.work / "history.txt"), ("tried", self.work / "tried.md")):
            provenance[name] = file.read_text().strip() if file.exists() else ""
        export(self.work, self.out, provenance, self.warm)

    def one_step(self) -> None:
        out = self.out.with_name(f"{self.out.name}-one-step")
        pairs, steps = self.budget["one-step-pairs"], self.budget["one-step"]
        one_step.distil(self.out, self.work, out, pairs, steps, self.device, self.seed)


def steps_done(work: Path) -> dict[str, int]:
    """Steps that each stage was really trained for, from the last line of its log."""
    logs = sorted((work / "logs").glob("*.csv"))
    return {log.stem: int(log.read_text().splitlines()[-1].split(",")[0]) for log in logs}


def describe(device: str) -> str:
    """The hardware in words, e.g. ``"CPU (x86_64, 2 threads)"``."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"CPU ({platform.machine()}, {threads} thread{'s' if threads != 1 else ''})"


if __name__ == "__main__":
    main()
