"""The pages for people: links lead somewhere, names of files are files, API pages build."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [
    path
    for name in ("README.md", ".github", "inverse_score", "examples", "tests/studies/results")
    for path in ([ROOT / name] if name.endswith(".md") else sorted((ROOT / name).rglob("*.md")))
]
LINK = re.compile(r"\]\(([^)\s]+)\)")
# Files in code quotes, from the root: `inverse_score/solver.py`.
FILE = re.compile(r"`((?:operators|inverse_score|recipes|tests|examples|\.ci|\.github)/[\w./-]+)`")
GUIDES = [".github/CONTRIBUTING.md", "inverse_score/ARCHITECTURE.md"]


def anchors(page: Path) -> set[str]:
    """The names that headings have in links."""
    heads = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", head.lower()) for head in heads]
    return {head.strip().replace(" ", "-") for head in plain}


def broken(page: Path) -> list[str]:
    """Links of a page within the project that lead nowhere."""
    found = []
    prose = re.sub(r"(?ms)^```.*?^```$", "", page.read_text(encoding="utf-8"))
    for link in LINK.findall(prose):
        name, _, anchor = link.partition("#")
        target = page if not name else (page.parent / name).resolve()
        inside = not re.match(r"[a-z]+:", link)
        if inside and not (target.exists() and (not anchor or anchor in anchors(target))):
            found.append(link)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_within_the_project_leads_somewhere(page):
    assert broken(page) == []


def test_a_link_that_leads_nowhere_is_noticed(tmp_path):
    page = tmp_path / "a.md"
    page.write_text("# One thing\n[a](a.md#one-thing) [b](b.md) [c](#two) [d](https://x.org)\n")
    assert broken(page) == ["b.md", "#two"]


@pytest.mark.parametrize("name", GUIDES)
def test_every_file_that_a_guide_names_is_there(name):
    named = set(FILE.findall((ROOT / name).read_text(encoding="utf-8")))
    assert len(named) > 5
    absent = [p for p in sorted(named) if "NAME" not in p and not (ROOT / p).exists()]
    assert absent == []


def test_api_pages_build_without_a_warning_and_show_formulas_as_written(tmp_path):
    pytest.importorskip("pdoc", reason="the extra `docs` is not installed")
    command = [sys.executable, str(ROOT / ".github/api/build.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "Warning" not in done.stderr
    page = (tmp_path / "operators/volume.html").read_text(encoding="utf-8")
    assert '<pre class="docstring">' in page
    assert (tmp_path / "recipes/run/driver.html").exists()
