"""Conceptual spaces: the parameters that a creative run searches (sections 5.2, 7.5.1, 7.5.2 of the paper).

A space is applied by a ``with`` block and leaves the generator as it found it. The generator's own weights and token table
are never changed: an adapter is hung in and taken out, a new token is put in place of a table row on the way through.
"""

import re
from pathlib import Path

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from PIL import Image
from safetensors.torch import save_file

from creativelib.arguments import plain_words, seed_number, whole_number
from creativelib.interrupts import uninterrupted
from creativelib.prior_sampling import noise_sources
from creativelib.searchable import Searchable
from creativelib.storage import replace, tensor_path
from creativelib.text import POSITIVE_PROMPT, TextCondition, positive_prompt, split_article


class ConceptualSpace:
    """The searched parameters and how they act.

    A subclass fills ``self._parameters`` and overrides what it changes: ``__enter__``/``__exit__`` (the generator) or
    ``condition`` (what the prior is told).

    Args:
        generator: frozen; it is not changed outside the ``with`` block.
        subject: the words of the subject, e.g. ``"vehicle"``.
        seed: of random initial values, where there are any.
    """

    name = ""

    def __init__(self, generator: Searchable, subject: str, seed: int = 0):
        self.generator, self.subject, self.seed = generator, subject, seed_number("seed", seed)
        self.options: dict = {}  # the other arguments of ``make_space``, as JSON values
        with torch.no_grad():
            self.positive = generator.encode_text(positive_prompt(subject))  # also refuses an empty subject
        self._parameters: dict[str, torch.nn.Parameter] = {}

    def parameters(self) -> list[torch.nn.Parameter]:
        """What an optimiser is given, in a fixed order."""
        return list(self._parameters.values())

    def named_parameters(self) -> dict[str, torch.nn.Parameter]:
        """The searched parameters themselves, by name, in the order of ``parameters``."""
        return dict(self._parameters)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """A copy of the searched parameters by name, on the CPU."""
        return {name: parameter.detach().cpu().clone() for name, parameter in self._parameters.items()}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Put saved values in place.

        Raises:
            ValueError: names or shapes are not those of this space.
        """
        if "token" in state and state["token"].ndim == 1:  # of an earlier version, which had one new token whatever the words
            state = {**state, "token": state["token"][None]}
        shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
        own = {name: tuple(parameter.shape) for name, parameter in self._parameters.items()}
        if shapes != own:
            raise ValueError(
                f"state: got {len(shapes)} tensors that are not the {len(own)} of the space {self.name!r} of this generator; "
                "load it into the kind of space that saved it"
            )
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                parameter.copy_(state[name])

    def condition(self) -> TextCondition:
        """What the prior is told: P_opt of section 5.2, differentiable with respect to the parameters."""
        return self.positive

    def sample(self, seeds: list[int], *, steps: int | None = None, guidance: float | None = None) -> torch.Tensor:
        """Image embeddings (N, d) at the current parameters, one for each noise seed; differentiable."""
        with self:
            return self.generator.sample(self.condition(), noise_sources(seeds), steps=steps, guidance=guidance)

    @torch.no_grad()
    def draw(
        self, seeds: list[int], *, steps: int | None = None, guidance: float | None = None
    ) -> tuple[torch.Tensor, list[Image.Image]]:
        """What ``sample`` gives, and a picture of each.

        Raises:
            NotFinite: some embeddings cannot be drawn.
        """
        with self:
            prompt = positive_prompt(self.subject)
            return self.generator.draw(self.condition(), seeds, prompt=prompt, steps=steps, guidance=guidance)

    def __enter__(self) -> "ConceptualSpace":
        return self

    def __exit__(self, *exception) -> None:
        return None


class LoRA(ConceptualSpace):
    """Low-rank adapters of the prior's attention (section 5.2): A random, B zero, so the search starts at the model itself.

    Args:
        rank: 10 in the paper (section 6).
    """

    name = "lora"
    targets = ("to_q", "to_k", "to_v", "to_out.0")

    def __init__(self, generator: Searchable, subject: str, seed: int = 0, rank: int = 10):
        super().__init__(generator, subject, seed)
        network = generator.adapted
        adapted = [
            module for path, module in network.named_modules() if path.endswith(self.targets) and hasattr(module, "weight")
        ]
        width = min(min(module.weight.shape) for module in adapted)  # from there on an adapter is no longer of low rank
        rank = whole_number("rank", rank, 1, width, "the width of the attention; 10 in the paper")
        self.options = {"rank": rank}
        config = LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=list(self.targets))
        with torch.random.fork_rng():  # peft initialises A from the global state
            torch.manual_seed(self.seed)
            inject_adapter_in_model(config, network, "creative")
        self._slots = []  # (parent, attribute, module with adapter)
        originals, self._before = [], []  # modules without; those that each block that is open has replaced
        for path, module in list(network.named_modules()):
            if isinstance(module, BaseTunerLayer):
                parent, _, attribute = path.rpartition(".")
                self._slots.append((network.get_submodule(parent), attribute, module))
                originals.append(module.get_base_layer())
                for part in ("lora_A", "lora_B"):
                    self._parameters[f"{path}.{part}"] = getattr(module, part)["creative"].weight
        del network.peft_config
        self._before.append(originals)
        self.__exit__()

    def __enter__(self) -> "LoRA":
        try:
            with uninterrupted():  # all of them or none: what is left half-way would stay in the generator
                self._before.append([getattr(parent, attribute) for parent, attribute, _ in self._slots])
                for parent, attribute, adapted in self._slots:
                    setattr(parent, attribute, adapted)
        except BaseException:  # Ctrl-C; no block begins, so that none ends
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception) -> None:
        with uninterrupted():
            for (parent, attribute, _), module in zip(self._slots, self._before.pop(), strict=True):
                setattr(parent, attribute, module)

    def export(self, path: str | Path) -> Path:
        """Write the adapters as they stand in the form of diffusers: ``prior.load_lora_adapter(path, prefix=None)``.

        Args:
            path: with or without ``.safetensors``.
        """
        path = tensor_path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        names = [name for name in self._parameters if name.endswith((".lora_A", ".lora_B"))]
        tensors = {f"{name}.weight": self._parameters[name].detach().cpu().contiguous() for name in names}
        replace(path, lambda temporary: save_file(tensors, temporary, metadata={"format": "pt"}))
        return path


class SubjectToken(ConceptualSpace):
    """New tokens in place of the subject, one for each piece that the tokenizer makes of it, which start as those pieces.

    So the search starts at the model itself, also for "flying saucer": one token for all, the mean of their rows, is another
    word, and its samples are nothing like the subject.
    """

    name = "subject-token"

    def __init__(self, generator: Searchable, subject: str, seed: int = 0):
        super().__init__(generator, subject, seed)
        article, noun = split_article(subject)
        self._put_tokens("subject", f"{article} ", noun, "")

    def _put_tokens(self, kind: str, before: str, words: str, after: str) -> None:
        """Put a new token for each piece of ``words`` between ``before`` and ``after`` in the prompt.

        Signs at the end of ``words`` stay as they are: the tokenizer may read them together with what follows.

        Raises:
            ValueError: the tokenizer reads ``words`` otherwise beside the rest of the prompt than alone.
        """
        words, signs = re.fullmatch(r"(.*\w)(\W*)", words, flags=re.DOTALL).groups()
        after = signs + after
        rows = self.generator.word_embeddings(words)
        self._tokens = [f"<{kind} {index}>" for index in range(len(rows))]
        self._prompt = POSITIVE_PROMPT.format(a=f"{before}{''.join(self._tokens)}{after}")
        ids, _, places = self.generator.tokenize(self._prompt, self._tokens)
        ids[places > 0] = torch.tensor(self.generator.pieces(words)).to(ids)
        if not torch.equal(ids, self.generator.tokenize(POSITIVE_PROMPT.format(a=f"{before}{words}{after}"))[0]):
            raise ValueError(
                f"{kind}: got {words!r}, which the tokenizer reads together with what stands beside it; use other words"
            )
        self._parameters["token"] = torch.nn.Parameter(rows)

    def condition(self) -> TextCondition:
        return self.generator.encode_text(self._prompt, dict(zip(self._tokens, self._parameters["token"], strict=True)))


class AdjectiveToken(SubjectToken):
    """New tokens before the subject, which start as the pieces of ``adjective``, "creative" in the paper (7.5.2).

    The search then starts at "a creative X", which is not the model's default: that is ``Search.default``.
    """

    name = "adjective-token"

    def __init__(self, generator: Searchable, subject: str, seed: int = 0, adjective: str = "creative"):
        ConceptualSpace.__init__(self, generator, subject, seed)
        adjective = " ".join(plain_words("adjective", adjective, "creative").split())
        self.options = {"adjective": adjective}
        article, noun = split_article(subject)
        if article.lower() != "the":
            article = split_article(adjective)[0]
        self._put_tokens("adjective", f"{article} ", adjective, f" {noun}")


class LoRAWithSubjectToken(LoRA):
    """Adapters and subject token together: the combined space of section 5.2."""

    name = "lora+subject-token"

    def __init__(self, generator: Searchable, subject: str, seed: int = 0, rank: int = 10):
        super().__init__(generator, subject, seed, rank)
        self._token = SubjectToken(generator, subject, seed)
        self._parameters |= self._token._parameters

    def condition(self) -> TextCondition:
        return self._token.condition()


class Embedding(ConceptualSpace):
    """The image embedding itself, which the paper shows to fail (7.5.1): no model keeps it plausible.

    It starts as the prior's sample for ``seed``; every noise seed then gives that same embedding.
    """

    name = "embedding"

    def __init__(self, generator: Searchable, subject: str, seed: int = 0):
        if not hasattr(generator, "decode"):
            raise ValueError(
                f"space: {generator.name!r} draws no embeddings, so there is no {self.name!r} to search; use 'lora'"
            )
        super().__init__(generator, subject, seed)
        with torch.no_grad():
            start = generator.sample(self.positive, noise_sources([seed]))
        self._parameters["embedding"] = torch.nn.Parameter(start)

    def sample(self, seeds: list[int], *, steps: int | None = None, guidance: float | None = None) -> torch.Tensor:
        return self._parameters["embedding"].expand(len(seeds), -1)

    @torch.no_grad()
    def draw(
        self, seeds: list[int], *, steps: int | None = None, guidance: float | None = None
    ) -> tuple[torch.Tensor, list[Image.Image]]:
        embeddings = self.sample(seeds).clone()
        return embeddings, self.generator.decode(embeddings, prompt=positive_prompt(self.subject), seed=seeds)


SPACES = {space.name: space for space in (LoRA, SubjectToken, AdjectiveToken, LoRAWithSubjectToken, Embedding)}


def make_space(name: str, generator: Searchable, subject: str, seed: int = 0, **options) -> ConceptualSpace:
    """Make a conceptual space by name: one of ``SPACES``; ``options`` are those of its class (``rank``, ``adjective``).

    Raises:
        ValueError: unknown name, or a subject without a letter or digit.
    """
    if name not in SPACES:
        raise ValueError(f"space: got {name!r}; choose one of {', '.join(map(repr, SPACES))}")
    return SPACES[name](generator, subject, seed, **options)
