"""What became of the default picture of the same noise seed: did the drawing change, or only its colours?"""

import numpy as np

from creativelib.metrics.pictures import checked, grey, silhouette

QUANTILES = 16  # of each colour channel
# sRGB (IEC 61966-2-1) to CIE XYZ, and its white point D65
TO_XYZ = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]])


def grey_correlation(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Pearson correlation of the grey pixels of each pair of pictures, (N,), -1 to 1; 0 where one of them is blank."""
    if checked(images).shape != checked(others, "others").shape:
        raise ValueError(f"others: got shape {others.shape}; give {images.shape}, one picture for each")
    a, b = (grey(pictures).reshape(len(pictures), -1) for pictures in (images, others))
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    scale = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.divide((a * b).sum(1), scale, out=np.zeros(len(a)), where=scale > 1e-9)


def apart(pictures: np.ndarray) -> float:
    """One minus the mean grey correlation of any two of at least two pictures: how little they are like each other.

    Raises:
        ValueError: fewer than two, or all alike.
    """
    checked(pictures, "pictures", least=2)
    pairs = [grey_correlation(pictures, np.roll(pictures, shift, axis=0)) for shift in range(1, len(pictures) // 2 + 1)]
    distance = 1 - float(np.mean(pairs))
    if distance < 1e-6:
        raise ValueError("pictures: got pictures that are all alike; give those of different noise seeds")
    return distance


def structure_change(images: np.ndarray, defaults: np.ndarray, unit: float | None = None) -> np.ndarray:
    """How far each picture went from its default towards what another seed would have drawn, (N,).

    0: the default's structure; 1: as little like it as two defaults of different seeds are like each other; more than 1:
    beyond. Only the grey picture counts, so another colour of the same lightness is no change.

    Args:
        images: (N, H, W, 3). defaults: the plain pictures of the same noise seeds.
        unit: ``apart`` of plain pictures of other seeds; by default of ``defaults`` themselves, of which there must be two.

    Raises:
        ValueError: other shapes, or no unit can be had.
    """
    return (1 - grey_correlation(images, defaults)) / (apart(defaults) if unit is None else unit)


def lab(images: np.ndarray) -> np.ndarray:
    """CIE L*a*b* (D65) of sRGB pictures: (N, H, W, 3), L from 0 to 100."""
    signal = checked(images) / 255
    linear = np.where(signal <= 0.04045, signal / 12.92, ((signal + 0.055) / 1.055) ** 2.4)
    ratio = linear @ TO_XYZ.T / TO_XYZ.sum(1)
    bent = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = np.moveaxis(bent, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def colour_features(images: np.ndarray) -> np.ndarray:
    """The colours of what is drawn, wherever they are, (N, 48): ``QUANTILES`` quantiles of L*, a* and b*, over sqrt(16).

    The Euclidean distance of two rows is the Wasserstein distance of their colours, channel by channel, in units of
    Delta E; a blank page counts as white.
    """
    rows, levels = [], (np.arange(QUANTILES) + 0.5) / QUANTILES
    for picture, mask in zip(lab(images), silhouette(images), strict=True):
        drawn = picture[mask] if mask.any() else np.array([[100.0, 0.0, 0.0]])
        rows.append(np.quantile(drawn, levels, axis=0).T.ravel() / QUANTILES**0.5)
    return np.stack(rows)


def colour_distance(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    """How far apart the colours of each pair of pictures are, (N,), in Delta E; shapes count for nothing."""
    if len(images) != len(others):
        raise ValueError(f"others: got {len(others)} pictures for {len(images)}; give one for each")
    return np.linalg.norm(colour_features(images) - colour_features(others), axis=1)
