"""ConceptLab (Richardson et al., ACM TOG 2024): a new token that is like its class and unlike what a model sees in it.

Written from the paper and the behaviour of the released code: the templates, losses, caps and floors, the initialisation from
the class's own token, AdamW with weight decay, a question about one fixed picture before the first step and after every 250.
"""

import random
from collections.abc import Sequence

import torch
from torch.nn import functional

from creativelib.arguments import finite_number, whole_number
from creativelib.generator import POSITIVE_PROMPT, Generator, TextCondition
from creativelib.methods.asking import KIND, readable
from creativelib.methods.budget import Cost, sample_cost
from creativelib.methods.method import Desk, Method, Subject, word_list
from creativelib.methods.rates import PUBLISHED_WIDTHS, space_rate
from creativelib.prior_sampling import noise_sources, sample_embeddings
from creativelib.seeds import derive_seed

TOKEN = "<concept>"
PREFIXES = ("a", "the", "my")
PHOTOGRAPHS = (
    "Professional high-quality photo of {a} {token}. photorealistic, 4k, HQ",
    "A photo of {a} {token}",
    "A photo of {a} {token}. photorealistic, 4k, HQ",
)
ARTWORKS = (
    "Professional high-quality art of {a} {token}. photorealistic",
    "A painting of {a} {token}",
    "A watercolor painting of {a} {token}",
    "A painting of {a} {token} in the style of monet",
    "Colorful graffiti of {a} {token}. photorealistic, 4k, HQ",
    "A line drawing of {a} {token}",
    "Oil painting of {a} {token}",
    "Professional high-quality art of {a} {token} in the style of a cartoon",
    "A close-up photo of {a} {token}",
)
TEMPLATES = 3 * PHOTOGRAPHS + ARTWORKS  # each of the photographs thrice, so that half of the draws are photographs
ASKED = "Professional high-quality art of a {token}. photorealistic, 4k, HQ"  # the picture that the model is asked about
ASKED_SEED = 42
CAP, FLOOR = 0.28, 0.20  # of the cosines of Kandinsky


def conceptlab_loss(positive: torch.Tensor, negative: torch.Tensor, cap: float = CAP, floor: float = FLOOR) -> torch.Tensor:
    """Half of (mean + largest negative cosine), none below ``floor``, plus the mean of 1 - positive cosine, none above ``cap``.

    Cosines of one image embedding to the classes it shall be like, (P,), and unlike, (M,); M may be 0.
    """
    attract = (1 - positive.clamp(max=cap)).mean()
    if not len(negative):
        return attract
    held = negative.clamp(min=floor)
    return 0.5 * (held.mean() + held.max()) + attract


class ConceptLab(Method):
    """Adaptive negatives, for as many steps as the budget pays.

    Args:
        steps: at most so many (1,000 by default in the release, 2,500 in its configurations); ``None``: as the budget pays.
        rate: learning rate of the token; ``None`` for 1e-4, as published, with Kandinsky, and with other models for the one at
            which our own search tunes a subject token.
        ask_every: steps between questions, 250 as published.
        cap, floor: of positive and negative cosines. ``None``: as published for Kandinsky; for other models, whose cosines have
            another scale, what plain pictures of the subject have to their own prompt, and to the empty one.
        negatives: known from the start; the model is then not asked before the first step.
    """

    name = "conceptlab"
    asks = True
    description = "ConceptLab: a token that is unlike the kinds that the checker names"

    def __init__(
        self,
        steps: int | None = None,
        rate: float | None = None,
        ask_every: int = 250,
        cap: float | None = None,
        floor: float | None = None,
        negatives: str | Sequence[str] = (),
    ):
        self.steps = None if steps is None else whole_number("steps", steps, 1)
        self.rate = None if rate is None else finite_number("rate", rate, above=0)
        self.ask_every = whole_number("ask_every", ask_every, 1)
        self.cap = None if cap is None else finite_number("cap", cap)
        self.floor = None if floor is None else finite_number("floor", floor)
        self.negatives = word_list("negatives", negatives, "car")

    def bounds(self, subject: Subject) -> tuple[float, float]:
        """Cap and floor for a subject's generator."""
        cap, floor = self.cap, self.floor
        if subject.generator.embedding_dim in PUBLISHED_WIDTHS:
            return (CAP if cap is None else cap), (FLOOR if floor is None else floor)
        own, empty = subject.cosines
        return (own if cap is None else cap), (empty if floor is None else floor)

    def search(self, desk: Desk) -> tuple[torch.Tensor, None]:
        generator, words = desk.generator, desk.subject.words.strip()
        cap, floor = self.bounds(desk.subject)
        token = torch.nn.Parameter(generator.word_embedding(words))
        own = generator.settings.learning_rate * space_rate(generator, "subject-token")
        rate = own if self.rate is None else self.rate
        optimizer = torch.optim.AdamW([token], lr=rate, weight_decay=1e-2)
        negatives, losses, asked_at = list(self.negatives), [], []
        step = sample_cost(generator, backward=True)
        look = sample_cost(generator) + Cost(decodes=1, questions=1)

        def ask() -> None:
            if desk.affords(look) and (answer := readable(generator, max(TEMPLATES, key=len), self.kind(desk, token))):
                negatives.append(answer)  # also when it is there already, as in the release
                asked_at.append(len(losses))

        if not negatives:
            ask()
        desk.show(0, token)
        while (self.steps is None or len(losses) < self.steps) and desk.affords(step):
            desk.meter.charge(step)
            number = len(losses)
            draw = random.Random(derive_seed(desk.seed, "template", number))
            template = draw.choice(TEMPLATES).replace("{a}", draw.choice(PREFIXES))
            # first: they may need room on the device, which no encoder can give whose gradient is still to come
            classes = [class_embedding(generator, template.format(token=word)) for word in (words, *negatives)]
            condition = generator.encode_text(template.format(token=TOKEN), {TOKEN: token})
            source = noise_sources([derive_seed(desk.seed, "step", number)])
            embedding = sample_embeddings(generator, condition, source)  # (1, d)
            positive, *others = (functional.cosine_similarity(embedding, row) for row in classes)
            loss = conceptlab_loss(positive, torch.cat(others) if others else positive[:0], cap, floor)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(round(float(loss.detach()), 6))
            desk.show(len(losses), token)
            if len(losses) % self.ask_every == 0:
                ask()
        desk.facts |= {"steps": len(losses), "negatives": negatives, "asked_at": asked_at, "cap": round(cap, 4)}
        desk.facts |= {"floor": round(floor, 4), "rate": rate, "loss": losses}
        desk.release()
        return desk.sample(desk.noise_seeds, concept_condition(generator, token)), None

    def kind(self, desk: Desk, token: torch.Tensor) -> str:
        """What the checker calls the picture of the token: one fixed noise, decoded without words."""
        with torch.no_grad():
            condition = desk.generator.encode_text(ASKED.format(token=TOKEN), {TOKEN: token})
        embedding = desk.sample([ASKED_SEED], condition)
        desk.meter.charge(Cost(decodes=1))
        (image,) = desk.generator.decode(embedding, seed=ASKED_SEED)
        return desk.ask(image, KIND.format(subject=desk.subject.words.strip()))


@torch.no_grad()
def concept_condition(generator: Generator, token: torch.Tensor) -> TextCondition:
    """What the prior is told when the concept of ``token`` (width,) is drawn."""
    return generator.encode_text(POSITIVE_PROMPT.format(a=f"a {TOKEN}"), {TOKEN: token})


def class_embedding(generator: Generator, prompt: str) -> torch.Tensor:
    """Text embedding (1, d) of a prompt about a class.

    By the decoder's multilingual CLIP in Kandinsky 2.1, as published; by the prior's text encoder where the decoder reads
    no text.
    """
    return generator.text_embedding(prompt, "decoder" if generator.source.reads_text else "prior")
