"""What every metric does first: check an array of pictures, take the colour out, find what is drawn."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

WHITE = 238  # a pixel whose darkest channel is at least this is paper
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow's mode L


def stack(pictures: Sequence[Image.Image]) -> np.ndarray:
    """PIL pictures of one size as a uint8 array (N, H, W, 3)."""
    return np.stack([np.asarray(picture.convert("RGB")) for picture in pictures])


def checked(images: np.ndarray, name: str = "images", least: int = 1) -> np.ndarray:
    """``images`` itself.

    Raises:
        ValueError: it is no uint8 array (N, H, W, 3) of at least ``least`` pictures; ``name`` is what the error calls it.
    """
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        got = f"{images.dtype} {images.shape}" if isinstance(images, np.ndarray) else type(images).__name__
        raise ValueError(f"{name}: got {got}; give a uint8 array (N, H, W, 3), for example metrics.pictures.stack(pictures)")
    if len(images) < least:
        raise ValueError(f"{name}: got {len(images)} pictures; give at least {least}")
    return images


def grey(images: np.ndarray) -> np.ndarray:
    """Luminance of uint8 pictures (N, H, W, 3): (N, H, W) float64, 0 to 1."""
    return checked(images) @ np.array(LUMA) / 255


def without_colour(images: np.ndarray) -> np.ndarray:
    """The same pictures in grey, as uint8 (N, H, W, 3): what a network sees of their structure."""
    return np.repeat(np.rint(255 * grey(images)).astype(np.uint8)[..., None], 3, axis=-1)


def silhouette(images: np.ndarray) -> np.ndarray:
    """Where something is drawn on the white paper, (N, H, W) bool. Says nothing of photographs, which have no paper."""
    return checked(images).min(-1) < WHITE
