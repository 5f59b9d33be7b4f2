"""In which order tests run, and where those of this machine are left out; the fixtures are in ``shared_fixtures``."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is loaded, and for the processes that tests start

import pytest

# What takes longest goes first, so that no core waits for another at the end.
LONG_FIRST = ("/06_", "/05_", "/08_", "/07_", "/10_", "/04_", "/09_", "/03_", "mutations", "browser", "/01_", "/00_", "/02_")
LONG_FIRST += ("/A1_", "test_pocket", "shipped", "comparison", "study_store")


def by_length(item) -> int:
    """The rank of a test's file; files stay whole, and in their order."""
    return next((rank for rank, part in enumerate(LONG_FIRST) if part in item.nodeid.split("::")[0]), len(LONG_FIRST))


def pytest_configure(config):
    """Load the fixtures where tests run; the process that only hands them out would keep all others waiting for PyTorch."""
    if hasattr(config, "workerinput") or config.getoption("dist", "no") == "no":
        config.pluginmanager.import_plugin("shared_fixtures")


def pytest_collection_modifyitems(items):
    """The long ones go first; slow ones, and those that need a GPU where there is none, are left out, and say so."""
    import torch

    items.sort(key=by_length)
    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU that PyTorch sees (make setup TORCH=cuda)"))
    if os.environ.get("CREATIVELIB_SLOW") != "1":
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="minutes of simulation; set CREATIVELIB_SLOW=1"))
