"""Measure the learning rate of each conceptual space: ``python -m bench.rates`` (minutes).

A rate is right where a run in the space is 40 nats above plain after as many steps as one in LoRA with the family's own rate.
It prints, for each space, what was tried, and the rates in units of the family's: ``creativelib/methods/rates.py`` keeps them.
"""

import argparse
import statistics

from creativelib.generator import load_generator
from creativelib.methods.method import Subject
from creativelib.run import CreativeRun
from creativelib.spaces import make_space
from creativelib.trajectory import RATE_TARGET, next_rate, steps_to

SPACES = ("subject-token", "adjective-token", "lora+subject-token", "embedding")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--subjects", nargs="+", default=["vehicle", "handbag", "pet"])
    parser.add_argument("--spaces", nargs="+", default=SPACES, choices=SPACES)
    parser.add_argument("--seeds", type=int, default=2, help="runs of each subject (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=1000, help="of each baseline (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=80, help="that a run has at most (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=6, help="of corrections (default: %(default)s)")
    parser.add_argument("--model", default="pocket")
    options = parser.parse_args()
    generator = load_generator(options.model)
    subjects = [Subject(generator, words, samples=options.samples) for words in options.subjects]

    def steps(space: str, rate: float) -> list[int | None]:
        """Steps that each run needs to the target; None where it did not arrive."""
        found = []
        for subject in subjects:
            aim = subject.typicality.expected_surprise() + RATE_TARGET
            for seed in range(options.seeds):
                run = CreativeRun(
                    generator, subject.words, make_space(space, generator, subject.words, seed), subject.typicality,
                    seed=seed, learning_rate=rate * generator.settings.learning_rate, target=aim,
                )  # fmt: skip
                run.run(options.steps, progress=False)
                found.append(steps_to(run.history, aim))
        return found

    def middle(found: list[int | None]) -> int | None:
        value = statistics.median(options.steps + 1 if one is None else one for one in found)
        return None if value > options.steps else int(value)

    wanted = middle(reference := steps("lora", 1.0))
    print(f"lora, rate 1: {reference}")
    if wanted is None:
        raise SystemExit(f"lora does not arrive within {options.steps} steps; give more --steps")
    for space in options.spaces:
        rate, best = 1.0, None
        for _ in range(options.rounds):
            found = steps(space, rate)
            needed = middle(found)
            print(f"{space}, rate {rate:.2g}: {found}", flush=True)
            off = float("inf") if needed is None else abs(needed - wanted)  # a run that never came is not nearly right
            if best is None or off < best[0]:
                best = (off, rate)
            if off <= 2:
                break
            rate = float(f"{next_rate(rate, needed, wanted):.2g}")
        known = best[0] < float("inf")
        print(f"{space}: {best[1]:.2g}" if known else f"{space}: none of these; give more --rounds or --steps", flush=True)


if __name__ == "__main__":
    main()
