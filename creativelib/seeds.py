"""Seeds that follow from others, so that one number decides a whole run. Below everything: it needs no package."""

import hashlib


def derive_seed(*parts: int | str) -> int:
    """A seed from several numbers or words, e.g. ``(run seed, step)``: equal parts give equal seeds, others unrelated ones.

    32 bits, because that is all that torch's CPU generator keeps of a seed.
    """
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=4).digest())
