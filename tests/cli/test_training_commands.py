"""`train`, `sample`, `likelihood` and `info`: a newcomer's path on a folder of PNGs."""

import json

import numpy as np
import pytest
from skimage.io import imread, imsave
from typer.testing import CliRunner

from inverse_score.cli import app

CONFIG = """
out: {out}
data: {{path: {data}, crop: [8, 8], flip: true}}
network: {{name: unet, widths: [8], blocks: 1, embedding: 16}}
optimizer: {{lr: 1e-3}}
card: {{licence: CC0-1.0, people: 0}}
train: {{steps: 4, batch_size: 2, samples: 4, sample_steps: 3, evaluate_items: 4}}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    (folder / "data").mkdir()
    rng = np.random.default_rng(0)
    for number in range(6):
        pixels = rng.integers(0, 255, (10, 12), dtype=np.uint8)
        imsave(folder / "data" / f"{number}.png", pixels, check_contrast=False)
    config = folder / "config.yaml"
    config.write_text(CONFIG.format(out=folder / "run", data=folder / "data"))
    result = invoke("train", str(config), "--set", "train.steps=3", "--json")
    assert result.exit_code == 0, result.output
    return folder, json.loads(result.stdout)


def invoke(*arguments):
    return CliRunner().invoke(app, list(arguments))


def test_training_ends_with_a_prior_and_prints_where_it_is(run):
    folder, told = run
    assert told["prior"] == str(folder / "run" / "prior.safetensors")
    assert told["steps"] == 3
    assert (folder / "run" / "prior.safetensors").exists()


def test_resuming_with_more_steps_goes_on_and_starting_again_is_refused(run):
    folder, _ = run
    config = str(folder / "config.yaml")
    again = invoke("train", config)
    assert "holds a run already" in str(again.exception)
    more = invoke("train", config, "--resume", "--json")
    assert json.loads(more.stdout)["steps"] == 4


def test_a_mistyped_key_gets_the_nearest_one(run):
    folder, _ = run
    result = invoke("train", str(folder / "config.yaml"), "--set", "train.stepz=3")
    assert "did you mean 'steps'" in str(result.exception)


def test_samples_do_not_depend_on_the_batch(run, tmp_path):
    folder, _ = run
    prior = str(folder / "run" / "prior.safetensors")
    for name, size in (("one", "1"), ("four", "4")):
        result = invoke(
            "sample", "--prior", prior, "--count", "4", "--steps", "3", "--batch-size", size,
            "--out", str(tmp_path / f"{name}.npz"),
        )  # fmt: skip
        assert result.exit_code == 0, result.exception
    one, four = (np.load(tmp_path / f"{name}.npz")["images"] for name in ("one", "four"))
    assert one.shape == (4, 1, 8, 8)
    np.testing.assert_allclose(one, four, atol=1e-4)


def test_samples_are_drawn_as_a_grid_or_as_single_pictures_of_a_size_asked_for(run, tmp_path):
    folder, _ = run
    prior = str(folder / "run" / "prior.safetensors")
    base = ("sample", "--prior", prior, "--count", "3", "--steps", "3", "--size", "9x11")
    assert invoke(*base, "--out", str(tmp_path / "grid.png")).exit_code == 0
    assert imread(tmp_path / "grid.png").shape == (2 * 11 + 2, 2 * 13 + 2)
    assert invoke(*base, "--out", str(tmp_path / "many")).exit_code == 0
    assert [imread(file).shape for file in sorted((tmp_path / "many").iterdir())] == [(9, 11)] * 3
    again = invoke(*base, "--out", str(tmp_path / "grid.png"))
    assert "--overwrite" in str(again.exception)


def test_bits_per_dimension_come_for_each_picture_and_on_average(run):
    folder, _ = run
    prior = str(folder / "run" / "prior.safetensors")
    result = invoke(
        "likelihood", "--prior", prior, str(folder / "data"), "--count", "2", "--crop", "8", "8",
        "--probes", "1", "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.exception
    told = json.loads(result.stdout)
    rows = told["images"]
    assert [row["name"] for row in rows] == ["0.png", "1.png"]
    # Uniform noise has 8 bits a pixel, and no density does better than that on average.
    assert told["bits_per_dim"] == pytest.approx(np.mean([r["bits_per_dim"] for r in rows]))
    assert 7.9 < told["bits_per_dim"] < 12
    assert rows[0]["nats"] == pytest.approx(-rows[0]["bits_per_dim"] * 64 * np.log(2))


def test_info_reads_the_header_of_a_prior_and_of_a_checkpoint(run):
    folder, _ = run
    facts = json.loads(invoke("info", str(folder / "run" / "prior.safetensors"), "--json").stdout)
    assert facts["architecture"]["name"] == "unet"
    assert facts["range"] == [0.5, 0.5]
    assert facts["card"]["licence"] == "CC0-1.0"
    spectrum = facts["card"]["error_spectrum"]
    assert spectrum["levels"] > 3
    # One file in six is held out; a spectrum takes two, and says that these were trained on.
    assert spectrum["held_out"] is False
    state = invoke("info", str(folder / "run" / "checkpoint.safetensors"))
    assert "training" in state.stdout
    assert "widths" in state.stdout


def test_info_names_a_prior_that_is_not_there(tmp_path):
    result = invoke("info", "no-such-prior")
    assert "no shipped prior" in str(result.exception)
    assert result.exception.exit_code == 4
