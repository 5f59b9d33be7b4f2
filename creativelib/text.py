"""Words for a model: the paper's prompt around a subject, and the text encoder that reads it, new tokens included."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from transformers import PreTrainedTokenizerBase

from creativelib.arguments import any_words, plain_words

POSITIVE_PROMPT = "Professional high-quality photo of {a}. photorealistic, 4k, HQ."  # footnote 2 of the paper


def split_article(words: str) -> tuple[str, str]:
    """``"alien"`` -> ``("an", "alien")``: by the first letter, which is right often enough for a prompt.

    Words that have an article keep it, and get no second one: ``"The moon"`` -> ``("the", "moon")``. Blanks are made single.
    """
    words = " ".join(words.split())
    given = re.match(r"(an?|the) (\S.*)", words, flags=re.IGNORECASE)
    return (given[1].lower(), given[2]) if given else ("an" if words[:1].lower() in tuple("aeiou") else "a", words)


def with_article(words: str) -> str:
    """``"alien"`` -> ``"an alien"``, as ``split_article`` does."""
    return " ".join(split_article(words))


def positive_prompt(subject: str) -> str:
    """P_pos of section 5.2: the paper's template around the subject's words.

    Raises:
        ValueError: ``subject`` has no letter or digit, or is no text in UTF-8.
    """
    return POSITIVE_PROMPT.format(a=with_article(plain_words("subject", subject, "vehicle")))


@dataclass(frozen=True)
class TextCondition:
    """What a model is told about a prompt, for one prompt.

    Attributes:
        text_embedding: (1, d), the projected text embedding, phi(P) of Eqs. 2 and 6; of an encoder without a projection, as
            Stable Diffusion's is, its pooled state.
        hidden_states: (1, T, w), the last hidden state of the text encoder.
        mask: (1, T) bool, true for tokens, false for padding.
    """

    text_embedding: torch.Tensor
    hidden_states: torch.Tensor
    mask: torch.Tensor


class TextReader:
    """What every generator does with words. A subclass has ``name``, ``device``, ``tokenizer`` and ``text_encoder``."""

    name: str
    device: torch.device
    tokenizer: PreTrainedTokenizerBase
    text_encoder: torch.nn.Module

    def pieces(self, words: str) -> list[int]:
        """Token ids of ``words`` alone, of any number: whether they are too many is for ``tokenize`` to say."""
        return self.tokenizer(words, add_special_tokens=False, verbose=False).input_ids

    def tokenize(self, prompt: str, tokens: Sequence[str] = ()) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Token ids (1, T), mask (1, T) bool, and where the new ``tokens`` stand: (1, T) int, 0 for none, i + 1 for the i-th.

        A new token has no row in the table of the encoder; its place holds the id of an ordinary token meanwhile.
        """
        length, ids, places = self.tokenizer.model_max_length, [], []
        pattern = "(" + "|".join(map(re.escape, tokens)) + ")" if tokens else r"(?!)()"
        for piece in re.split(pattern, prompt):
            new = piece in tokens
            ids += [self.tokenizer.bos_token_id] if new else self.pieces(piece)
            places += [list(tokens).index(piece) + 1] if new else [0] * (len(ids) - len(places))
        if len(ids) > length - 2:
            raise ValueError(
                f"prompt: got {len(ids)} tokens, the text encoder of {self.name!r} reads {length - 2}; use fewer words"
            )
        padding = length - 2 - len(ids)
        ids = [self.tokenizer.bos_token_id, *ids, self.tokenizer.eos_token_id] + [self.tokenizer.pad_token_id] * padding
        mask = [True] * (length - padding) + [False] * padding
        places = [0, *places, 0] + [0] * padding
        return tuple(torch.tensor([row], device=self.device) for row in (ids, mask, places))

    def encode_text(self, prompt: str, tokens: Mapping[str, torch.Tensor] | None = None) -> TextCondition:
        """Encode one prompt; equal to diffusers' own encoding, differentiable with respect to new tokens.

        Args:
            prompt: any words; the empty prompt is the unconditional one.
            tokens: new tokens by how they are written in the prompt, each a vector (w,) in the space of the token table.
                The table itself is not touched.

        Raises:
            ValueError: the prompt is no text, too long, or lacks one of ``tokens``.
        """
        tokens, prompt = dict(tokens or {}), any_words("prompt", prompt)
        for name in tokens:
            if name not in prompt:
                raise ValueError(f"prompt: {prompt!r} does not contain the new token {name!r}")
        ids, mask, places = self.tokenize(prompt, tuple(tokens))
        hook = None
        if tokens:
            vectors = torch.stack(list(tokens.values()))  # (new tokens, w)

            def put_new_tokens(module, inputs, rows):
                return torch.where((places > 0)[..., None], vectors[(places - 1).clamp(min=0)].to(rows.dtype), rows)

            hook = self.text_encoder.get_input_embeddings().register_forward_hook(put_new_tokens)
        try:
            output = self.text_encoder(ids)
        finally:
            if hook is not None:
                hook.remove()
        summary = output["text_embeds"] if "text_embeds" in output else output.pooler_output
        return TextCondition(summary, output.last_hidden_state, mask)

    @cached_property
    def unconditional(self) -> TextCondition:
        """The empty prompt, for classifier-free guidance of the prior."""
        with torch.no_grad():
            return self.encode_text("")

    def word_embeddings(self, words: str) -> torch.Tensor:
        """Token-table rows of the pieces of ``words``, (pieces, w): where new tokens start (section 5.2).

        Raises:
            ValueError: ``words`` has no letter or digit.
        """
        ids = torch.tensor(self.pieces(plain_words("words", words, "flying saucer")))
        return self.text_encoder.get_input_embeddings().weight[ids.to(self.device)].clone()

    def word_embedding(self, words: str) -> torch.Tensor:
        """Mean of ``word_embeddings``, (w,): where a single new token for all of ``words`` starts."""
        return self.word_embeddings(words).mean(0)
