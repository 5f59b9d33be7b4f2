"""Timings at the published sizes, with random weights: ``python -m bench --size full``.

Each against diffusers' own pipeline where there is one, in the same run. A GPU does all of it. On a CPU that would take a day:
there a few samples, one picture and few steps are timed, the rest is extrapolated, and every line says so. Results are written
to ``bench/results/`` as JSON, with the name of the card or processor. The weights alone take 13 GB of memory on a CPU for
Kandinsky 2.1, and 20 GB for 2.2.
"""

import argparse
import gc
import json
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from creativelib.full_size import FAMILIES, FullSize, checker_model, configuration
from creativelib.generator import positive_prompt
from creativelib.loading import find_device
from creativelib.memory import GIB
from creativelib.prior_sampling import noise_sources, sample_prior
from creativelib.pullback import CHECK_IMAGES, SumRule
from creativelib.run import CreativeRun
from creativelib.search import versions
from creativelib.spaces import make_space
from creativelib.typicality import TypicalityModel

RESULTS = Path(__file__).parent / "results"
SAMPLES, BATCH, PICTURES, DECODER_STEPS = 5000, 500, 16, 50  # what the paper, or a figure, needs
DIFFUSERS_WORK_PER_SAMPLE = 0.0156 * GIB  # of its prior in float32: 7.8 GiB for a batch, which no card of 12 GB has left
SPACES = ("lora", "subject-token", "adjective-token", "lora+subject-token")
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
PROMPT = positive_prompt("vehicle")


@dataclass
class Timing:
    """One line of the report.

    Attributes:
        seconds: wall time of all ``asked``, of which ``measured`` were run. processor: seconds of all cores for the measured.
    """

    what: str
    asked: int
    measured: int
    seconds: float
    processor: float

    def __str__(self) -> str:
        note = "" if self.measured == self.asked else f" (extrapolated from {self.measured})"
        return f"{self.what}: {self.seconds:.3g} s{note}"


class Stopwatch:
    """Runs actions and keeps how long they took."""

    def __init__(self, device: torch.device):
        self.device, self.timings = device, []

    def seconds(self, action: Callable[[], object], first: Callable[[], object] | None = None) -> tuple[float, float]:
        """Wall and processor time of an action; on a GPU after one run of it, or of ``first``, that does not count."""
        if self.device.type == "cuda":
            (first or action)()
            torch.cuda.synchronize(self.device)
        begun = time.perf_counter(), time.process_time()
        action()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter() - begun[0], time.process_time() - begun[1]

    def time(
        self,
        what: str,
        action: Callable[[], object],
        asked: int = 1,
        measured: int = 1,
        first: Callable[[], object] | None = None,
    ) -> Timing:
        """Time ``action``, which does ``measured`` of the ``asked``."""
        seconds, processor = self.seconds(action, first)
        return self.keep(what, seconds * asked / measured, processor, asked, measured)

    def keep(self, what: str, seconds: float, processor: float, asked: int, measured: int) -> Timing:
        """Note and print a line; ``seconds`` are for all asked."""
        self.timings.append(Timing(what, asked, measured, seconds, processor))
        print(self.timings[-1], flush=True)
        return self.timings[-1]


def time_prior(watch: Stopwatch, generator: FullSize, count: int, extrapolated: bool) -> None:
    """Samples of the prior, ours and diffusers', ``count`` of them; in equal batches if the memory is enough for diffusers'.

    Or what ``SAMPLES`` take, from the times of one and of ``count``: what a batch costs beside its samples (the text is read
    once) must not be multiplied with them.
    """

    _ = generator.prior_pipeline  # all of it is on the device, before what is left is counted
    at_once = max(1, int(min(BATCH, (generator.memory.limit - generator.memory.bytes()) / DIFFUSERS_WORK_PER_SAMPLE)))

    def theirs(count: int) -> None:
        for start in range(0, count, at_once):
            sources = noise_sources(range(start, min(start + at_once, count)))
            generator.prior_pipeline(
                PROMPT, num_images_per_prompt=len(sources), num_inference_steps=5, guidance_scale=4.0, generator=sources
            )

    def ours(count: int) -> None:
        sample_prior(generator, PROMPT, n=count, batch_size=BATCH, progress=False)

    lines = {"prior samples": (ours, count), "prior samples by diffusers' pipeline": (theirs, max(2, count // 4))}
    found = []
    for what, (action, most) in lines.items():
        if not extrapolated:
            batch = min(count, at_once if action is theirs else BATCH)
            whole, first = (lambda n=n, action=action: action(n) for n in (count, batch))
            found.append(watch.time(f"{count} {what}", whole, count, count, first))
            continue
        action(1)  # the first of all is slower
        (few, used), (more, used_more) = (watch.seconds(lambda n=n, action=action: action(n)) for n in (1, most))
        each = (more - few) / (most - 1)
        seconds = each * SAMPLES + (few - each) * SAMPLES / BATCH
        found.append(watch.keep(f"{SAMPLES} {what}", seconds, used + used_more, SAMPLES, 1 + most))
    print(f"ratio: {found[1].seconds / found[0].seconds:.1f}", flush=True)


def time_steps(watch: Stopwatch, generator: FullSize, spaces: tuple[str, ...]) -> None:
    """One creative step of each space, against a typicality model of random numbers: what it costs does not depend on them."""
    rows = torch.randn(200, generator.embedding_dim, generator=torch.Generator().manual_seed(0))
    typicality = TypicalityModel.fit(rows, dims=50, provenance={"prompt": PROMPT})
    for space in spaces:
        run = CreativeRun(generator, "vehicle", make_space(space, generator, "vehicle"), typicality, rule=SumRule())
        watch.time(f"1 creative step, {space}", run.step)


def time_decodes(watch: Stopwatch, generator: FullSize, count: int, steps: tuple[int, int]) -> None:
    """Pictures by the decoder. Where ``steps`` are fewer than usual, two numbers of them tell what one costs."""
    rows = torch.randn(count, generator.embedding_dim, generator=torch.Generator().manual_seed(1))
    what = f"{PICTURES} decodes, {generator.settings.image_size} px, {DECODER_STEPS} steps"
    _ = generator.zero_image_embedding, generator.decoder_pipeline  # are there before the time is taken
    if steps[1] == DECODER_STEPS:
        watch.time(what, lambda: generator.decode(rows, steps=DECODER_STEPS), PICTURES, count)
        return
    (few, used), (more, used_more) = (
        watch.seconds(lambda number=number: generator.decode(rows, steps=number)) for number in steps
    )
    a_step = max(0.0, more - few) / (steps[1] - steps[0])  # on the smallest of models the clock may say the opposite
    seconds = (few + a_step * (DECODER_STEPS - steps[0])) * PICTURES / count
    watch.keep(f"{what}, from {steps[0]} and {steps[1]} steps", seconds, used + used_more, PICTURES, count)


def time_check(watch: Stopwatch, count: int, dtype: torch.dtype) -> None:
    """A check: Janus-Pro-1B asked about ``CHECK_IMAGES`` pictures, one after the other, with a question of 32 tokens."""
    facts, model = configuration("janus-pro-1b"), checker_model("janus-pro-1b", dtype).to(watch.device)
    side, image = facts["vision_config"]["image_size"], facts["image_token_id"]
    ids = torch.tensor([[image] * facts["vision_config"]["num_image_tokens"] + list(range(1, 33))], device=watch.device)
    pixels = torch.zeros(1, 3, side, side, dtype=dtype, device=watch.device)

    @torch.no_grad()
    def ask() -> None:
        for _ in range(count):
            model(input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=pixels).logits[0, -1].float().cpu()

    watch.time(
        f"1 check of {CHECK_IMAGES} pictures, Janus-Pro-1B in {str(dtype).removeprefix('torch.')}", ask, CHECK_IMAGES, count
    )


def name_of(device: torch.device) -> str:
    """Of the card, or of the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench --size full", description=__doc__.splitlines()[0])
    parser.add_argument("--family", choices=FAMILIES, default=FAMILIES[0], help="(default: %(default)s)")
    parser.add_argument("--device", help="cpu or cuda (default: cuda where there is one)")
    parser.add_argument("--samples", type=int, help=f"prior samples to run (default: {SAMPLES} on a GPU, 16 on a CPU)")
    parser.add_argument("--parts", nargs="+", default=["prior", "steps", "decodes", "check"], help="(default: all four)")
    parser.add_argument("--dtype", choices=DTYPES, help="of image encoder and decoder (default: as load_generator chooses)")
    parser.add_argument("--smoke", action="store_true", help="one of each: shows that it runs, and times nothing worth quoting")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the results (default: bench/results)")
    options = parser.parse_args(arguments)
    if options.samples is not None and options.samples < 2:
        parser.error(f"--samples: got {options.samples}; give at least 2: what a batch costs is told from what a sample costs")
    device = find_device(options.device)
    gpu, watch = device.type == "cuda", Stopwatch(device)
    dtype = DTYPES[options.dtype] if options.dtype else torch.float16 if gpu else torch.float32
    print(f"{options.family}, random weights; {name_of(device)}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    if {"prior", "steps", "decodes"} & set(options.parts):
        generator = FullSize(options.family, device, dtype)
        if "prior" in options.parts:
            count = options.samples or (1 if options.smoke else SAMPLES if gpu else 16)
            time_prior(watch, generator, count, extrapolated=not gpu and not options.smoke)
        if "steps" in options.parts:
            time_steps(watch, generator, SPACES[:1] if options.smoke else SPACES)
        if "decodes" in options.parts:
            whole = (DECODER_STEPS, DECODER_STEPS) if gpu and not options.smoke else (1, 2)
            time_decodes(watch, generator, PICTURES if gpu and not options.smoke else 1, whole)
        print(generator.memory)
        del generator
        gc.collect()
    if "check" in options.parts:
        time_check(watch, CHECK_IMAGES if gpu and not options.smoke else 1, torch.bfloat16 if gpu else torch.float32)
    facts = {
        "family": options.family,
        "weights": "random",
        "dtype": str(dtype).removeprefix("torch."),
        "device": name_of(device),
        "threads": torch.get_num_threads(),
    }
    facts |= {"versions": versions(), "smoke": options.smoke, "timings": [asdict(timing) for timing in watch.timings]}
    if gpu:
        facts["peak_gib"] = round(torch.cuda.max_memory_allocated(device) / 2**30, 2)
        print(f"peak memory: {facts['peak_gib']} GiB")
    options.out.mkdir(parents=True, exist_ok=True)
    label = "".join(letter if letter.isalnum() else "-" for letter in name_of(device).lower()).strip("-") or "unknown"
    path = options.out / f"{options.family}-{label}{'-smoke' if options.smoke else ''}.json"
    path.write_text(json.dumps(facts, indent=2) + "\n")
    print(f"written: {path}")
