"""Train Pocket Kandinsky: ``python -m creativelib.pocket.train`` (``make pocket``).

Stages, each resumable on its own: autoencoder, space, text-encoder, image-encoder, prior, decoder, pixels (the decoding half of
the autoencoder once more), checker, judge; then ``export`` writes the folders that diffusers and transformers load, in half
precision. The same code runs on a CPU and on a GPU; ``--budget`` chooses how many steps each stage takes.
"""

import argparse
import hashlib
import json
import platform
import shutil
import time
from pathlib import Path

import torch
from diffusers import KandinskyV22Pipeline, KandinskyV22PriorPipeline, PriorTransformer, UNet2DConditionModel, VQModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModelWithProjection, CLIPTokenizer, CLIPVisionModelWithProjection

from creativelib.pocket import autoencoder, checker, clip, corpus, decoder, judge, prior, space, training

# Steps of each stage. "cpu": what the shipped weights took on two cores (the decoder saw as many pictures in four runs);
# "gpu": a guess at half an hour on one recent GPU, not yet tried; "test": seconds.
BUDGETS = {
    "cpu": {
        "autoencoder": 8600, "space": 2000, "text": 1800, "image": 9000, "prior": 16000, "decoder": 60500, "pixels": 12000,
        "checker-eyes": 1200, "checker": 2800,
    },
    "gpu": {
        "autoencoder": 30000, "space": 3000, "text": 6000, "image": 30000, "prior": 40000, "decoder": 120000, "pixels": 60000,
        "checker-eyes": 8000, "checker": 8000,
    },
    "test": {
        "autoencoder": 2, "space": 2, "text": 2, "image": 2, "prior": 2, "decoder": 2, "pixels": 2,
        "checker-eyes": 2, "checker": 2,
    },
}  # fmt: skip
STAGES = ("autoencoder", "space", "text-encoder", "image-encoder", "prior", "decoder", "pixels", "checker", "judge", "export")
DEFAULTS = {
    "prior_steps": 5, "prior_guidance": 1.5, "decoder_steps": 15, "decoder_guidance": 2.5, "image_size": corpus.SIZE,
    "learning_rate": 2e-4,
}  # fmt: skip


def check_sizes(folder: Path) -> None:
    """Refuse models that break the shipping limits: 15 MiB a file, 45 MiB in all (without the sheets of the model card)."""
    sizes = {path: path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.parent.name != "sheets"}
    large = [f"{path} ({size / 2**20:.1f} MiB)" for path, size in sizes.items() if size > 15 * 2**20]
    total = sum(sizes.values()) / 2**20
    print(f"{folder}: {total:.1f} MiB in {len(sizes)} files")
    if large or total > 45:
        raise SystemExit(f"Too large to ship: {', '.join(large) or f'{total:.1f} MiB in all, 45 allowed'}")


def write_checksums(folder: Path) -> None:
    """``SHA256SUMS`` of everything in ``folder``, in the format of the sha256sum tool."""
    lines = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != "SHA256SUMS":
            lines.append(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder).as_posix()}\n")
    (folder / "SHA256SUMS").write_text("".join(lines))


def export(work: Path, out: Path, provenance: dict) -> None:
    """Write the shipped folders: ``prior/``, ``decoder/`` (diffusers pipelines), ``checker/``, ``judge/``, settings."""
    out.mkdir(parents=True, exist_ok=True)
    prior_pipeline = KandinskyV22PriorPipeline(
        prior=PriorTransformer.from_pretrained(work / "prior").half(),
        image_encoder=CLIPVisionModelWithProjection.from_pretrained(work / "image_encoder").half(),
        text_encoder=CLIPTextModelWithProjection.from_pretrained(work / "text_encoder").half(),
        tokenizer=CLIPTokenizer.from_pretrained(work / "tokenizer"),
        scheduler=prior.scheduler(),
        image_processor=clip.image_processor(),
    )
    decoder_pipeline = KandinskyV22Pipeline(
        unet=UNet2DConditionModel.from_pretrained(work / "unet").half(),
        movq=VQModel.from_pretrained(work / "movq").half(),
        scheduler=decoder.scheduler(),
    )
    for name, pipeline in {"prior": prior_pipeline, "decoder": decoder_pipeline}.items():
        shutil.rmtree(out / name, ignore_errors=True)
        pipeline.save_pretrained(out / name)
    coarse = load_file(work / "coarse.safetensors")
    save_file({name: tensor.half() for name, tensor in coarse.items()}, out / "decoder" / "coarse.safetensors")
    for name in ("checker", "judge"):
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
    parser.add_argument("--threads", type=int, help="CPU threads to use")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    device, work = options.device, options.work
    budget = BUDGETS[options.budget or ("gpu" if device.startswith("cuda") else "cpu")]
    images, records = corpus.load(work)
    training_images = images[[i for i, record in enumerate(records) if record["split"] == "train"]]
    for stage in options.stages:
        begun = time.monotonic()
        print(f"== {stage}", flush=True)
        run_stage(stage, images, training_images, records, work, device, budget, options)
        print(f"== {stage}: {time.monotonic() - begun:.0f} s", flush=True)


def run_stage(stage: str, images, training_images, records, work: Path, device: str, budget: dict, options) -> None:
    """One stage; everything it needs from earlier stages is read from ``work``."""
    seed = options.seed
    if stage == "autoencoder":
        model = autoencoder.train(training_images, work, device, budget["autoencoder"], seed=seed)
        model.save_pretrained(work / "movq")
    elif stage == "space":
        movq = VQModel.from_pretrained(work / "movq").to(device, memory_format=torch.channels_last)
        if not (work / "latents.pt").exists():
            torch.save(torch.stack([autoencoder.encode(movq, view).cpu() for view in space.views(images)]), work / "latents.pt")
        latents = torch.load(work / "latents.pt", weights_only=True)
        space.train(images, records, latents, work, device, budget["space"], seed=seed)
    elif stage == "text-encoder":
        embeddings = torch.load(work / "embeddings.pt", weights_only=True)
        clip.train_text_encoder(records, embeddings, work, device, budget["text"], seed=seed)
    elif stage == "image-encoder":
        embeddings = torch.load(work / "embeddings.pt", weights_only=True)
        clip.train_image_encoder(images, records, embeddings, work, device, budget["image"], seed=seed)
    elif stage == "prior":
        embeddings = torch.load(work / "embeddings.pt", weights_only=True)
        tokenizer = CLIPTokenizer.from_pretrained(work / "tokenizer")
        text_encoder = CLIPTextModelWithProjection.from_pretrained(work / "text_encoder")
        model = prior.train(records, embeddings, tokenizer, text_encoder, work, device, budget["prior"], seed=seed)
        model.save_pretrained(work / "prior")
    elif stage == "decoder":
        embeddings = torch.load(work / "embeddings.pt", weights_only=True)
        latents = torch.load(work / "latents.pt", weights_only=True)
        grey = torch.zeros(1, 3, corpus.SIZE, corpus.SIZE)  # what diffusers' pipelines embed as *unconditional*
        with torch.no_grad():
            zero = CLIPVisionModelWithProjection.from_pretrained(work / "image_encoder")(pixel_values=grey).image_embeds
        model = decoder.train(records, latents, embeddings, zero, work, device, budget["decoder"], seed=seed)
        model.save_pretrained(work / "unet")
    elif stage == "pixels":
        model, (_, _, weights) = VQModel.from_pretrained(work / "movq"), training.training_split(records)
        subspace = torch.linalg.qr(load_file(work / "coarse.safetensors")["weight"])[0]
        model = autoencoder.train_decoder(model, training_images, weights, subspace, work, device, budget["pixels"], seed=seed)
        model.save_pretrained(work / "movq")
    elif stage == "checker":
        features = torch.load(work / "features-lite0-view0.pt", weights_only=True)
        steps = {"steps": budget["checker"], "eye_steps": budget["checker-eyes"]}
        checker.train(images, records, features, work, device, **steps, seed=seed)
    elif stage == "judge":
        judge.train(images, records, work, device)
    elif stage == "export":
        provenance = {"device": describe(device), "torch": torch.__version__, "steps": steps_done(work), "seed": seed}
        history = work / "history.txt"  # written by hand when a stage was not trained by one run of this command
        provenance["history"] = history.read_text().strip() if history.exists() else ""
        export(work, options.out, provenance)


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
