"""How the package hangs together: nothing knows what is built on it, not even for a type."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

from creativelib.pocket.evaluate_model import tree_size

LONGEST = 400  # lines: a file of more holds more than one concept
PACKAGE = Path(__file__).resolve().parents[1] / "creativelib"


def test_no_module_imports_in_a_circle():
    """Imports within functions count too; a circle raises CycleError, which names it."""
    paths = {
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
        for path in PACKAGE.rglob("*.py")
    }
    imports = {name: set() for name in paths}
    for name, path in paths.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imports[name] |= {one.name for one in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:  # a module's name, or a module of a package
                whole = {f"{node.module}.{one.name}" for one in node.names}
                imports[name] |= whole & paths.keys() or {node.module}
    assert len(paths) > 50 and "creativelib.directions" not in imports["creativelib.typicality"]
    order = list(TopologicalSorter({name: found & paths.keys() - {name} for name, found in imports.items()}).static_order())
    assert order.index("creativelib.directions") < order.index("creativelib.run")


def test_no_module_holds_more_than_one_can_keep_in_mind():
    lengths = {path: len(path.read_text("utf-8").splitlines()) for path in PACKAGE.rglob("*.py")}
    assert {str(path): length for path, length in lengths.items() if length > LONGEST} == {}


def test_what_git_keeps_stays_below_60_mib():
    """Every clone has it for ever, and machines that tests are sent to take no more."""
    assert (tree_size(PACKAGE) or 0) < 60  # None where there is no repository
