"""Seeds that follow from others, so that one number decides a whole run. Below everything: it needs no package."""

import hashlib
import operator


def derive_seed(*parts: int | str) -> int:
    """A seed from several numbers or words, e.g. ``(run seed, step)``: equal parts give equal seeds, others unrelated ones.

    32 bits, because that is all that torch's CPU generator keeps of a seed. A number counts by its value, whether it is
    Python's, NumPy's or torch's.

    Raises:
        ValueError: a part that is neither a whole number nor a text.
    """
    plain = []
    for part in parts:
        try:
            plain.append(str(part) if isinstance(part, str) else operator.index(part))
        except TypeError:
            raise ValueError(f"parts: got {part!r}; give whole numbers and words") from None
    return int.from_bytes(hashlib.blake2b(repr(tuple(plain)).encode(), digest_size=4).digest())
