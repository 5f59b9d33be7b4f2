"""One creative optimisation: settings, history, snapshots of the searched parameters (sections 5 and 6, S2.4 of the paper)."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from tqdm.auto import tqdm

from creativelib.directions import NegativeCluster, directional_loss
from creativelib.generator import Generator, positive_prompt
from creativelib.losses import anchor_loss, creative_loss
from creativelib.pullback import CHECK_IMAGES, AlternatingRule, Decision, YesNoChecker, anchor_threshold
from creativelib.seeds import derive_seed
from creativelib.spaces import ConceptualSpace
from creativelib.storage import read_tensors, require_equal, write_tensors
from creativelib.typicality import TypicalityModel

TARGET_WINDOW = 10  # steps over which the surprise is averaged before a target counts as reached


class CreativeRun:
    """Searches a conceptual space for less typical embeddings, one sample a step, and keeps everything that happened.

    All noise is derived from ``(seed, step)``, so a run that was killed and resumed from its files goes on exactly as if it
    had not been.

    Args:
        generator, subject, space, typicality: what is searched, and against which baseline.
        rule: what a step minimises; by default the alternating rule of S2.4, with the model's threshold or, where it has
            none, the anchor loss that 99 of 100 typical embeddings stay under.
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
        snapshots: parameters by number of steps done; 0 is the start.
        stopped: why the run ended before its time: ``""``, ``"checker"``, ``"target"`` or ``"not finite"``.

    Raises:
        ValueError: a number that makes no sense, a cluster of another PCA space, or two of one name.
    """

    def __init__(
        self,
        generator: Generator,
        subject: str,
        space: ConceptualSpace,
        typicality: TypicalityModel,
        *,
        rule: Callable[[torch.Tensor, torch.Tensor], Decision] | None = None,
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
        for name, value in (("check_every", check_every), ("check_images", check_images), ("snapshot_every", snapshot_every)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name}: got {value!r}; give a whole number of at least 1")
        self.learning_rate = defaults.learning_rate if learning_rate is None else learning_rate
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate: got {learning_rate!r}; give a positive number (1e-4 in the paper)")
        names = [cluster.name for cluster in clusters]
        if len(set(names)) < len(names):
            raise ValueError(f"clusters: got the names {names}; give each cluster a name of its own")
        for cluster in clusters:
            cluster.require_space(typicality)
        self.generator, self.subject, self.space, self.typicality = generator, subject, space, typicality
        self.clusters = tuple(clusters)
        self.text_embedding = space.positive.text_embedding  # (1, d), of P_pos
        if rule is None:
            limit = defaults.anchor_threshold
            if limit is None:
                plain = typicality.sample(1000, torch.Generator().manual_seed(0))
                limit = anchor_threshold(plain, self.text_embedding)
            rule = AlternatingRule(limit)
        self.rule, self.checker, self.seed, self.target = rule, checker, seed, target
        self.sampling = {
            "steps": defaults.prior_steps if prior_steps is None else prior_steps,
            "guidance": defaults.prior_guidance if guidance is None else guidance,
        }
        self.check_every, self.check_images, self.snapshot_every = check_every, check_images, snapshot_every
        self.optimizers: dict[str, torch.optim.AdamW] = {}  # one for each kind of step, see ``optimizer``
        self.history: list[dict] = []
        self.snapshots: dict[int, dict[str, torch.Tensor]] = {0: space.state_dict()}
        self.stopped = ""
        self._accepted, self._held_seed = 0, None

    @property
    def settings(self) -> dict:
        """Everything that the course of the run depends on, as JSON values."""
        return {
            "model": self.generator.name,
            "subject": self.subject,
            "prompt": positive_prompt(self.subject),
            "space": self.space.name,
            "space_seed": self.space.seed,
            "rule": {"name": type(self.rule).__name__, **asdict(self.rule)},
            "checker": None if self.checker is None else {"threshold": round(self.checker.threshold, 6)},
            "check_every": self.check_every,
            "check_images": self.check_images,
            "seed": self.seed,
            "learning_rate": self.learning_rate,
            "prior": self.sampling,
            "target": self.target,
            "clusters": [cluster.settings for cluster in self.clusters],
            "baseline": {"dims": self.typicality.dims, "n": self.typicality.n, **self.typicality.provenance},
        }

    @property
    def steps(self) -> int:
        """Steps done."""
        return len(self.history)

    @property
    def result_step(self) -> int:
        """Which snapshot is the result: the last one, or the last that the checker accepted if it ended the run."""
        return self._accepted if self.stopped == "checker" else self.steps

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
        """One step of the search: sample, choose the loss, update, and on time check. Returns its row of the history."""
        began, number, held = time.perf_counter(), self.steps, self._held_seed is not None
        noise_seed = self._held_seed if held else derive_seed(self.seed, "step", number)
        embedding = self.space.sample([noise_seed], **self.sampling)  # (1, d)
        log_prob = self.typicality.log_prob(embedding)
        anchor = anchor_loss(embedding, self.text_embedding)
        negative = directional_loss(embedding, self.clusters)
        loss, kind, hold = self.rule(creative_loss(log_prob, self.target) + negative, anchor)
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
            return row
        optimizer.step()
        self.history.append(row)
        self._held_seed = noise_seed if hold else None
        if self.steps % self.snapshot_every == 0:
            self.keep_snapshot()
        if self.checker and self.steps % self.check_every == 0:
            self.check()
        fresh = [past["surprise"] for past in self.history if not past["held"]][-TARGET_WINDOW:]
        if self.target is not None and len(fresh) == TARGET_WINDOW and sum(fresh) / TARGET_WINDOW >= self.target:
            self.stopped = self.stopped or "target"
        row["seconds"] = time.perf_counter() - began
        return row

    def iterate(self, steps: int) -> Iterator[dict]:
        """Go on, row by row, until ``steps`` steps are done in all or the run stops."""
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
            raise ValueError(f"steps: got {steps!r}; give a whole number of at least 1")
        while self.steps < steps and not self.stopped:
            row = self.step()
            if self.stopped != "not finite":
                yield row

    def run(self, steps: int = 50, *, progress: bool = True, folder: str | Path | None = None) -> "CreativeRun":
        """Search until ``steps`` steps are done in all (up to 1,000 in the paper; results show within 50).

        Args:
            progress: show a bar with surprise (nats) and anchor similarity (cosine).
            folder: saved there every ``check_every`` steps and at the end.

        Raises:
            KeyboardInterrupt: passed on, after what was done has been kept (and saved).
        """
        try:
            with tqdm(total=steps, initial=self.steps, desc="searching", unit="step", disable=not progress) as bar:
                for row in self.iterate(steps):
                    bar.set_postfix_str(
                        f"surprise {row['surprise']:.1f} nats, anchor {row['anchor_cosine']:.3f}", refresh=False
                    )
                    bar.update()
                    if folder is not None and self.steps % self.check_every == 0:
                        self.save(folder)
            if self.checker and self.steps and not self.stopped and self.history[-1]["check"] is None:
                self.check()
        finally:
            self.keep_snapshot()
            if folder is not None:
                self.save(folder)
        return self

    def aim(self, target: float | None) -> "CreativeRun":
        """Turn the dial: search on towards another surprise (nats; ``None``: without end), also when the last was reached."""
        self.target = target
        if self.stopped == "target":
            self.stopped = ""
        return self

    def keep_snapshot(self) -> None:
        """Keep the current parameters under the number of steps done."""
        self.snapshots[self.steps] = self.space.state_dict()

    def check(self) -> float:
        """Ask the checker about fresh images of the current parameters; a no ends the run. Returns the mean P(yes)."""
        self.keep_snapshot()
        seeds = [derive_seed(self.seed, "check", self.steps, i) for i in range(self.check_images)]
        with torch.no_grad():
            embeddings = self.space.sample(seeds, **self.sampling)
        images = self.generator.decode(embeddings, prompt=positive_prompt(self.subject), seed=seeds)
        probability = sum(self.checker.check(image, self.subject).probability for image in images) / len(images)
        self.history[-1]["check"] = probability
        if probability >= self.checker.threshold:
            self._accepted = self.steps
        else:
            self.stopped = "checker"
        return probability

    # --- looking ------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def sample(self, seeds: list[int], step: int | None = None) -> torch.Tensor:
        """Embeddings (N, d) at a snapshot (the result by default); the same seeds show the same sample at every step."""
        step = self.result_step if step is None else step
        if step == self.steps:
            self.snapshots.setdefault(step, self.space.state_dict())
        if step not in self.snapshots:
            raise ValueError(f"step: got {step!r}; snapshots exist for {sorted(self.snapshots)}")
        current = self.space.state_dict()
        try:
            self.space.load_state_dict(self.snapshots[step])
            return self.space.sample(seeds, **self.sampling).detach().clone()
        finally:
            self.space.load_state_dict(current)

    # --- keeping ------------------------------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> Path:
        """Write ``run.safetensors`` (all that is needed to go on) and ``run.json`` (to read) into ``folder``, atomically."""
        tensors = {f"now/{name}": tensor for name, tensor in self.space.state_dict().items()}
        for step, snapshot in self.snapshots.items():
            tensors |= {f"snapshot/{step}/{name}": tensor for name, tensor in snapshot.items()}
        for kind, optimizer in self.optimizers.items():
            for index, parameter in enumerate(self.space.parameters()):
                for name, tensor in optimizer.state.get(parameter, {}).items():
                    tensors[f"optimizer/{kind}/{index}/{name}"] = tensor
        facts = {
            "kind": "creative run",
            "settings": self.settings,
            "steps": self.steps,
            "result_step": self.result_step,
            "stopped": self.stopped,
            "accepted": self._accepted,
            "held_seed": self._held_seed,
            "history": self.history,
        }
        return write_tensors(Path(folder) / "run", tensors, facts)

    def resume(self, folder: str | Path) -> "CreativeRun":
        """Go on from what ``save`` wrote; to be called on a run that was made with the same settings.

        Raises:
            FileNotFoundError: nothing is saved there. ValueError: it was made with other settings.
        """
        tensors, facts = read_tensors(Path(folder) / "run")
        require_equal(facts, {"kind": "creative run"}, folder)
        require_equal({"clusters": [], **facts["settings"]}, self.settings, folder)  # older files: none
        self.snapshots, self.optimizers, now = {}, {}, {}
        parameters = list(self.space.parameters())
        for key, tensor in tensors.items():
            part, _, name = key.partition("/")
            if part == "now":
                now[name] = tensor
            elif part == "snapshot":
                step, _, name = name.partition("/")
                self.snapshots.setdefault(int(step), {})[name] = tensor
            else:
                kind, index, name = name.split("/")
                parameter = parameters[int(index)]
                moment = tensor if name == "step" else tensor.to(parameter.device)
                self.optimizer(kind).state[parameter][name] = moment
        self.snapshots = dict(sorted(self.snapshots.items()))
        self.space.load_state_dict(now)
        self.history, self.stopped = facts["history"], facts["stopped"]
        self._accepted, self._held_seed = facts["accepted"], facts["held_seed"]
        return self
