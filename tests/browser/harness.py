"""A notebook of one cell in JupyterLab, as the browser tests use it."""

import time
from pathlib import Path

import nbformat

PATIENCE = 90  # seconds until a page counts as hanging: a busy machine may take its time


def wait_for(condition, what):
    """What ``condition`` returns as soon as that is true."""
    end = time.monotonic() + PATIENCE
    while not (result := condition()):
        assert time.monotonic() < end, f"{what}: not within {PATIENCE} s"
        time.sleep(0.1)
    return result


def open_notebook(lab, page, name: str, cell: str) -> Path:
    """Open a new notebook with this cell, in a folder of its own, which is returned."""
    folder = lab["folder"] / name
    folder.mkdir()
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)], metadata=kernel)
    nbformat.write(notebook, folder / "notebook.ipynb")
    page.goto(f"{lab['url']}lab/workspaces/{name}/tree/{name}/notebook.ipynb?token={lab['token']}")
    page.wait_for_selector(".jp-Notebook .jp-Cell")
    return folder


def run_all(page) -> None:
    """Run the notebook's cells as soon as its kernel is there."""
    page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()
    page.evaluate("void window.jupyterapp.commands.execute('notebook:run-all-cells')")
