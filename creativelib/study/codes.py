"""Pseudonyms of raters: one form for each, however a phone or a keyboard writes it, and new ones that nobody guesses."""

import re
import secrets
import unicodedata

LONGEST = 40  # characters
COLOURS, ANIMALS = (
    "amber blue coral green grey olive pink plum red teal".split(),
    ("badger bear crane deer duck finch fox frog hare heron lynx mole newt otter owl seal swan toad wolf wren".split()),
)
LETTERS = "23456789abcdefghjkmnpqrstuvwxyz"  # none that is taken for another


def canonical(code: str) -> str:
    """The form under which a code is kept and looked up: NFKC, lower case, spaces and dashes of any kind as one hyphen.

    "Blue-fox-417" (a tablet capitalises), "blue fox 417" and one with typographic dashes or invisible letters are one person.

    Raises:
        ValueError: empty, longer than ``LONGEST``, or with other characters than letters, digits, hyphen, dot and underscore:
            so none is an e-mail address, and none begins like a formula of a spreadsheet.
    """
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", code).casefold())
    text = "".join(letter for letter in text if unicodedata.category(letter) != "Cf")  # zero width, soft hyphens, directions
    text = "".join("-" if unicodedata.category(letter) == "Pd" or letter == "\N{MINUS SIGN}" else letter for letter in text)
    text = re.sub(r"[\s-]+", "-", text).strip("-")
    if not text:
        raise ValueError(f"code: got {code!r}; give a pseudonym, for example 'blue-fox'")
    if len(text) > LONGEST:
        raise ValueError(f"code: got {len(text)} characters; give at most {LONGEST}")
    for place, letter in enumerate(text):
        if not (letter.isalnum() or place and (letter in "-_." or unicodedata.category(letter).startswith("M"))):
            raise ValueError(
                f"code: got {code!r} with {letter!r}; give a pseudonym of letters, digits and hyphens, for example 'blue-fox'"
            )
    return text


def suggested_code() -> str:
    """A pseudonym such as 'blue-fox-7k3m': one of 185 million, for with it one goes on where its owner stopped."""
    tail = "".join(secrets.choice(LETTERS) for _ in range(4))
    return f"{secrets.choice(COLOURS)}-{secrets.choice(ANIMALS)}-{tail}"
