"""All methods under the same compute: a grid of cells that can be stopped and taken up again, its measures, and its tests.

``plan`` says what is compared, ``work`` is what a worker does, ``grid`` runs it and keeps it, ``table`` measures what was kept,
``answers`` tests what ``data/comparison/hypotheses.toml`` asked before it was run.
"""
