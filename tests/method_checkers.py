"""A checker without a model for the tests of methods, and a subject that asks it."""

from creativelib.methods.method import Subject
from creativelib.pullback import Verdict


class Checker:
    """Says yes to every ``every``-th picture, and names kinds in turn."""

    threshold = 0.5

    def __init__(self, every=1, kinds=("car",)):
        self.every, self.kinds, self.asked, self.questions = every, list(kinds), 0, []

    def calibrated(self, images, subject, *, checks):
        return self

    def check(self, image, subject):
        self.asked += 1
        probability = 0.9 if self.asked % self.every == 0 else 0.1
        return Verdict(probability >= self.threshold, probability)

    def ask(self, image, question):
        self.questions.append(question)
        return self.kinds[(len(self.questions) - 1) % len(self.kinds)]


def subject_with(generator, checker):
    subject = Subject(generator, "vehicle", checker, samples=20, dims=6)
    subject.limit = 0.5  # the miniature's own pictures say nothing
    return subject
