"""What holds the search back: the anchor rule of S2.4 and the yes/no checker (section 5.3 of the paper)."""

import math
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from PIL import Image
from torch.nn import functional
from transformers import AutoModelForImageTextToText, AutoProcessor, Idefics3Processor

from creativelib.arguments import finite_number, whole_number
from creativelib.generator import with_article
from creativelib.loading import find_device, load_pretrained
from creativelib.memory import Ledger
from creativelib.storage import data_folder
from creativelib.weights import weights_of

QUESTION = "Is this still {a}? Yes or No."
CHECK_IMAGES = 4  # the paper asks about one image; the mean over a few makes one unlucky image less decisive
CALIBRATION_IMAGES = 64  # plain pictures that a threshold should be read from
FEWEST_IMAGES = 32  # with fewer, the share of runs that survive is anybody's guess
CALIBRATION_RUNS = 4000  # simulated runs that a threshold is read from
CHECKS = 40  # of a run of the paper: 1,000 steps, a check every 25


# --- anchor -----------------------------------------------------------------------------------------------------------


class Decision(NamedTuple):
    """What one step minimises (a scalar), its name, and whether the next step keeps the noise seed."""

    loss: torch.Tensor
    kind: str
    hold: bool


class Rule(Protocol):
    """What a step minimises, given the creative and the anchor loss. A dataclass, so that a run can keep its fields."""

    def __call__(self, creative: torch.Tensor, anchor: torch.Tensor) -> Decision: ...


@dataclass(frozen=True)
class AlternatingRule:
    """The dynamic strategy of S2.4: create while the anchor loss is at most ``threshold``; above it, follow the anchor
    loss alone and keep the same noise seed until that sample is pulled back.
    """

    threshold: float

    def __post_init__(self):
        object.__setattr__(self, "threshold", finite_number("threshold", self.threshold))

    def __call__(self, creative: torch.Tensor, anchor: torch.Tensor) -> Decision:
        if float(anchor.detach()) <= self.threshold:
            return Decision(creative, "creative", hold=False)
        return Decision(anchor, "anchor", hold=True)


@dataclass(frozen=True)
class SumRule:
    """The fixed-weight sum of Eq. 8; ``weight`` is 1 in the equation, 0 leaves the anchor out."""

    weight: float = 1.0

    def __post_init__(self):
        object.__setattr__(self, "weight", finite_number("weight", self.weight))

    def __call__(self, creative: torch.Tensor, anchor: torch.Tensor) -> Decision:
        return Decision(creative + self.weight * anchor, "sum", hold=False)


RULES = {rule.__name__: rule for rule in (AlternatingRule, SumRule)}  # by the name that a saved run gives


def checked_rule(rule) -> Rule:
    """``rule``, unless a saved run could not say which one it is.

    Raises:
        ValueError: no object of a dataclass, or one that a file cannot tell from another.
    """
    if not is_dataclass(rule) or isinstance(rule, type):
        raise ValueError(
            f"rule: got {rule!r}, of which a file cannot say what it does; give an AlternatingRule, a SumRule, or an "
            "object of a dataclass of your own with a __call__(creative, anchor), whose fields are kept with the run"
        )
    kind = type(rule)
    if RULES.get(kind.__name__, kind) is not kind or any(field.name == "name" for field in fields(rule)):
        raise ValueError(
            f"rule: got {rule!r}, which a file cannot tell from another rule; choose a class name other than "
            f"{' and '.join(RULES)}, and no field called 'name'"
        )
    return rule


def checked_decision(decision) -> Decision:
    """What a rule decided, unless it cannot be followed, or kept under the name of its kind.

    Raises:
        ValueError: no tuple of three, a kind that cannot be part of a key, a loss that is no number with a gradient.
    """
    loss, kind, hold = decision if isinstance(decision, tuple) and len(decision) == 3 else (None, None, None)
    if not isinstance(kind, str) or not kind.isprintable() or not kind or "/" in kind:
        raise ValueError(
            f"rule: its decision is {decision!r}; give a tuple (loss, kind, hold) such as pullback.Decision, in which the kind "
            "is a word or words without '/', for example 'creative'"
        )
    if not isinstance(loss, torch.Tensor) or loss.numel() != 1 or not loss.requires_grad:
        raise ValueError(f"rule: the loss of its decision is {loss!r}; give one number made from the losses it was called with")
    return Decision(loss.reshape(()), kind, bool(hold))


def run_threshold(answers: torch.Tensor, *, share: float = 0.95, group: int = CHECK_IMAGES, checks: int = CHECKS) -> float:
    """The threshold that ``share`` of the runs of an unchanged model stay above in all of their ``checks``.

    A threshold for one check would not do: what 95 of 100 checks pass, 40 in a row pass with a probability of .95^40 = 13 %.
    So runs are simulated: each draws the answers of ``checks`` times ``group`` pictures from those given, and its lowest mean
    of a group is what the threshold must not exceed. The answers given are a sample themselves, and their few lowest decide;
    so each simulated run weighs them anew at random (the Bayesian bootstrap of Rubin, 1981), which allows for that.

    Args:
        answers: (n,) probabilities of yes, of plain pictures.
    """
    source = torch.Generator().manual_seed(0)
    weights = torch.rand(CALIBRATION_RUNS, len(answers), generator=source).clamp(min=1e-12).log().neg()
    drawn = answers[torch.multinomial(weights, checks * group, replacement=True, generator=source)]
    lowest = drawn.unflatten(1, (checks, group)).mean(2).amin(1)
    return float(lowest.quantile(1 - share))


def anchor_threshold(baseline: torch.Tensor, text_embedding: torch.Tensor, quantile: float = 0.99) -> float:
    """A threshold for ``AlternatingRule`` that suits a model: the anchor loss that this share of plain samples stays under.

    The paper calls its threshold "predetermined" and gives no number; cosines of image and text differ between models.

    Args:
        baseline: (n, d) embeddings of the baseline distribution. text_embedding: (1, d), of P_pos.
    """
    losses = 1 - functional.cosine_similarity(baseline.float().cpu(), text_embedding.detach().float().cpu(), dim=-1)
    return float(losses.quantile(quantile))


# --- checker ----------------------------------------------------------------------------------------------------------


class Verdict(NamedTuple):
    """The checker's answer, and the probability of yes against no, 0 to 1; NaN where the model computed no number."""

    yes: bool
    probability: float


SPACE_MARKS = "▁Ġ"  # a space before a token, as tokenizers of the SentencePiece and of the byte-level kind write it


def answer_tokens(tokenizer, word: str) -> set[int]:
    """The tokens that an answer can begin with: ``word`` in its usual spellings, with and without a space before it.

    Llama's and Mistral's tokenizers put a space mark before every text: " yes" becomes a lone mark and then "▁yes", and "yes"
    within a text is a token that no text alone begins with. So marks that stand alone are passed over, and the forms with and
    without a mark are looked up in the vocabulary. Spellings that are one token count; where there is none, first pieces do.
    """
    vocabulary, whole, first = tokenizer.get_vocab(), set(), set()
    for spelling in (word, word.capitalize(), word.upper()):
        for text in (spelling, " " + spelling):
            pieces = tokenizer.convert_ids_to_tokens(tokenizer(text, add_special_tokens=False).input_ids)
            cores = [core for piece in pieces if (core := piece.lstrip(SPACE_MARKS).strip())]
            forms = [mark + core for mark in ("", *SPACE_MARKS) for core in cores[:1]]
            (whole if len(cores) == 1 else first).update(vocabulary[form] for form in forms if form in vocabulary)
    return whole or first


class YesNoChecker:
    """Asks a vision-language model whether an image still shows the subject.

    The answer is read from the logits of *yes* and *no* at the first new token, so nothing has to be parsed and there is
    always a probability.

    Args:
        model, processor: from ``AutoModelForImageTextToText`` and ``AutoProcessor``.
        threshold: probability from which on the answer is yes.
        question: with ``{a}`` for the subject and its article.
        origin: which model it is, as JSON values: what it was loaded as, and its weights.

    Attributes:
        yes, no: ids of the tokens that either answer can begin with.
        checks: of how many in a run the threshold is, if it was calibrated.
    """

    checks: int | None = None

    def __init__(self, model, processor, *, threshold: float = 0.5, question: str = QUESTION, origin: dict | None = None):
        if not 0 < threshold < 1:
            raise ValueError(f"threshold: got {threshold!r}; give a probability between 0 and 1")
        self.model, self.processor, self.threshold, self.question = model.eval(), processor, float(threshold), question
        self.origin = dict(origin or {"name": type(model).__name__})
        self.yes, self.no = (answer_tokens(getattr(processor, "tokenizer", processor), word) for word in ("yes", "no"))
        if not self.yes or not self.no or self.yes & self.no:
            raise ValueError("processor: its tokenizer does not tell yes and no apart by their first token; use another")

    def calibrated(
        self,
        images: Sequence[Image.Image],
        subject: str,
        share: float = 0.95,
        group: int = CHECK_IMAGES,
        checks: int = CHECKS,
    ) -> "YesNoChecker":
        """The same checker with a threshold that suits a generator and a run: at most the present one, and so low that
        ``share`` of the *runs* of an unchanged model pass all their ``checks``, see ``run_threshold``. A refusal then says:
        less like the subject than plain pictures are.

        Measured with the shipped model on aliens, whose plain pictures it doubts most: with 64 of them and 40 checks 95 of
        100 runs survive, in the mean over 25 sets of pictures (94 to 96 with 32 to 128 of them), and 84 with the worst set; by
        a threshold for single checks it was 13. Of vehicles, fruit, handbags and chairs 96 to 100 survive.

        It hangs on the lowest answers. Of made-up ones, Beta(8, 2), Beta(2, 1) and Beta(30, 1), 89, 93 and 90 of 100 runs
        survive in the mean over 25 sets of 64, and 24 with the worst set; with 256 pictures 92 to 94, and 74. For numbers that
        are to be cited give more pictures.

        Args:
            images: plain pictures of the subject, ``CALIBRATION_IMAGES`` or more.
            group: how many pictures a check looks at. Their mean answer is what a run compares with the threshold.
            checks: how many there will be: the steps of the run through the steps between checks.

        Raises:
            ValueError: no images, ``share`` outside 0 to 1, ``group`` or ``checks`` below 1, an answer that is no number.
        """
        group, checks = whole_number("group", group, 1), whole_number("checks", checks, 1)
        if not len(images) or not 0 < share < 1:
            raise ValueError(
                f"images, share: got {len(images)} images and {share!r}; give plain pictures, and a share between 0 and 1"
            )
        if len(images) < FEWEST_IMAGES:
            warnings.warn(
                f"images: a threshold from {len(images)} pictures is not sure; give {CALIBRATION_IMAGES}", stacklevel=2
            )
        answers = torch.tensor(answers_to(self, images, subject))
        threshold = min(self.threshold, max(run_threshold(answers, share=share, group=group, checks=checks), 1e-6))
        same = YesNoChecker(self.model, self.processor, threshold=threshold, question=self.question, origin=self.origin)
        same.checks = checks
        return same

    @property
    def settings(self) -> dict:
        """Which checker it is and what it asks, as JSON values: a run keeps it in its own settings."""
        return {
            "threshold": round(self.threshold, 6),
            "question": self.question,
            **self.origin,
            "dtype": str(self.model.dtype).removeprefix("torch."),
        }

    def _prompt(self, question: str) -> str:
        if getattr(self.processor, "chat_template", None):
            content = [{"type": "image"}, {"type": "text", "text": question}]
            return self.processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        return f"{getattr(self.processor, 'image_token', '<image>')}\n{question}"

    def inputs(self, image: Image.Image, subject: str) -> dict[str, torch.Tensor]:
        """What the model is given: the image, and the question about the subject in the model's own form of chat."""
        prompt = self._prompt(self.question.format(a=with_article(subject)))
        mode = {"generation_mode": "text"} if "janus" in self.model.config.model_type else {}
        inputs = self.processor(images=[image.convert("RGB")], text=[prompt], return_tensors="pt", **mode).to(self.model.device)
        inputs["pixel_values"] = inputs["pixel_values"].to(self.model.dtype)
        return inputs

    @torch.no_grad()
    def check(self, image: Image.Image, subject: str) -> Verdict:
        """Ask about one image (section 5.3: "Is this still a {subject}? Yes or No.")."""
        logits = self.model(**self.inputs(image, subject)).logits[0, -1].float()
        pair = torch.stack([logits[sorted(ids)].logsumexp(0) for ids in (self.yes, self.no)])
        probability = float(pair.softmax(0)[0])
        return Verdict(probability >= self.threshold, probability)


def checked_checker(checker) -> YesNoChecker:
    """``checker``, of any class, unless a run could not ask it.

    Raises:
        ValueError: no object with a ``check``, or a threshold that is no number.
    """
    if not callable(getattr(checker, "check", None)) or isinstance(checker, type):
        raise ValueError(
            f"checker: got {checker!r}; give one from load_checker, or an object of your own with a threshold and a "
            "check(image, subject) that gives a pullback.Verdict"
        )
    finite_number("checker.threshold", getattr(checker, "threshold", None))
    return checker


def probability_of_yes(checker, image: Image.Image, subject: str) -> float:
    """What a checker of any class answers about an image; NaN where it computed no number.

    Raises:
        ValueError: what it gives has no probability.
    """
    verdict = checker.check(image, subject)
    try:
        return float(verdict.probability)
    except (AttributeError, TypeError, ValueError):
        raise ValueError(
            f"checker: it answered {verdict!r}; give a pullback.Verdict, whose probability is a number from 0 to 1"
        ) from None


def answers_to(checker, images: Sequence[Image.Image], subject: str) -> list[float]:
    """P(yes) of each of ``images``, from which a threshold is to be read.

    Raises:
        ValueError: the checker answers one of them with no number.
    """
    answers = [probability_of_yes(checker, image, subject) for image in images]
    if bad := sum(not math.isfinite(answer) for answer in answers):
        raise ValueError(
            f"images: the checker answers {bad} of {len(images)} plain pictures with no number; load it in another dtype, for "
            "example load_checker(..., dtype=torch.float32)"
        )
    return answers


def load_checker(
    name: str | Path = "pocket",
    *,
    device: str | torch.device | None = None,
    threshold: float = 0.5,
    revision: str | None = None,
    dtype: torch.dtype | str | None = None,
    memory: Ledger | None = None,
) -> YesNoChecker:
    """Load a checker: ``"pocket"`` (shipped), a folder, or a hub id such as ``"HuggingFaceTB/SmolVLM-256M-Instruct"``.

    Args:
        name: a hub id may end in ``@`` and a commit, for numbers that are to be cited, a tag or a branch.
        revision: the same as an argument of its own; by default ``"main"``.
        dtype: on a GPU by default the checkpoint's own (``"auto"``), as models trained in bfloat16 overflow in float16; else
            float32.
        memory: of the generator that it shares a device with, ``generator.memory``, which names the device: the checker takes
            turns there with the generator's other parts. A card of 12 GB does not hold them all at once.

    Raises:
        ValueError: no name, no such device here, two devices or revisions. OSError: the folder or the hub cannot give it; the
            message says why.
    """
    device = find_device(device) if memory is None else memory.same_device(device)
    where = os.path.expanduser(name) if isinstance(name, (str, Path)) else ""
    if not Path(where).is_dir() and "@" in where:
        where, _, pinned = where.partition("@")
        if not pinned or revision not in (None, pinned):
            raise ValueError(f"revision: got {str(name)!r} and {revision!r}; name one revision, for example owner/name@commit")
        name, revision = where, pinned
    if not where.strip():
        raise ValueError(f"name: got {name!r}; give 'pocket', a folder, or owner/name of the hub")
    if name == "pocket":
        if revision is not None:
            raise ValueError(f"revision: got {revision!r}; the shipped checker has none")
        where = str(data_folder() / "pocket" / "checker")
        if not Path(where).is_dir():
            raise FileNotFoundError(f"{where} does not exist: fetch the whole repository, or run 'make pocket'")
    revision = revision or "main"
    dtype = dtype or ("auto" if device.type == "cuda" else torch.float32)

    def load(where: str, **options):
        model = AutoModelForImageTextToText.from_pretrained(where, dtype=dtype, **options)
        # SmolVLM2 reads pictures as Idefics3 does; its own processor wants packages for videos before it loads at all.
        kind = Idefics3Processor if model.config.model_type == "smolvlm" else AutoProcessor
        return kind.from_pretrained(where, **options), model

    processor, model = load_pretrained("checker", where, "config.json", load, revision)
    folder = Path(where)
    label = name if name == "pocket" else folder.resolve().name if folder.is_dir() else str(name)
    origin = {"name": label, "weights": weights_of(where, revision, "config.json")}
    model.requires_grad_(False)
    if memory is None:
        model.to(device)
    else:
        memory.guest_when_called(f"checker {label}", model)
    return YesNoChecker(model, processor, threshold=threshold, origin=origin)
