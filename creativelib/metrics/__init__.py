"""How results are measured: by nothing that a search optimised, in features that no part of the generator was trained with.

``drawing`` looks at the pixels (sharpness, wholeness), ``change`` at what became of the default picture (structure, colour),
``features`` at pictures through an independent network (novelty, diversity, kernel distance), ``memory`` for the nearest
training picture. All take uint8 pictures (N, H, W, 3) and give numbers or arrays.
"""
