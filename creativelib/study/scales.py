"""The two questions of a study, each on a scale from 0 to 5, asked of different people.

How creative: the paper's (section 7.3, Fig. 26). How surprising: Berlyne's own variable; whether nats measure anything that a
person sees is not known before people have said it, and who has rated the one is not naive to the other.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """A question about a picture, and what 0 to 5 mean; some numbers have no words. ``{subject}`` stands in both."""

    name: str
    question: str
    meanings: tuple[str, ...]

    def asks(self, subject: str) -> str:
        """The question about this subject."""
        return self.question.format(subject=subject)

    def says(self, subject: str) -> list[str]:
        """What the numbers mean, from 0."""
        return [words.format(subject=subject) for words in self.meanings]


SCALES = {
    scale.name: scale
    for scale in (
        Scale(
            "creative",
            "How creative is this {subject}?",
            ("no {subject}", "boring", "", "interesting", "very interesting", "extremely creative"),
        ),
        Scale(
            "surprising",
            "How surprising is this {subject}?",
            ("not at all surprising", "hardly", "", "somewhat surprising", "very surprising", "extremely surprising"),
        ),
    )
}
