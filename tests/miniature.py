"""Random-weight miniatures of the published model layouts: the same classes and files as the hub's, a few thousand weights."""

import json
from pathlib import Path

import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    KandinskyPipeline,
    KandinskyPriorPipeline,
    KandinskyV22Pipeline,
    KandinskyV22PriorPipeline,
    PriorTransformer,
    UnCLIPScheduler,
    UNet2DConditionModel,
    VQModel,
)
from diffusers.pipelines.kandinsky.text_encoder import MCLIPConfig, MultilingualCLIP
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    XLMRobertaTokenizer,
)

from creativelib.full_size import byte_pairs

WORDS = "vehicle fruit alien creative a an photo of professional high quality photorealistic hq is this still yes no or".split()
DIM, SIDE, TOKENS = 16, 32, 40


def build_tokenizer(length: int = TOKENS, extra: tuple[str, ...] = ()) -> CLIPTokenizer:
    """A CLIP tokenizer: every byte, and each of ``WORDS`` as one token, with the special tokens last as in CLIP."""
    pieces, merges = byte_pairs(WORDS)
    pieces += ["<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer({piece: i for i, piece in enumerate(pieces)}, merges, model_max_length=length)
    tokenizer.add_special_tokens({"additional_special_tokens": list(extra)})
    return tokenizer


def randomise(module: torch.nn.Module, seed: int, scale: float = 0.1) -> torch.nn.Module:
    """Seeded normal weights; norms stay at one and zero, so that signals neither die nor explode."""
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "norm" not in name:
                parameter.copy_(torch.randn(parameter.shape, generator=source) * scale)
    return module.eval()


@torch.no_grad()
def sharpen_attention(prior: PriorTransformer) -> None:
    """Sharp attention, so that the answer of random weights depends on the noise: a constant would test little."""
    for block in prior.transformer_blocks:
        block.attn1.to_q.weight.mul_(3.0)
        block.attn1.to_k.weight.mul_(3.0)
        block.attn1.to_v.weight.mul_(4.0)


@torch.no_grad()
def let_noise_matter(prior: PriorTransformer) -> None:
    """The same for random weights of the published sizes (``full_size.randomise``).

    Two samples of Kandinsky 2.1 then differ by half of their spread, and float noise is 1e-5 of it. As the weights are, samples
    differ by a hundredth; sharpened as above, twenty blocks make the float noise a hundredth (both at a width of 256).
    Positions would be 400 times smaller than the tokens.
    """
    for block in prior.transformer_blocks:
        block.attn1.to_q.weight.mul_(2.0)
        block.attn1.to_k.weight.mul_(2.0)
    prior.positional_embedding.mul_(0.5 / prior.positional_embedding.std())


def build_prior(folder: Path, family: str) -> None:
    """A prior pipeline, with the statistics and the PRD token that a trained prior has."""
    tokenizer = build_tokenizer()
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=24 if family == "2.1" else DIM,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=TOKENS,
        projection_dim=24 if family == "2.1" else DIM,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=2 if family == "2.1" else tokenizer.eos_token_id,  # 2 is what the published files say
    )
    dim = text.projection_dim
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=SIDE, patch_size=8,
        projection_dim=dim,
    )  # fmt: skip
    prior = PriorTransformer(
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=2,
        embedding_dim=dim,
        num_embeddings=TOKENS,
        additional_embeddings=4,
    )
    randomise(prior, seed=7, scale=0.2)
    sharpen_attention(prior)
    with torch.no_grad():
        prior.proj_in.weight.mul_(5.0)
        prior.positional_embedding.mul_(0.3)
        prior.clip_mean.fill_(0.1)
        prior.clip_std.fill_(1.0)
    pipeline = KandinskyPriorPipeline if family == "2.1" else KandinskyV22PriorPipeline
    pipeline(
        prior=prior,
        text_encoder=randomise(CLIPTextModelWithProjection(text), seed=2),
        image_encoder=randomise(CLIPVisionModelWithProjection(vision), seed=3),
        tokenizer=tokenizer,
        scheduler=UnCLIPScheduler(prediction_type="sample", clip_sample_range=5.0),
        image_processor=CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}),
    ).save_pretrained(folder)


def build_decoder(folder: Path, family: str) -> None:
    """A decoder pipeline: with text and image conditions (2.1), or with images alone (2.2)."""
    dim = 24 if family == "2.1" else DIM
    conditions = (
        {"encoder_hid_dim_type": "text_image_proj", "encoder_hid_dim": 16, "addition_embed_type": "text_image",
         "addition_embed_type_num_heads": 2, "cross_attention_dim": dim}
        if family == "2.1"
        else {"encoder_hid_dim_type": "image_proj", "encoder_hid_dim": dim, "addition_embed_type": "image",
              "cross_attention_dim": 16}
    )  # fmt: skip
    unet = UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=8, layers_per_block=1, block_out_channels=(16, 32), norm_num_groups=8,
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"), attention_head_dim=8,
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn", resnet_time_scale_shift="scale_shift", **conditions,
    )  # fmt: skip
    movq = VQModel(
        block_out_channels=(32, 64), down_block_types=("DownEncoderBlock2D",) * 2, latent_channels=4, norm_num_groups=8,
        up_block_types=("AttnUpDecoderBlock2D",) * 2, norm_type="spatial", num_vq_embeddings=8, vq_embed_dim=4,
    )  # fmt: skip
    parts = {"unet": randomise(unet, seed=4), "movq": randomise(movq, seed=5)}
    if family == "2.2":
        KandinskyV22Pipeline(**parts, scheduler=DDPMScheduler()).save_pretrained(folder)
        return
    words = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    tokenizer = XLMRobertaTokenizer([*words, *((f"▁{word}", -1.0) for word in WORDS), ("▁", -2.0), ("<mask>", 0.0)])
    config = MCLIPConfig(
        transformerDimSize=16, imageDimSize=dim, vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1,
        num_attention_heads=2, intermediate_size=16, max_position_embeddings=80, pad_token_id=1,
    )  # fmt: skip
    KandinskyPipeline(
        **parts, scheduler=DDIMScheduler(), tokenizer=tokenizer, text_encoder=randomise(MultilingualCLIP(config), seed=6)
    ).save_pretrained(folder)


def build_generator_folder(folder: Path, family: str) -> Path:
    """A folder with ``prior/``, ``decoder/`` and ``generator.json``; ``family`` is ``"2.1"`` or ``"2.2"``."""
    build_prior(folder / "prior", family)
    build_decoder(folder / "decoder", family)
    settings = {"prior_steps": 3, "prior_guidance": 2.0, "decoder_steps": 2, "image_size": SIDE, "learning_rate": 1e-3}
    (folder / "generator.json").write_text(json.dumps(settings | {"note": "keys of no meaning here are ignored"}))
    return folder
