"""How the checker of Pocket Kandinsky is trained: its eyes first, then its answers."""

from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transformers import LlavaForConditionalGeneration

from creativelib.pocket import captions, corpus, training
from creativelib.pocket.autoencoder import augment, to_tensor
from creativelib.pocket.checker import (
    ASSISTANT,
    IMAGE_TOKENS,
    MAX_DIALOGUE,
    PATCH,
    Checking,
    answer_ids,
    build,
    build_processor,
    save,
    train_tokenizer,
)  # fmt: skip
from creativelib.pocket.questions import Refusals, described, dialogue, only_noun, subject_word, yes_words
from creativelib.pocket.searched import Searched
from creativelib.pocket.spoilt import degrade, hard_negatives
from creativelib.pocket.worlds import Worlds


class Eyes(nn.Module):
    """A vision tower with read-outs of ImageNet features (f) and of nouns from its mean patch; they are not shipped."""

    def __init__(self, tower: nn.Module, features: int, nouns: int):
        super().__init__()
        width = tower.config.hidden_size
        self.tower = tower
        self.norm = nn.LayerNorm(width)
        self.read_features = nn.Linear(width, features)
        self.read_noun = nn.Linear(width, nouns)

    def loss(self, visual: torch.Tensor, features: torch.Tensor, nouns: torch.Tensor) -> tuple[torch.Tensor, dict[str, float]]:
        """How far patches (N, P, width) are from telling features (N, f) and noun indices (N,); and figures to show."""
        seen = self.norm(visual.mean(1))
        read = self.read_features(seen).float()
        distil = functional.mse_loss(read, features)
        # features of one picture must also be nearer to it than those of the others: a sharper signal than the distance
        alike = 20 * functional.normalize(read, dim=-1) @ functional.normalize(features, dim=-1).T
        agree = functional.cross_entropy(alike, torch.arange(len(alike), device=alike.device))
        named = self.read_noun(seen).float()
        noun = functional.cross_entropy(named, nouns, label_smoothing=0.1)
        hit = (named.detach().argmax(1) == nouns).float().mean()
        return distil + 0.3 * agree + 0.5 * noun, {"distil": float(distil.detach()), "noun_hit": float(hit)}


class Learner(nn.Module):
    """What the second stage trains: the checker, and the read-outs of its eyes."""

    def __init__(self, checker: LlavaForConditionalGeneration, eyes: Eyes):
        super().__init__()
        self.checker, self.eyes = checker, eyes


@torch.no_grad()
def initialise_eyes(tower: nn.Module, images: np.ndarray, generator: torch.Generator) -> None:
    """A start that knows pictures, because so few are there to learn from.

    Patches are projected on their principal components, positions start as sines, and attention layers start near what
    trained ones look like (Trockman & Kolter, *Mimetic initialization of self-attention layers*, 2023).
    """
    embeddings, width = tower.embeddings, tower.config.hidden_size
    chosen = torch.randint(len(images), (512,), generator=generator).numpy()
    patches = functional.unfold(to_tensor(images[chosen]).contiguous(), PATCH, stride=PATCH).transpose(1, 2).flatten(0, 1)
    mean = patches.mean(0)
    values, vectors = torch.linalg.eigh((patches - mean).T @ (patches - mean) / len(patches))
    rows = vectors[:, -width:].T * values[-width:, None].clamp(min=1e-4) ** -0.25  # half-way to whitened
    rotation, _ = torch.linalg.qr(torch.randn(width, width, generator=generator))
    rows = rotation @ rows
    rows = 0.5 * rows / ((patches - mean) @ rows.T).std()
    embeddings.patch_embedding.weight.copy_(rows.unflatten(1, (3, PATCH, PATCH)))
    side = corpus.SIZE // PATCH
    rates = 10.0 ** -torch.linspace(0, 1.5, width // 4)
    angles = torch.arange(side)[:, None] * rates * 1.5
    waves = torch.cat([angles.sin(), angles.cos()], 1)  # (side, width / 2)
    grid = torch.cat([waves[:, None].expand(-1, side, -1), waves[None].expand(side, -1, -1)], -1).flatten(0, 1)
    embeddings.position_embedding.weight[1:] = 0.3 * grid - rows @ mean
    for layer in tower.encoder.layers:
        attention = layer.self_attn
        head = width // tower.config.num_attention_heads
        for start in range(0, width, head):
            noise = torch.randn(width, width, generator=generator) / width**0.5
            left, size, right = torch.linalg.svd(0.7 * noise + 0.7 * torch.eye(width))
            root = size[:head].sqrt()[:, None]
            attention.q_proj.weight[start : start + head] = root * left[:, :head].T
            attention.k_proj.weight[start : start + head] = root * right[:head]
        noise = torch.randn(width, width, generator=generator) / width**0.5
        left, size, right = torch.linalg.svd(0.4 * noise - 0.4 * torch.eye(width))
        attention.v_proj.weight.copy_(size.sqrt()[:, None] * right)
        attention.out_proj.weight.copy_(left * size.sqrt())


def some_patches(share: float, generator: torch.Generator) -> torch.Tensor | None:
    """Indices, in order, of a random ``share`` of the patches; None for all of them."""
    if share >= 1:
        return None
    return torch.randperm(IMAGE_TOKENS, generator=generator)[: max(1, round(IMAGE_TOKENS * share))].sort().values


def visual_tokens(tower: nn.Module, pixels: torch.Tensor, kept: torch.Tensor | None = None) -> torch.Tensor:
    """Last hidden states of the patches (N, P, width), no class token; of the patches ``kept`` (P,) only, if given.

    Half of the patches cost half of the time and are enough to learn from (Liu et al., *PatchDropout*, 2022).
    """
    hidden = tower.embeddings(pixels)
    if kept is not None:
        hidden = torch.cat([hidden[:, :1], hidden[:, 1:][:, kept.to(hidden.device)]], 1)
    return tower.encoder(inputs_embeds=tower.pre_layrnorm(hidden)).last_hidden_state[:, 1:]


def packed_answers(
    model: LlavaForConditionalGeneration,
    visual: torch.Tensor,
    questions: torch.Tensor,
    kept: torch.Tensor | None = None,
) -> torch.Tensor:
    """Hidden states of several questions about each picture at the cost of one sequence: (N, K, L, width).

    ``visual`` are patches (N, P, v), ``questions`` token ids (N, K, L) padded on the right. Every question sees the
    picture and itself, never another question, and counts its positions from the picture on, exactly as when asked
    alone.
    """
    count, asked, length = questions.shape
    picture = model.model.multi_modal_projector(visual)
    words = model.get_input_embeddings()(questions).flatten(1, 2)
    device, patches = visual.device, visual.shape[1]
    segment = torch.arange(asked, device=device).repeat_interleave(length)
    segment = torch.cat([torch.full((patches,), -1, device=device), segment])
    order = torch.arange(len(segment), device=device)
    sees = (order[None] <= order[:, None]) & ((segment[None] == -1) | (segment[None] == segment[:, None]))
    where = torch.arange(patches, device=device) if kept is None else kept.to(device)
    after = IMAGE_TOKENS + torch.arange(length, device=device)
    positions = torch.cat([where, after.repeat(asked)])
    hidden = model.model.language_model(
        inputs_embeds=torch.cat([picture, words.to(picture.dtype)], 1),
        attention_mask=sees[None, None].expand(count, 1, -1, -1),
        position_ids=positions[None].expand(count, -1),
        use_cache=False,
    ).last_hidden_state
    return hidden[:, patches:].unflatten(1, (asked, length))


def train(
    worlds: Worlds,
    features: torch.Tensor,
    drawn_rows: torch.Tensor,
    drawn: np.ndarray,
    searched: Searched,
    work: Path,
    device: str,
    steps: int,
    batch: int = 32,
    seed: int = 0,
    eye_steps: int | None = None,
    patch_share: float = 0.4,
) -> Checking:
    """Train a checker on both worlds and save it to ``work/shipped/checker``.

    First the vision tower alone, for ``eye_steps`` (default: ``steps``) of 64 pictures, learns to tell ``features`` (rows, f),
    the ImageNet features of all pictures, and the noun; then all learns to answer, for ``steps`` of ``batch`` pictures, a third
    of them hard negatives. A quarter of the others are what the decoder made, ``drawn`` (m, 128, 128, 3), of the pictures in
    ``drawn_rows`` (m,): softer than drawings are, as all is that it will be asked about. Another quarter are what searches drew
    nearby, and half of the negatives what they drew far out (``searched``). A picture that no noun holds of is not shown. Only
    ``patch_share`` of the patches are seen, until the last quarter of the steps. Resumable. Raises ValueError when pictures and
    features are not as many.
    """
    if len(worlds) != len(features):
        raise ValueError(f"features must be one a picture of the worlds: got {len(features)} for {len(worlds)}.")
    named = torch.tensor([bool(record["nouns"]) for record in worlds.records])
    drawn_rows, drawn = drawn_rows[named[drawn_rows]], drawn[named[drawn_rows].numpy()]
    worlds = worlds.where(named)
    count = int(worlds.typical.sum()) // 2  # the corpus, to be spoilt
    shown, typical = worlds.blocks[0], worlds.records[:count]
    weights = captions.sampling_weights(typical)
    mean, std = features[:count].float().mean(0), features[:count].float().std(0, correction=0) + 1e-3
    names = sorted({record["nouns"][0] for record in worlds.records if record["nouns"]})
    nouns = torch.tensor([names.index(record["nouns"][0]) if record["nouns"] else 0 for record in worlds.records])
    phrases = [word for record in typical for word in (record["label"], *record["nouns"])]
    phrases += 20 * [word for words in captions.SYNONYMS.values() for word in words] + captions.all_phrases(typical)
    tokenizer = train_tokenizer(phrases)
    processor = build_processor(tokenizer)
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # the initial weights; everything after draws from its own generator
        model = build(tokenizer)
        initialise_eyes(model.model.vision_tower, shown, training.step_generator(seed, 0))
        eyes = Eyes(model.model.vision_tower, features.shape[1], len(names))
        learner = Learner(model, eyes).to(device)
    eye_steps = steps if eye_steps is None else eye_steps
    refusals = Refusals(typical)
    assistant = tokenizer.convert_tokens_to_ids(ASSISTANT)
    yes, no = answer_ids(tokenizer)
    far, near = (np.flatnonzero(searched.far == kind) for kind in (True, False))
    bad = batch // 3
    lost = min(bad // 2, len(far))  # pictures of a batch that a search drew far out
    held = min((batch - bad) // 4, len(near))  # and nearby
    real = batch - bad - held
    asked = 4

    def some_of(rows: np.ndarray, count: int, generator: torch.Generator) -> np.ndarray:
        return rows[torch.randint(max(1, len(rows)), (count,), generator=generator).numpy()]

    def seen(rows: torch.Tensor) -> torch.Tensor:
        return ((features[rows].float() - mean) / std).clamp(-6, 6).to(device)

    def eye_loss(eyes: Eyes, generator: torch.Generator, step: int) -> tuple[torch.Tensor, dict]:
        rows = worlds.draw(min(64, 2 * batch), generator)
        pixels = to_tensor(augment(worlds.pictures(rows), generator)).to(device)
        across, down = torch.randint(-8, 9, (2,), generator=generator).tolist()
        pixels = functional.pad(pixels, (across, -across, down, -down), value=1.0)
        pixels = pixels + 0.05 * torch.randn(pixels.shape, generator=generator).to(device)
        visual = visual_tokens(eyes.tower, pixels, some_patches(patch_share, generator))
        return eyes.loss(visual, seen(rows), nouns[rows].to(device))

    def loss_of(learner: Learner, generator: torch.Generator, step: int) -> tuple[torch.Tensor, dict]:
        rows = worlds.draw(real, generator)
        some = torch.randint(max(1, len(drawn)), (min((batch - bad) // 4, len(drawn)),), generator=generator)
        rows[: len(some)] = drawn_rows[some]
        shown_whole = np.concatenate([drawn[some.numpy()], worlds.pictures(rows[len(some) :])])
        pictures = [degrade(picture, generator) for picture in shown_whole]
        talks = []
        for row in rows.tolist():
            record = described(worlds.records[row], typical)
            other = refusals.draw([record], generator)
            talks += [dialogue(subject_word(record, generator), "Yes", generator), dialogue(other, "No", generator)]
            if float(torch.rand(1, generator=generator)) < 0.5:
                talks.append(dialogue(captions.pick(yes_words(record), generator), "Yes", generator))
            else:
                talks.append(dialogue(refusals.draw([record], generator), "No", generator))
            kind = other if float(torch.rand(1, generator=generator)) < 0.1 else captions.pick(record["nouns"], generator)
            talks.append(dialogue(kind, None, label=record["label"]))
        found = np.concatenate([some_of(near, held, generator), some_of(far, lost, generator)])
        for row in found.tolist():
            record = only_noun(searched.nouns[row])
            answer = "No" if searched.far[row] else "Yes"
            talks += [dialogue(subject_word(record, generator), answer, generator) for _ in range(asked // 2)]
            talks += [dialogue(refusals.draw([record], generator), "No", generator) for _ in range(asked // 2)]
        pictures += [degrade(searched.images[row], generator) for row in found]
        negatives = hard_negatives(shown, typical, bad - lost, generator, asked, weights)
        talks += [dialogue(word, "No", generator) for words in negatives.subjects for word in words]
        tokens = tokenizer(talks, padding=True, padding_side="right", return_tensors="pt").input_ids
        tokens = tokens[:, :MAX_DIALOGUE].unflatten(0, (batch, asked)).to(device)
        pixels = to_tensor(np.concatenate([np.stack(pictures), negatives.images])).to(device)

        patches = some_patches(patch_share if step < 0.75 * steps else 1.0, generator)
        model = learner.checker
        visual = visual_tokens(model.model.vision_tower, pixels, patches)
        # words that know nothing yet would teach the eyes nonsense: at first they learn to read what is seen
        shown_to_words = visual.detach() if step < 0.3 * steps else visual
        hidden = packed_answers(model, shown_to_words, tokens, patches)
        # every token after the assistant's mark is to be foretold from the one before it
        answered = ((tokens == assistant).cumsum(-1) > 0)[..., :-1] & (tokens[..., 1:] != tokenizer.pad_token_id)
        target = tokens[..., 1:][answered]
        logits = model.lm_head(hidden[..., :-1, :][answered]).float()
        each = functional.cross_entropy(logits, target, reduction="none")
        positive, negative = target == yes, target == no
        verdict = 0.5 * (each[positive].mean() + each[negative].mean())  # balanced, whatever their counts
        naming = each[~positive & ~negative].mean()
        sight, sight_figures = learner.eyes.loss(visual[:real], seen(rows), nouns[rows].to(device))
        loss = 2 * verdict + 0.7 * naming + sight
        said = logits.detach()[:, yes] > logits.detach()[:, no]
        figures = {"verdict": float(verdict.detach()), "naming": float(naming.detach()), **sight_figures}
        figures |= {"yes": float(said[positive].float().mean()), "no": float((~said[negative]).float().mean())}
        return loss, figures

    options = {"work": work, "seed": seed, "ema_decay": 0.99, "weight_decay": 0.05}
    training.train("checker-eyes", eyes, eye_loss, steps=eye_steps, peak_lr=1.5e-3, **options)
    learner.train()
    training.train("checker", learner, loss_of, steps=steps, peak_lr=1e-3, **options)
    model = learner.checker.to("cpu").eval()
    save(model, processor, Path(work) / "shipped" / "checker")
    return Checking(model, processor)
