"""What Kandinsky 2.1 is compared with and what its decoder is told: choices that a run keeps, and opens with again."""

import pytest
import torch

from creativelib import cli
from creativelib.generator import load_generator, positive_prompt
from creativelib.losses import anchor_loss
from creativelib.prior_sampling import sample_prior
from creativelib.run import CreativeRun
from creativelib.run_folder import find_run
from creativelib.spaces import make_space
from creativelib.typicality import TypicalityModel

PROMPT = positive_prompt("vehicle")


def searched(generator, **options):
    baseline = sample_prior(generator, PROMPT, n=60, progress=False)
    typicality = TypicalityModel.fit(baseline.embeddings, dims=6, provenance=baseline.provenance)
    return CreativeRun(generator, "vehicle", make_space("lora", generator, "vehicle"), typicality, **options)


@pytest.mark.parametrize("anchor", ["decoder", "prior"])
def test_a_run_follows_the_chosen_anchor_and_keeps_the_choice(anchor, miniature_folders, tmp_path):
    generator = load_generator(miniature_folders["2.1"], device="cpu", anchor=anchor, decoder_prompt="subject")
    run = searched(generator).run(2, progress=False, folder=tmp_path)
    text, row = generator.text_embedding(PROMPT, anchor), run.history[0]
    expected = anchor_loss(run.sample([row["noise_seed"]], step=0), text)
    assert row["anchor_loss"] == pytest.approx(float(expected), abs=1e-5)
    assert (run.settings["anchor"], run.settings["decoder"]["prompt"]) == (anchor, "subject")
    again = CreativeRun.load(tmp_path, device="cpu")
    assert again.settings == run.settings and torch.equal(again.text_embedding, text)
    other = load_generator(miniature_folders["2.1"], device="cpu", anchor={"decoder": "prior", "prior": "decoder"}[anchor])
    with pytest.raises(ValueError, match=r"(?s)^folder: .* holds a run with other settings: .*anchor is"):
        searched(other, rule=run.rule).resume(tmp_path)


def test_other_families_have_no_such_choice(small_generator):
    settings = searched(small_generator).settings
    assert "anchor" not in settings and "prompt" not in settings["decoder"]


def test_on_the_command_line(miniature_folders, tmp_path, capsys):
    common = ["--model", str(miniature_folders["2.1"]), "--checker", "none", "--n", "60", "--quiet", "--device", "cpu"]
    common += ["--out", str(tmp_path)]
    assert cli.main(["create", "vehicle", *common, "--steps", "1", "--anchor", "prior", "--decoder-prompt", "subject"]) == 0
    kept = find_run(tmp_path)["settings"]
    assert (kept["anchor"], kept["decoder"]["prompt"]) == ("prior", "subject")
    assert cli.main(["create", "--resume", "--out", str(tmp_path), "--steps", "2", "--quiet", "--device", "cpu"]) == 0
    assert find_run(tmp_path)["steps"] == 2
    assert cli.main(["create", "vehicle", *common, "--steps", "2"]) == 2
    assert "anchor" in capsys.readouterr().err
    wrong = [str(miniature_folders["2.2"]) if word == str(miniature_folders["2.1"]) else word for word in common]
    assert cli.main(["create", "vehicle", *wrong, "--anchor", "decoder"]) == 2
    assert "anchor: got 'decoder', but the decoder of '2.2' reads no text" in capsys.readouterr().err
