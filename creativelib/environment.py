"""What is wrong with this installation, in plain words. Works where most of the packages are missing."""

import hashlib
import os
import platform
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import creativelib
from creativelib.quick import SWITCH, is_quick

OLDEST_PYTHON = (3, 11)
FREE_MEMORY = 2.0  # GiB: the shipped model, its decoder and a run, with room to spare
FREE_DISK = 1.0  # GiB: figures, pages and saved runs
PUBLISHED_MODEL_MEMORY = 12.0  # GB of GPU memory that the published checkpoints want; a card of 12 GB has 11.6 to 11.9 GiB
ROOT = Path(__file__).resolve().parents[1]
REINSTALL = "run `make setup` in the project's folder (or `pip install -e '.[notebooks]'` in your own environment)"


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be.

    Attributes:
        severity: ``"error"``: the notebooks will not run; ``"warning"``: they will, but not as well as they could.
        what: what is wrong. fix: what to do.
    """

    severity: str
    what: str
    fix: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.what}\n  fix: {self.fix}"


@dataclass(frozen=True)
class Report:
    """What ``check_environment`` found; print it.

    Attributes:
        system: the versions it looked at, in one line. findings: errors first.
    """

    system: str
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """No finding is an error; warnings may be there."""
        return all(finding.severity != "error" for finding in self.findings)

    def __str__(self) -> str:
        verdict = "Ready." if self.ok else "Not ready."
        return "\n".join([self.system, *map(str, self.findings), verdict])


def check_environment() -> Report:
    """Look at Python, packages, PyTorch's build, the shipped model, memory, disk and the kernel.

    Changes nothing and never raises for what it finds: ``print(check_environment())``.
    """
    findings = [
        *check_python(sys.version_info),
        *check_kernel(Path(sys.prefix), ROOT / ".venv"),
        *check_packages(_requirements()),
        *check_threads(creativelib.torch_came_first),
        *check_quick(),
        *_check_installed_torch(),
        *_check_installed_model(),
        *check_memory(_free_memory()),
        *check_disk(shutil.disk_usage(Path.cwd()).free / 2**30, Path.cwd()),
    ]
    return Report(_system(), tuple(sorted(findings, key=lambda finding: finding.severity)))


# --- one check each; what they look at is an argument -----------------------------------------------------------------


def check_python(version: tuple) -> list[Finding]:
    """``version`` begins (major, minor)."""
    if tuple(version[:2]) >= OLDEST_PYTHON:
        return []
    wanted = ".".join(map(str, OLDEST_PYTHON))
    what = f"this is Python {version[0]}.{version[1]}; {wanted} or newer is needed"
    return [Finding("error", what, f"install Python {wanted} or newer, then run `make clean setup`")]


def check_kernel(prefix: Path, venv: Path) -> list[Finding]:
    """``prefix`` is where the running Python lives, ``venv`` where set-up put the packages, if it did."""
    if not venv.is_dir() or prefix.resolve() == venv.resolve():
        return []
    what = f"this runs in {prefix}, but set-up installed the packages into {venv}"
    return [Finding("warning", what, f"start Jupyter with `make lab`, or choose the kernel {venv / 'bin' / 'python'}")]


def check_packages(requirements: Iterable[str] | None) -> list[Finding]:
    """``requirements`` as in pyproject.toml, or ``None`` where creativelib itself is not installed."""
    if requirements is None:
        return [Finding("error", f"creativelib is not installed in {sys.prefix}", REINSTALL)]
    try:
        from packaging.requirements import Requirement
    except ImportError:
        return [Finding("error", "the package packaging is missing, so no other can be checked", REINSTALL)]
    findings = []
    for requirement in map(Requirement, requirements):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": "notebooks"}):
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            findings.append(Finding("error", f"the package {requirement.name} is missing", REINSTALL))
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            what = f"{requirement.name} {version} is installed; the code is written for {requirement.specifier}"
            findings.append(Finding("error", what, REINSTALL))
    return findings


def check_torch(version: str, cuda_build: bool, cuda_works: bool, nvidia: bool, gpu_memory: float | None) -> list[Finding]:
    """``nvidia``: the driver's nvidia-smi is there; ``gpu_memory`` in GB, ``None`` without a working GPU."""
    if cuda_build and not cuda_works and nvidia:
        what = f"PyTorch {version} is built for CUDA and there is an NVIDIA driver, but no GPU answers"
        return [Finding("warning", what, "update the driver, and see that CUDA_VISIBLE_DEVICES does not hide the GPU")]
    if cuda_build and not cuda_works:
        what = f"PyTorch {version} is built for CUDA, but there is no NVIDIA GPU: it works, and fills gigabytes for nothing"
        return [Finding("warning", what, "run `make setup TORCH=cpu`")]
    if nvidia and not cuda_build:
        what = f"there is an NVIDIA GPU, but PyTorch {version} is built for the CPU only"
        return [Finding("warning", what, "run `make setup TORCH=cuda`")]
    if gpu_memory is not None and gpu_memory < PUBLISHED_MODEL_MEMORY:
        what = f"the GPU has {gpu_memory:.1f} GB; kandinsky-2.1 and 2.2 want {PUBLISHED_MODEL_MEMORY:.0f}"
        return [Finding("warning", what, "use the shipped model, load_generator('pocket'), or a larger GPU")]
    return []


def check_threads(torch_came_first: bool) -> list[Finding]:
    """``torch_came_first``: PyTorch was loaded before this package could tell its threads how to wait."""
    if not torch_came_first or os.environ.get("OMP_NUM_THREADS") == "1":
        return []
    what = "PyTorch was loaded before creativelib, so its threads spin while they wait: slow beside any busy program"
    return [Finding("warning", what, "restart Python and import creativelib before torch, or set OMP_WAIT_POLICY=passive")]


def check_quick() -> list[Finding]:
    """Whether the notebooks take the short settings of the automatic checks."""
    try:
        if not is_quick():
            return []
    except ValueError as error:
        return [Finding("error", str(error), f"unset {SWITCH}")]
    what = f"{SWITCH}=1: notebooks take the short settings of the automatic checks, and show less than their text says"
    return [Finding("warning", what, f"unset {SWITCH}")]


def check_model(folder: Path) -> list[Finding]:
    """Compare the files of the shipped model with the ``SHA256SUMS`` in its folder."""
    sums = folder / "SHA256SUMS"
    if not sums.is_file():
        what = f"the shipped model is not there: no file {sums}"
        return [Finding("error", what, f"restore it with `git checkout -- {folder}`, or clone the project again")]
    findings = []
    for line in sums.read_text().splitlines():
        digest, name = line.split(maxsplit=1)
        what = _wrong_with(folder / name.lstrip("*"), digest)
        if what == "is a Git LFS pointer, not the file itself":
            findings.append(Finding("error", f"{folder / name} {what}", "install git-lfs, then run `git lfs pull`"))
        elif what:
            # without deleting it first, git may take a file whose line ends were changed for the committed one
            fix = f"restore it with `rm -r {folder} && git checkout -- {folder}`, or clone the project again"
            findings.append(Finding("error", f"{folder / name.lstrip('*')} {what}", fix))
    return findings


def check_memory(free: float | None) -> list[Finding]:
    """``free`` in GiB, or ``None`` if unknown."""
    if free is None or free >= FREE_MEMORY:
        return []
    what = f"{free:.1f} GiB of memory are free; the notebooks want {FREE_MEMORY:.0f}"
    return [Finding("warning", what, "shut down other notebooks' kernels and close other programs")]


def check_disk(free: float, folder: Path) -> list[Finding]:
    """``free`` in GiB, on the disk of ``folder``."""
    if free >= FREE_DISK:
        return []
    what = f"{free:.1f} GiB of disk are free under {folder}; figures and runs want {FREE_DISK:.0f}"
    return [Finding("warning", what, "delete what you do not need; `make clean` deletes build/ and .venv/")]


# --- looking at this machine ------------------------------------------------------------------------------------------


def _requirements() -> list[str] | None:
    try:
        return metadata.requires("creativelib") or []
    except metadata.PackageNotFoundError:
        return None


def _check_installed_torch() -> list[Finding]:
    try:
        import torch
    except ModuleNotFoundError as error:
        # A missing torch is a finding of check_packages already.
        return [] if error.name == "torch" else [_broken_torch(error)]
    except (ImportError, OSError) as error:
        return [_broken_torch(error)]
    works = torch.cuda.is_available()
    gpu_memory = torch.cuda.get_device_properties(0).total_memory / 1e9 if works else None
    nvidia = shutil.which("nvidia-smi") is not None
    return check_torch(torch.__version__, torch.version.cuda is not None, works, nvidia, gpu_memory)


def _broken_torch(error: Exception) -> Finding:
    return Finding("error", f"PyTorch is installed but cannot be imported: {error}", "run `make clean setup`")


def _check_installed_model() -> list[Finding]:
    try:
        from creativelib.storage import data_folder

        return check_model(data_folder() / "pocket")
    except FileNotFoundError as error:
        return [
            Finding("error", f"the shipped model is not there: {error}", "clone the project, and install it with `make setup`")
        ]
    except (ImportError, OSError):  # missing or broken packages, which have findings of their own
        return []


def _wrong_with(path: Path, digest: str) -> str:
    if not path.is_file():
        return "is missing"
    content = path.read_bytes()
    if content.startswith(b"version https://git-lfs.github.com/spec/"):
        return "is a Git LFS pointer, not the file itself"
    return "" if hashlib.sha256(content).hexdigest() == digest else "is corrupt: its SHA-256 is not the one in SHA256SUMS"


def _free_memory() -> float | None:
    try:
        import psutil
    except ImportError:
        return None
    return psutil.virtual_memory().available / 2**30


def _system() -> str:
    def version(name: str) -> str:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            return "missing"

    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "diffusers", "transformers", "peft"))
    return f"creativelib {creativelib.__version__}, Python {platform.python_version()}, {platform.system()}, {packages}"
