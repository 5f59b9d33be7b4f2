"""The committed notebooks: executed, light, without widget state; and the checker of their outputs can go red."""

import base64
import copy
import io
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
import run_notebooks
from bs4 import BeautifulSoup
from PIL import Image

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
    assert "Not ready." not in "".join(output.get("text", "") for output in outputs)  # says check_environment
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert "widgets" not in notebook.metadata
    assert path.stat().st_size < 1_000_000
    assert "RUNTIME" not in path.read_text()
    assert all(len(cell.source.splitlines()) <= 30 for cell in code)
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in code) == 1
    stubs, solutions = (sum(tag in cell.metadata.get("tags", []) for cell in code) for tag in ("exercise", "solution"))
    assert stubs == solutions >= 1


def test_pictures_get_smaller_and_keep_their_colours():
    drawn = np.random.default_rng(0).integers(0, 4, (40, 60, 4), dtype=np.uint8) * 80
    for alpha in (255, drawn[..., 3]):  # opaque; some of it is seen through
        drawn[..., 3] = alpha
        file = io.BytesIO()
        Image.fromarray(drawn).save(file, "PNG", compress_level=0)
        output = nbformat.v4.new_output("display_data", {"image/png": base64.b64encode(file.getvalue()).decode()})
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("", outputs=[output])])
        run_notebooks.compact(notebook)
        (small,) = run_notebooks.figures(notebook)
        assert len(small) < len(file.getvalue()) / 2
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(small)).convert("RGBA")), drawn)
    x, y = np.meshgrid(np.linspace(0, 255, 200), np.linspace(0, 255, 150))
    soft = np.stack([x, y, (x + y) / 2], -1).astype(np.uint8)  # of more than 256 colours: each is near to one that is kept
    noisy = np.clip(soft + np.random.default_rng(1).normal(0, 4, soft.shape), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(noisy).save(file, "PNG")
    output = nbformat.v4.new_output("display_data", {"image/png": base64.b64encode(file.getvalue()).decode()})
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("", outputs=[output])])
    run_notebooks.compact(notebook)
    (small,) = run_notebooks.figures(notebook)
    off = np.asarray(Image.open(io.BytesIO(small)).convert("RGB")).astype(float) - noisy
    assert len(small) < len(file.getvalue()) / 2 and np.sqrt((off**2).mean()) < 8


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_picture_has_a_text_alternative(path):
    notebook = nbformat.read(path, as_version=4)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    texts = [output.metadata.get("image/png", {}).get("alt", "") for output in pictures]
    assert all(len(text.split()) >= 12 for text in texts) and len(set(texts)) == len(texts)
    committed = notebook.copy()
    assert run_notebooks.describe(notebook) == [] and notebook == committed  # the cells say the same as their outputs


def test_the_page_has_text_alternatives_a_title_and_a_language():
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# 07 · A <title>")])
    dot = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII="
    for metadata in ({"alt": 'A "dot", & no <more>'}, {}):
        picture = nbformat.v4.new_output("display_data", {"image/png": dot})
        notebook.cells.append(nbformat.v4.new_code_cell("dot", metadata=metadata, outputs=[picture]))
    assert run_notebooks.describe(notebook) == [3]
    del notebook.cells[-1]
    page = BeautifulSoup(run_notebooks.page(notebook, "07_dots", ROOT), "html.parser")
    assert [image["alt"] for image in page.find_all("img")] == ['A "dot", & no <more>']
    assert page.title.text == "07 · A <title>" and page.html["lang"] == "en"


def test_another_kernel_of_that_name_is_not_taken(tmp_path, monkeypatch):
    folder = tmp_path / "kernels" / "python3"
    folder.mkdir(parents=True)
    (folder / "kernel.json").write_text('{"argv": ["false"], "display_name": "other", "language": "python"}')
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("import sys; print(sys.executable)")])
    assert run_notebooks.execute(notebook, tmp_path, 60) == ""
    assert notebook.cells[0].outputs[0].text.strip() == sys.executable


def test_a_kernel_that_does_not_start_is_said_so(tmp_path, monkeypatch):
    monkeypatch.setattr(run_notebooks, "get_kernel_dict", lambda: {"argv": ["false"], "display_name": "", "language": "python"})
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")])
    assert run_notebooks.execute(notebook, tmp_path, 60).startswith("no kernel started: Kernel died before replying")


def run_nbval(path: Path) -> subprocess.CompletedProcess:
    sanitize = ROOT / "tests" / "nbval_sanitize.cfg"
    options = ["--nbval-lax", "--nbval-current-env", "--nbval-sanitize-with", str(sanitize), "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", "-q", "-c", "/dev/null", *options, str(path)]
    return subprocess.run(command, cwd=path, capture_output=True, text=True, timeout=600)


def test_a_wrong_checked_output_turns_the_notebook_check_red(tmp_path):
    output = nbformat.v4.new_output("stream", text="a prompt\n")
    cell = nbformat.v4.new_code_cell("print('a prompt')", execution_count=1, outputs=[output])
    cell.metadata["tags"] = ["nbval-check-output"]
    right, wrong = nbformat.v4.new_notebook(cells=[cell]), nbformat.v4.new_notebook(cells=[copy.deepcopy(cell)])
    wrong.cells[0].outputs[0].text = "another prompt\n"
    for name, notebook in (("right", right), ("wrong", wrong)):
        nbformat.write(notebook, tmp_path / f"{name}.ipynb")
    result = run_nbval(tmp_path)
    assert result.returncode == 1 and "1 failed, 1 passed" in result.stdout and "another prompt" in result.stdout


def test_executed_notebooks_are_kept_without_widgets_and_only_if_they_ran(tmp_path, monkeypatch):
    monkeypatch.delenv("CREATIVELIB_QUICK", raising=False)  # outputs of short settings are refused
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
