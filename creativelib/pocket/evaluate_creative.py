"""Measure what the search finds with Pocket Kandinsky: is it still the subject, is it another drawing, is it whole?

Default settings throughout: LoRA, the alternating rule, the shipped checker calibrated on plain pictures, learning rate and
sampling of the model's own settings. Each run stops at a target of ``NATS`` above the mean surprise of the baseline; where the
checker ends it before, the result is what it accepted last, with fewer nats, and counts as it is.
"""

import math

import numpy as np
import torch
from PIL import Image

from creativelib.creation import CALIBRATION_IMAGES, CHECK_EVERY
from creativelib.generator import positive_prompt
from creativelib.metrics import change, drawing, pictures
from creativelib.metrics.features import Novelty, features
from creativelib.pocket.evaluate_pictures import wholeness
from creativelib.pocket.measured import Measured
from creativelib.pocket.sheets import sheet
from creativelib.prior_sampling import sample_prior
from creativelib.pullback import YesNoChecker
from creativelib.run import CreativeRun
from creativelib.seeds import derive_seed
from creativelib.spaces import make_space
from creativelib.typicality import TypicalityModel

NATS = 100.0  # above plain
SHOWN = 8  # results of each subject on the sheet: the first run's first noise seeds
STOPS = ("", "checker", "target", "not finite", "no answer")  # as ``CreativeRun.stopped`` says it


class Trials:
    """All runs of one subject; the baseline is sampled when the first run needs it.

    Args:
        measured: the model. noun: one of the eight subjects. checker: asked as in any run; ``None`` for none.
    """

    def __init__(self, measured: Measured, noun: str, checker: YesNoChecker | None):
        self.measured, self.noun, self.generator = measured, noun, measured.generator
        baseline = sample_prior(self.generator, positive_prompt(noun), n=measured.amounts.baseline, progress=False)
        self.typicality = TypicalityModel.fit(baseline.embeddings, provenance=baseline.provenance)
        self.plain_nats = float(self.typicality.surprise(baseline.embeddings).mean())
        self.checker = None
        if checker is not None:
            some = [Image.fromarray(one) for one in measured.plain(noun).pictures[:CALIBRATION_IMAGES]]
            self.checker = checker.calibrated(some, noun, checks=math.ceil(measured.amounts.steps / CHECK_EVERY))

    def begin(self, seed: int, nats: float) -> CreativeRun:
        """A run of default settings that stops ``nats`` above plain."""
        space = make_space("lora", self.generator, self.noun, seed)
        target = self.plain_nats + nats
        return CreativeRun(self.generator, self.noun, space, self.typicality, checker=self.checker, seed=seed, target=target)

    def draw(self, embeddings: torch.Tensor, seeds: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """Pictures (N, 128, 128, 3) of embeddings (N, d), by decoder noise of ``seeds``, and their nats above plain, (N,)."""
        nats = self.typicality.surprise(embeddings) - self.plain_nats
        return pictures.stack(self.generator.decode(embeddings, prompt=positive_prompt(self.noun), seed=seeds)), nats.numpy()


def figure_seeds(seed: int, count: int) -> list[int]:
    """The noise seeds of a run's pictures, as ``creativelib create`` takes them."""
    return [derive_seed(seed, "figure", column) for column in range(count)]


def run_once(trials: Trials, seed: int) -> dict[str, np.ndarray]:
    """One run, its results beside the default pictures of the same noise seeds, and the judge's answers."""
    amounts = trials.measured.amounts
    run = trials.begin(seed, NATS).run(amounts.steps, progress=False)
    seeds = figure_seeds(seed, amounts.noise_seeds)
    images, nats = trials.draw(run.sample(seeds), seeds)
    defaults, _ = trials.draw(run.default(seeds), seeds)
    return {
        "pictures": images,
        "defaults": defaults,
        "nats": nats,
        "judged": trials.measured.judge.is_subject(images, trials.noun),
        "steps": np.array(run.steps),
        "result_step": np.array(run.result_step),
        "stopped": np.array(STOPS.index(run.stopped)),
    }


def measure_creative(measured: Measured, checker: YesNoChecker) -> dict:
    """All runs of all subjects; ``creative.jpg`` shows the first results of each, unpicked, ``creative_defaults.jpg`` the
    default pictures of the same noise seeds.
    """
    result, shown = {"nats": NATS, "runs": measured.amounts.runs, "noise_seeds": measured.amounts.noise_seeds}, []
    result["subjects"] = {}
    for noun in measured.subjects:
        trials: list[Trials] = []  # made by the first run that is not kept

        def run_of(seed: int, noun: str = noun, trials: list[Trials] = trials) -> dict[str, np.ndarray]:
            if not trials:
                trials.append(Trials(measured, noun, checker))
            return run_once(trials[0], seed)

        runs = [measured.kept(f"run-{noun}-{s}", lambda s=s: run_of(s)) for s in range(measured.amounts.runs)]
        result["subjects"][noun] = figures_of(measured, noun, runs)
        shown.append(runs[0])
    for name, file in (("pictures", "creative"), ("defaults", "creative_defaults")):
        sheet(np.concatenate([run[name][:SHOWN] for run in shown]), measured.sheets / f"{file}.jpg", columns=SHOWN)
    return result


def figures_of(measured: Measured, noun: str, runs: list[dict[str, np.ndarray]]) -> dict:
    """What the runs of one subject come to.

    ``judge`` is the judge's share of the results, ``judge_plain`` of plain samples. ``structure_change`` is the mean of
    ``metrics.change.structure_change``: 0 for the default's drawing, 1 for as little like it as another seed's. ``nats`` are
    above plain. ``unchanged`` are runs whose result is their start, because the checker refused the first time it was asked.
    """
    images, defaults = (np.concatenate([run[name] for run in runs]) for name in ("pictures", "defaults"))
    plain = measured.plain(noun)
    novelty = Novelty.fit(plain.features).score(features(images))
    correlation = change.grey_correlation(images, defaults)
    structure = change.structure_change(images, defaults)
    pairs = [change.grey_correlation(defaults, np.roll(defaults, shift, 0)).mean() for shift in range(1, len(defaults))]
    return {
        "pictures": len(images),
        "judge": float(np.concatenate([run["judged"] for run in runs]).mean()),
        "judge_plain": float(plain.judged.mean()),
        "structure_change": float(structure.mean()),
        "correlation": float(correlation.mean()),
        "correlation_of_seeds": float(np.mean(pairs)),
        **wholeness(images, measured.wholeness_range(noun)),
        "sharpness": drawing.sharpness(images, measured.images[measured.rows(noun)]),
        "novelty": float(np.median(novelty)),
        "nats": float(np.concatenate([run["nats"] for run in runs]).mean()),
        "steps": float(np.mean([run["steps"] for run in runs])),
        "stopped": {STOPS[code] or "steps": sum(int(run["stopped"]) == code for run in runs) for code in range(len(STOPS))},
        "unchanged": sum(int(run["result_step"]) == 0 for run in runs),
        "by_run": [
            {
                "seed": seed,
                "judge": float(run["judged"].mean()),
                "nats": float(run["nats"].mean()),
                "steps": int(run["steps"]),
                "result_step": int(run["result_step"]),
                "stopped": STOPS[int(run["stopped"])] or "steps",
            }
            for seed, run in enumerate(runs)
        ],
    }
