"""Size of the wheel: lines, files, and how long functions are, docstrings left out.

    python tests/studies/size.py [ROOT]

A function's lines are those of its statements, from the def to the last, less its docstring; what
is nested counts in its own right and in what holds it.
"""

from __future__ import annotations

import ast
import statistics
import sys
from pathlib import Path

PACKAGES = ("operators", "inverse_score", "recipes")


def functions(path: Path) -> list[tuple[int, str]]:
    """(lines, file:name) of every function and method of a file."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if ast.get_docstring(node, clean=False) is not None:
                first = node.body[0]
                lines -= (first.end_lineno or first.lineno) - first.lineno + 1
            found.append((lines, f"{path}:{node.name}"))
    return found


def row(root: Path, names: tuple[str, ...]) -> str:
    """Markdown: files, lines, functions, their median and the longest."""
    files = sorted(path for name in names for path in (root / name).rglob("*.py"))
    lines = sum(len(path.read_text().splitlines()) for path in files)
    longest = max(files, key=lambda path: len(path.read_text().splitlines()))
    sizes = sorted(function for path in files for function in functions(path.relative_to(root)))
    cells = [
        " + ".join(names), len(files), lines, len(sizes),
        f"{statistics.median(size for size, _ in sizes):g}",
        f"{sizes[-1][0]} ({sizes[-1][1]})",
        f"{len(longest.read_text().splitlines())} ({longest.relative_to(root)})",
    ]  # fmt: skip
    return "| " + " | ".join(map(str, cells)) + " |"


def main() -> None:
    import os

    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[2]
    os.chdir(root)
    print("| packages | files | lines | functions | median | longest | longest file |")
    print("|---|---|---|---|---|---|---|")
    for names in (*((name,) for name in PACKAGES), PACKAGES, ("tests",), ("examples",)):
        print(row(Path(), names))


if __name__ == "__main__":
    main()
