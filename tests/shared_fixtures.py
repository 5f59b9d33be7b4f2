"""Fixtures shared by the unit tests: miniature models of the published layouts, made once a session."""

import matplotlib
import pytest
from cli_runs import arguments, out, quick, vehicle_run  # noqa: F401
from databases import memory_folder, postgres, postgres_server  # noqa: F401
from miniature import build_generator_folder
from miniature_checkers import build_llava
from runs import make, typicality  # noqa: F401

from creativelib.generator import load_generator

matplotlib.use("Agg")


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
