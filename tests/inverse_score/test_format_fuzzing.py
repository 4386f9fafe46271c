"""Mutated files are read or refused in one sentence; the long run is tests/studies/fuzz.py."""

import re
from pathlib import Path

import pytest

from inverse_score.testing.fuzz import Target, attempt, mutate, run
from inverse_score.testing.fuzz_targets import make_targets

FILES = 6


def test_a_mutation_is_a_function_of_its_seed():
    content = bytes(range(256)) * 4
    assert mutate(content, (0, 1)) == mutate(content, (0, 1))
    assert len({mutate(content, (0, k)) for k in range(50)}) == 50


def test_mutated_files_of_every_format_are_read_or_refused(tmp_path):
    pytest.importorskip("nibabel")
    pytest.importorskip("twixtools")
    targets = make_targets(tmp_path)
    assert len(targets) == 19
    (tmp_path / "work").mkdir()
    for index, target in enumerate(targets):
        assert attempt(target, target.content, tmp_path / "work") == "read", target.name
        for number in range(FILES):
            changed = mutate(target.content, (7, index, number))
            assert attempt(target, changed, tmp_path / "work") in ("read", "refused"), target.name


def test_failures_are_seen_as_what_they_are(tmp_path):
    """A reader that raises, dies or says too much is counted, and the rest goes on."""
    import os

    def die(path):
        os._exit(9)

    def fail(path):
        raise KeyError("unforeseen")

    targets = [
        Target("fails", b"abc", "a", fail),
        Target("dies", b"abc", "a", die),
        Target("reads", b"abc", "a", lambda path: None),
    ]
    outcomes = [outcome for _, outcome, _, _ in run(targets, 6)]
    assert [o.split(":")[0] for o in outcomes] == ["KeyError", "crash", "read"] * 2


def test_the_table_of_hostile_inputs_names_tests_that_exist():
    tests = Path(__file__).parents[1]
    table = (tests / "studies/results/hostile.md").read_text()
    named = set(re.findall(r"\btest_\w+(?!\w*\.py)\b", table.split("|---|", 1)[1]))
    there = {
        name
        for path in tests.rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)
    }
    assert len(named) > 50
    assert sorted(named - there) == []
