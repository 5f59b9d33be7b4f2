"""How many threads a calculation gets on a CPU."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import nn

SMALL = 50_000_000  # parameters; Pocket Kandinsky's prior has 5 million, the published ones a billion


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread: sums are added up in the same order on every machine, so results are bit-equal."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def threads_for_one(network: nn.Module):
    """A context for work on a single sample: one thread where ``network`` is small and on the CPU.

    There a second thread takes longer to wake than the work that it could take over.
    """
    parameters = list(network.parameters())
    small = sum(parameter.numel() for parameter in parameters) < SMALL
    return one_thread() if small and parameters[0].device.type == "cpu" else nullcontext()
