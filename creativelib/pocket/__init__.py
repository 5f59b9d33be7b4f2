"""Pocket Kandinsky: how the shipped small model of the icon world is made and measured.

Nothing in this package is needed to *use* the model; it needs the extra ``training``. The stages, in order:
``corpus`` -> ``teachers`` -> ``autoencoder``, ``clip`` -> ``prior``, ``decoder``, ``checker``, ``judge`` -> ``evaluate``.
"""
