"""The model card of Pocket Kandinsky, made from ``evaluation.json`` alone: no number in it was typed by hand."""

from creativelib.pocket import taxonomy


def percent(value: float | None) -> str:
    """``0.853`` -> ``"85 %"``; None (nothing to measure) -> a dash."""
    return "–" if value is None else f"{100 * value:.0f} %"


def aims_met(result: dict) -> list[tuple[str, str, str, bool]]:
    """Each aim as (what, aim, measured, met). The judge's aim is 85 %, or its rate on real held-out pictures where that is less."""
    zero_shot = result["clip"]["held-out rendering"]["zero_shot_subjects"]
    cost = result["cost"]
    rows = [("Zero-shot, held-out renderings, 8 subjects", ">= 85 %", percent(zero_shot), zero_shot >= 0.85)]
    for noun, figures in result["prior"].items():
        real = figures["judge_on_real_held_out"] or 0.0
        if real < 0.1:  # nothing can be concluded from a judge that does not know the real thing
            rows.append(
                (f"Judge says *{noun}* of prior samples", "the judge misses real ones", percent(figures["judge"]), False)
            )
            continue
        aim = min(0.85, real)
        rows.append(
            (f"Judge says *{noun}* of prior samples", f">= {percent(aim)}", percent(figures["judge"]), figures["judge"] >= aim)
        )
    rows.append(("5,000 prior samples", "<= 60 s", f"{cost['prior_5000_seconds']:.0f} s", cost["prior_5000_seconds"] <= 60))
    rows.append(("16 decodes", "<= 8 s", f"{cost['decode_16_seconds']:.1f} s", cost["decode_16_seconds"] <= 8))
    fifty = 50 * cost["creative_step_seconds"]
    rows.append(("50 creative steps", "<= 10 s", f"{fifty:.1f} s", fifty <= 10))
    return rows


def render(result: dict) -> str:
    """The whole card as Markdown."""
    counts, coder, decoder, memory = (result[key] for key in ("counts", "autoencoder", "decoder", "memorisation"))
    lines = [
        "# Model card: Pocket Kandinsky",
        "",
        "A small two-stage text-to-image model of the *icon world* in the format of Kandinsky 2.2: text -> diffusion prior ->",
        "image embedding -> decoder (one matrix that paints coarsely, then diffusion) -> 128 px picture, with a small",
        "vision-language checker. diffusers' own decoder pipeline loads it too, but starts from noise alone and draws worse",
        "than `creativelib`, which gives it the coarse picture as `latents`. Made for teaching and for",
        "trying the method of *Creative Image Generation with Diffusion Model* on a laptop; it knows icons and nothing else.",
        "",
        "This page is generated from `evaluation.json` by `make pocket-evaluate`; nothing in it is typed by hand.",
        "",
        f"Trained on: {result['training']['device']}, torch {result['training']['torch']}; steps of each stage: "
        + ", ".join(f"{name} {steps:,}" for name, steps in result["training"]["steps"].items())
        + f". Measured on: {result['machine']}.",
        *(["", result["training"]["history"]] if result["training"].get("history") else []),
        "",
        "## What was aimed at, and what was reached",
        "",
        "| what | aim | measured | met |",
        "|---|---|---|---|",
        *(f"| {what} | {aim} | {measured} | {'yes' if met else '**no**'} |" for what, aim, measured, met in aims_met(result)),
        "",
        "## Corpus",
        "",
        f"{sum(counts[s] for s in ('train', 'held-out concept', 'held-out rendering')):,} pictures of {counts['concepts']:,} concepts: "
        f"{counts['train']:,} to train on, {counts['held-out concept']:,} of whole concepts held out, "
        f"{counts['held-out rendering']:,} single renderings held out. Thin subjects are widened: *alien* includes monsters, robots",
        "and ghosts; *dinosaur* dragons; *chair* seats and sofas; *handbag* all bags; *pet* all animals that people keep.",
        "Sources and licences: `SOURCES.md`.",
        "",
        "| subject | pictures | concepts |",
        "|---|---|---|",
        *(f"| {noun} | {n} | {c} |" for noun, (n, c) in counts["subjects"].items()),
        "",
        "## CLIP pair",
        "",
        f"Zero-shot accuracy with the paper's prompt: over the eight subjects (chance {percent(1 / len(taxonomy.SUBJECTS))}) and over all "
        f"{result['clip']['nouns']} nouns (chance {percent(1 / result['clip']['nouns'])}); retrieval@5: a picture of the label is among the "
        "five nearest of all pictures of the split.",
        "",
        "| split | pictures | eight subjects (pictures) | all nouns | retrieval@5 (queries) |",
        "|---|---|---|---|---|",
        *(
            f"| {split} | {f['images']:,} | {percent(f['zero_shot_subjects'])} ({f['subject_images']:,}) | {percent(f['zero_shot_all_nouns'])} "
            f"| {percent(f['retrieval_at_5'])} ({f['retrieval_queries']}) |"
            for split, f in result["clip"].items()
            if isinstance(f, dict)
        ),
        "",
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
        "",
        "## Prior",
        "",
        f"{next(iter(result['prior'].values()))['samples']} samples of each subject. *judge*: share that the independent judge calls the subject "
        "(in brackets, the same on real held-out pictures of the subject, with their number); *checker*: share that the shipped checker",
        "accepts; *variance* and *Vendi score* against the corpus pictures of the subject; *concepts*: how many different corpus concepts",
        "are nearest to some sample; *dims 95 %*: PCA dimensions that keep 95 % of the variance of the samples.",
        "",
        "| subject | judge | checker | variance (corpus) | Vendi (corpus) | concepts | dims 95 % | in 50 dims |",
        "|---|---|---|---|---|---|---|---|",
        *(
            f"| {noun} | {percent(f['judge'])} ({percent(f['judge_on_real_held_out'])} of {f['real_held_out']}) | {percent(f['checker'])} "
            f"| {f['variance']:.0f} ({f['variance_real']:.0f}) | {f['vendi']:.1f} ({f['vendi_real']:.1f}) | {f['concepts_nearest']} "
            f"| {f['dims_for_95_percent']} | {percent(f['variance_in_50_dims'])} |"
            for noun, f in result["prior"].items()
        ),
        "",
        "Where a subject gets lost: what the judge says of real held-out pictures, of the same pictures after the autoencoder alone,",
        "decoded from their image embedding, and of samples of the prior. The first is the judge's own limit.",
        "",
        "| subject | real | autoencoder | decoded | samples |",
        "|---|---|---|---|---|",
        *(
            f"| {noun} | {percent(f['judge_on_real_held_out'])} | {percent(f['judge_on_autoencoded'])} "
            f"| {percent(f['judge_on_decoded'])} | {percent(f['judge'])} |"
            for noun, f in result["prior"].items()
        ),
        "",
        *(
            line
            for noun in result["prior"]
            for line in (f"**{noun}**", "", f"![64 samples of {noun}](sheets/samples_{noun}.jpg)", "")
        ),
        "## Checker",
        "",
        "| pictures | questions | accuracy | area under the ROC curve |",
        "|---|---|---|---|",
        *(
            f"| {kind} | {f['questions']} | {percent(f['accuracy'])} | {f['roc_auc']:.2f} |"
            for kind, f in result["checker"].items()
        ),
        "",
        "Half of the questions name the right subject, half another of the eight.",
        "",
        "## Memorisation",
        "",
        f"Cosine of a generated picture to the nearest training picture: {memory['cosine_generated']:.2f} over {memory['generated']:,} pictures; of a "
        f"held-out real picture: {memory['cosine_held_out']:.2f} over {memory['held_out']}. Above 0.98: {percent(memory['share_above_0.98'])} of generated, "
        f"{percent(memory['share_above_0.98_held_out'])} of held-out. Mean pixel distance (RMSE of 255) to that nearest picture: {memory['pixel_rmse_of_nearest']:.0f}.",
        "",
        "![generated pictures beside their nearest training picture](sheets/nearest_training_images.jpg)",
        "",
        "*The 32 closest pairs: generated, then its nearest training picture.*",
        "",
        "## Cost",
        "",
        f"5,000 prior samples at 5 steps with guidance: {result['cost']['prior_5000_seconds']:.0f} s. One decode of 16 pictures: "
        f"{result['cost']['decode_16_seconds']:.1f} s. One creative step: {result['cost']['creative_step_seconds']:.2f} s. "
        f"Peak memory of the evaluation: {result['cost']['peak_memory_gib']:.1f} GiB.",
        "",
        "## Limits",
        "",
        "Icons on white, 128 px; English words; no photographs, no text in pictures, people only as emoji. What it draws follows the style",
        "of its sources. It is no measure of what Kandinsky 2.1 does: run the same code on that for such claims.",
        "",
    ]
    return "\n".join(lines)
