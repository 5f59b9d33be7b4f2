"""Spoilt pictures: mildly, so that they still show the same thing, or so that they show nothing any more.

What a drifting run draws, made from the corpus: blends, noise, smears, blobs, a small motif on something else, and drawings
that are dissolved: into strokes, into pieces, or molten.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from creativelib.pocket import captions, corpus
from creativelib.pocket.autoencoder import to_tensor
from creativelib.pocket.checker import check_pictures
from creativelib.pocket.questions import Refusals, related, subject_word

NEGATIVE_KINDS = ("blend", "noise", "smear", "blob", "pasted", "strokes", "pieces", "melted")


def uniform(low: float, high: float, generator: torch.Generator) -> float:
    """One number between ``low`` and ``high``."""
    return low + (high - low) * float(torch.rand(1, generator=generator))


def blur(pixels: torch.Tensor, sigma: float) -> torch.Tensor:
    """Gaussian blur of (3, H, W) by ``sigma`` pixels, edges repeated."""
    radius = max(1, round(2.5 * sigma))
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2)
    kernel = (kernel / kernel.sum()).to(pixels)
    padded = functional.pad(pixels[:, None], (radius,) * 4, mode="replicate")
    return functional.conv2d(functional.conv2d(padded, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))[:, 0]


def resize(pixels: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """(3, H, W) to (3, *size), smoothly in both directions."""
    return functional.interpolate(pixels[None].float(), size=size, mode="bilinear", antialias=True, align_corners=False)[0]


def degrade(picture: np.ndarray, generator: torch.Generator) -> np.ndarray:
    """A mildly spoilt copy of a picture (128, 128, 3) that still shows the same thing.

    Each at random: mirrored, colour channels permuted, made smaller or moved a few pixels, blurred (sigma up to 2.5
    px), blocky, of less contrast, noisy (standard deviation up to 0.12 of the half range), its white background
    tinted.
    """
    chance = torch.rand(8, generator=generator).tolist()
    pixels = to_tensor(picture[None])[0]
    if chance[0] < 0.5:
        pixels = pixels.flip(-1)
    if chance[1] < 0.25:
        pixels = pixels[torch.randperm(3, generator=generator)]
    if chance[2] < 0.6:
        side = round(corpus.SIZE * uniform(0.75, 1.0, generator))
        free = corpus.SIZE - side
        left, top = (int(torch.randint(free + 1, (1,), generator=generator)) for _ in range(2))
        pixels = functional.pad(resize(pixels, (side, side)), (left, free - left, top, free - top), value=1.0)
    if chance[3] < 0.2:
        tint = torch.empty(3, 1, 1).uniform_(0.3, 1.0, generator=generator)
        pixels = torch.where((pixels > 0.92).all(0, keepdim=True), tint, pixels)
    if chance[4] < 0.4:
        pixels = blur(pixels, uniform(0.4, 2.5, generator))
    if chance[5] < 0.1:  # blocky, like a strongly compressed file
        pixels = functional.interpolate(functional.avg_pool2d(pixels[None], 2), scale_factor=2)[0]
    if chance[6] < 0.2:
        pixels = pixels * uniform(0.6, 1.0, generator) + uniform(-0.15, 0.15, generator)
    if chance[7] < 0.3:
        pixels = pixels + uniform(0.02, 0.12, generator) * torch.randn(pixels.shape, generator=generator)
    return to_picture(pixels)


def to_picture(pixels: torch.Tensor) -> np.ndarray:
    """(3, H, W) in [-1, 1] to a uint8 picture (H, W, 3)."""
    return pixels.clamp(-1, 1).add(1).mul(127.5).round().byte().permute(1, 2, 0).contiguous().numpy()


def blend(one: np.ndarray, other: np.ndarray, generator: torch.Generator) -> np.ndarray:
    """An alpha blend of two pictures, 35 to 65 % of each, the second one mirrored half of the time."""
    alpha = uniform(0.35, 0.65, generator)
    if float(torch.rand(1, generator=generator)) < 0.5:
        other = other[:, ::-1]
    return np.round(alpha * one + (1 - alpha) * other).astype(np.uint8)


def noise(generator: torch.Generator) -> np.ndarray:
    """Pure noise: Gaussian or uniform, in colour or grey, in grains of 1, 2 or 4 pixels, around a random colour."""
    grain = captions.pick((1, 1, 2, 4), generator)
    side = corpus.SIZE // grain
    channels = captions.pick((1, 3, 3), generator)
    drawn = torch.randn(1, channels, side, side, generator=generator) * uniform(0.3, 1.0, generator)
    if float(torch.rand(1, generator=generator)) < 0.3:
        drawn = torch.rand(1, channels, side, side, generator=generator) * 2 - 1
    centre = torch.empty(3, 1, 1).uniform_(-0.7, 0.9, generator=generator)
    return to_picture(functional.interpolate(drawn, scale_factor=grain)[0] + centre)


def smear(picture: np.ndarray, generator: torch.Generator) -> np.ndarray:
    """A picture spoilt beyond recognition: blurred by 12 to 20 px, averaged to 4 x 4 to 6 x 6, or dragged far."""
    pixels, kind = to_tensor(picture[None])[0], float(torch.rand(1, generator=generator))
    if kind < 0.35:  # at a quarter of the size, where so wide a blur loses nothing and costs a sixtieth
        quarter = blur(functional.avg_pool2d(pixels, 4), uniform(12, 20, generator) / 4)
        pixels = resize(quarter, pixels.shape[1:])
    elif kind < 0.65:
        side = captions.pick((4, 5, 6), generator)
        pixels = functional.interpolate(
            resize(pixels, (side, side))[None], size=pixels.shape[1:], mode="bicubic", align_corners=False
        )[0]
    else:
        length = int(uniform(60, 100, generator)) // 2
        kernel = (1, 2 * length + 1) if float(torch.rand(1, generator=generator)) < 0.5 else (2 * length + 1, 1)
        pad = (length, length, 0, 0) if kernel[0] == 1 else (0, 0, length, length)
        pixels = functional.avg_pool2d(functional.pad(pixels[None], pad, mode="replicate"), kernel, stride=1)[0]
        pixels = blur(pixels, uniform(1.0, 4.0, generator))
    if float(torch.rand(1, generator=generator)) < 0.3:
        pixels = pixels + 0.1 * torch.randn(pixels.shape, generator=generator)
    return to_picture(pixels)


def blob(generator: torch.Generator) -> np.ndarray:
    """Low-pass noise: soft blobs of random colours, half of the time on white."""
    side = captions.pick((3, 4, 5, 6, 8, 10), generator)
    drawn = uniform(0.4, 1.2, generator) * torch.randn(1, 3, side, side, generator=generator)
    pixels = functional.interpolate(drawn, size=(corpus.SIZE, corpus.SIZE), mode="bicubic", align_corners=False)[0]
    if float(torch.rand(1, generator=generator)) < 0.5:
        shape = torch.randn(1, 1, side, side, generator=generator)
        mask = functional.interpolate(shape, size=pixels.shape[1:], mode="bicubic", align_corners=False)[0]
        pixels = torch.lerp(torch.ones_like(pixels), pixels, (mask * 6).sigmoid())
    return to_picture(pixels)


def wave(side: int, size: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    r"""Smooth noise (\*size, 128, 128) of unit variance, ``side`` hills across."""
    coarse = torch.randn(*size, side, side, generator=generator)
    shape = (corpus.SIZE, corpus.SIZE)
    smooth = functional.interpolate(coarse.reshape(1, -1, side, side), size=shape, mode="bicubic", align_corners=False)
    return smooth.reshape(*size, *shape) / smooth.std()


def moved(pixels: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """(3, 128, 128), each pixel taken from where ``shift`` (2, 128, 128), in pixels across and down, points; white outside."""
    line = torch.arange(corpus.SIZE).float()
    where = torch.stack([line.expand(corpus.SIZE, -1) + shift[0], line[:, None] + shift[1]], -1) / (corpus.SIZE - 1) * 2 - 1
    return functional.grid_sample(pixels[None] - 1, where[None], align_corners=True)[0] + 1


def strokes(picture: np.ndarray, generator: torch.Generator) -> np.ndarray:
    """Curved bands of a picture, bent, on white: 25 to 50 % of what was drawn."""
    pixels = moved(to_tensor(picture[None])[0], uniform(4, 12, generator) * wave(4, (2,), generator))
    bands = wave(int(uniform(4, 9, generator)), (1,), generator).abs() < uniform(0.3, 0.6, generator)
    return to_picture(blur(torch.where(bands, pixels, torch.ones_like(pixels)), 0.7))


def pieces(picture: np.ndarray, generator: torch.Generator) -> np.ndarray:
    """Six to fourteen patches of a picture, each moved by up to a third of its width, on white."""
    result, centre = np.full_like(picture, 255), np.argwhere((picture < 245).any(-1))
    if not len(centre):
        return picture
    for _ in range(int(uniform(6, 15, generator))):
        row, column = centre[int(torch.randint(len(centre), (1,), generator=generator))]
        height, width = (int(uniform(6, 20, generator)) for _ in range(2))
        part = picture[max(0, row - height) : row + height, max(0, column - width) : column + width]
        top, left = (int(torch.randint(corpus.SIZE - side + 1, (1,), generator=generator)) for side in part.shape[:2])
        near = uniform(0.3, 0.7, generator)  # of the way from anywhere to where it was
        top, left = (
            round(near * max(0, row - height) + (1 - near) * top),
            round(near * max(0, column - width) + (1 - near) * left),
        )
        area = result[top : top + part.shape[0], left : left + part.shape[1]]
        area[:] = np.minimum(area, part[: area.shape[0], : area.shape[1]])
    return result


def melted(picture: np.ndarray, generator: torch.Generator) -> np.ndarray:
    """A picture bent beyond recognition, by 13 to 24 pixels within a few, and a little blurred."""
    bend = uniform(13, 24, generator) * wave(int(uniform(5, 9, generator)), (2,), generator)
    return to_picture(blur(moved(to_tensor(picture[None])[0], bend), uniform(0.4, 1.5, generator)))


def plain(generator: torch.Generator) -> np.ndarray:
    """A background that shows nothing: white, one colour, a gradient, stripes or fine noise."""
    kind = float(torch.rand(1, generator=generator))
    ends = torch.empty(2, 3, 1, 1).uniform_(-1, 1, generator=generator)
    ramp = torch.linspace(0, 1, corpus.SIZE)
    ramp = ramp.view(1, 1, -1) if float(torch.rand(1, generator=generator)) < 0.5 else ramp.view(1, -1, 1)
    if kind < 0.25:
        ends = torch.ones_like(ends)
    elif kind < 0.5:
        ends = ends[:1].expand(2, -1, -1, -1)
    elif kind < 0.75:
        ramp = (ramp * uniform(4, 16, generator) % 1 > 0.5).float()
    pixels = torch.lerp(ends[0], ends[1], ramp.expand(3, corpus.SIZE, corpus.SIZE))
    if kind > 0.9:
        pixels = pixels + 0.3 * torch.randn(pixels.shape, generator=generator)
    return to_picture(pixels)


def paste(motif: np.ndarray, background: np.ndarray, generator: torch.Generator) -> np.ndarray:
    """The drawn part of ``motif``, its longer side 25 to 35 % of the picture's, somewhere on ``background``."""
    rows, columns = (np.flatnonzero((motif < 245).any(-1).any(axis)) for axis in (1, 0))
    if len(rows) and len(columns):
        motif = motif[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = uniform(0.25, 0.35, generator) * corpus.SIZE / max(motif.shape[:2])
    height, width = (max(2, round(side * scale)) for side in motif.shape[:2])
    small = to_picture(resize(to_tensor(motif[None])[0], (height, width)))
    top, left = (int(torch.randint(corpus.SIZE - side + 1, (1,), generator=generator)) for side in (height, width))
    result = background.copy()
    area = result[top : top + height, left : left + width]
    drawn = (small < 245).any(-1, keepdims=True)
    area[:] = np.where(drawn, small, area)
    return result


SPOIL = {"smear": smear, "strokes": strokes, "pieces": pieces, "melted": melted}


@dataclass
class HardNegatives:
    """Pictures (N, 128, 128, 3) uint8 about which the right answer is No, one list of words and one kind for each."""

    images: np.ndarray
    subjects: list[list[str]]
    kinds: list[str]


def hard_negatives(
    images: np.ndarray,
    records: list[dict],
    count: int,
    generator: torch.Generator,
    questions: int = 1,
    weights: torch.Tensor | None = None,
) -> HardNegatives:
    """What a drifting run produces, ``count`` pictures of the ``NEGATIVE_KINDS`` in turn, ``questions`` words each.

    - *blend*: two pictures over each other, asked about something that neither is;
    - *noise*, *blob*: asked about anything;
    - *smear*, *strokes*, *pieces*, *melted*: a picture beyond recognition, first asked about what it was;
    - *pasted*: a small motif on a picture of something unrelated or on a plain ground, first asked about the motif's
      subject.

    ``weights`` (N,) are the chances of each picture as a source (default: all alike). Raises ValueError on fewer
    pictures than records, or when nothing unrelated can be found to paste a motif on.
    """
    check_pictures(images)
    if len(images) != len(records) or not records:
        raise ValueError(f"images and records must be as many, at least one: got {len(images)} and {len(records)}.")
    weights = torch.ones(len(records)) if weights is None else weights
    ladder = weights.double().cumsum(0)
    refusals = Refusals(records)

    def source() -> int:
        drawn = torch.rand(1, dtype=torch.float64, generator=generator) * ladder[-1]
        return min(int(torch.searchsorted(ladder, drawn)), len(records) - 1)

    pictures, words, kinds = [], [], []
    for index in range(count):
        kind = NEGATIVE_KINDS[index % len(NEGATIVE_KINDS)]
        first, sources = [], []
        if kind == "blend":
            one, other = source(), source()
            picture, sources = blend(images[one], images[other], generator), [records[one], records[other]]
        elif kind == "noise":
            picture = noise(generator)
        elif kind == "blob":
            picture = blob(generator)
        elif kind in SPOIL:
            one = source()
            picture, first = SPOIL[kind](images[one], generator), [subject_word(records[one], generator)]
        else:
            motif = source()
            tries = 0 if float(torch.rand(1, generator=generator)) < 0.4 else 30
            host = next((h for h in (source() for _ in range(tries)) if not related(records[h], records[motif])), None)
            background = plain(generator) if host is None else images[host]
            picture, first = paste(images[motif], background, generator), [subject_word(records[motif], generator)]
            sources = [records[motif]] + ([] if host is None else [records[host]])
        pictures.append(picture)
        words.append(first + [refusals.draw(sources, generator) for _ in range(questions - len(first))])
        kinds.append(kind)
    stacked = np.stack(pictures) if pictures else np.empty((0, corpus.SIZE, corpus.SIZE, 3), np.uint8)
    return HardNegatives(stacked, [w[:questions] for w in words], kinds)
