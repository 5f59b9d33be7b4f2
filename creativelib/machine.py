"""What failed: the work, or the machine that it runs on? Below everything; waits for no torch."""

MEMORY_IS_FULL = ("out of memory", "not enough memory", "allocate memory", "ALLOC_FAILED")  # in torch's words, on any device
BROKEN = ("CUDA error", "No space left on device")  # after the former a process can ask nothing more of its card


def first_line(error: BaseException) -> str:
    """What an error says, without what follows; its kind where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def memory_is_full(error: BaseException) -> bool:
    """Whether there was no memory left, of the machine or of its card: torch reports either as a RuntimeError, in words."""
    return isinstance(error, MemoryError) or _says(error, MEMORY_IS_FULL)


def machine_failed(error: BaseException) -> bool:
    """Whether other work would fail here as well: a full memory or disk, a file that cannot be had, a card that failed."""
    return isinstance(error, OSError) or memory_is_full(error) or _says(error, BROKEN)


def _says(error: BaseException, signs: tuple[str, ...]) -> bool:
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in signs)
