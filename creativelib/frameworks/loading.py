"""Where one-step models come from: Hyper-SD from the model hub, the shipped one, or folders of the same layout."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path

import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline, TCDScheduler
from transformers import CLIPImageProcessor, CLIPTextModelWithProjection, CLIPVisionModelWithProjection

from creativelib.frameworks import pocket
from creativelib.frameworks.one_step import Eyes, OneStep, OneStepSettings
from creativelib.loading import find_device, load_pretrained
from creativelib.memory import Ledger, memory_limit
from creativelib.storage import data_folder, read_json
from creativelib.weights import weights_of

PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")


@dataclass(frozen=True)
class OneStepSource:
    """Where the parts of a one-step model come from: folders or hub ids.

    Attributes:
        pipeline: of the layout of Stable Diffusion 1 (one text encoder). encoder: a CLIP pair, which measures its pictures.
        lora: folder or hub id, and the file, of adapters that make it a one-step model; they are fused into the UNet, which
            TCD's scheduler then drives. ``None`` where the pipeline is one by itself.
        revisions: hub commits of pipeline, encoder and lora; pin them for numbers that are to be cited.
    """

    name: str
    pipeline: str
    encoder: str
    lora: tuple[str, str] | None = None
    settings: OneStepSettings = OneStepSettings()
    revisions: tuple[str, str, str] = ("main", "main", "main")


HYPER_SD = OneStepSource(
    "hyper-sd",
    "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "openai/clip-vit-large-patch14",
    ("ByteDance/Hyper-SD", "Hyper-SD15-1step-lora.safetensors"),
)
LORA_FILE = "one-step-lora.safetensors"  # of a folder


def load_one_step(
    name: str | Path = "pocket",
    *,
    device: str | torch.device | None = None,
    memory: str | float | None = None,
    revisions: Sequence[str] | None = None,
) -> OneStep:
    """Load a one-step model.

    Args:
        name: ``"pocket"``, the shipped one; ``"hyper-sd"`` (Hyper-SD's one-step adapters on Stable Diffusion 1.5); or a folder
            with ``pipeline/`` and ``encoder/`` of that layout, and, if it likes, the adapters ``one-step-lora.safetensors`` and
            ``one_step.json`` with fields of ``OneStepSettings``.
        device, memory: as ``load_generator`` takes them. revisions: three hub commits, see ``OneStepSource``.

    Raises:
        ValueError: unknown name, no such device here, settings that are none. OSError: files are missing, damaged or of
            another kind, or the hub does not give them; the message says which and why.
    """
    device = find_device(device)
    ledger = Ledger(device, memory_limit(memory, device))
    if str(name) == "pocket":
        return _pocket(ledger)
    source = find_one_step(name)
    if revisions is not None:
        if isinstance(revisions, str) or len(revisions) != 3:
            raise ValueError(f"revisions: got {revisions!r}; give three hub commits, of pipeline, encoder and LoRA")
        source = replace(source, revisions=tuple(revisions))
    pipeline = _load_pipeline(source)
    weights = {
        "pipeline": weights_of(source.pipeline, source.revisions[0], "model_index.json"),
        "encoder": weights_of(source.encoder, source.revisions[1], "config.json"),
    }
    if source.lora is not None:
        where, file = source.lora
        load_pretrained("lora", where, file, partial(_fuse, pipeline, file), source.revisions[2])
        weights["lora"] = weights_of(where, source.revisions[2], file)
    origin = source.name if str(name) == HYPER_SD.name else str(Path(source.pipeline).parent.resolve())
    return OneStep(source.name, pipeline, _load_eyes(source), source.settings, weights=weights, origin=origin, memory=ledger)


def find_one_step(name: str | Path) -> OneStepSource:
    """The source of Hyper-SD, or of a folder.

    Raises:
        ValueError: unknown name, or a ``one_step.json`` that says something else.
    """
    if str(name) == HYPER_SD.name:
        return HYPER_SD
    folder = Path(os.path.expanduser(name))
    if not (folder / "pipeline").is_dir() or not (folder / "encoder").is_dir():
        raise ValueError(f"model: got {str(name)!r}; choose 'pocket', 'hyper-sd', or a folder with pipeline/ and encoder/")
    lora = (str(folder), LORA_FILE) if (folder / LORA_FILE).is_file() else None
    settings = read_one_step_settings(folder / "one_step.json")
    return OneStepSource(folder.resolve().name, str(folder / "pipeline"), str(folder / "encoder"), lora, settings)


def read_one_step_settings(path: Path) -> OneStepSettings:
    """The settings in a ``one_step.json``, whose other keys are ignored; the defaults where there is no such file.

    Raises:
        ValueError: the file is no JSON object, or a setting in it is of another kind.
    """
    if not path.is_file():
        return OneStepSettings()
    given, defaults = read_json(path), OneStepSettings()
    known = {field.name: given[field.name] for field in fields(defaults) if field.name in given}
    for name, value in known.items():
        empty = getattr(defaults, name) is None
        kind = {"timestep": int, "anchor_threshold": float}[name] if empty else type(getattr(defaults, name))
        right = isinstance(value, (int, float) if kind is float else kind) and (kind is bool or not isinstance(value, bool))
        if not (right or (empty and value is None)):
            raise ValueError(f"model: {path} has {name} = {json.dumps(value)}; write a value of the kind {kind.__name__}")
    return OneStepSettings(**known)


def _load_pipeline(source: OneStepSource) -> StableDiffusionPipeline:
    """diffusers' pipeline in float32, without its filter of pictures: that is never asked here, and takes 1.2 GB."""

    def load(where: str, **options) -> DiffusionPipeline:
        options |= {"safety_checker": None, "requires_safety_checker": False}
        return DiffusionPipeline.from_pretrained(where, dtype=torch.float32, **options)

    pipeline = load_pretrained("model", source.pipeline, "model_index.json", load, source.revisions[0])
    if not isinstance(pipeline, StableDiffusionPipeline) or any(getattr(pipeline, part, None) is None for part in PARTS):
        raise OSError(
            f"model: {source.pipeline} is a {type(pipeline).__name__}; give a StableDiffusionPipeline with {', '.join(PARTS)}"
        )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _fuse(pipeline: StableDiffusionPipeline, file: str, where: str, **options) -> StableDiffusionPipeline:
    """Make it a one-step model by adapters, as Hyper-SD's page says."""
    pipeline.load_lora_weights(where, weight_name=file, **options)
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()
    pipeline.scheduler = TCDScheduler.from_config(pipeline.scheduler.config)
    return pipeline


def _load_eyes(source: OneStepSource) -> Eyes:
    """The CLIP pair, in float32."""

    def load(where: str, **options) -> Eyes:
        image, text = (
            kind.from_pretrained(where, dtype=torch.float32, **options)
            for kind in (CLIPVisionModelWithProjection, CLIPTextModelWithProjection)
        )
        return Eyes(image, text, CLIPImageProcessor.from_pretrained(where, **options))

    return load_pretrained("encoder", source.encoder, "config.json", load, source.revisions[1])


def _pocket(ledger: Ledger) -> OneStep:
    """The shipped one-step model, whose text encoder, VAE and eyes are parts of Pocket Kandinsky."""
    model, student = data_folder() / "pocket", data_folder() / pocket.FOLDER
    pipeline, eyes = pocket.assemble(model, student)
    settings = read_one_step_settings(student / "one_step.json")
    return OneStep("pocket", pipeline, eyes, settings, weights=pocket.weights(model, student), memory=ledger)
