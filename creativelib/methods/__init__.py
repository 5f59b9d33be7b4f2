"""Methods: whatever answers "a creative picture of X" under a budget. The paper's, its rivals, plain tricks; one file each."""

import inspect
import re
from contextlib import suppress

from creativelib.methods.conceptlab import ConceptLab
from creativelib.methods.creative import Creative
from creativelib.methods.method import Method
from creativelib.methods.minority import Minority
from creativelib.methods.negative_prompting import NegativePrompting
from creativelib.methods.plain import Plain
from creativelib.methods.repel import Repel
from creativelib.methods.shell import Shell
from creativelib.methods.tail import Tail
from creativelib.methods.words import Words

METHODS = {
    method.name: method for method in (Plain, Words, Tail, Shell, Creative, ConceptLab, NegativePrompting, Minority, Repel)
}


def make_method(text: str) -> Method:
    """A method by name, with options in brackets: ``"tail"``, ``"creative[space=subject-token,target=40]"``.

    Raises:
        ValueError: an unknown name or option, one that is given twice, or a value that the method refuses.
    """
    match = re.fullmatch(r"\s*([\w-]+)\s*(?:\[(.*)\])?\s*", text)
    if not match or match[1] not in METHODS:
        raise ValueError(
            f"method: got {text!r}; choose among {', '.join(METHODS)}, with options like creative[space=embedding]"
        )
    method, options = METHODS[match[1]], {}
    known = ", ".join(inspect.signature(method).parameters) or "no options"
    for pair in filter(None, (match[2] or "").split(",")):
        name, found, value = (part.strip() for part in pair.partition("="))
        if not found:
            raise ValueError(f"method: got {pair!r} in {text!r}; write options as name=value")
        name = name.replace("-", "_")
        if name not in inspect.signature(method).parameters:
            raise ValueError(f"method: got the option {name!r} in {text!r}; {match[1]!r} knows {known}")
        if name in options:
            raise ValueError(f"method: got the option {name!r} twice in {text!r}; give it once")
        options[name] = literal(value)
    try:
        return method(**options)
    except ValueError as error:
        raise ValueError(f"{error} (in {text!r})") from error


def literal(text: str):
    """A number, true, false or none where ``text`` is one, else ``text`` itself."""
    plain = {"true": True, "false": False, "none": None}
    if text.lower() in plain:
        return plain[text.lower()]
    for number in (int, float) if re.fullmatch(r"[-+.\deE]+", text) else ():  # not "infinity", which is a word
        with suppress(ValueError):
            return number(text)
    return text


def split_methods(text: str) -> list[str]:
    """``"plain,creative[space=lora,target=40]"`` at the commas outside brackets."""
    return [part.strip() for part in re.split(r",(?![^\[]*\])", text) if part.strip()]
