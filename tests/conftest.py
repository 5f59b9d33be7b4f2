"""Fixtures shared by the unit tests: miniature models of the published layouts, made once a session."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is loaded, and for the processes that tests start

import matplotlib
import pytest
import torch
from cli_runs import arguments, out, quick, vehicle_run  # noqa: F401
from databases import memory_folder, postgres, postgres_server  # noqa: F401
from miniature import build_generator_folder
from miniature_checkers import build_llava
from runs import make, typicality  # noqa: F401

from creativelib.generator import load_generator

matplotlib.use("Agg")
# What takes longest goes first, so that no core waits for another at the end.
LONG_FIRST = ("/06_", "/05_", "/08_", "/07_", "/10_", "/04_", "/03_", "mutations", "browser", "/01_", "/00_", "/02_", "/A1_")
LONG_FIRST += ("test_pocket", "shipped")


def by_length(item) -> int:
    """The rank of a test's file; files stay whole, and in their order."""
    return next((rank for rank, part in enumerate(LONG_FIRST) if part in item.nodeid.split("::")[0]), len(LONG_FIRST))


def pytest_collection_modifyitems(items):
    """The long ones go first; slow ones, and those that need a GPU where there is none, are left out, and say so."""
    items.sort(key=by_length)
    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU that PyTorch sees (make setup TORCH=cuda)"))
    if os.environ.get("CREATIVELIB_SLOW") != "1":
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="minutes of simulation; set CREATIVELIB_SLOW=1"))


@pytest.fixture(scope="session")
def miniature_folders(tmp_path_factory):
    """Folders of random-weight miniatures by family: ``"2.1"`` and ``"2.2"``."""
    root = tmp_path_factory.mktemp("miniatures")
    return {family: build_generator_folder(root / family, family) for family in ("2.1", "2.2")}


@pytest.fixture(scope="session", params=["2.1", "2.2"])
def generator(request, miniature_folders):
    """A miniature generator of each family; tests must leave it as it was."""
    return load_generator(miniature_folders[request.param], device="cpu")


@pytest.fixture(scope="session")
def small_generator(miniature_folders):
    """One miniature generator, of the 2.2 family, for what does not depend on the family."""
    return load_generator(miniature_folders["2.2"], device="cpu")


@pytest.fixture(scope="session")
def checker_folder(tmp_path_factory):
    """Folder of a random-weight Llava with its processor and chat template."""
    return build_llava(tmp_path_factory.mktemp("checker"))
