"""Studies stay out of the wheel and of the tests, and what they import is there."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
ROOT, FOLDER = TESTS.parent, TESTS / "studies"
STUDIES = {path.stem: path for path in FOLDER.glob("*.py")}
OURS = ("inverse_score", "operators", "recipes")


def imports(path):
    """(module, name or None) of every import of a file, relative ones left out."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from ((node.module, alias.name) for alias in node.names)


def defined(path):
    """Names that the top level of a file defines."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {name.id for target in targets for name in ast.walk(target)
                      if isinstance(name, ast.Name)}  # fmt: skip
    return found


def test_no_file_of_the_wheel_and_no_test_imports_a_study():
    wheel = [path for folder in OURS for path in (ROOT / folder).rglob("*.py")]
    tests = [path for path in TESTS.rglob("*.py") if path.parent != FOLDER]
    assert len(wheel) > 100
    for path in wheel + tests:
        found = {module for module, _ in imports(path)}
        studies = {name for name in found if name.split(".")[0] in STUDIES or "studies" in name}
        assert not studies - set(OURS), f"{path.relative_to(ROOT)} imports {sorted(studies)}"


def test_no_study_hides_a_package_that_it_could_mean():
    assert not set(STUDIES) & {*OURS, *sys.stdlib_module_names, "coverage", "numpy", "torch"}


@pytest.mark.parametrize("name", sorted(STUDIES))
def test_what_a_study_imports_is_there(name):
    for module, attribute in imports(STUDIES[name]):
        if module in STUDIES:
            assert attribute is None or attribute in defined(STUDIES[module]), (module, attribute)
        elif module.split(".")[0] in OURS and attribute is not None:
            there = hasattr(importlib.import_module(module), attribute)
            assert there or importlib.util.find_spec(f"{module}.{attribute}"), (module, attribute)


def test_a_table_of_samplers_replaces_its_own_section_and_keeps_the_others(tmp_path):
    """The study runs by the command that README names, and unknown tables are named."""
    mark = "<!-- python tests/studies/samplers.py --tables {} -->"
    before = {"quality": "q1", "corrector": "c1", "noise": "n1"}
    out = tmp_path / "samplers.md"
    out.write_text("\n".join(f"{mark.format(name)}\n{body}\n" for name, body in before.items()))
    command = [sys.executable, str(FOLDER / "samplers.py"), "--out", str(out), "--tables"]
    done = subprocess.run([*command, "corrector,speed"], capture_output=True, check=False)
    assert b"unknown tables speed; known: quality, " in done.stderr
    subprocess.run([*command, "noise"], capture_output=True, check=True)
    text = out.read_text()
    places = [text.index(part) for part in ("q1", "c1", mark.format("noise"), "Noise")]
    assert places == sorted(places)
    assert "n1" not in text
