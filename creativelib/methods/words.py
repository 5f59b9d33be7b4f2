"""Asking for it in words: what a user would try first."""

import torch

from creativelib.generator import POSITIVE_PROMPT, with_article
from creativelib.methods.method import Desk, Method, word_list

WORDS = ("creative", "unusual", "never seen before")


class Words(Method):
    """Each of some words before the subject in turn, result by result: "a creative vehicle", "an unusual vehicle", ...

    Args:
        words: what to say.
    """

    name = "words"
    description = "'creative', 'unusual', 'never seen before' put into the prompt"

    def __init__(self, words: str | tuple[str, ...] = WORDS):
        self.words = word_list("words", words, WORDS[0])
        if not self.words:
            raise ValueError(f"words: got {words!r}; give at least one word, for example {WORDS[0]!r}")

    def search(self, desk: Desk) -> tuple[torch.Tensor, None]:
        desk.release()
        rows, prompts = [], []
        for number, seed in enumerate(desk.noise_seeds):
            word = self.words[number % len(self.words)]
            prompts.append(POSITIVE_PROMPT.format(a=with_article(f"{word} {desk.subject.words.strip()}")))
            with torch.no_grad():
                condition = desk.generator.encode_text(prompts[-1])
            rows.append(desk.sample([seed], condition))
        desk.facts["prompts"] = prompts
        return torch.cat(rows), None
