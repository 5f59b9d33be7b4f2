"""Yes and no in the tokenizers of the published checkers, and checkers that answer with no number."""

import json
import math
import shutil

import pytest
import torch
from miniature_checkers import BUILDERS, LENGTH
from miniature_tokenizers import KINDS
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.models import BPE, WordLevel
from transformers import PreTrainedTokenizerFast

from creativelib.generator import positive_prompt
from creativelib.prior_sampling import sample_prior
from creativelib.pullback import SumRule, YesNoChecker, answer_tokens, answers_to, load_checker
from creativelib.run import CreativeRun
from creativelib.spaces import make_space
from creativelib.typicality import TypicalityModel

IMAGE = Image.effect_noise((48, 32), 60)
WITHOUT = {"Yes", "yes", "YES"}
EXPECTED = {
    "clip": {"yes</w>"},
    "llama": WITHOUT | {"▁" + form for form in WITHOUT},
    "qwen": WITHOUT | {"Ġ" + form for form in WITHOUT},
    "smollm": WITHOUT | {"Ġ" + form for form in WITHOUT},
}


@pytest.mark.parametrize("kind", KINDS)
def test_both_answers_are_found_in_every_spelling(kind):
    tokenizer = KINDS[kind](LENGTH, ("<image>",))
    found = {word: set(tokenizer.convert_ids_to_tokens(sorted(answer_tokens(tokenizer, word)))) for word in ("yes", "no")}
    assert found["yes"] == EXPECTED[kind]
    assert found["no"] == {form.replace("yes", "no").replace("Yes", "No").replace("YES", "NO") for form in EXPECTED[kind]}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("before", ["?", "? ", "?\n"])
@pytest.mark.parametrize("answer", ["Yes", "no", "YES."])
def test_what_follows_a_prompt_begins_with_one_of_them(kind, before, answer):
    """As a model sees it in training: prompt and answer in one text, whatever stands between them."""
    tokenizer = KINDS[kind](LENGTH, ("<image>",))
    prompt, whole = (
        tokenizer(text, add_special_tokens=False).input_ids for text in ("this" + before, "this" + before + answer)
    )
    length = next((i for i, (one, other) in enumerate(zip(prompt, whole, strict=False)) if one != other), len(prompt))
    yes, no = (answer_tokens(tokenizer, word) for word in ("yes", "no"))
    assert whole[length] in (no if answer == "no" else yes)
    assert not yes & no


def test_words_in_pieces_are_known_by_the_first():
    letters = {letter: index for index, letter in enumerate(["<unk>", *"yesnoYESNO", "▁"])}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(BPE(letters, [])), unk_token="<unk>")
    assert answer_tokens(tokenizer, "yes") == {letters["y"], letters["Y"]}
    assert answer_tokens(tokenizer, "no") == {letters["n"], letters["N"]}


def test_a_tokenizer_that_does_not_tell_them_apart_is_refused(checker_folder):
    checker = load_checker(checker_folder, device="cpu")
    deaf = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"<unk>": 0}, unk_token="<unk>")), unk_token="<unk>")
    with pytest.raises(ValueError, match="^processor: its tokenizer does not tell yes and no apart by their first token"):
        YesNoChecker(checker.model, deaf)


# --- dtype, answers that are no number, revisions ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained_in_bfloat16(tmp_path_factory):
    """A LLaVA-NeXT whose weights are bfloat16, and whose numbers are too large for float16."""
    folder = BUILDERS["llava_next"](tmp_path_factory.mktemp("bfloat16"))
    model = load_checker(folder, device="cpu").model
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(3e5)
    model.bfloat16().save_pretrained(folder)
    return folder


def test_a_checkpoint_keeps_its_own_dtype_where_that_is_asked_for(trained_in_bfloat16, monkeypatch):
    checker = load_checker(trained_in_bfloat16, device="cpu")
    assert checker.settings["dtype"] == "float32"
    expected = checker.check(IMAGE, "alien").probability
    asked = []
    monkeypatch.setattr(
        "creativelib.pullback.AutoModelForImageTextToText.from_pretrained",
        lambda where, dtype, **options: asked.append(dtype) or checker.model,
    )
    monkeypatch.setattr("creativelib.pullback.find_device", lambda device: torch.device(device))
    monkeypatch.setattr(checker.model, "to", lambda device: checker.model)
    load_checker(trained_in_bfloat16, device="cuda")
    load_checker(trained_in_bfloat16, device="cuda", dtype=torch.float16)
    assert asked == ["auto", torch.float16]
    monkeypatch.undo()
    own = load_checker(trained_in_bfloat16, device="cpu", dtype="auto")
    assert own.settings["dtype"] == "bfloat16"
    assert own.check(IMAGE, "alien").probability == pytest.approx(expected, abs=0.1)
    half = load_checker(trained_in_bfloat16, device="cpu", dtype=torch.float16)
    verdict = half.check(IMAGE, "alien")
    assert math.isnan(verdict.probability) and verdict.yes is False
    with pytest.raises(
        ValueError, match="^images: the checker answers 2 of 2 plain pictures with no number; load it in another"
    ):
        answers_to(half, [IMAGE] * 2, "alien")


def test_a_run_whose_checker_overflows_is_kept(trained_in_bfloat16, small_generator, tmp_path):
    baseline = sample_prior(small_generator, positive_prompt("vehicle"), n=60, progress=False)
    typicality = TypicalityModel.fit(baseline.embeddings, dims=6, provenance=baseline.provenance)
    checker = load_checker(trained_in_bfloat16, device="cpu", dtype=torch.float16)
    space = make_space("lora", small_generator, "vehicle")
    options = {"rule": SumRule(), "checker": checker, "check_every": 2, "check_images": 1}
    run = CreativeRun(small_generator, "vehicle", space, typicality, **options).run(4, progress=False, folder=tmp_path)
    assert (run.stopped, run.steps, run.result_step) == ("no answer", 2, 0)
    again = CreativeRun.load(tmp_path, generator=small_generator)
    assert again.stopped == "no answer" and math.isnan(again.history[1]["check"])
    assert again.settings["checker"]["dtype"] == "float16"


@pytest.mark.parametrize("named", ["in the name", "as an argument", "both"])
def test_a_revision_can_be_pinned_and_is_recorded(named, checker_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    commit = "0123456789abcdef0123456789abcdef01234567"
    shutil.copytree(checker_folder, tmp_path / "models--nobody--checker" / "snapshots" / commit)
    name = "nobody/checker" if named == "as an argument" else f"nobody/checker@{commit}"
    checker = load_checker(name, device="cpu", revision=None if named == "in the name" else commit)
    assert {key: checker.settings[key] for key in ("name", "weights")} == {"name": "nobody/checker", "weights": f"hub:{commit}"}
    json.dumps(checker.settings)


@pytest.mark.parametrize("name", ["", " ", "@main", None, 3])
def test_a_name_that_names_nothing_is_refused(name):
    with pytest.raises(ValueError, match="^name: got .*; give 'pocket'"):
        load_checker(name)


def test_the_shipped_checker_has_no_revision(checker_folder, tmp_path, monkeypatch):
    for name, revision in (("pocket", "main"), ("pocket@main", None)):
        with pytest.raises(ValueError, match="^revision: got 'main'; the shipped checker has none"):
            load_checker(name, revision=revision)
    folder = tmp_path / "@pocket"  # an odd name, and a folder all the same
    folder.symlink_to(checker_folder)
    monkeypatch.chdir(tmp_path)
    assert load_checker("@pocket", device="cpu").check(Image.new("RGB", (40, 32)), "chair").probability >= 0


@pytest.mark.parametrize(("name", "revision"), [("nobody/checker@", None), ("nobody/checker@one", "two")])
def test_two_revisions_are_one_too_many(name, revision):
    with pytest.raises(ValueError, match="^revision: got .*; name one revision, for example owner/name@commit"):
        load_checker(name, device="cpu", revision=revision)
