"""The committed notebooks: executed, light, without widget state; and the checker of their outputs can go red."""

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import run_notebooks

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def test_there_are_notebooks():
    assert {path.stem for path in NOTEBOOKS} >= {"00_start_here", "A1_pocket_kandinsky"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_executed_light_and_without_widget_state(path):
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert not any(output.output_type == "error" for output in outputs)
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert "widgets" not in notebook.metadata
    assert path.stat().st_size < 1_000_000
    assert "RUNTIME" not in path.read_text()
    assert all(len(cell.source.splitlines()) <= 30 for cell in code)
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in code) == 1
    stubs, solutions = (sum(tag in cell.metadata.get("tags", []) for cell in code) for tag in ("exercise", "solution"))
    assert stubs == solutions >= 1


def run_nbval(path: Path) -> subprocess.CompletedProcess:
    sanitize = ROOT / "tests" / "nbval_sanitize.cfg"
    options = ["--nbval-lax", "--nbval-current-env", "--nbval-sanitize-with", str(sanitize), "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", "-q", "-c", "/dev/null", *options, str(path)]
    return subprocess.run(command, cwd=path.parent, capture_output=True, text=True, timeout=600)


def test_a_wrong_checked_output_turns_the_notebook_check_red(tmp_path):
    notebook = nbformat.read(ROOT / "notebooks" / "00_start_here.ipynb", as_version=4)
    last = next(i for i, cell in enumerate(notebook.cells) if "nbval-check-output" in cell.metadata.get("tags", []))
    notebook.cells = notebook.cells[: last + 1]
    nbformat.write(notebook, tmp_path / "right.ipynb")
    assert run_nbval(tmp_path / "right.ipynb").returncode == 0
    notebook.cells[last].outputs[0].text = "another prompt\n"
    nbformat.write(notebook, tmp_path / "wrong.ipynb")
    result = run_nbval(tmp_path / "wrong.ipynb")
    assert result.returncode == 1 and "another prompt" in result.stdout


def test_executed_notebooks_are_kept_without_widgets_and_only_if_they_ran(tmp_path):
    cells = ["from tqdm.auto import tqdm\nfor _ in tqdm(range(3), leave=False):\n    pass\nprint('done')"]
    for name, cell in (("01_good", cells[0]), ("02_bad", "1 / 0"), ("other", "print(1)")):
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)])
        nbformat.write(notebook, tmp_path / f"{name}.ipynb")
    arguments = ["--notebooks", str(tmp_path), "--out", str(tmp_path / "build"), "--only", "01", "02"]
    assert run_notebooks.main(arguments) == 1
    kept = {name: nbformat.read(tmp_path / f"{name}.ipynb", as_version=4).cells[0] for name in ("01_good", "02_bad", "other")}
    assert not any(cell.outputs for cell in kept.values())
    run_notebooks.main([*arguments, "--keep"])
    kept = {name: nbformat.read(tmp_path / f"{name}.ipynb", as_version=4) for name in kept}
    (good,) = kept["01_good"].cells
    assert [output.text for output in good.outputs] == ["done\n"] and good.execution_count == 1 and not good.metadata
    assert not kept["01_good"].metadata.get("widgets")
    assert not kept["02_bad"].cells[0].outputs and not kept["other"].cells[0].outputs
