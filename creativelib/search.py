"""The search for less typical embeddings: one sample a step, a loss, a check in time (sections 5 and 6, S2.4 of the paper)."""

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from weakref import WeakKeyDictionary

import torch
from PIL import Image

import creativelib
from creativelib.arguments import finite_number, seed_number, seed_numbers, whole_number
from creativelib.belonging import require_one_subject
from creativelib.directions import NegativeCluster, directional_loss
from creativelib.generator import NotFinite, positive_prompt
from creativelib.interrupts import uninterrupted
from creativelib.losses import anchor_loss, creative_loss
from creativelib.prior_sampling import noise_sources, sample_prior
from creativelib.pullback import (
    CHECK_IMAGES,
    AlternatingRule,
    Rule,
    YesNoChecker,
    anchor_threshold,
    checked_checker,
    checked_decision,
    checked_rule,
    probability_of_yes,
)
from creativelib.searchable import Searchable
from creativelib.seeds import derive_seed
from creativelib.snapshots import Snapshots
from creativelib.spaces import ConceptualSpace
from creativelib.storage import plain_json
from creativelib.target import has_reached
from creativelib.threads import threads_for_one
from creativelib.typicality import TypicalityModel

ANCHOR_SAMPLES = 1000  # plain samples that a threshold of the anchor is read from
_PLAIN_LIMITS: WeakKeyDictionary[Searchable, dict] = WeakKeyDictionary()  # such thresholds, by prompt and sampling


def versions() -> dict[str, str]:
    """Versions of the packages that the numbers of a run come from."""
    return {"creativelib": creativelib.__version__} | {
        name: version(name).partition("+")[0] for name in ("torch", "diffusers", "transformers", "peft")
    }


class Search:
    """Searches a conceptual space for less typical embeddings, one sample a step, and keeps everything that happened.

    All noise is derived from ``(seed, step)``, so that a run can go on exactly as if it had not been interrupted.

    Args:
        generator, subject, space, typicality: what is searched, and against which baseline; all of the same subject.
        rule: what a step minimises, a dataclass; by default the alternating rule of S2.4, with the model's threshold or,
            where it has none, the anchor loss that 99 of 100 plain samples stay under (``ANCHOR_SAMPLES`` are drawn for it).
        checker: asked every ``check_every`` steps and at the end; a no ends the run. ``None`` for no checker.
        clusters: what to keep away from (section 5.4), of different names, in the PCA space of ``typicality``. Their loss is
            added to the creative loss before the rule chooses, so Eq. 8 is the sum rule with clusters; a step that follows
            the anchor alone leaves them out.
        seed: of all noise.
        learning_rate: of AdamW (1e-4 in the paper); the family's by default.
        prior_steps, guidance: of the prior; the family's by default.
        check_every: 25 in the paper. check_images: how many images the checker sees each time; the paper asks about one,
            the mean over four makes one unlucky image less decisive.
        snapshot_every: steps between kept copies of the parameters.
        target: stop at, and push no further than, this surprise in nats. It bounds the creative loss alone: clusters go on.

    Attributes:
        history: one row (dict) a step; ``pandas.DataFrame(run.history)`` shows it. ``surprise`` and losses are in nats, of the
            sample *before* the update; ``check`` is the probability of yes after it, or ``None``. ``negative_loss`` is the sum
            over clusters (0.0 without), ``cluster_distance`` the Mahalanobis distance to each by name.
        snapshots: parameters by number of steps done; 0 is the start. There is one every ``snapshot_every`` steps, one of the
            last state that the checker accepted, and one where ``run`` ended.
        aims: (step, target) by when each target was set; ``settings`` names the last, and a run of the last alone is another.
        stopped: why the run ended before its time: ``""``, ``"checker"`` (it said no), ``"target"``, ``"not finite"`` (a loss)
            or ``"no answer"`` (the checker's answer was no number: neither a yes nor a no; ``run`` asks again).

    Raises:
        ValueError: a number that makes no sense, parts of different subjects or generators, a cluster of another PCA space,
            two of one name, a rule that cannot be kept in a file.
    """

    def __init__(
        self,
        generator: Searchable,
        subject: str,
        space: ConceptualSpace,
        typicality: TypicalityModel,
        *,
        rule: Rule | None = None,
        checker: YesNoChecker | None = None,
        clusters: Sequence[NegativeCluster] = (),
        seed: int = 0,
        learning_rate: float | None = None,
        prior_steps: int | None = None,
        guidance: float | None = None,
        check_every: int = 25,
        check_images: int = CHECK_IMAGES,
        snapshot_every: int = 10,
        target: float | None = None,
    ):
        defaults = generator.settings
        self.check_every = whole_number("check_every", check_every, 1)
        self.check_images = whole_number("check_images", check_images, 1)
        self.snapshot_every = whole_number("snapshot_every", snapshot_every, 1)
        self.seed = seed_number("seed", seed)
        rate = defaults.learning_rate if learning_rate is None else learning_rate
        self.learning_rate = finite_number("learning_rate", rate, above=0, hint="1e-4 in the paper")
        self.sampling = generator.sampling(prior_steps, guidance, "prior_steps")
        self.target = None if target is None else finite_number("target", target)
        if not isinstance(clusters, Iterable):
            raise ValueError(f"clusters: got {clusters!r}; give a list of them, for example [cluster]")
        clusters = tuple(clusters)
        names = [cluster.name for cluster in clusters]
        if len(set(names)) < len(names):
            raise ValueError(f"clusters: got the names {names}; give each cluster a name of its own")
        for cluster in clusters:
            cluster.require_space(typicality)
        self.generator, self.subject, self.space, self.typicality = generator, subject, space, typicality
        require_one_subject(generator, subject, space, typicality, self.sampling)
        self.clusters, self.checker = clusters, None if checker is None else checked_checker(checker)
        self.checks = getattr(checker, "checks", None)  # of how many in a run its threshold is
        self.text_embedding = generator.text_embedding(positive_prompt(subject))  # (1, d), what the anchor compares with
        self.default_rule = rule is None  # the command line tells apart what was chosen
        self.rule = self._default_rule() if rule is None else checked_rule(rule)
        self.optimizers: dict[str, torch.optim.AdamW] = {}  # one for each kind of step, see ``optimizer``
        self.history: list[dict] = []
        self.snapshots = Snapshots()
        self.snapshots.keep(0, space.state_dict())
        self.stopped = ""
        self.aims = [(0, self.target)]
        self._accepted, self._held_seed = 0, None
        self._superseded: set[int] = set()  # snapshots that only the checker needed, and no more
        self._choices()  # whatever cannot be kept is refused now and not after the search

    def _default_rule(self) -> AlternatingRule:
        """The alternating rule with the model's threshold, or with that of ``ANCHOR_SAMPLES`` plain samples.

        Not of samples of the Gaussian: what lies outside its subspace counts for the anchor too, and where it is large they
        stay under a threshold that is far from any of them.
        """
        limit = self.generator.settings.anchor_threshold
        if limit is None:
            known = _PLAIN_LIMITS.setdefault(self.generator, {})
            key = (positive_prompt(self.subject), *self.sampling.values())
            if key not in known:
                plain = sample_prior(self.generator, key[0], n=ANCHOR_SAMPLES, **self.sampling, progress=False)
                known[key] = anchor_threshold(plain.embeddings, self.text_embedding)
            limit = known[key]
        return AlternatingRule(limit)

    def _choices(self) -> dict:
        """The settings that were chosen, without what the generator is."""
        rule = {name: round(value, 6) if isinstance(value, float) else value for name, value in asdict(self.rule).items()}
        choices = {
            "subject": self.subject,
            "prompt": positive_prompt(self.subject),
            "space": self.space.name,
            "space_seed": self.space.seed,
            "space_options": self.space.options,
            "rule": {"name": type(self.rule).__name__, **rule},
            "checker": None if self.checker is None else _identity(self.checker),
            "check_every": self.check_every,
            "check_images": self.check_images,
            "seed": self.seed,
            "learning_rate": self.learning_rate,
            "prior": self.sampling,
            "target": self.target,
            "clusters": [cluster.settings for cluster in self.clusters],
            "baseline": {"dims": self.typicality.dims, "n": self.typicality.n, **self.typicality.provenance},
        }
        return plain_json(choices, "settings")

    @property
    def settings(self) -> dict:
        """Everything that the course of the run depends on, as JSON values."""
        return {**self.generator.run_settings, **self._choices(), "versions": versions()}

    @property
    def steps(self) -> int:
        """Steps done."""
        return len(self.history)

    @property
    def result_step(self) -> int:
        """Which snapshot is the result: the last one, or the last that the checker accepted if it did not accept that.

        Where nobody checked it, the last state may give no picture after a loss that was not finite: then it is the last
        snapshot before.
        """
        if self.steps and self.history[-1]["check"] is not None:
            return self._accepted
        finite = [step for step in self.snapshots if step < self.steps]  # each had a row in the history
        return finite[-1] if self.stopped == "not finite" and finite else self.steps

    def optimizer(self, kind: str) -> torch.optim.AdamW:
        """AdamW for one kind of step, all of them over the same parameters.

        Each loss has moments of its own: the gradients of the creative loss are tens of times those of the anchor loss, and
        in shared moments they would scale an anchor step to almost nothing, so that nothing is ever pulled back.
        """
        if kind not in self.optimizers:
            self.optimizers[kind] = torch.optim.AdamW(self.space.parameters(), lr=self.learning_rate)
        return self.optimizers[kind]

    # --- searching ----------------------------------------------------------------------------------------------------

    def step(self) -> dict:
        """One step of the search: sample, choose the loss, update, and on time check. Returns its row of the history.

        Raises:
            RuntimeError: the run has ended.
        """
        if self.stopped:
            raise RuntimeError(f"step: the run has ended ({self.stopped}); make a new one, or aim(target) at another surprise")
        began, number, held = time.perf_counter(), self.steps, self._held_seed is not None
        noise_seed = self._held_seed if held else derive_seed(self.seed, "step", number)
        # the space stands to the end of the backward pass, which may compute parts of the forward pass again
        with threads_for_one(self.generator.adapted), self.space:
            embedding = self.space.sample([noise_seed], **self.sampling)  # (1, d)
            log_prob = self.typicality.log_prob(embedding)
            anchor = anchor_loss(embedding, self.text_embedding)
            negative = directional_loss(embedding, self.clusters)
            loss, kind, hold = checked_decision(self.rule(creative_loss(log_prob, self.target) + negative, anchor))
            optimizer = self.optimizer(kind)
            optimizer.zero_grad()
            loss.backward()
            gradients = [parameter.grad for parameter in self.space.parameters() if parameter.grad is not None]
            row = {
                "step": number,
                "kind": kind,
                "loss": float(loss.detach()),
                "surprise": -float(log_prob.detach()),
                "anchor_loss": (anchor_value := float(anchor.detach())),
                "anchor_cosine": 1 - anchor_value,
                "negative_loss": float(negative.detach()),
                "cluster_distance": {cluster.name: float(cluster.distance(embedding.detach())) for cluster in self.clusters},
                "residual_energy": float(self.typicality.residual_energy(embedding.detach())),
                "gradient_norm": float(torch.nn.utils.get_total_norm(gradients)),
                "noise_seed": noise_seed,
                "held": held,
                "check": None,
            }
        numbers = [row[key] for key in ("loss", "surprise", "negative_loss", "gradient_norm")]
        if not all(map(math.isfinite, [*numbers, *row["cluster_distance"].values()])):
            self.stopped = "not finite"  # the parameters are still those of the step before
            row["check"] = self._check_once()
            return row
        with uninterrupted():  # parameters, history and seed are of the same step, whenever Ctrl-C comes
            optimizer.step()
            self.history.append(row)
            self._held_seed = noise_seed if hold else None
        if self.steps % self.snapshot_every == 0:
            self.keep_snapshot()
        row["seconds"] = time.perf_counter() - began
        self._judge()
        row["seconds"] = time.perf_counter() - began
        return row

    def _judge(self) -> None:
        """What follows a step: the check if one is due, and the end at the target. Twice does what once does."""
        if not self.steps or self.stopped:
            return
        if self.steps % self.check_every == 0:
            self._check_once()
        if self.target is not None and has_reached(self.history, self.target):
            self.stopped = self.stopped or "target"
            self._check_once()

    def _check_once(self) -> float | None:
        """Check the present state, if there is a checker that was not asked about it yet; what it answered then."""
        asked = self.checker and self.steps and self.history[-1]["check"] is None
        return self.check() if asked else None

    def iterate(self, steps: int) -> Iterator[dict]:
        """Go on, row by row, until ``steps`` steps are done in all or the run stops; then check, whatever ended it."""
        steps = whole_number("steps", steps, 1)
        if self.stopped == "no answer":  # ask again
            self.stopped, self.history[-1]["check"] = "", None
        self._judge()  # an interrupted check is made up for
        while self.steps < steps and not self.stopped:
            row = self.step()
            if self.stopped != "not finite":
                yield row
        self._check_once()

    def aim(self, target: float | None) -> "Search":
        """Turn the dial: search on towards another surprise (nats; ``None``: without end), also when the last was reached."""
        self.target = None if target is None else finite_number("target", target)
        self.aims = [aim for aim in self.aims if aim[0] < self.steps] + [(self.steps, self.target)]
        if self.stopped == "target":
            self.stopped = ""
        return self

    def ask_by(self, checker: YesNoChecker) -> "Search":
        """Go on with a more lenient checker, as a longer run needs: where it accepts what ended the run, that goes on."""
        self.checker, self.checks = checked_checker(checker), getattr(checker, "checks", None)
        if self.stopped == "checker" and self.history[-1]["check"] >= checker.threshold:
            self.stopped = ""
            self._accept()
        return self

    def keep_snapshot(self) -> None:
        """Keep the current parameters under the number of steps done."""
        self.snapshots.keep(self.steps, self.space.state_dict())

    def check(self) -> float:
        """Ask the checker about fresh images of the current parameters; a no ends the run. Returns the mean P(yes)."""
        seeds = [derive_seed(self.seed, "check", self.steps, i) for i in range(self.check_images)]
        try:
            _, images = self.space.draw(seeds, **self.sampling)
        except NotFinite:
            self.history[-1]["check"], self.stopped = math.nan, "not finite"
            return math.nan
        probability = sum(probability_of_yes(self.checker, image, self.subject) for image in images) / len(images)
        self.history[-1]["check"] = probability
        if self.checker.threshold <= probability < math.inf:
            self._accept()
        elif self.stopped != "not finite":
            self.stopped = "checker" if math.isfinite(probability) else "no answer"
        return probability

    def _accept(self) -> None:
        """The present state is the one to fall back on; that before is needed no more, unless it is kept anyway."""
        before, self._accepted = self._accepted, self.steps
        if before % self.check_every == 0 and before % self.snapshot_every:
            self._superseded.add(before)
        self.keep_snapshot()
        self._drop_superseded(on_disk=False)

    def _drop_superseded(self, on_disk: bool) -> None:
        """Drop what is needed no more; files only once the state on the disk does not name them any longer."""
        for step in [step for step in self._superseded if on_disk or not self.snapshots.in_file(step)]:
            self.snapshots.drop(step)
            self._superseded.discard(step)

    # --- looking ------------------------------------------------------------------------------------------------------

    @contextmanager
    def at(self, step: int | None = None) -> Iterator[None]:
        """A block in which the space stands at a snapshot (the result by default); afterwards it is where it was.

        Raises:
            ValueError: there is no such snapshot.
        """
        step = self.result_step if step is None else whole_number("step", step, 0)
        if step not in self.snapshots and step == self.steps:
            yield
            return
        if step not in self.snapshots:
            raise ValueError(f"step: got {step!r}; snapshots exist for {sorted(self.snapshots)}")
        current = self.space.state_dict()
        try:
            self.space.load_state_dict(self.snapshots[step])
            yield
        finally:
            self.space.load_state_dict(current)

    @torch.no_grad()
    def sample(self, seeds: Sequence[int], step: int | None = None) -> torch.Tensor:
        """Embeddings (N, d) at a snapshot (the result by default); the same seeds show the same sample at every step."""
        seeds = seed_numbers("seeds", seeds)
        with self.at(step):
            return self.space.sample(seeds, **self.sampling).detach().clone()

    @torch.no_grad()
    def default(self, seeds: Sequence[int]) -> torch.Tensor:
        """Embeddings (N, d) of the frozen model itself, of the same noise: what a result is compared with, in every space."""
        sources = noise_sources(seed_numbers("seeds", seeds))
        return self.generator.sample(self.space.positive, sources, **self.sampling)

    def draw(self, seeds: Sequence[int], step: int | None = None) -> tuple[torch.Tensor, list[Image.Image]]:
        """What ``sample`` gives, and a picture of each.

        Raises:
            NotFinite: some embeddings cannot be drawn.
        """
        seeds = seed_numbers("seeds", seeds)
        with self.at(step):
            return self.space.draw(seeds, **self.sampling)

    def draw_default(self, seeds: Sequence[int]) -> tuple[torch.Tensor, list[Image.Image]]:
        """What ``default`` gives, and a picture of each."""
        prompt = positive_prompt(self.subject)
        return self.generator.draw(self.space.positive, seed_numbers("seeds", seeds), prompt=prompt, **self.sampling)


def _identity(checker) -> dict:
    """Which checker it is, as JSON values; one of another class is known by the name of the class."""
    return getattr(checker, "settings", {"name": type(checker).__name__, "threshold": round(float(checker.threshold), 6)})
