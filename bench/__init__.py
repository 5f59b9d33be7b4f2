"""Timings of the method on this machine: ``python -m bench`` (``make bench``)."""
