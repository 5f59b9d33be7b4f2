"""Measure the finish: does a traced drawing show what the decoder's picture shows, how sharp is it, what does it cost?"""

import time

import numpy as np
from PIL import Image

from creativelib.finish import render, trace
from creativelib.metrics import drawing, pictures
from creativelib.pocket import corpus
from creativelib.pocket.measured import Measured


def measure_finish(measured: Measured) -> dict:
    """Plain samples raw and traced, all subjects alike.

    ``judge_points`` is the judge's share of the traced ones less that of the raw ones, in points of a hundred, both seen at the
    decoder's size; ``sharpness`` is over that of real pictures, at the same size. ``seconds`` are for tracing and for drawing
    at full size; ``kilobytes`` of the SVG. Both are means of a picture.
    """
    raw, judged, seconds, sizes, traced = [], [], [], [], []
    for noun in measured.subjects:
        plain = measured.plain(noun)
        some = plain.pictures[: measured.amounts.finished]
        documents = []
        for picture in some:
            begun = time.perf_counter()
            documents.append(trace(Image.fromarray(picture)))
            render(documents[-1])
            seconds.append(time.perf_counter() - begun)
        drawn = pictures.stack([render(document, corpus.SIZE) for document in documents])
        sizes += [len(document.encode()) for document in documents]
        raw.append(plain.judged[: len(some)])
        judged.append(measured.judge.is_subject(drawn, noun))
        traced.append(drawn)
    before, after = (float(np.concatenate(answers).mean()) for answers in (raw, judged))
    real = measured.images[sorted({row for noun in measured.subjects for row in measured.rows(noun)})]
    return {
        "pictures": len(seconds),
        "judge_raw": before,
        "judge_traced": after,
        "judge_points": 100 * (after - before),
        "sharpness": drawing.sharpness(np.concatenate(traced), real),
        "seconds": float(np.mean(seconds)),
        "kilobytes": float(np.mean(sizes)) / 1000,
    }
