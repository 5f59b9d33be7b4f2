"""Ctrl-C at a moment that suits: what belongs together is done as a whole, and interrupted after it."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uninterrupted() -> Iterator[None]:
    """A short block that Ctrl-C does not divide: what comes meanwhile is heeded at its end.

    Only the main thread is ever interrupted. In others, and where it is not Python that heeds the signal, nothing is done.
    """
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield
        return
    came = []
    signal.signal(signal.SIGINT, lambda *what: came.append(what))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
    if came:
        handler(*came[-1])
