"""Measure those that answer questions about pictures: the checker, which holds the search back; the judge, which measures."""

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from creativelib.pocket import autoencoder, captions, checker, dissolved
from creativelib.pocket.measured import Measured

LONGEST = 12  # tokens of an answer
ASKED = 25  # generated pictures of each subject that are asked yes or no


# --- the checker: yes or no -------------------------------------------------------------------------------------------


def measure_checker(measured: Measured) -> dict:
    """Accuracy and area under the ROC curve on held-out real and on plain generated pictures: half of the questions name the
    right subject, half another of the eight. Then dissolved against strange but whole pictures.
    """
    rng, subjects, result = np.random.default_rng(0), measured.subjects, {}
    nouns = {i: measured.records[i]["nouns"][0] for i in measured.rows(split="held-out rendering")}
    real = {i: noun for i, noun in nouns.items() if noun in subjects}
    shown = {
        "real": (measured.images[list(real)], list(real.values())),
        "generated": (
            np.concatenate([measured.plain(noun).pictures[:ASKED] for noun in subjects]),
            [noun for noun in subjects for _ in measured.plain(noun).pictures[:ASKED]],
        ),
    }
    for kind, (images, truth) in shown.items():
        wrong = [str(rng.choice([noun for noun in subjects if noun != right])) for right in truth]
        yes, no = (checker.probability_of_yes(measured.checking, images, words) for words in (truth, wrong))
        result[kind] = {
            "questions": 2 * len(truth),
            "accuracy": float(np.mean(np.r_[yes > 0.5, no <= 0.5])),
            "roc_auc": area(yes, no),
        }
    return result | {"dissolved": measure_dissolved(measured)}


def area(yes: np.ndarray, no: np.ndarray) -> float:
    """Area under the ROC curve of the probability of yes where the answer is yes (n,) and where it is no (m,)."""
    return float(roc_auc_score(np.r_[np.ones(len(yes)), np.zeros(len(no))], np.r_[yes, no]))


def strange(measured: Measured, noun: str) -> np.ndarray:
    """Strange but whole: held-out possible pictures of which the subject still holds, (n, 128, 128, 3)."""
    images, records = measured.possible
    return images[[i for i, record in enumerate(records) if noun in record["nouns"]]]


def dissolved_pictures() -> dict[str, np.ndarray]:
    """The fixed set by subject; empty, and a line that says so, where it is not there."""
    try:
        return dissolved.load()
    except FileNotFoundError as error:
        print(f"{error} Nothing is measured on them.", flush=True)
        return {}


def measure_dissolved(measured: Measured) -> dict:
    """Does the checker tell a dissolved picture of a subject (``dissolved``) from one that is strange but whole?

    For each subject the area under the ROC curve of P(yes) to "Is this still a {subject}?"; the mean counts. The strange ones
    go through the model's autoencoder first, as all that a decoder draws does: edges as clean as the program leaves them
    would give them away. ``roc_auc_as_made`` is without that.
    """
    movq, shown = measured.generator.decoder_pipeline.movq, dissolved_pictures()
    result = {}
    for noun in measured.subjects:
        whole = strange(measured, noun)
        if not len(whole) or not len(shown.get(noun, ())):
            continue
        drawn = autoencoder.decode(movq, autoencoder.encode(movq, whole))
        no, yes, as_made = (checker.probability_of_yes(measured.checking, x, noun) for x in (shown[noun], drawn, whole))
        result[noun] = {
            "strange": len(whole),
            "dissolved": len(no),
            "roc_auc": area(yes, no),
            "roc_auc_as_made": area(as_made, no),
            "yes_to_strange": float((yes > 0.5).mean()),
            "yes_to_dissolved": float((no > 0.5).mean()),
        }
    areas = [figures["roc_auc"] for figures in result.values()]
    return {"roc_auc": float(np.mean(areas)) if areas else None, "subjects": result}


# --- the checker: what kind? ------------------------------------------------------------------------------------------


@torch.no_grad()
def answers(checking: checker.Checking, images: np.ndarray, question: str, batch: int = 64) -> list[str]:
    """The checker's own words about each picture (N, 128, 128, 3), greedy, in lower case."""
    processor, said = checking.processor, []
    content = [{"type": "image"}, {"type": "text", "text": question}]
    message = [{"role": "user", "content": content}]
    prompt = processor.apply_chat_template(message, add_generation_prompt=True, tokenize=False)
    for start in range(0, len(images), batch):
        some = list(images[start : start + batch])
        inputs = processor(images=some, text=[prompt] * len(some), padding=True, return_tensors="pt")
        tokens = checking.model.generate(**inputs, max_new_tokens=LONGEST, do_sample=False)
        words = processor.tokenizer.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        said += [" ".join(answer.lower().split()) for answer in words]
    return said


class Dictionary:
    """Which nouns an answer means: from the labels of the corpus, the nouns themselves and their synonyms."""

    def __init__(self, records: list[dict]):
        self.meanings: dict[str, set[str]] = {}
        for record in records:
            for noun in record["nouns"]:
                for word in (record["label"], noun, *captions.SYNONYMS.get(noun, ())):
                    self.meanings.setdefault(word.lower(), set()).add(noun)

    def nouns(self, answer: str) -> set[str]:
        """The nouns of an answer, none where it says nothing known.

        The whole answer if it is known, else its longest ending that is ("big oncoming taxi" is an "oncoming taxi").
        """
        words = answer.split()
        for start in range(len(words)):
            if found := self.meanings.get(" ".join(words[start:])):
                return found
        return set()


def measure_kinds(measured: Measured) -> dict:
    """ "What kind of {subject} is in this photo?" on plain samples: is its noun the subject's, how many answers are different?

    ``noun_on_real`` is the same on real held-out pictures.
    """
    dictionary, result = Dictionary(measured.records), {}
    for noun in measured.subjects:
        question = checker.KIND_QUESTION.format(x=noun)
        said = answers(measured.checking, measured.plain(noun).pictures[: measured.amounts.kinds], question)
        of_real = answers(measured.checking, measured.images[measured.rows(noun, "held-out")], question)
        most = sorted(set(said), key=lambda word: (-said.count(word), word))[:5]
        result[noun] = {
            "pictures": len(said),
            "noun": float(np.mean([noun in dictionary.nouns(answer) for answer in said])),
            "different": len(set(said)),
            "most_common": [[answer, said.count(answer)] for answer in most],
            "noun_on_real": float(np.mean([noun in dictionary.nouns(answer) for answer in of_real])) if of_real else None,
        }
    return {"noun": float(np.mean([figures["noun"] for figures in result.values()])), "subjects": result}


# --- the judge --------------------------------------------------------------------------------------------------------


def measure_judge(measured: Measured) -> dict:
    """The judge's error on held-out possible pictures, whose nouns are known from how they were made, and on dissolved ones.

    ``recall``: its share of the pictures that are the subject. ``false_alarms``: its share of those of which no drawing that
    went into them is. Pictures in which the subject went in but no longer holds (half of it) have no right answer and are
    left out. ``error`` is the mean of both mistakes; ``recall_by_operation`` is over all subjects. Most drawings that went
    in are of things that were never shown, so ``recall_as_drawn`` is of the drawings themselves, before they were made strange,
    and ``kept`` the share that it still finds of those that it found.
    """
    images, records = measured.possible
    chances = measured.judge.probabilities(images)
    originals = sorted({record["sources"][0] for record in records})
    as_drawn = measured.judge.probabilities(measured.images[originals])[[originals.index(r["sources"][0]) for r in records]]
    subjects, by_operation, found_both, found_drawn = {}, {}, 0, 0
    for noun in measured.subjects:
        says = measured.judge.verdict(chances, noun)
        holds = np.array([noun in record["nouns"] for record in records])
        went_in = np.array([any(noun in measured.records[row]["nouns"] for row in record["sources"]) for record in records])
        other = ~holds & ~went_in
        known = measured.judge.verdict(as_drawn, noun) & holds
        found_both, found_drawn = found_both + int((says & known).sum()), found_drawn + int(known.sum())
        subjects[noun] = {
            "pictures": int(holds.sum()),
            "recall": float(says[holds].mean()) if holds.any() else None,
            "recall_as_drawn": float(known[holds].mean()) if holds.any() else None,
            "false_alarms": float(says[other].mean()),
        }
        for i in np.flatnonzero(holds):
            for operation in records[i]["operations"] or ["none"]:
                by_operation.setdefault(operation, []).append(bool(says[i]))
    recalls, drawn = (
        [figures[name] for figures in subjects.values() if figures[name] is not None] for name in ("recall", "recall_as_drawn")
    )
    alarms = [figures["false_alarms"] for figures in subjects.values()]
    accepted = [measured.judge.is_subject(shown, noun) for noun, shown in dissolved_pictures().items()]
    return {
        "possible": len(images),
        "recall": float(np.mean(recalls)),
        "recall_as_drawn": float(np.mean(drawn)),
        "kept": found_both / found_drawn if found_drawn else None,
        "false_alarms": float(np.mean(alarms)),
        "error": float((1 - np.mean(recalls) + np.mean(alarms)) / 2),
        "dissolved_accepted": float(np.concatenate(accepted).mean()) if accepted else None,
        "subjects": subjects,
        "recall_by_operation": {
            operation: {"pictures": len(said), "recall": float(np.mean(said))}
            for operation, said in sorted(by_operation.items())
        },
    }
