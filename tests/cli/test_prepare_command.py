"""`inverse-score prepare`: what it lists, makes and refuses."""

import json

import pytest
from typer.testing import CliRunner

from inverse_score.cli import app
from inverse_score.errors import BadInput


def test_without_a_name_it_lists_the_priors():
    done = CliRunner().invoke(app, ["prepare"])
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert lines[:4] == ["body-ct", "brain-mri", "digits", "photo-patches"]
    assert "brats --data DIR" in lines


def test_json_is_what_was_made(monkeypatch, tmp_path):
    made = {"prior": "digits", "files": [{"use": "train"}], "skipped": [], "licences": {}}

    def prepare(name, out, *, cache, report):
        assert (name, out, cache) == ("digits", tmp_path / "d", None)
        report("a line for people")
        return made

    monkeypatch.setattr("recipes.priors.prepare.prepare", prepare)
    done = CliRunner().invoke(app, ["prepare", "digits", "--out", str(tmp_path / "d"), "--json"])
    assert json.loads(done.stdout) == made
    assert "a line for people" in done.stderr


def test_an_unknown_prior_is_bad_input_that_lists_the_known_ones(tmp_path):
    done = CliRunner().invoke(app, ["prepare", "brain", "--out", str(tmp_path / "d")])
    assert isinstance(done.exception, BadInput)
    assert "known: body-ct, brain-mri, digits, photo-patches" in str(done.exception)
    with pytest.raises(StopIteration):
        next(tmp_path.iterdir())
