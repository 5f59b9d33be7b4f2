"""A cell of a notebook that is run twice does what it did once, and creativelib is imported before PyTorch."""

import ast
import tempfile
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
import torch
from studies import Person, stimuli

from creativelib.directions import NegativeCluster
from creativelib.labelling import Labelling
from creativelib.labels import Labels, fingerprint
from creativelib.storage import data_folder
from creativelib.study.server.app import make_app
from creativelib.study.server.folder import Settings, Study
from creativelib.typicality import TypicalityModel

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
GROWING = {"append", "extend", "insert", "update", "add", "setdefault"}


def code_cells(path: Path) -> list[str]:
    cells = nbformat.read(path, as_version=4).cells
    return ["\n".join(line for line in cell.source.splitlines() if line[:1] not in "%!") if cell.cell_type == "code" else ""
            for cell in cells]  # fmt: skip


def assigned(tree: ast.AST) -> set[str]:
    """Names that get a new value in the tree, arguments of functions included; not by ``+=``."""
    augmented = {id(node.target) for node in ast.walk(tree) if isinstance(node, ast.AugAssign)}
    stored = (node for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store))
    return {node.id for node in stored if id(node) not in augmented} | {
        node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)
    }


def grown(tree: ast.AST, growers: dict[str, set[str]]) -> set[str]:
    """Names that ``+=``, ``.append`` and the like, or a call of one of ``growers`` make larger in the tree."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in GROWING:
            owner = node.func.value
            names |= {owner.id} if isinstance(owner, ast.Name) else set()
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            names |= growers.get(node.func.id, set())
    return names


def unguarded(tree: ast.Module) -> ast.Module:
    """Without definitions, and without what stands under a condition: ``if not rounds`` runs once."""
    kept = [node for node in tree.body if not isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.If))]
    return ast.Module(kept, [])


def grows_when_run_again(cells: list[str]) -> list[tuple[int, set[str]]]:
    """Cells (by index) that make something of another cell larger each time they run, and what."""
    growers, found = {}, []
    trees = [ast.parse(cell) for cell in cells]
    for _ in range(3):  # functions that call functions
        for node in (node for tree in trees for node in tree.body if isinstance(node, ast.FunctionDef)):
            growers[node.name] = grown(node, growers) - assigned(node)
    for index, tree in enumerate(trees):
        names = grown(unguarded(tree), growers) - assigned(unguarded(tree))
        found += [(index, names)] if names else []
    return found


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_cell_adds_to_what_another_made(path):
    assert grows_when_run_again(code_cells(path)) == []


@pytest.mark.parametrize(
    ("cells", "found"),
    [
        (["rounds = []\ndef begin(x):\n    rounds.append(x)", "begin(1)"], [(1, {"rounds"})]),
        (["rounds = []\ndef begin(x):\n    rounds.append(x)", "if not rounds:\n    begin(1)"], []),
        (["rounds = []\ndef begin(x):\n    rounds.append(x)\ndef again():\n    begin(2)", "again()"], [(1, {"rounds"})]),
        (["n = 0", "n += 1"], [(1, {"n"})]),
        (["n = 0\nn += 1", "rows = []\nfor k in range(3):\n    rows.append(k)"], []),
    ],
)
def test_the_search_for_such_cells_finds_them(cells, found):
    assert grows_when_run_again(cells) == found


def test_the_first_round_is_begun_once(small_generator, tmp_path):
    """Notebook 05 with a miniature model: the cell that shows the first round, run twice, and then its followers."""
    cells = code_cells(next(path for path in NOTEBOOKS if path.stem.startswith("05")))
    (define,) = (index for index, cell in enumerate(cells) if "def begin_round" in cell)
    embeddings = torch.randn(40, small_generator.embedding_dim, generator=torch.Generator().manual_seed(0))
    searched = []

    def search(clusters=()):
        searched.append(list(clusters))
        return SimpleNamespace(sample=lambda seeds: embeddings[: len(seeds)] + len(searched))

    names = {"Path": Path, "tempfile": tempfile, "np": np, "partial": partial, "generator": small_generator, "search": search}
    names |= {"Labels": Labels, "Labelling": Labelling, "fingerprint": fingerprint, "NegativeCluster": NegativeCluster}
    names |= {"data_folder": data_folder}
    names |= {"typicality": TypicalityModel.fit(embeddings, dims=5), "embeddings": embeddings[:8], "shown": list(range(8))}
    names |= {"LABELS": None, "SUBJECT": "handbag", "STEPS": 60, "DRAWN": None, "replayed": False}
    later = [index for index in range(define, len(cells)) if cells[index]][:4]  # two of definitions, two of rounds
    for index in later:
        for _ in range(2):
            exec(compile(cells[index], f"cell {index}", "exec"), names)
    first, second = names["rounds"]
    assert first["clusters"] and searched == [first["clusters"]]
    assert torch.equal(first["embeddings"], embeddings[:8]) and not torch.equal(second["embeddings"], first["embeddings"])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_creativelib_comes_first(path):
    first = next(cell for cell in code_cells(path) if cell).splitlines()[0]
    assert first.startswith(("import creativelib", "from creativelib")), first


@pytest.mark.parametrize("subject", ["alien", "chair"])
def test_notebook_06_reads_a_class_by_the_folder_of_its_study(tmp_path, subject, capsys):
    """Pictures, ratings, subject and the rule of whom to leave out are the study's."""
    study = Study.new(tmp_path / "class", stimuli(runs=4, outsiders=1), Settings(subject, "Ann", pairs=0, quickest=50))
    for _ in range(3):
        Person(make_app(study), study).finish()
    Person(make_app(study), study).finish(5)
    study.close()
    wanted = ("import creativelib", "import figures", "STUDY = None", "Study(STUDY", "left_out = exclusions")
    wanted += ("rise_and_fall(ratings)",)
    path = ROOT / "notebooks" / "06_wundt_curve_study.ipynb"
    cells = [cell for cell in code_cells(path) if any(word in cell for word in wanted)]
    names = {}
    for cell in cells:
        exec(cell.replace("STUDY = None", f"STUDY = {str(tmp_path / 'class')!r}"), names)
    said = capsys.readouterr().out
    assert names["SUBJECT"] == subject and names["searches"] is None and len(names["left_out"]) == 1
    assert "3 raters, 36 ratings; left out: 1" in said and "less than 50 ms" in said
    assert names["found"].verdict and names["found"].rise.raters == 3 and "nobody left out: rise" in said
    names["study"].close()
