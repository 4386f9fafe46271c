"""`recipes.run`: reconstruction of files from Python, step by step or in one call."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import numpy as np
import pytest
from command_line import tiny_prior

from inverse_score.errors import BadRequest
from inverse_score.io.runs.results import Unit
from inverse_score.testing.scans import fastmri_file
from recipes.run import Request, dry_run, make_plan, run
from recipes.run.units import batches, compute

PACKAGE = Path(__file__).parents[2] / "recipes/run"

MASK = np.isin(np.arange(32), [0, 4, 8, 12, 13, 14, 15, 16, 17, 18, 19, 20, 24, 28])


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("asked")
    prior = tiny_prior(folder / "tiny.safetensors")
    scan = fastmri_file(folder / "scan.h5", mask=MASK)
    return {"scans": [scan], "prior": str(prior), "samples": 5, "steps": 2, "baseline": "none",
            "maps": "low-resolution", "pages": False}  # fmt: skip


def test_a_scan_is_reconstructed_in_one_call_that_tells_how_far_it_is(asked, tmp_path):
    events = []
    summary = run(Request(**asked, out=tmp_path / "out"), progress=events.append)
    assert summary["status"] == "complete"
    assert (tmp_path / "out/scan.h5").exists()
    assert str(events[0]).startswith("1 scan(s), 4 units; prior tiny")
    units = [event for event in events if event.kind == "unit"]
    assert [str(event) for event in units] == [f"{k}/4 units" for k in (1, 2, 3, 4)]


@pytest.mark.parametrize("couple_z", [None, 0.1])
def test_a_unit_is_the_same_whatever_was_computed_before_it(asked, couple_z):
    request = Request(**asked, couple_z=couple_z)
    units = [Unit(0, k, chunk) for k in range(2) for chunk in range(2)]
    one, other = make_plan(request), make_plan(request)
    results = {}
    for plan, order in ((one, units), (other, units[::-1])):
        for batch in batches(plan, order):
            for found in compute(plan, batch):
                results.setdefault(found.unit, []).append(found)
    assert len(results) == 4
    for first, second in results.values():
        assert first.facts == second.facts
        assert first.arrays.keys() == second.arrays.keys()
        for name in first.arrays:
            np.testing.assert_array_equal(first.arrays[name], second.arrays[name])
        assert set(first.seconds) == {"reading", "maps", "network", "rest"}


def test_seconds_of_coupled_slices_count_the_solve_once(asked):
    plan = make_plan(Request(**asked, couple_z=0.1))
    (batch,) = batches(plan, [Unit(0, 0, 0), Unit(0, 1, 0)])
    import time

    began = time.perf_counter()
    seconds = [sum(found.seconds.values()) for found in compute(plan, batch)]
    assert sum(seconds) <= time.perf_counter() - began


def test_a_plan_computes_nothing_and_makes_no_folder(asked, tmp_path):
    plan = make_plan(Request(**asked, out=tmp_path / "out"))
    assert (len(plan.tasks), plan.chunks, plan.budget) == (1, 2, "fast")
    assert dry_run(plan.request)["refused"] == []
    assert not (tmp_path / "out").exists()


def test_a_dry_run_refuses_what_the_solver_would(asked, tmp_path):
    found = dry_run(Request(**asked, out=tmp_path / "out", options={"sampler": "eulerr"}))
    assert found["refused"][0].startswith("unknown sampler 'eulerr'")


def test_a_dry_run_of_pictures_is_refused():
    with pytest.raises(BadRequest, match="--dry-run does nothing for --operator colorize"):
        dry_run(Request(operator="colorize", scans=["a.png"]))


def imports(node):
    """Names of modules beside it that a file imports, also in functions; not for types alone."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        if isinstance(child, ast.ImportFrom) and child.level == 1 and child.module:
            yield child.module
        yield from imports(child)


def test_no_files_of_the_run_import_each_other():
    files = [path for path in PACKAGE.glob("*.py") if path.name != "__init__.py"]
    graph = {path.stem: set(imports(ast.parse(path.read_text()))) for path in files}
    assert "units" in graph["driver"]
    order = list(TopologicalSorter(graph).static_order())
    assert order.index("options") < order.index("plan") < order.index("driver")
