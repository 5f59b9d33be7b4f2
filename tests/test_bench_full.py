"""What the bench at full size extrapolates: with the times of known laws, on a miniature."""

import pytest
import torch

from bench import full
from bench.full import Stopwatch, Timing


@pytest.fixture
def watch(monkeypatch):
    """A stopwatch whose time is 3 s a batch and 2 s a sample, or 5 s a picture's decoding and 0.5 s a decoder step."""
    watch, counted = Stopwatch(torch.device("cpu")), []
    monkeypatch.setattr(full, "sample_prior", lambda generator, prompt, n, **options: counted.append(3 + 2 * n))

    class Pipeline:
        def prior_pipeline(self, prompt, num_images_per_prompt, **options):
            assert len(options["generator"]) == num_images_per_prompt
            counted.append(3 + 20 * num_images_per_prompt)

        settings = type("Settings", (), {"image_size": 512})
        embedding_dim = 4

        def decode(self, rows, steps=50):
            counted.append(5 * len(rows) + 0.5 * steps * len(rows))

    def seconds(action):
        counted.clear()
        action()
        return sum(counted), 2 * sum(counted)

    watch.seconds = seconds
    return watch, Pipeline()


def test_what_a_batch_costs_is_not_multiplied_with_its_samples(watch, capsys):
    watch, generator = watch
    full.time_prior(watch, generator, 16, extrapolated=True)
    own, plain = watch.timings
    assert own.seconds == pytest.approx(10 * 3 + 5000 * 2) and (own.asked, own.measured) == (5000, 17)
    assert plain.seconds == pytest.approx(10 * 3 + 5000 * 20) and (plain.asked, plain.measured) == (5000, 5)
    said = capsys.readouterr().out
    assert said.count("(extrapolated from ") == 2 and "ratio: 10.0" in said


def test_what_is_measured_whole_is_not_extrapolated(watch, capsys):
    watch, generator = watch
    full.time_prior(watch, generator, 1200, extrapolated=False)
    assert [timing.seconds for timing in watch.timings] == [3 + 2 * 1200, 3 * 3 + 20 * 1200]
    assert "extrapolated" not in capsys.readouterr().out


def test_pictures_of_few_steps_tell_what_many_take(watch):
    watch, generator = watch
    full.time_decodes(watch, generator, 1, (1, 2))
    full.time_decodes(watch, generator, 16, (50, 50))
    assert [timing.seconds for timing in watch.timings] == pytest.approx([16 * (5 + 25)] * 2)
    assert "from 1 and 2 steps" in watch.timings[0].what and str(watch.timings[1]).endswith("480 s")
    assert str(Timing("one", 4, 1, 8.0, 2.0)) == "one: 8 s (extrapolated from 1)"
