"""Time the main steps on the shipped model; each against its plain alternative where there is one, in one run.

Prints the median of several repeats, and ratios, which hold better than seconds between machines. Nothing is asserted.
``--size full`` times the published architectures instead, see ``bench.full``.
"""

import argparse
import platform
import resource
import statistics
import sys
import time

import torch

from bench import full
from creativelib.generator import load_generator, positive_prompt
from creativelib.prior_sampling import sample_prior
from creativelib.pullback import load_checker
from creativelib.run import CreativeRun
from creativelib.spaces import make_space
from creativelib.typicality import TypicalityModel


def median_seconds(action, repeats: int = 3) -> float:
    """Median wall time of ``action()`` after one warm-up."""
    action()
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        action()
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--size", choices=("pocket", "full"), default="pocket", help="the shipped model, or the published sizes"
    )
    options, rest = parser.parse_known_args()
    if options.size == "full":
        full.main(rest)
    elif rest:
        parser.error(f"{' '.join(rest)}: only with --size full")
    else:
        pocket()


def pocket() -> None:
    """Timings of the shipped model."""
    generator, checker = load_generator("pocket"), load_checker()
    prompt, guidance = positive_prompt("vehicle"), 2.0
    print(f"{platform.system()} {platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}, ", end="")
    print(f"{torch.get_num_threads()} threads, device {generator.device}")

    def ours(n: int):
        return sample_prior(generator, prompt, n=n, guidance=guidance, progress=False).embeddings

    def theirs(n: int):
        source = torch.Generator().manual_seed(0)
        generator.prior_pipeline(
            prompt,
            num_images_per_prompt=n,
            num_inference_steps=generator.settings.prior_steps,
            guidance_scale=guidance,
            generator=source,
        )

    own, plain = median_seconds(lambda: ours(500)), median_seconds(lambda: theirs(500))
    print(f"500 prior samples, 5 steps, guidance: {own:.2f} s; diffusers' pipeline {plain:.2f} s; ratio {plain / own:.1f}")
    small, large = median_seconds(lambda: ours(1000), 1), median_seconds(lambda: ours(5000), 1)
    print(f"5,000 prior samples: {large:.1f} s, {large / small:.1f} times the time of 1,000")
    baseline = ours(2000)
    print(f"fit of the typicality model on 2,000: {median_seconds(lambda: TypicalityModel.fit(baseline)):.2f} s")
    pictures = generator.decode(baseline[:16])
    print(f"16 decodes: {median_seconds(lambda: generator.decode(baseline[:16])):.2f} s")
    print(f"1 answer of the checker: {median_seconds(lambda: checker.check(pictures[0], 'vehicle')):.3f} s")
    typicality = TypicalityModel.fit(baseline, provenance={"prompt": prompt})
    for name in ("lora", "subject-token", "adjective-token"):
        run = CreativeRun(generator, "vehicle", make_space(name, generator, "vehicle"), typicality)
        print(f"1 creative step, {name}: {median_seconds(run.step, 20):.3f} s")
    scale = 2**30 if sys.platform == "darwin" else 2**20
    print(f"peak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale:.2f} GiB")


if __name__ == "__main__":
    main()
