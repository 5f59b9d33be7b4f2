"""What a search needs of a generator: ``Generator`` has it, and so has what stands in for one, see ``frameworks``."""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch
from PIL import Image

from creativelib.prior_sampling import Samples
from creativelib.text import TextCondition


class SearchSettings(Protocol):
    """Defaults of a search.

    Attributes:
        learning_rate: of AdamW. anchor_threshold: of the alternating rule; ``None``: read from plain samples.
    """

    @property
    def learning_rate(self) -> float: ...
    @property
    def anchor_threshold(self) -> float | None: ...


@runtime_checkable
class Searchable(Samples, Protocol):
    """A frozen model whose embeddings can be sampled differentiably, drawn, and compared with a text.

    ``Samples`` is what a baseline needs of it; beside that there is its identity (``weights``, ``origin``: what loads it
    again, ``run_settings``), the network that adapters are hung into (``adapted``) and the reading of new tokens. The space
    ``"embedding"`` also needs a ``decode``.
    """

    @property
    def settings(self) -> SearchSettings: ...
    @property
    def weights(self) -> dict[str, str]: ...
    @property
    def origin(self) -> str: ...
    @property
    def run_settings(self) -> dict: ...
    @property
    def adapted(self) -> torch.nn.Module: ...
    def pieces(self, words: str) -> list[int]: ...
    def tokenize(self, prompt: str, tokens: Sequence[str] = ()) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]: ...
    def word_embeddings(self, words: str) -> torch.Tensor: ...
    def encode_text(self, prompt: str, tokens: Mapping[str, torch.Tensor] | None = None) -> TextCondition: ...
    def text_embedding(self, prompt: str) -> torch.Tensor: ...
    def draw(
        self, condition: TextCondition, seeds: Sequence[int], *, prompt: str | None = None, **options
    ) -> tuple[torch.Tensor, list[Image.Image]]: ...
