"""Pseudonyms: one person has one, however it is typed; and no code is an address or a formula."""

import unicodedata

import pytest

from creativelib.study.codes import canonical, suggested_code


@pytest.mark.parametrize(
    "typed",
    [
        "Blue-fox-417",  # a tablet capitalises
        " blue fox  417 ",
        "blue\u2011fox\u2013417",  # typographic dashes
        "blue\u200b-fox-417\ufeff",  # invisible characters
        "\uff42\uff4c\uff55\uff45-fox-417",  # full width
        "blue \u2212 fox 417-",
    ],
)
def test_one_person_has_one_code(typed):
    assert canonical(typed) == "blue-fox-417"


def test_both_unicode_forms_are_one_code():
    assert canonical(unicodedata.normalize("NFD", "Zoë-3")) == canonical("zoë-3") == "zoë-3"
    assert canonical("李雷_7.a") == "李雷_7.a"


@pytest.mark.parametrize(
    "code", ["=1+1", "@handle", "a@b.de", "+3", "-3+4", '=HYPERLINK("x")', "a,b", "a'b", "_x", ".x", "a\0b", "<b>", "a/b"]
)
def test_what_is_no_pseudonym_is_refused(code):
    with pytest.raises(ValueError, match="^code: got"):
        canonical(code)


@pytest.mark.parametrize(
    ("code", "match"), [("", "code: got ''"), (" -\u200b", "code: got"), ("x" * 41, "code: got 41 characters")]
)
def test_empty_and_long_codes_are_refused(code, match):
    with pytest.raises(ValueError, match=match):
        canonical(code)


def test_suggested_codes_are_canonical_and_differ():
    codes = {suggested_code() for _ in range(500)}
    assert len(codes) == 500 and all(canonical(code) == code and len(code.split("-")) == 3 for code in codes)
