"""Draw the folders of the package and their imports, as a Mermaid flowchart.

    python docs/draw_folders.py     # updates the picture in docs/architecture.md

An arrow from A to B means that a file of A imports one of B. Arrows that follow from
others, as A -> C does from A -> B -> C, are left out.
"""

import ast
import graphlib
from collections.abc import Iterator, Mapping
from pathlib import Path

PACKAGE = "lungseg_jax"
ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "architecture.md"
START, END = "<!-- draw_folders.py: start -->\n", "<!-- draw_folders.py: end -->\n"

Graph = dict[str, set[str]]


def folder_graph(package: Path = ROOT / PACKAGE) -> Graph:
    """Return the folders that each folder imports; a file at the root counts as one.

    The two doors, main.py and __main__.py, count together as "main". The root's
    __init__.py is left out: it imports nothing until a name is used.
    """
    graph: Graph = {}
    for file in sorted(package.rglob("*.py")):
        name = _folder(file.relative_to(package).with_suffix("").parts)
        if name == "__init__":
            continue
        imported = {_folder(parts) for parts in _imports(file)}
        graph.setdefault(name, set()).update(imported - {name})
    return graph


def reduce_transitively(graph: Mapping[str, set[str]]) -> Graph:
    """Leave out the arrows of an acyclic graph that follow from others.

    Raises:
      ValueError: the graph has a cycle.
    """
    reachable: Graph = {}

    def visit(node: str, path: tuple[str, ...]) -> set[str]:
        if node in path:
            raise ValueError(f"a cycle: {' -> '.join([*path, node])}")
        if node not in reachable:
            below = [visit(target, (*path, node)) for target in graph[node]]
            reachable[node] = graph[node].union(*below)
        return reachable[node]

    for node in graph:
        visit(node, ())
    return {
        node: {
            target
            for target in targets
            if not any(target in reachable[other] for other in targets)
        }
        for node, targets in graph.items()
    }


def flowchart(graph: Mapping[str, set[str]]) -> str:
    """Return an acyclic graph as Mermaid source, from top to bottom, in a fenced block."""
    sorter = graphlib.TopologicalSorter({node: sorted(graph[node]) for node in graph})
    order = [*sorter.static_order()][::-1]
    arrows = [
        f"    {node} --> {target}"
        for node in order
        for target in sorted(graph[node], key=order.index)
    ]
    return "\n".join(["```mermaid", "flowchart TD", *arrows, "```", ""])


def with_picture(page: str) -> str:
    """Return a page with the picture between its markers replaced."""
    before, rest = page.split(START)
    _, after = rest.split(END)
    picture = flowchart(reduce_transitively(folder_graph()))
    return f"{before}{START}\n{picture}\n{END}{after}"


def _folder(parts: tuple[str, ...]) -> str:
    return "main" if parts[0] == "__main__" else parts[0]


def _imports(file: Path) -> Iterator[tuple[str, ...]]:
    """The modules of the package that a file imports, as parts below the package."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            first, *rest = name.split(".")
            if first == PACKAGE and rest:
                yield tuple(rest)


if __name__ == "__main__":
    PAGE.write_text(with_picture(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
