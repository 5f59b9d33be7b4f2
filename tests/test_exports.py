"""``from creativelib import ...`` offers what a short script needs, and ``import creativelib`` stays quick."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import creativelib

SCRIPT = """
from creativelib import CreativeRun, TypicalityModel, before_after, load_generator, make_space, positive_prompt, sample_prior
generator = load_generator(folder, device="cpu")
baseline = sample_prior(generator, positive_prompt("vehicle"), n=60, progress=False)
typicality = TypicalityModel.fit(baseline.embeddings, dims=8, provenance=baseline.provenance)
run = CreativeRun(generator, "vehicle", make_space("lora", generator, "vehicle"), typicality)
run.run(2, progress=False, folder=out)
pairs = [run.sample([1, 2], step=step) for step in (0, 2)]
before_after(*map(generator.decode, pairs), *map(typicality.surprise, pairs)).savefig(out / "before_after.png")
"""


def test_a_script_of_ten_lines_imports_from_the_package_alone(miniature_folders, tmp_path):
    assert SCRIPT.strip().count("\n") < 10 and SCRIPT.count("import ") == 1
    exec(SCRIPT, {"folder": miniature_folders["2.2"], "out": tmp_path})
    assert (tmp_path / "before_after.png").stat().st_size > 1000


@pytest.mark.parametrize("name", [name for name in creativelib.__all__ if name != "__version__"])
def test_every_export_is_there_and_listed(name):
    assert getattr(creativelib, name).__name__ == name and name in dir(creativelib)
    assert getattr(importlib.import_module(creativelib._HOMES[name]), name) is getattr(creativelib, name)


def test_importing_the_package_imports_no_other(tmp_path):
    code = "import sys, creativelib; print(sorted({'torch', 'numpy', 'matplotlib', 'pandas'} & set(sys.modules)))"
    root = Path(creativelib.__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root).stdout == "[]\n"
    with pytest.raises(AttributeError, match="has no attribute 'absent'; it exports __version__, check_environment"):
        creativelib.absent  # noqa: B018
