"""Which build of PyTorch set-up installs, as pure functions of what the machine looks like."""

CHOICES = ("auto", "cpu", "cuda")
CPU_INDEX_URL = "https://download.pytorch.org/whl/cpu"


def choose_build(request: str, system: str, nvidia: bool) -> str:
    """``"cpu"``, ``"cuda"``, or ``"any"`` where PyTorch publishes one build only (macOS).

    Args:
        request: what the user said by ``TORCH``; ``"auto"`` if nothing.
        system: as ``platform.system()`` has it.
        nvidia: a working NVIDIA card is there.

    Raises:
        ValueError: ``request`` is unknown, or asks for CUDA on macOS.
    """
    if request not in CHOICES:
        raise ValueError(f"TORCH: got {request!r}; allowed are {', '.join(CHOICES)}")
    if system == "Darwin":
        if request == "cuda":
            raise ValueError("TORCH: got 'cuda', but there is no CUDA build of PyTorch for macOS; leave TORCH out")
        return "any"
    return ("cuda" if nvidia else "cpu") if request == "auto" else request


def is_installed(installed: str | None, version: str, build: str) -> bool:
    """Whether ``installed`` (``"2.13.0+cpu"``, ``"2.13.0"``, ``None``) is ``version`` in the wanted ``build``."""
    base, _, local = (installed or "").partition("+")
    return base == version and (build == "any" or (build == "cpu") == (local == "cpu"))


def pip_arguments(version: str, build: str, index_url: str, cpu_build_found: bool) -> list[str]:
    """What to give to ``pip install --no-deps``.

    Args:
        build: from ``choose_build``.
        index_url: what the user said by ``TORCH_INDEX_URL``; empty if nothing.
        cpu_build_found: pip as it is configured on this machine finds the CPU build by itself.
    """
    if build == "cpu" and cpu_build_found and not index_url:
        return [f"torch=={version}+cpu"]
    if build == "cpu":
        return [f"torch=={version}+cpu", "--index-url", index_url or CPU_INDEX_URL]
    if index_url:
        return [f"torch=={version}", "--index-url", index_url]
    # === leaves out a CPU build that lies on this machine, which == would prefer
    return [f"torch==={version}" if build == "cuda" else f"torch=={version}"]
