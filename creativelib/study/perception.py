"""The eyes of simulated raters: how surprising a picture is to another network than the optimised one, and what it shows.

The runs make pictures improbable to the prior's CLIP space. A rater has other eyes. Here these are ImageNet's:
EfficientNet-Lite2, which taught nothing of Pocket Kandinsky, for surprise, and the judge, which is in no loss or check, for
the subject.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image
from sklearn.decomposition import PCA

from creativelib.pocket import corpus, teachers
from creativelib.pocket.judge import Judge

VARIANT = 2  # of EfficientNet-Lite


class Perception:
    """What somebody who knows these plain pictures of a subject finds in others.

    Args:
        plain: pictures of the plain prompt, more than ``dims``; a hundred or so, and not themselves stimuli.
        subject: one of the judge's classes.
        dims: of the probabilistic PCA (Tipping and Bishop 1999) of their features. Unlike a Gaussian in the first principal
            components alone it also counts what lies outside of them, where odd pictures go.
        recognised: share of the plain pictures that count as the subject. The judge's own rule is too strict where it is
            weak: it sees an alien in two of five real ones.

    Raises:
        ValueError: too few pictures, a subject that the judge does not know, a share outside 0 to 1.
    """

    def __init__(
        self,
        plain: Sequence[Image.Image],
        subject: str,
        judge: Judge,
        *,
        dims: int = 10,
        recognised: float = 0.9,
        device: str = "cpu",
    ):
        if len(plain) <= dims:
            raise ValueError(f"plain: got {len(plain)} pictures for dims={dims}; give more pictures than dimensions")
        if subject not in judge.classes:
            raise ValueError(f"subject: got {subject!r}; the judge knows {', '.join(judge.classes)}")
        if not 0 < recognised < 1:
            raise ValueError(f"recognised: got {recognised!r}; give a share between 0 and 1, for example 0.9")
        self.judge, self.device, self._class = judge, device, judge.classes.index(subject)
        features = self._features(plain)
        self._model = PCA(dims, svd_solver="full").fit(features)
        self._zero = -float(self._model.score_samples(features).mean())
        self._least = float(np.quantile(self._subject(plain), 1 - recognised))

    def _features(self, images: Sequence[Image.Image]) -> np.ndarray:
        return teachers.image_features(_stack(images), VARIANT, corpus.SIZE, self.device).double().numpy()

    def _subject(self, images: Sequence[Image.Image]) -> np.ndarray:
        return self.judge.probabilities(_stack(images), self.device)[:, self._class].numpy()

    def surprise(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Perceived surprise of pictures, (N,), in nats above the mean of the plain ones."""
        return -self._model.score_samples(self._features(images)) - self._zero

    def recognises(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Whether each still shows the subject, (N,) bool: as much as the plain ones that are recognised."""
        return self._subject(images) >= self._least


def _stack(images: Sequence[Image.Image]) -> np.ndarray:
    return np.stack([np.asarray(image.convert("RGB")) for image in images])
