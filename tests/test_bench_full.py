"""What the bench at full size extrapolates, with the times of known laws; and that it runs, on shrunk architectures."""

import json
from dataclasses import replace

import pytest
import torch

from bench import full
from bench.full import Stopwatch, Timing
from creativelib import full_size
from creativelib.full_size import FAMILIES, FullSize, configuration
from creativelib.memory import GIB, Ledger

# Widths and depths of the shrunk architectures; all else is as it was published.
WIDTHS = ("hidden_size", "intermediate_size", "embedding_dim", "projection_dim", "cross_attention_dim", "encoder_hid_dim")
WIDTHS += ("transformerDimSize", "imageDimSize", "image_token_embed_dim")
DEPTHS = ("num_hidden_layers", "num_layers", "layers_per_block")
HEADS = ("num_attention_heads", "num_key_value_heads", "addition_embed_type_num_heads")
SHRUNK = dict.fromkeys(WIDTHS, 64) | dict.fromkeys(DEPTHS, 1) | dict.fromkeys(HEADS, 2)
SHRUNK |= {"attention_head_dim": 8, "block_out_channels": [32] * 4, "base_channels": 32}


def shrunk(facts):
    """A configuration whose parts have a thousandth of the weights."""
    if not isinstance(facts, dict):
        return facts
    return {key: SHRUNK[key] if key in SHRUNK else shrunk(value) for key, value in facts.items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_part_runs(family, monkeypatch, tmp_path, capsys):
    class Small(FullSize):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            self.settings = replace(self.settings, image_size=64)

    for module in (full, full_size):
        monkeypatch.setattr(module, "configuration", lambda name: shrunk(configuration(name)))
    monkeypatch.setattr(full, "FullSize", Small)
    full.main(["--family", family, "--device", "cpu", "--smoke", "--dtype", "bfloat16", "--out", str(tmp_path)])
    (path,) = tmp_path.iterdir()
    facts = json.loads(path.read_text())
    assert path.name.startswith(family) and path.name.endswith("-smoke.json")
    timed = [timing["what"] for timing in facts["timings"]]
    assert [what.partition(",")[0] for what in timed] == [
        "1 prior samples", "1 prior samples by diffusers' pipeline", "1 creative step", "16 decodes", "1 check of 4 pictures",
    ]  # fmt: skip
    assert all(timing["seconds"] > 0 and timing["processor"] > 0 for timing in facts["timings"])
    assert "decoder" in capsys.readouterr().out  # the ledger


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
        zero_image_embedding = decoder_pipeline = None
        memory = Ledger(torch.device("cpu"))

        def decode(self, rows, steps=50):
            counted.append(5 * len(rows) + 0.5 * steps * len(rows))

    def seconds(action, first=None):
        if first is not None:
            counted.clear()
            first()
            watch.warmed.append(sum(counted))
        counted.clear()
        action()
        return sum(counted), 2 * sum(counted)

    watch.seconds, watch.warmed = seconds, []
    return watch, Pipeline()


def test_batches_of_diffusers_are_smaller_where_the_memory_is_short(watch, monkeypatch):
    watch, generator = watch
    for limit, batches in ((float("inf"), 1), (6.0, 2), (1.0, 8), (0.0, 500)):
        monkeypatch.setattr(generator, "memory", Ledger(torch.device("cpu"), limit * GIB))
        full.time_prior(watch, generator, 500, extrapolated=False)
        assert watch.timings[-1].seconds == 20 * 500 + 3 * batches


def test_what_a_batch_costs_is_not_multiplied_with_its_samples(watch, capsys):
    watch, generator = watch
    full.time_prior(watch, generator, 16, extrapolated=True)
    own, plain = watch.timings
    assert own.seconds == pytest.approx(10 * 3 + 5000 * 2) and (own.asked, own.measured) == (5000, 17)
    assert plain.seconds == pytest.approx(10 * 3 + 5000 * 20) and (plain.asked, plain.measured) == (5000, 5)
    said = capsys.readouterr().out
    assert said.count("(extrapolated from ") == 2 and "ratio: 10.0" in said


@pytest.mark.parametrize("samples", ["1", "0", "-3"])
def test_too_few_samples_are_refused_before_anything_is_made(samples, capsys):
    with pytest.raises(SystemExit):
        full.main(["--device", "cpu", "--samples", samples])
    assert f"--samples: got {samples}; give at least 2" in capsys.readouterr().err


def test_what_is_measured_whole_is_not_extrapolated(watch, capsys):
    watch, generator = watch
    full.time_prior(watch, generator, 1200, extrapolated=False)
    assert [timing.seconds for timing in watch.timings] == [3 + 2 * 1200, 3 * 3 + 20 * 1200]
    assert watch.warmed == [3 + 2 * 500, 3 + 20 * 500]  # by one batch each
    assert "extrapolated" not in capsys.readouterr().out


def test_pictures_of_few_steps_tell_what_many_take(watch):
    watch, generator = watch
    full.time_decodes(watch, generator, 1, (1, 2))
    full.time_decodes(watch, generator, 16, (50, 50))
    assert [timing.seconds for timing in watch.timings] == pytest.approx([16 * (5 + 25)] * 2)
    assert "from 1 and 2 steps" in watch.timings[0].what and str(watch.timings[1]).endswith("480 s")
    assert str(Timing("one", 4, 1, 8.0, 2.0)) == "one: 8 s (extrapolated from 1)"
