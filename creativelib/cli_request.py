"""What ``creativelib create`` is asked for, and whether a saved run is the answer to it. Needs no torch."""

from dataclasses import dataclass, fields, replace
from pathlib import Path

RULES = {"alternating": "AlternatingRule", "sum": "SumRule"}  # on the command line: in a saved run
OPTIONS = {"lora": "rank", "lora+subject-token": "rank", "adjective-token": "adjective"}  # what a space has of its own
DEFAULTS = {"space": "lora", "seed": 0, "rank": 10, "adjective": "creative", "rule": "alternating", "n": 5000}
PUSH = {"alpha": 1.0, "form": "repel"}  # of clusters, where there are any
SUM_WEIGHT = 1.0  # of Eq. 8


@dataclass(frozen=True)
class Request:
    """What was asked for; ``None`` where nothing was said: then it is the default of the family, or the paper's.

    Attributes:
        rule: a key of ``RULES``. rule_number: its threshold or weight. checker: a folder, a hub id, or ``"none"``.
        clusters: folders of pictures or of runs. alpha, form: of all of them.
    """

    subject: str | None = None
    seed: int | None = None
    space: str | None = None
    rank: int | None = None
    adjective: str | None = None
    learning_rate: float | None = None
    target: float | None = None
    rule: str | None = None
    rule_number: float | None = None
    checker: str | None = None
    prior_steps: int | None = None
    guidance: float | None = None
    n: int | None = None
    baseline_seed: int | None = None
    clusters: tuple[Path, ...] = ()
    alpha: float | None = None
    form: str | None = None

    def completed(self, source) -> "Request":
        """The same with defaults in place of what was not said; what is still ``None`` then means: none.

        Args:
            source: of the generator, whose family has defaults of its own.
        """
        family, own = source.settings, OPTIONS.get(self.space or DEFAULTS["space"])
        defaults = {name: value for name, value in DEFAULTS.items() if name not in ("rank", "adjective") or name == own}
        defaults |= {"learning_rate": family.learning_rate, "checker": source.checker or "none"}
        defaults |= {"prior_steps": family.prior_steps, "guidance": family.prior_guidance}
        defaults |= {"baseline_seed": DEFAULTS["seed"] if self.seed is None else self.seed}
        defaults |= PUSH if self.clusters else {}
        chosen = replace(self, **{name: value for name, value in defaults.items() if getattr(self, name) is None})
        return chosen.with_rule_number(family)

    def with_rule_number(self, family) -> "Request":
        """The same with the number that a rule has if none is said; ``None`` where plain samples of the subject say it."""
        own = {"sum": SUM_WEIGHT, "alternating": family.anchor_threshold}.get(self.rule)
        return replace(self, rule_number=own) if self.rule_number is None else self

    @classmethod
    def answered_by(cls, settings: dict) -> "Request":
        """The request that a saved run of these settings answers; clusters by name."""
        space, baseline, clusters = settings.get("space_options", {}), settings["baseline"], settings.get("clusters", [])
        (_, kind), *numbers = settings["rule"].items()
        return cls(
            subject=settings["subject"],
            seed=settings["seed"],
            space=settings["space"],
            rank=space.get("rank"),
            adjective=space.get("adjective"),
            learning_rate=settings["learning_rate"],
            target=settings["target"],
            rule={kept: name for name, kept in RULES.items()}.get(kind, kind),
            rule_number=numbers[0][1] if numbers else None,
            checker="none" if settings["checker"] is None else "one",
            prior_steps=settings["prior"]["steps"],
            guidance=settings["prior"]["guidance"],
            n=baseline["n"],
            baseline_seed=baseline.get("seed"),
            clusters=tuple(Path(cluster["name"]) for cluster in clusters),
            alpha=clusters[0]["alpha"] if clusters else None,
            form=clusters[0]["form"] if clusters else None,
        )

    def said(self) -> dict:
        """What was said but for clusters, in a form in which two requests for the same are equal."""
        said = {field.name: getattr(self, field.name) for field in fields(self) if getattr(self, field.name) not in (None, ())}
        if "subject" in said:
            said["subject"] = " ".join(self.subject.split())
        if "checker" in said:  # which one it is, is compared once it is loaded
            said["checker"] = "none" if self.checker == "none" else "one"
        if "rule" in said:
            number = said.pop("rule_number", None)
            said["rule"] = self.rule if number is None else f"{self.rule}={round(number, 6):g}"
        said.pop("clusters", None)  # whose contents are compared where they are
        return said
