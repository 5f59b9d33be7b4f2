"""check_environment: each thing that can be wrong is simulated, and its sentence must name the fix."""

import builtins
import hashlib
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from creativelib import check_environment, environment


def only(findings, severity):
    (finding,) = findings
    assert finding.severity == severity
    return f"{finding.what} | {finding.fix}"


@pytest.fixture
def model(tmp_path):
    """A data folder with a healthy model of two files."""
    folder = tmp_path / "pocket"
    (folder / "prior").mkdir(parents=True)
    contents = {"prior/weights.safetensors": b"weights", "MODEL_CARD.md": b"card"}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    lines = [f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in contents.items()]
    (folder / "SHA256SUMS").write_text("".join(lines))
    return folder


@pytest.fixture
def healthy(model, monkeypatch):
    """A machine on which all is well, whatever the machine is that the tests run on."""
    monkeypatch.setenv("CREATIVELIB_DATA", str(model.parent))
    monkeypatch.setattr(environment, "ROOT", model)  # no .venv there
    monkeypatch.setattr(environment, "_free_memory", lambda: 8.0)
    monkeypatch.setattr(environment, "_check_installed_torch", lambda: [])
    monkeypatch.setattr(environment.creativelib, "torch_came_first", False)
    monkeypatch.delenv("CREATIVELIB_QUICK", raising=False)
    monkeypatch.setattr(environment.shutil, "disk_usage", lambda path: psutil.disk_usage("/")._replace(free=2**34))


def test_a_healthy_installation_is_ready(healthy):
    report = check_environment()
    assert report.ok and report.findings == ()
    assert str(report).splitlines()[-1] == "Ready."
    assert "torch 2.13.0" in report.system


def test_errors_come_first_and_are_not_ok(healthy, model, monkeypatch):
    (model / "SHA256SUMS").unlink()
    monkeypatch.setattr(environment, "_free_memory", lambda: 0.5)
    report = check_environment()
    assert [finding.severity for finding in report.findings] == ["error", "warning"]
    assert not report.ok and str(report).endswith("Not ready.")


def test_a_warning_alone_is_ok(healthy, monkeypatch):
    monkeypatch.setattr(environment, "_free_memory", lambda: 0.5)
    report = check_environment()
    assert report.ok and "0.5 GiB of memory are free" in str(report) and "fix: shut down" in str(report)


def test_a_missing_data_folder_is_a_finding(healthy, model, monkeypatch):
    monkeypatch.setenv("CREATIVELIB_DATA", str(model / "nowhere"))
    sentence = only(check_environment().findings, "error")
    assert "nowhere" in sentence and "make setup" in sentence


def test_old_python():
    sentence = only(environment.check_python((3, 10, 4)), "error")
    assert "this is Python 3.10; 3.11 or newer" in sentence and "make clean setup" in sentence
    assert environment.check_python((3, 11, 0)) == environment.check_python((4, 0)) == []


def test_another_kernel(tmp_path):
    venv = tmp_path / ".venv"
    assert environment.check_kernel(Path("/usr"), venv) == []  # no .venv: another way of installing
    venv.mkdir()
    assert environment.check_kernel(venv, venv) == []
    sentence = only(environment.check_kernel(Path("/usr"), venv), "warning")
    assert "runs in /usr" in sentence and "make lab" in sentence and str(venv / "bin" / "python") in sentence


def test_packages():
    assert environment.check_packages(["torch==2.13.0", "numpy>=2"]) == []
    missing = only(environment.check_packages(["no-such-package>=1"]), "error")
    assert "no-such-package is missing" in missing and "make setup" in missing
    old = only(environment.check_packages(["numpy>=99"]), "error")
    assert "the code is written for >=99" in old and "make setup" in old
    assert "not installed" in only(environment.check_packages(None), "error")


def test_packages_of_other_extras_are_not_wanted():
    assert environment.check_packages(['no-such-package; extra == "training"']) == []
    assert len(environment.check_packages(['no-such-package; extra == "notebooks"'])) == 1


def test_packages_without_packaging(monkeypatch):
    monkeypatch.setitem(sys.modules, "packaging.requirements", None)
    assert "packaging is missing" in only(environment.check_packages(["torch"]), "error")


def test_threads_that_spin(healthy, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert environment.check_threads(False) == []
    monkeypatch.setattr(environment.creativelib, "torch_came_first", True)
    sentence = only(check_environment().findings, "warning")
    assert "spin" in sentence and "import creativelib before torch" in sentence and "OMP_WAIT_POLICY=passive" in sentence
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert environment.check_threads(True) == []


@pytest.mark.parametrize(
    ("cuda_build", "cuda_works", "nvidia", "gpu_memory", "what", "fix"),
    [
        (True, False, False, None, "there is no NVIDIA GPU", "TORCH=cpu"),
        (True, False, True, None, "no GPU answers", "update the driver"),
        (False, False, True, None, "built for the CPU only", "TORCH=cuda"),
        (True, True, True, 8.59, "the GPU has 8.6 GB; kandinsky-2.1 and 2.2 want 12", "load_generator('pocket')"),
    ],
)
def test_torch_that_does_not_fit_the_machine(cuda_build, cuda_works, nvidia, gpu_memory, what, fix):
    sentence = only(environment.check_torch("2.13.0", cuda_build, cuda_works, nvidia, gpu_memory), "warning")
    assert what in sentence and fix in sentence


def test_torch_that_fits_the_machine():
    assert environment.check_torch("2.13.0+cpu", False, False, False, None) == []
    assert environment.check_torch("2.13.0", True, True, True, 80.0) == []


def test_a_card_of_12_gb_is_one_of_12_gb(monkeypatch):
    """PyTorch sees 11.6 to 11.9 GiB of it, which are more than 12 GB."""
    card = SimpleNamespace(total_memory=int(11.63 * 2**30))
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda index: card)
    monkeypatch.setattr("torch.version.cuda", "13.0")
    assert environment._check_installed_torch() == []
    card.total_memory = 8 * 2**30
    assert "has 8.6 GB" in only(environment._check_installed_torch(), "warning")


@pytest.mark.parametrize(
    ("error", "count"),
    [
        (ModuleNotFoundError("No module named 'torch'", name="torch"), 0),  # check_packages says it
        (ModuleNotFoundError("No module named 'sympy'", name="sympy"), 1),
        (OSError("libtorch_cpu.so: cannot open shared object file"), 1),
    ],
)
def test_torch_that_cannot_be_imported(monkeypatch, error, count):
    real = builtins.__import__

    def broken(name, *arguments, **keywords):
        if name == "torch":
            raise error
        return real(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", broken)
    findings = environment._check_installed_torch()
    assert len(findings) == count
    assert all(str(error) in finding.what and "make clean setup" in finding.fix for finding in findings)


def test_model(model):
    assert environment.check_model(model) == []


def test_model_without_sums(tmp_path):
    sentence = only(environment.check_model(tmp_path), "error")
    assert "no file" in sentence and "git checkout" in sentence


def test_model_with_a_missing_file(model):
    (model / "prior" / "weights.safetensors").unlink()
    sentence = only(environment.check_model(model), "error")
    assert "weights.safetensors is missing" in sentence and "git checkout" in sentence


def test_model_with_a_corrupt_file(model):
    (model / "MODEL_CARD.md").write_bytes(b"cart")
    sentence = only(environment.check_model(model), "error")
    assert "MODEL_CARD.md is corrupt" in sentence and f"rm -r {model} && git checkout -- {model}" in sentence


def test_model_with_an_lfs_pointer(model):
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    (model / "prior" / "weights.safetensors").write_bytes(pointer)
    sentence = only(environment.check_model(model), "error")
    assert "Git LFS pointer" in sentence and "git lfs pull" in sentence


def test_memory_and_disk(tmp_path):
    assert environment.check_memory(None) == environment.check_memory(4.0) == environment.check_disk(5.0, tmp_path) == []
    assert "close other programs" in only(environment.check_memory(1.0), "warning")
    assert "make clean" in only(environment.check_disk(0.2, tmp_path), "warning")


def test_the_shipped_model_is_whole():
    folder = Path(environment.__file__).parents[1] / "data" / "pocket"
    if not (folder / "SHA256SUMS").is_file():
        pytest.skip("no model is shipped yet")
    assert environment.check_model(folder) == []
