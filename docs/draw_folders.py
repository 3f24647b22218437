"""Draw the folders of the package and their imports.

    python docs/draw_folders.py     # writes docs/pictures/folders.svg

An arrow from A to B means that a file of A imports one of B. Arrows that follow from
others, as A -> C does from A -> B -> C, are left out.
"""

import ast
import graphlib
from collections.abc import Iterator, Mapping
from pathlib import Path

PACKAGE = "lungseg_jax"
ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "pictures" / "folders.svg"

WIDTH, HEIGHT = 140, 34  # of a box, px
ACROSS, DOWN = 160, 62  # from box to box
HEAD = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}">
<style>
text {{ font: 15px sans-serif; text-anchor: middle; fill: #1a237e; }}
rect {{ fill: #e8eaf6; stroke: #3f51b5; rx: 6px; }}
path {{ stroke: #7986cb; stroke-width: 1.5; fill: none; }}
</style>
<marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7"
 orient="auto"><path d="M1 1L7 4L1 7"/></marker>"""

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


def rows_of(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Return the folders in rows, each below everything that imports it."""
    order = [*graphlib.TopologicalSorter(graph).static_order()][::-1]
    depth = dict.fromkeys(order, 0)
    for node in order:
        for target in graph[node]:
            depth[target] = max(depth[target], depth[node] + 1)
    count = max(depth.values()) + 1
    return [sorted(n for n in graph if depth[n] == row) for row in range(count)]


def svg(graph: Mapping[str, set[str]]) -> str:
    """Return an acyclic graph as an SVG picture, from top to bottom."""
    rows = rows_of(graph)
    width = ACROSS * max(map(len, rows))
    place = {
        name: (width // 2 + ACROSS * (2 * i - len(row) + 1) // 2, DOWN * k + DOWN // 2)
        for k, row in enumerate(rows)
        for i, name in enumerate(row)
    }
    lines, boxes = [], []
    for name, (x, y) in place.items():
        for target in sorted(graph[name]):
            to_x, to_y = place[target]
            start, end = y + HEIGHT // 2, to_y - HEIGHT // 2 - 2
            bend = to_y - DOWN + HEIGHT // 2  # straight down, beside boxes between them
            lines.append(
                f'<path d="M{x} {start}V{bend}L{to_x} {end}" marker-end="url(#arrow)"/>'
            )
        left, top = x - WIDTH // 2, y - HEIGHT // 2
        boxes.append(f'<rect x="{left}" y="{top}" width="{WIDTH}" height="{HEIGHT}"/>')
        boxes.append(f'<text x="{x}" y="{y + 5}">{name}</text>')
    size = f"{width} {DOWN * len(rows)}"
    return "\n".join([HEAD.format(size=size), *lines, *boxes, "</svg>", ""])


def picture() -> str:
    """Return the picture of the package."""
    return svg(reduce_transitively(folder_graph()))


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
    PICTURE.write_text(picture(), encoding="utf-8")
