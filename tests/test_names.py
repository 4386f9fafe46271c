"""One thing, one name: public classes are unique over the three packages."""

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[1]


def homes(kind: type) -> dict[str, list[str]]:
    """name -> files whose top level defines it."""
    found = defaultdict(list)
    for folder in ("operators", "inverse_score", "recipes"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, kind) and not node.name.startswith("_"):
                    found[node.name].append(str(path.relative_to(ROOT)))
    return found


def test_no_two_public_classes_have_one_name():
    found = homes(ast.ClassDef)
    assert len(found) > 200
    assert {name: files for name, files in found.items() if len(files) > 1} == {}
