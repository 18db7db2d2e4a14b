"""Prints the import graph of core: what each module imports of it, and what breaks the order of its rooms.

Usage: python tools/import_graph.py [--tree DIR]

Every import counts, also one that stands under TYPE_CHECKING or in a function. Ends with 1 for an import upwards, a
circle of modules or of rooms, or more than FLAT_FILES files flat in core/.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
CORE = "dpdau_assets.core"
GROUND = "ground floor"
ORDER = (GROUND, "privacy", "sketches", "ports", "budget", "state", "erasure", "publication", "reporting")
"""Lowest first: a room imports from itself and from the rooms before it."""
FLAT_FILES = 16

Graph = Mapping[str, frozenset[str]]


def graph_of(tree: Path) -> Graph:
    """What each module of core imports of core, by names below core; `__init__` stands for its folder."""
    core = tree / CORE.replace(".", "/")
    paths = {name_of(path.relative_to(core)): path for path in sorted(core.rglob("*.py"))}
    return {name: frozenset(imports_of(path, set(paths))) - {name} for name, path in paths.items()}


def name_of(path: Path) -> str:
    """`privacy.schedule` of privacy/schedule.py, `sketches` of sketches/__init__.py, and "" of core's own."""
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path, known: set[str]) -> Iterator[str]:
    """Each module of core that this file imports, or imports something from."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            names = []
        yield from (module for name in names if (module := module_of(name, known)) is not None)


def module_of(name: str, known: set[str]) -> str | None:
    """The module of core that a dotted name lies in: the longest of its beginnings that is one."""
    if name != CORE and not name.startswith(f"{CORE}."):
        return None
    inside = name.removeprefix(CORE).lstrip(".")
    while inside and inside not in known:
        inside = inside.rpartition(".")[0]
    return inside or None


def room_of(module: str, rooms: frozenset[str]) -> str:
    """The folder of core that the module lies in; the ground floor is what lies flat."""
    head = module.partition(".")[0]
    return head if head in rooms else GROUND


def problems(graph: Graph) -> list[str]:
    """A sentence for everything that breaks the order."""
    rooms = rooms_of(graph)
    unknown = sorted(rooms - set(ORDER))
    broken = [f"core/{room} has no place in ORDER." for room in unknown]
    if unknown:
        return broken
    for module, imported in graph.items():
        here = ORDER.index(room_of(module, rooms))
        broken += [
            f"{module} imports {name}, which is above it."
            for name in sorted(imported)
            if ORDER.index(room_of(name, rooms)) > here
        ]
    broken += [f"These import one another: {' -> '.join(circle)}." for circle in circles(graph)]
    flat = [module for module in graph if module and "." not in module and module not in rooms]
    if len(flat) > FLAT_FILES:
        broken.append(f"{len(flat)} files lie flat in core/; at most {FLAT_FILES} may.")
    return broken


def rooms_of(graph: Graph) -> frozenset[str]:
    """The folders of core."""
    return frozenset(module.partition(".")[0] for module in graph if "." in module)


def circles(graph: Graph) -> list[tuple[str, ...]]:
    """One circle of modules, if there is any: the first that is met."""
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        return [tuple(error.args[1])]
    return []


def main(arguments: list[str] | None = None) -> int:
    """Print the graph, room by room, and what is wrong with it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--tree", type=Path, default=PROJECT, help="a checkout; this one if it is left out")
    graph = graph_of(parser.parse_args(arguments).tree)
    rooms = rooms_of(graph)
    for room in (*ORDER, *sorted(rooms - set(ORDER))):
        modules = [module for module in graph if module and room_of(module, rooms) == room]
        if modules:
            print(f"\n{room}: {len(modules)} modules")
        for module in modules:
            print(f"  {module} <- {', '.join(sorted(graph[module])) or 'nothing'}")
    wrong = problems(graph)
    between = {
        (room_of(module, rooms), room_of(name, rooms)) for module, imported in graph.items() for name in imported
    }
    print(f"\n{len(graph)} modules, {sum(map(len, graph.values()))} imports,", end=" ")
    print(f"{sum(here != there for here, there in between)} between rooms; {len(wrong)} against the order.")
    print(*wrong, sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
