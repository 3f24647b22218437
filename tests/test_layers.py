"""The folders and the places of libraries are those of docs/architecture.md.

A folder imports only folders of a lower rank, and files in a folder do not import each
other in a circle.
"""

import ast
import functools
import graphlib
import re
from pathlib import Path

import pytest

import lungseg_jax

ROOT = Path(lungseg_jax.__file__).parent
PAGE = ROOT.parent / "docs/architecture.md"


def table(heading):
    """The rows of the table of the page with these first words, as lists of cells."""
    text = PAGE.read_text(encoding="utf-8").partition(f"\n| {heading} |")[2]
    rows = text.partition("\n\n")[0].splitlines()[2:]
    return [row.strip("| ").split(" | ") for row in rows]


def names(cell):
    """The names in backticks of a cell."""
    return re.findall("`(.*?)`", cell)


RANK = {name: int(rank) for rank, cell, _ in table("rank") for name in names(cell)}
RANK["__main__"] = RANK["main"]
PLACES = {  # of libraries: the modules and folders that import them
    name: {*names(places)}
    for libraries, places in table("library")
    for name in names(libraries)
}
FORBIDDEN = ["tensorflow", "pickle", "dill", "cloudpickle", "shelve", "marshal"]


def modules():
    """Dotted name below lungseg_jax -> file; a package's __init__ counts as it."""
    files = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return files


FILES = modules()


def folder_of(name):
    """The folder of a module; files at the root count as folders of their own."""
    return name.split(".")[0]


def imports(tree):
    """Yield what a file imports, dotted: `from a.b import c` gives a.b and a.b.c."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "a relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def modules_imported(tree):
    """The modules of the package that a file imports; packages without code aside."""
    prefix = "lungseg_jax."
    names = {name.removeprefix(prefix) for name in imports(tree) if prefix in name}
    return {name for name in names & FILES.keys() if not is_empty_package(name)}


def is_empty_package(name):
    return FILES[name].name == "__init__.py" and name != "models"


@functools.cache
def parse(name):
    return ast.parse(FILES[name].read_text())


@functools.cache
def libraries(name):
    return {imported.split(".")[0] for imported in imports(parse(name))}


def test_every_folder_has_a_rank():
    at_root = {path.name for path in ROOT.iterdir() if path.suffix == ".py"}
    pipelines = {"cross_validation.py", "experiment.py", "prediction.py"}
    assert at_root == {"__init__.py", "__main__.py", "main.py"} | pipelines
    assert (ROOT / "py.typed").exists()
    assert {folder_of(name) for name in FILES if name} == RANK.keys()


@pytest.mark.parametrize("name", [name for name in FILES if name])
def test_imports_point_down(name):
    assert not imports_that_point_up(name, parse(name))


def imports_that_point_up(name, tree):
    folder = folder_of(name)
    return {
        imported
        for imported in modules_imported(tree)
        if folder_of(imported) != folder and RANK[folder_of(imported)] >= RANK[folder]
    }


def test_modules_do_not_import_in_circles():
    graph = {name: modules_imported(parse(name)) - {name} for name in FILES if name}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError


@pytest.mark.parametrize(
    "name",
    [n for n in FILES if FILES[n].name == "__init__.py" and n not in ("", "models")],
)
def test_packages_hold_only_a_docstring(name):
    (docstring,) = parse(name).body
    assert isinstance(docstring, ast.Expr)


@pytest.mark.parametrize(
    "library,allowed", [*PLACES.items(), *((name, set()) for name in FORBIDDEN)]
)
def test_libraries_have_a_place(library, allowed):
    users = {name for name in FILES if library in libraries(name)}
    assert not {name for name in users if not any(is_in(name, p) for p in allowed)}
    unused = {
        place for place in allowed if not any(is_in(name, place) for name in users)
    }
    assert not unused, f"remove them from {PAGE}"


def is_in(name, place):
    return name == place or name.startswith(f"{place}.")


def test_programs_do_not_depend_on_the_machine_that_lowers_them():
    """Choices by platform ask the devices of a sharding, or `platform_dependent`."""
    users = {name for name in FILES if "default_backend" in FILES[name].read_text()}
    assert users == {"runtime.devices"}  # which asks about this process


def forbidden(tree):
    """Yield (line, what) of everything that no file may contain."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", None)
            if name in ("eval", "exec", "compile", "__import__"):
                yield node.lineno, name
            keywords = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
            if keywords.get("allow_pickle"):
                yield node.lineno, "allow_pickle"
        elif isinstance(node, ast.ExceptHandler):
            types = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            for caught in types:
                last = getattr(caught, "attr", getattr(caught, "id", None))
                # A broad except may clean up or add context, as long as it raises.
                is_raised = isinstance(node.body[-1], ast.Raise)
                is_broad = last in ("Exception", "BaseException")
                if last is None or is_broad and not is_raised:
                    yield node.lineno, f"except {last}"


@pytest.mark.parametrize("name", FILES)
def test_nothing_is_evaluated_unpickled_or_swallowed(name):
    assert not list(forbidden(parse(name))), FILES[name]


# --- the checks detect what they look for ---


@pytest.mark.parametrize(
    "source,expected",
    [
        ("eval('1')", ["eval"]),
        ("exec(text)", ["exec"]),
        ("np.load(f, allow_pickle=True)", ["allow_pickle"]),
        ("np.load(f, allow_pickle=False)", []),
        ("try: f()\nexcept: pass", ["except None"]),
        ("try: f()\nexcept Exception as e: pass", ["except Exception"]),
        ("try: f()\nexcept (OSError, Exception): g()", ["except Exception"]),
        ("try: f()\nexcept Exception as e:\n  raise g from e", []),
        ("try: f()\nexcept BaseException: pass", ["except BaseException"]),
        ("try: f()\nexcept BaseException:\n  g()\n  raise", []),
        ("try: f()\nexcept (OSError, cv2.error): pass", []),
        ("model.eval()", []),
    ],
)
def test_detects_forbidden_code(source, expected):
    assert [what for _, what in forbidden(ast.parse(source))] == expected


@pytest.mark.parametrize(
    "source,expected",
    [
        ("from lungseg_jax.runtime import errors", {"runtime.errors"}),
        ("import lungseg_jax.data.pairs", {"data.pairs"}),
        ("from lungseg_jax.data import dataset as d", {"data.dataset"}),
        ("from lungseg_jax.data.pairs import Slice", {"data.pairs"}),
        ("from lungseg_jax.models.unet import UNet", {"models.unet"}),
        ("from lungseg_jax.models import make_model", {"models"}),
        ("def f():\n  from lungseg_jax import experiment", {"experiment"}),
        ("from jax import config", set()),
    ],
)
def test_detects_imports(source, expected):
    assert modules_imported(ast.parse(source)) == expected


def test_detects_an_import_that_points_up():
    tree = ast.parse(
        "from lungseg_jax.cli import app\nfrom lungseg_jax.data import pairs"
    )
    assert imports_that_point_up("training.loop", tree) == {"cli.app"}
