"""Execute every notebook and write its figures, its page and an index to build/; with --keep also its outputs into it.

The pages need no network: pictures are inside, formulas are MathML.
"""

import argparse
import atexit
import base64
import html
import io
import re
import shutil
import sys
import time
from pathlib import Path

import nbformat
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec
from latex2mathml.converter import convert as mathml
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode
from PIL import Image

from creativelib.quick import SWITCH, is_quick

ROOT = Path(__file__).resolve().parents[1]
WIDGET = "application/vnd.jupyter.widget-view+json"
# nbconvert's own page without the three scripts that it would fetch, and with the text alternatives of pictures
TEMPLATE = """{%- extends 'lab/index.html.j2' -%}
{%- block html_head_js_requirejs -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}{%- endblock -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}
{%- block data_png scoped -%}
{%- set alt = output | get_metadata("alt", "image/png") -%}
{{ super() | replace("<img src", '<img alt="' ~ (alt | escape_html) ~ '" src', 1) if alt else super() }}
{%- endblock data_png -%}"""
INDEX = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>creativelib: the notebooks</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>body {{ font-family: sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em }}
li {{ margin-bottom: 2em }} img {{ max-height: 12em; max-width: 100% }}</style></head>
<body><h1>The notebooks</h1><ol>
{items}
</ol></body></html>
"""


class OwnKernel(AsyncKernelManager):
    """A kernel of the Python that runs this, whatever other kernels named python3 are installed."""

    @property
    def kernel_spec(self) -> KernelSpec:
        return KernelSpec(**get_kernel_dict())


class MathMLRenderer(IPythonRenderer):
    """Formulas as MathML, which browsers draw by themselves; a formula that cannot be converted stays as it is written."""

    def block_math(self, body: str) -> str:
        return self._formula(body, "block")

    def inline_math(self, body: str) -> str:
        return self._formula(body, "inline")

    def latex_environment(self, name: str, body: str) -> str:
        return self._formula(f"\\begin{{{name}}}{body}\\end{{{name}}}", "block")

    def _formula(self, body: str, display: str) -> str:
        try:
            return mathml(body, display=display)
        except Exception:  # the converter has no base class for its errors
            return f"<code>{self.escape_html(body)}</code>"


def execute(notebook: NotebookNode, folder: Path, timeout: float) -> str:
    """Execute in place, with ``folder`` as working directory. Returns what went wrong, or an empty string."""
    current = {"index": 0}
    client = NotebookClient(
        notebook,
        timeout=timeout,
        startup_timeout=300,  # a busy machine may take its time
        kernel_manager_class=OwnKernel,
        resources={"metadata": {"path": str(folder)}},
        store_widget_state=False,
        extra_arguments=["--IPKernelApp.log_level=ERROR"],  # it warns of every local connection
        on_cell_start=lambda cell, cell_index: current.update(index=cell_index),
    )
    try:
        client.execute()
    except CellExecutionError as error:
        return f"cell {current['index'] + 1}: {error.ename}: {error.evalue}"
    except CellTimeoutError:
        return f"cell {current['index'] + 1}: took more than {timeout:.0f} s"
    except DeadKernelError:
        return f"cell {current['index'] + 1}: the kernel died; most often the memory ran out"
    except RuntimeError as error:
        atexit.unregister(client._cleanup_kernel)  # it would look for the kernel that never was
        return f"no kernel started: {error}. See whether `{sys.executable} -m ipykernel_launcher --version` works"
    return ""


def figures(notebook: NotebookNode) -> list[bytes]:
    """The PNG pictures in the outputs, in order."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [base64.b64decode(output.data["image/png"]) for output in outputs if "image/png" in output.get("data", {})]


def describe(notebook: NotebookNode) -> list[int]:
    """Give each PNG picture in the outputs the text alternative that its cell has as ``alt`` in its metadata, in place.

    In the output every viewer finds it, GitHub's too. A widget may bring one of its own. Returns the numbers (from 1) of the
    cells with a picture that has none.
    """
    without = []
    for number, cell in enumerate(notebook.cells, 1):
        for output in cell.get("outputs", []):
            if "image/png" not in output.get("data", {}):
                continue
            if text := cell.metadata.get("alt"):
                output.metadata.setdefault("image/png", NotebookNode())["alt"] = text
            if not output.metadata.get("image/png", {}).get("alt"):
                without.append(number)
    return without


def compact(notebook: NotebookNode) -> None:
    """Make the PNG pictures in the outputs smaller, in place: each stays in git for ever.

    Each is left with its 256 most fitting colours, which is not seen at the size of a figure and saves two thirds.
    """
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if written := output.get("data", {}).get("image/png"):
                picture = Image.open(io.BytesIO(base64.b64decode(written)))
                if picture.mode == "RGBA" and picture.getchannel("A").getextrema() == (255, 255):
                    picture = picture.convert("RGB")
                if picture.mode == "RGB":
                    picture = picture.quantize(256, Image.Quantize.MEDIANCUT, kmeans=2)
                small = io.BytesIO()
                picture.save(small, "PNG", optimize=True)
                if len(encoded := base64.b64encode(small.getvalue()).decode()) < len(written):
                    output.data["image/png"] = encoded


def inline_pictures(source: str, folder: Path) -> str:
    """Markdown with the pictures that it links to by a relative path put inside."""

    def inside(match: re.Match) -> str:
        path = folder / match[2]
        if not path.is_file():
            return match[0]
        kind = "png" if path.suffix == ".png" else "jpeg"
        return f"![{match[1]}](data:image/{kind};base64,{base64.b64encode(path.read_bytes()).decode()})"

    return re.sub(r"!\[([^]]*)\]\(([^):]+)\)", inside, source)


def without_widgets(notebook: NotebookNode) -> NotebookNode:
    """The notebook, changed in place: of a widget the picture that it leaves is kept, of a progress bar nothing."""
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # when each cell ran
        kept = []
        for output in cell.get("outputs", []):
            was_widget = output.get("data", {}).pop(WIDGET, None) is not None
            if not was_widget or "image/png" in output.data:
                kept.append(output)
        if "outputs" in cell:
            cell.outputs = kept
    return notebook


def page(notebook: NotebookNode, name: str, folder: Path) -> str:
    """The notebook as one HTML page that opens offline."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = inline_pictures(cell.source, folder)
    exporter = HTMLExporter(raw_template=TEMPLATE, embed_images=True)
    exporter.register_filter("markdown2html", lambda source: MarkdownWithMath(MathMLRenderer(escape=False)).render(source))
    resources = {"metadata": {"name": title(notebook, name)}}
    return exporter.from_notebook_node(notebook, resources=resources)[0]


def title(notebook: NotebookNode, name: str) -> str:
    """The first heading."""
    lines = (line for cell in notebook.cells if cell.cell_type == "markdown" for line in cell.source.splitlines())
    return next((line.lstrip("# ") for line in lines if line.startswith("# ")), name)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--notebooks", type=Path, default=ROOT / "notebooks", help="folder (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=ROOT / "build", help="folder (default: %(default)s)")
    parser.add_argument("--keep", action="store_true", help="write the outputs into the notebooks, too, as they are committed")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="of the notebooks whose names begin so")
    parser.add_argument("--timeout", type=float, default=1800, help="seconds for one cell (default: %(default)s)")
    options = parser.parse_args(arguments)
    if options.keep and is_quick():
        print(f"--keep: outputs are kept of the full settings only; unset {SWITCH}", file=sys.stderr)
        return 1
    chosen = [f"{name}*.ipynb" for name in options.only or [""]]
    paths = sorted({path for pattern in chosen for path in options.notebooks.glob(pattern)})
    if not paths:
        print(f"no notebooks ({', '.join(chosen)}) in {options.notebooks}", file=sys.stderr)
        return 1
    for folder in (options.out / "figures", options.out / "pages"):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    items, failures = [], []
    for number, path in enumerate(paths, 1):
        print(f"[{number}/{len(paths)}] {path.stem} ...", end=" ", flush=True)
        started = time.monotonic()
        notebook = nbformat.read(path, as_version=4)
        wrong = execute(notebook, options.notebooks, options.timeout)
        seconds = time.monotonic() - started
        without_widgets(notebook)
        undescribed = describe(notebook)
        compact(notebook)
        if options.keep and not wrong:
            nbformat.write(notebook, path)
        pictures = figures(notebook)
        for index, picture in enumerate(pictures, 1):
            (options.out / "figures" / f"{path.stem}-{index:02d}.png").write_bytes(picture)
        (options.out / "pages" / f"{path.stem}.html").write_text(page(notebook, path.stem, options.notebooks), encoding="utf-8")
        status = f"{seconds:.0f} s, {len(pictures)} figures"
        print(f"FAILED, {status}\n    {path.name}, {wrong}" if wrong else status, flush=True)
        if undescribed:
            print(f'    {path.name}: no text alternative (cell metadata "alt") in cells {undescribed}', flush=True)
        failures += [f"{path.name}, {wrong}"] if wrong else []
        thumbnail = f'<br><img alt="" src="figures/{path.stem}-01.png">' if pictures else ""
        note = html.escape(f"failed: {wrong}" if wrong else status)
        link = f'<a href="pages/{path.stem}.html">{html.escape(title(notebook, path.stem))}</a>'
        items.append(f"<li>{link}<br><small>{note}</small>{thumbnail}</li>")
    (options.out / "index.html").write_text(INDEX.format(items="\n".join(items)), encoding="utf-8")
    print(f"{options.out / 'index.html'}: {len(paths) - len(failures)} of {len(paths)} notebooks ran")
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
