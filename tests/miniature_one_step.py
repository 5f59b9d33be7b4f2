"""Random-weight miniatures of one-step models in the layout of Stable Diffusion 1.5, Hyper-SD's adapters and a CLIP pair."""

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, LCMScheduler, StableDiffusionPipeline, TCDScheduler, UNet2DConditionModel
from miniature import DIM, SIDE, TOKENS, build_tokenizer, randomise
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTextConfig, CLIPTextModel

SCHEDULERS = {"tcd": TCDScheduler, "lcm": LCMScheduler, "ddim": DDIMScheduler}
SEEN = 24  # pixels that the eyes look at


def build_one_step_folder(folder: Path, scheduler: str = "tcd", **settings) -> Path:
    """A folder with ``pipeline/``, ``encoder/`` and ``one_step.json``."""
    tokenizer = build_tokenizer()
    text = {
        "vocab_size": len(tokenizer), "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "projection_dim": DIM,
        "num_attention_heads": 2, "max_position_embeddings": TOKENS, "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": 2,  # as the published files say
    }  # fmt: skip
    unet = UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(16, 32), norm_num_groups=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=16, attention_head_dim=2,
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(8, 16, 16), down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=4, norm_num_groups=8, sample_size=SIDE,
    )  # fmt: skip
    StableDiffusionPipeline(
        vae=randomise(vae, seed=11, scale=0.2),
        text_encoder=randomise(CLIPTextModel(CLIPTextConfig(**text)), seed=12, scale=0.5),
        tokenizer=tokenizer,
        unet=randomise(unet, seed=13, scale=0.2),
        scheduler=SCHEDULERS[scheduler](clip_sample=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder / "pipeline")
    vision = {
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": SEEN,
        "patch_size": 8, "projection_dim": DIM,
    }  # fmt: skip
    pair = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=DIM))
    randomise(pair, seed=14, scale=0.5).save_pretrained(folder / "encoder")
    size = {"size": {"shortest_edge": SEEN}, "crop_size": {"height": SEEN, "width": SEEN}}
    CLIPImageProcessor(**size).save_pretrained(folder / "encoder")
    (folder / "one_step.json").write_text(
        json.dumps({"image_size": SIDE, "learning_rate": 1e-2, "note": "ignored", **settings})
    )
    return folder


def build_adapters(unet: UNet2DConditionModel, path: Path, rank: int = 2, alpha: float = 1.0) -> dict[str, torch.Tensor]:
    """A LoRA file under the names that Hyper-SD's have; what it adds to each weight, by the path of its module."""
    source, tensors, added = torch.Generator().manual_seed(15), {}, {}
    for name, module in unet.named_modules():
        if name.endswith(("attn1.to_q", "attn2.to_v")):
            down = torch.randn(rank, module.in_features, generator=source)
            up = torch.randn(module.out_features, rank, generator=source)
            key = f"lora_unet_{name.replace('.', '_')}"
            tensors |= {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up, f"{key}.alpha": torch.tensor(alpha)}
            added[name] = up @ down * alpha / rank
    save_file(tensors, path)
    return added
