"""The model card of Pocket Kandinsky, made from ``evaluation.json`` alone: no number in its tables was typed by hand.

One function a section; a section whose part was not measured is left out.
"""

from collections.abc import Callable

from creativelib.pocket import taxonomy
from creativelib.pocket.aims import aims_met, percent

HEAD = """# Model card: Pocket Kandinsky

A small two-stage text-to-image model of the *icon world* in the format of Kandinsky 2.2: text -> diffusion prior ->
image embedding -> decoder (one matrix that paints coarsely, then diffusion) -> 128 px picture, with a small
vision-language checker. diffusers' own decoder pipeline loads it too, but starts from noise alone and draws worse
than `creativelib`, which gives it the coarse picture as `latents`. Made for teaching and for
trying the method of *Creative Image Generation with Diffusion Model* on a laptop; it knows icons and nothing else.

This page is generated from `evaluation.json` by `make pocket-evaluate`; no number in its tables is typed by hand.
"""

LIMITS = """## Limits

Icons on white, 128 px; English words; no photographs, no text in pictures, people only as emoji. What it draws follows the style
of its sources. It is no measure of what Kandinsky 2.1 does: run the same code on that for such claims.
"""


def number(value: float | None, digits: int = 2) -> str:
    """``0.8531`` -> ``"0.85"``; None -> a dash."""
    return "–" if value is None else f"{value:.{digits}f}"


def table(head: str, rows: list[str]) -> list[str]:
    """A Markdown table: ``head`` and ``rows`` with bars between the cells, none around them."""
    return [f"| {head} |", "|" + "---|" * (head.count("|") + 1), *(f"| {row} |" for row in rows)]


def aims_table(result: dict) -> str:
    """What was aimed at, what was measured, and whether it is met."""
    said = {True: "yes", False: "**no**", None: "–"}
    rows = [f"{line.what} | {line.aim} | {line.measured} | {said[line.met]}" for line in aims_met(result)]
    return "\n".join(table("what | aim | measured | met", rows))


def training(result: dict) -> list[str]:
    facts = result["training"]
    steps = ", ".join(f"{name} {steps:,}" for name, steps in facts["steps"].items())
    lines = [
        f"Trained on: {facts['device']}, torch {facts['torch']}; steps of each stage: {steps}. Measured on: {result['machine']}."
    ]
    return [*lines, *(["", facts["history"]] if facts.get("history") else [])]


def corpus(result: dict) -> list[str]:
    counts = result["counts"]
    splits = sum(counts[split] for split in ("train", "held-out concept", "held-out rendering"))
    return [
        "## Corpus",
        "",
        f"{splits:,} pictures of {counts['concepts']:,} concepts: "
        f"{counts['train']:,} to train on, {counts['held-out concept']:,} of whole concepts held out, "
        f"{counts['held-out rendering']:,} single renderings held out. Thin subjects are widened: *alien* includes monsters, robots",
        "and ghosts; *dinosaur* dragons; *chair* seats and sofas; *handbag* all bags; *pet* all animals that people keep.",
        "Sources and licences: `SOURCES.md`.",
        "",
        *table("subject | pictures | concepts", [f"{noun} | {n} | {c}" for noun, (n, c) in counts["subjects"].items()]),
        "",
        "![sixteen pictures of each subject, drawn at random](sheets/corpus.jpg)",
        "",
        "*Sixteen pictures of each subject, drawn at random.*",
    ]


def possible(result: dict) -> list[str]:
    return [
        "## The possible world",
        "",
        "The corpus is what is *typical*. A program makes another world from its drawings, without end: other palettes, patterns on",
        "their shapes, other proportions, one half under the other half of something else, a thing that wears a smaller one. Its record",
        "says from which drawings a picture was made, and how, and which nouns still hold. Here it only measures: all of it is made",
        f"from held-out drawings ({result['possible']['held_out']:,} pictures).",
        "",
        "![possible pictures, eight of each subject](sheets/possible.jpg)",
        "",
        f"*The first eight of which each subject still holds: {', '.join(result['possible']['sheet_of'])}.*",
    ]


def creative(result: dict) -> list[str]:
    figures = result["creative"]
    stops = ("target", "checker", "steps")
    rows = [
        f"{noun} | {percent(f['judge'])} ({percent(f['judge_plain'])}) | {number(f['structure_change'])} | {number(f['correlation'])} "
        f"({number(f['correlation_of_seeds'])}) | {percent(f['filled'])} | {percent(f['whole'])} | {number(f['novelty'])} "
        f"| {number(f['sharpness'])} | {f['nats']:.0f} | "
        + ", ".join(str(f["stopped"].get(stop, 0)) for stop in stops)
        + f" | {f['unchanged']}"
        for noun, f in figures["subjects"].items()
    ]
    return [
        "## What the search finds",
        "",
        f"{figures['runs']} runs of each subject with default settings (LoRA, anchor and checker), {figures['noise_seeds']} noise seeds each, to a",
        f"surprise of {figures['nats']:.0f} nats above plain. Where the checker ended a run before, the result is what it accepted last.",
        "*judge*: share called the subject (of plain samples); *structure*: 0 the default's drawing of the same noise seed, 1 as little like it",
        "as another seed's; *correlation* of the grey pictures (of two seeds); *filled*: the drawn share of the hull is within the corpus's own",
        "5 to 95 %; *whole*: and the number of parts; *novelty*: median distance to plain pictures, in units of theirs; *sharpness* over real",
        "ones; *nats* above plain, mean; *runs* that ended at the target, by the checker, by their steps; *unchanged*: runs that the checker",
        "refused the first time.",
        "",
        *table(
            "subject | judge (plain) | structure | correlation (seeds) | filled | whole | novelty | sharpness | nats | runs | unchanged",
            rows,
        ),
        "",
        "![creative results, eight of each subject](sheets/creative.jpg)",
        "",
        f"*One row a subject ({', '.join(figures['subjects'])}): the first results of the first run, none picked.*",
        "",
        "![the default pictures of the same noise seeds](sheets/creative_defaults.jpg)",
        "",
        "*The default pictures of the same noise seeds.*",
    ]


def clip(result: dict) -> list[str]:
    figures = result["clip"]
    rows = [
        f"{split} | {f['images']:,} | {percent(f['zero_shot_subjects'])} ({f['subject_images']:,}) | {percent(f['zero_shot_all_nouns'])} "
        f"| {percent(f['retrieval_at_5'])} ({f['retrieval_queries']})"
        for split, f in figures.items()
        if isinstance(f, dict)
    ]
    return [
        "## CLIP pair",
        "",
        f"Zero-shot accuracy with the paper's prompt: over the eight subjects (chance {percent(1 / len(taxonomy.SUBJECTS))}) and over all "
        f"{figures['nouns']} nouns (chance {percent(1 / figures['nouns'])}); retrieval@5: a picture of the label is among the "
        "five nearest of all pictures of the split.",
        "",
        *table("split | pictures | eight subjects (pictures) | all nouns | retrieval@5 (queries)", rows),
    ]


def autoencoder_and_decoder(result: dict) -> list[str]:
    coder, decoder = result["autoencoder"], result["decoder"]
    return [
        "## Autoencoder and decoder",
        "",
        f"Reconstruction of {coder['images']} held-out pictures: {coder['psnr_db']:.1f} dB PSNR; perceptual distance on ImageNet features "
        f"{coder['perceptual']:.3f} (two unrelated pictures: {coder['perceptual_of_unrelated_pictures']:.3f}).",
        "",
        f"Round trip of {decoder['images']} held-out embeddings, decoded and embedded again: cosine {decoder['round_trip_cosine']:.2f}. "
        f"For comparison, two renderings of one concept: {decoder['same_concept_cosine']:.2f}; any two pictures: {decoder['any_two_cosine']:.2f}.",
        "",
        "![held-out pictures (odd rows) and decodes of their embeddings (even rows)](sheets/held_out_decodes.jpg)",
        "",
        "*Odd rows: held-out pictures. Even rows: what the decoder draws from their embedding.*",
    ]


def quality(result: dict) -> list[str]:
    figures = result["quality"]
    rows = [
        f"{noun} | {number(f['sharpness'])} | {percent(f['filled'])} | {percent(f['whole'])}"
        for noun, f in figures["subjects"].items()
    ]
    return [
        "## Plain samples against real pictures",
        "",
        f"{figures['samples']:,} plain samples and {figures['real_held_out']} held-out real pictures, the subjects in the same proportions. Kernel",
        f"distance in the features of a network that taught nothing: {figures['kernel_distance']:.4f}; of as many training pictures:",
        f"{figures['kernel_distance_real']:.4f}. Sharpness of edges (95 % quantile of the gradient, over that of real ones): {percent(figures['sharpness'])}.",
        "*filled*, *whole* as above; by definition 90 % of the corpus are filled as the corpus is.",
        "",
        *table("subject | sharpness | filled | whole", rows),
    ]


def prior(result: dict) -> list[str]:
    figures = result["prior"]
    rows = [
        f"{noun} | {percent(f['judge'])} ({percent(f['judge_on_real_held_out'])} of {f['real_held_out']}) | {percent(f['checker'])} "
        f"| {f['variance']:.0f} ({f['variance_real']:.0f}) | {f['vendi']:.1f} ({f['vendi_real']:.1f}) | {f['concepts_nearest']} "
        f"| {f['dims_for_95_percent']} | {percent(f['variance_in_50_dims'])}"
        for noun, f in figures.items()
    ]
    lost = [
        f"{noun} | {percent(f['judge_on_real_held_out'])} | {percent(f['judge_on_autoencoded'])} "
        f"| {percent(f['judge_on_decoded'])} | {percent(f['judge'])}"
        for noun, f in figures.items()
    ]
    return [
        "## Prior",
        "",
        f"{next(iter(figures.values()))['samples']} samples of each subject. *judge*: share that the independent judge calls the subject "
        "(in brackets, the same on real held-out pictures of the subject, with their number); *checker*: share that the shipped checker",
        "accepts; *variance* and *Vendi score* against the corpus pictures of the subject; *concepts*: how many different corpus concepts",
        "are nearest to some sample; *dims 95 %*: PCA dimensions that keep 95 % of the variance of the samples.",
        "",
        *table("subject | judge | checker | variance (corpus) | Vendi (corpus) | concepts | dims 95 % | in 50 dims", rows),
        "",
        "Where a subject gets lost: what the judge says of real held-out pictures, of the same pictures after the autoencoder alone,",
        "decoded from their image embedding, and of samples of the prior. The first is the judge's own limit.",
        "",
        *table("subject | real | autoencoder | decoded | samples", lost),
        "",
        *(line for noun in figures for line in (f"**{noun}**", "", f"![64 samples of {noun}](sheets/samples_{noun}.jpg)", "")),
    ][:-1]


def words(result: dict) -> list[str]:
    rows = [
        f"a {words} | {f['subject']} | {percent(f['judge'])} | {percent(f['colour'])}" for words, f in result["words"].items()
    ]
    return [
        "## Words outside the eight subjects",
        "",
        "Eight samples of each. *judge*: share called the subject that the words name or come near to; *colour*: share whose main hue is the",
        "one asked for. Stripes, dots and wings are for the eye.",
        "",
        *table("words | subject | judge | colour", rows),
        "",
        "![samples of words outside the eight subjects](sheets/words.jpg)",
        "",
        "*One row for each line of the table.*",
    ]


def checker(result: dict) -> list[str]:
    figures = result["checker"]
    rows = [
        f"{kind} | {figures[kind]['questions']} | {percent(figures[kind]['accuracy'])} | {figures[kind]['roc_auc']:.2f}"
        for kind in ("real", "generated")
    ]
    lines = [
        "## Checker",
        "",
        *table("pictures | questions | accuracy | area under the ROC curve", rows),
        "",
        "Half of the questions name the right subject, half another of the eight.",
    ]
    if seen := (figures.get("dissolved") or {}).get("subjects"):
        rows = [
            f"{noun} | {f['roc_auc']:.2f} | {f['roc_auc_as_made']:.2f} | {percent(f['yes_to_strange'])} of {f['strange']} "
            f"| {percent(f['yes_to_dissolved'])} of {f['dissolved']}"
            for noun, f in seen.items()
        ]
        lines += [
            "",
            "Dissolved against strange but whole. *Dissolved*: far results of a search without a checker that the judge refuses (a fixed set,",
            "`data/dissolved`). *Strange but whole*: held-out possible pictures of which the subject holds, after the autoencoder (*as made*:",
            "before).",
            "",
            *table("subject | area under the ROC curve | as made | yes to strange | yes to dissolved", rows),
        ]
    return lines


def kinds(result: dict) -> list[str]:
    rows = [
        f"{noun} | {percent(f['noun'])} ({percent(f['noun_on_real'])}) | {f['different']} of {f['pictures']} | "
        + ", ".join(f"{answer} ({count})" for answer, count in f["most_common"])
        for noun, f in result["kinds"]["subjects"].items()
    ]
    return [
        '"What kind of {subject} is in this photo?", asked about plain samples (in brackets: about real held-out pictures). *noun*: the answer',
        "means something of the subject.",
        "",
        *table("subject | noun | different answers | most common", rows),
    ]


def judge(result: dict) -> list[str]:
    figures = result["judge"]
    accepted, dissolved = figures["dissolved_accepted"], ""
    if accepted is not None:
        dissolved = f" It accepts {percent(accepted)} of the dissolved pictures, all refused by the second generation's judge."
    rows = [
        f"{noun} | {percent(f['recall'])} of {f['pictures']} | {percent(f['recall_as_drawn'])} | {f['false_alarms']:.1%}"
        for noun, f in figures["subjects"].items()
    ]
    operations = ", ".join(
        f"{name} {percent(f['recall'])} ({f['pictures']})" for name, f in figures["recall_by_operation"].items()
    )
    return [
        "## Judge",
        "",
        f"On {figures['possible']:,} held-out possible pictures, whose nouns are known: it finds {percent(figures['recall'])} of the subjects, raises",
        f"{figures['false_alarms']:.1%} false alarms; mean error {percent(figures['error'])}.{dissolved}",
        f"Most of them are of things that were never shown: of the same drawings as they were it finds {percent(figures['recall_as_drawn'])}, and of those that",
        f"it finds as they were, {percent(figures['kept'])} when they are made strange.",
        "",
        *table("subject | found | as drawn | false alarms", rows),
        "",
        f"Found, by how the picture was made: {operations}.",
    ]


def finish(result: dict) -> list[str]:
    figures = result["finish"]
    return [
        "## Finish",
        "",
        f"{figures['pictures']} plain samples, traced to flat shapes for display: the judge calls {percent(figures['judge_traced'])} of them the "
        f"subject, of the raw ones {percent(figures['judge_raw'])}; sharpness of edges over real ones {number(figures['sharpness'])};",
        f"{figures['seconds']:.2f} s and {figures['kilobytes']:.0f} kB a picture. All other numbers on this page are of raw pictures.",
    ]


def memory(result: dict) -> list[str]:
    figures = result["memorisation"]
    return [
        "## Memorisation",
        "",
        f"Cosine of a generated picture to the nearest training picture: {figures['cosine_generated']:.2f} over {figures['generated']:,} pictures; of a "
        f"held-out real picture: {figures['cosine_held_out']:.2f} over {figures['held_out']}. Above 0.98: {percent(figures['share_above_0.98'])} of generated, "
        f"{percent(figures['share_above_0.98_held_out'])} of held-out. Mean pixel distance (RMSE of 255) to that nearest picture: {figures['pixel_rmse_of_nearest']:.0f}.",
        "",
        "![generated pictures beside their nearest training picture](sheets/nearest_training_images.jpg)",
        "",
        "*The 32 closest pairs: generated, then its nearest training picture.*",
    ]


def cost(result: dict) -> list[str]:
    figures = result["cost"]
    return [
        "## Cost",
        "",
        f"5,000 prior samples at 5 steps with guidance: {figures['prior_5000_seconds']:.0f} s. One decode of 16 pictures: "
        f"{figures['decode_16_seconds']:.1f} s. One creative step: {figures['creative_step_seconds']:.2f} s. "
        f"Peak memory of the evaluation: {figures['peak_memory_gib']:.1f} GiB.",
    ]


SECTIONS: dict[Callable[[dict], list[str]], tuple[str, ...]] = {
    creative: ("creative",),
    corpus: ("counts",),
    possible: ("possible",),
    clip: ("clip",),
    autoencoder_and_decoder: ("autoencoder", "decoder"),
    quality: ("quality",),
    prior: ("prior",),
    words: ("words",),
    checker: ("checker",),
    kinds: ("kinds",),
    judge: ("judge",),
    finish: ("finish",),
    memory: ("memorisation",),
    cost: ("cost",),
}  # each with the parts of the evaluation that it needs


def render(result: dict) -> str:
    """The whole card as Markdown."""
    blocks = [HEAD.rstrip()]
    if result.get("training"):
        blocks.append("\n".join(training(result)))
    blocks += ["## What was aimed at, and what was reached", aims_table(result)]
    if tried := result.get("training", {}).get("tried"):
        blocks += ["### Where an aim is missed: what was tried", tried]
    blocks += ["\n".join(section(result)) for section, parts in SECTIONS.items() if all(result.get(part) for part in parts)]
    return "\n\n".join([*blocks, LIMITS])
