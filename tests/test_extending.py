"""Each page of .github/extending works as written, in a copy of the packages.

A page names a file in code quotes on a line that ends with a colon. The block below that line is
the file, or, a ```diff, what changes in it; a ```sh block is run where the project lies.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = {path.stem: path for path in (ROOT / ".github/extending").glob("*.md")}
COPIED = ("operators", "inverse_score", "recipes", "tests/helpers", "tests/inverse_score",
          "tests/operators")  # fmt: skip
BLOCK = re.compile(r"^(?:`([^`\n]+)`[^\n]*:\n\n)?```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def project(folder: Path) -> Path:
    """A copy of what the pages touch, without the weights; compiled files keep their dates."""
    for name in COPIED:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("*.safetensors"))
    for name in ("pyproject.toml", "tests/conftest.py"):
        shutil.copy2(ROOT / name, folder / name)
    return folder


def edited(text: str, diff: str) -> str:
    """text with the old lines of a diff, which occur once, replaced by its new lines."""
    lines = diff.splitlines(keepends=True)
    old = "".join(line[1:] for line in lines if line[0] in " -")
    new = "".join(line[1:] for line in lines if line[0] in " +")
    assert text.count(old) == 1, f"{text.count(old)} times in the file:\n{old}"
    return text.replace(old, new)


def run(script: str, folder: Path) -> None:
    """A page's commands, with this Python as `python`."""
    tools = folder / ".tools"
    tools.mkdir(exist_ok=True)
    for name, rest in (("python", ""), ("inverse-score", " -m inverse_score")):
        (tools / name).write_text(f'#!/bin/sh\nexec "{sys.executable}"{rest} "$@"\n')
        (tools / name).chmod(0o755)
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1",
                   "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}  # fmt: skip
    # xdist's own: the page's pytest is not a worker of this one.
    environment = {k: v for k, v in environment.items() if not k.startswith("PYTEST_")}
    done = subprocess.run(["sh", "-ec", script], cwd=folder, env=environment, text=True,
                          capture_output=True, check=False)  # fmt: skip
    assert done.returncode == 0, f"{script}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"


@pytest.mark.parametrize("name", ["format", "method", "operator", "prior"])
def test_an_extension_made_from_its_page_alone_passes_the_page_s_own_check(name, tmp_path):
    folder, kinds = project(tmp_path), []
    for file, kind, body in BLOCK.findall(PAGES[name].read_text(encoding="utf-8")):
        kinds.append(kind)
        if kind == "sh":
            run(body, folder)
            continue
        path = folder / file
        assert file, f"a {kind} block of {name}.md names no file:\n{body}"
        assert path.exists() == (kind == "diff"), f"{file}: new files in full, others as a diff"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(edited(path.read_text(), body) if kind == "diff" else body)
    assert kinds.count("sh") >= 1
    assert len(kinds) >= 3


def test_a_page_whose_diff_no_longer_fits_is_noticed():
    assert edited("a\nb\nc\n", " b\n+d\n") == "a\nb\nd\nc\n"
    with pytest.raises(AssertionError, match="0 times"):
        edited("a\nb\n", "-e\n+f\n")
    with pytest.raises(AssertionError, match="2 times"):
        edited("b\nb\n", "-b\n+f\n")
