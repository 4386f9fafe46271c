"""Files that import each other, over the three packages: none but operator overloading."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("operators", "inverse_score", "recipes")

# A @ B and a * A are methods of what they make operators of.
OVERLOADING = {"operators.algebra", "operators.linear"}


def files(packages=PACKAGES, root=ROOT) -> dict[str, Path]:
    """Module name -> file, packages by their own name."""
    found = {}
    for package in packages:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(module: str, path: Path, known: dict[str, Path]) -> set[str]:
    """Modules that the file imports anywhere in it, for types or in a function included."""
    here = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) + 1 - node.level] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            inside = {f"{name}.{alias.name}" for alias in node.names}
            found |= {full if full in known else name for full in inside}
    return (found & set(known)) - {module}


def circles(graph: dict[str, set[str]]) -> list[set[str]]:
    """Strongly connected components of more than one module (Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[set[str]] = []

    def visit(module: str) -> None:
        index[module] = low[module] = len(index)
        stack.append(module)
        for other in sorted(graph[module]):
            if other not in index:
                visit(other)
                low[module] = min(low[module], low[other])
            elif other in stack:
                low[module] = min(low[module], index[other])
        if low[module] == index[module]:
            part = set(_popped(stack, module))
            if len(part) > 1:
                found.append(part)

    for module in graph:
        if module not in index:
            visit(module)
    return found


def _popped(stack: list[str], module: str) -> Iterator[str]:
    while True:
        yield (top := stack.pop())
        if top == module:
            return


def test_no_files_import_each_other_but_operator_overloading():
    known = files()
    found = circles({module: imports(module, path, known) for module, path in known.items()})
    assert found == [OVERLOADING]


def test_a_circle_is_found_wherever_the_import_stands(tmp_path):
    """Three files in a ring: at the top, in a function and for types; a fourth beside them."""
    package = tmp_path / "ring"
    package.mkdir()
    (package / "__init__.py").write_text("from .a import f\n")
    (package / "a.py").write_text("from . import b\nf = b\n")
    (package / "b.py").write_text("def g():\n    from ring.c import h\n    return h\n")
    (package / "c.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .a import f\n"
    )
    (package / "d.py").write_text("import ring.a\n")
    known = files(("ring",), tmp_path)
    found = circles({module: imports(module, path, known) for module, path in known.items()})
    assert found == [{"ring.a", "ring.b", "ring.c"}]
