"""Miniature tokenizers of the kinds that published checkers have: the same normaliser, splitting and marks, a few tokens."""

from miniature import WORDS, build_tokenizer
from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import PreTrainedTokenizerFast

SPELLINGS = [form for word in WORDS for form in (word, word.capitalize(), word.upper())]
# How Qwen's and DeepSeek's tokenizers split a text before its bytes are merged (in short: without their rules for scripts).
SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def merged(words: list[str], mark: str) -> tuple[list[str], list[tuple[str, str]]]:
    """Tokens and merges that make one token of each word, without a mark and with it, as tables of the published sizes do."""
    tokens, merges = [], []
    for word in words:
        left = word[0]
        for symbol in word[1:]:
            if (left, symbol) not in merges:
                merges.append((left, symbol))
                tokens.append(left + symbol)
            left += symbol
    merges += [(mark, word) for word in dict.fromkeys(words)]
    return tokens + [mark + word for word in words], merges


def sentencepiece(length: int, extra: tuple[str, ...]) -> PreTrainedTokenizerFast:
    """Llama's and Mistral's: a mark before every text and in place of blanks, bytes for what no token spells."""
    specials, letters = ["<unk>", "<s>", "</s>"], sorted({letter for word in SPELLINGS for letter in word} | set("▁.?,:\n"))
    tokens, merges = merged(SPELLINGS, "▁")
    pieces = list(dict.fromkeys([*specials, *(f"<0x{byte:02X}>" for byte in range(256)), *letters, *tokens, *extra]))
    model = BPE(
        {piece: index for index, piece in enumerate(pieces)}, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(parts)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in (*specials, *extra)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="</s>",
        model_max_length=length,
    )


def byte_level(split: list, ids: dict[str, int] | None, length: int, extra: tuple[str, ...]) -> PreTrainedTokenizerFast:
    """Tokens of bytes; a blank belongs to the word after it, as ``Ġ``.

    Args:
        split: how a text is cut before. ids: of ``extra`` tokens that have a given place in a larger table.
    """
    tokens, merges = merged(SPELLINGS, "Ġ")
    pieces = list(dict.fromkeys([*sorted(ByteLevel.alphabet()), *tokens, "<|endoftext|>", *extra]))
    vocabulary = {piece: index for index, piece in enumerate(pieces)} | (ids or {})
    tokenizer = Tokenizer(BPE(vocabulary, merges))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Sequence(split), decoders.ByteLevel()
    names = ("<|endoftext|>", *extra)
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|endoftext|>", pad_token="<|endoftext|>", model_max_length=length
    )


def qwen(length: int, extra: tuple[str, ...] = (), ids: dict[str, int] | None = None) -> PreTrainedTokenizerFast:
    """Qwen's and DeepSeek's (Janus): split by a pattern, then bytes."""
    split = [pre_tokenizers.Split(Regex(SPLIT), "isolated"), ByteLevel(add_prefix_space=False, use_regex=False)]
    return byte_level(split, ids, length, extra)


def smollm(length: int, extra: tuple[str, ...] = (), ids: dict[str, int] | None = None) -> PreTrainedTokenizerFast:
    """SmolLM's: single digits, then the bytes of GPT-2."""
    split = [pre_tokenizers.Digits(individual_digits=True), ByteLevel(add_prefix_space=False, use_regex=True)]
    return byte_level(split, ids, length, extra)


def clip(length: int, extra: tuple[str, ...] = ()):
    """CLIP's, which the shipped checker has: lower case, with marks at the ends of words."""
    return build_tokenizer(length=length, extra=extra)


KINDS = {"clip": clip, "llama": sentencepiece, "qwen": qwen, "smollm": smollm}
