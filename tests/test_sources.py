"""Names, folders, environment variables and generator.json: which files a generator is made of."""

import json
import shutil

import pytest

from creativelib.generator import load_generator
from creativelib.sources import Settings, find_source, read_settings


def test_revisions_are_pinned_by_argument_or_variable(monkeypatch):
    assert find_source("kandinsky-2.1").prior_revision == "main"
    assert find_source("kandinsky-2.1", ("abc", "def")).decoder_revision == "def"
    monkeypatch.setenv("CREATIVELIB_REVISIONS", "123,456")
    assert find_source("kandinsky-2.2").prior_revision == "123"
    for wrong in (("abc",), "ab"):
        with pytest.raises(ValueError, match="^revisions: got"):
            find_source("kandinsky-2.2", wrong)


def test_unknown_name_lists_what_is_allowed():
    with pytest.raises(ValueError, match="got 'nonsense'; choose 'pocket', 'kandinsky-2.1', 'kandinsky-2.2', or a folder"):
        find_source("nonsense")


def test_tilde_is_the_home_folder(monkeypatch, miniature_folders):
    monkeypatch.setenv("HOME", str(miniature_folders["2.2"].parent))
    assert load_generator("~/2.2", device="cpu").name == "2.2"


def test_a_folder_has_its_own_name_however_it_is_written(monkeypatch, miniature_folders):
    monkeypatch.chdir(miniature_folders["2.2"])
    assert find_source(".").name == find_source("../2.2/").name == "2.2"


def test_settings_are_defaults_but_for_what_the_file_says(tmp_path):
    path = tmp_path / "generator.json"
    assert read_settings(path) == Settings()
    path.write_text(json.dumps({"prior_steps": 7, "prior_guidance": 2, "anchor_threshold": None, "drawings": True, "note": ""}))
    assert read_settings(path) == Settings(prior_steps=7, prior_guidance=2, drawings=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", "holds a list; write an object"),
        ('{"image_size": 512', "is not JSON"),
        ('{"prior_steps": "five"}', "prior_steps = 'five'; give a positive whole number"),
        ('{"prior_steps": 5.0}', "prior_steps = 5.0; give a positive whole number"),
        ('{"learning_rate": NaN}', "learning_rate = nan; give a positive number"),
        ('{"learning_rate": true}', "learning_rate = True"),
        ('{"decoder_steps": 0}', "decoder_steps = 0"),
        ('{"image_size": null}', "image_size = None"),
        ('{"drawings": 1}', "drawings = 1; write true or false"),
    ],
)
def test_settings_that_make_no_sense_name_the_file(text, message, tmp_path):
    path = tmp_path / "generator.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"^model: {path} ") as raised:
        read_settings(path)
    assert message in str(raised.value)


def test_what_a_decoder_that_reads_text_is_by_default(miniature_folders, tmp_path):
    assert find_source("kandinsky-2.1").settings == Settings(anchor="decoder") and find_source("kandinsky-2.1").reads_text
    assert not find_source("kandinsky-2.2").reads_text and not find_source("pocket").reads_text
    reading, deaf = (find_source(miniature_folders[family]) for family in ("2.1", "2.2"))
    assert (reading.reads_text, reading.settings.anchor) == (True, "decoder")
    assert (deaf.reads_text, deaf.settings.anchor) == (False, "prior")
    for family in ("2.1", "2.2"):
        shutil.copytree(miniature_folders[family], tmp_path / family)
        (tmp_path / family / "generator.json").write_text('{"anchor": "prior", "decoder_prompt": "subject"}')
    assert find_source(tmp_path / "2.1").settings == Settings(anchor="prior", decoder_prompt="subject")
    (tmp_path / "2.2" / "generator.json").write_text('{"anchor": "decoder"}')
    with pytest.raises(ValueError, match="has anchor = 'decoder', but its decoder reads no text"):
        find_source(tmp_path / "2.2")
    (tmp_path / "2.1" / "generator.json").write_text('{"anchor": "clip"}')
    with pytest.raises(ValueError, match="has anchor = 'clip'; write one of prior, decoder"):
        find_source(tmp_path / "2.1")
