"""Benchmark definitions: complete, honest about their numbers, refusing what is wrong."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from inverse_score.errors import BadInput
from recipes.benchmarks import figures, tables
from recipes.benchmarks.definition import definition_names, describe, load_definition
from recipes.benchmarks.forward import paper_columns
from recipes.benchmarks.generative import frechet_distance, inception_score
from recipes.benchmarks.minis import Scene
from recipes.benchmarks.results import Results
from recipes.benchmarks.scoring import body_mask, scores
from recipes.benchmarks.sources import open_items


@pytest.mark.parametrize("name", definition_names())
def test_every_definition_loads_and_says_its_whole_protocol(name):
    definition = load_definition(name)
    text = describe(definition)
    assert definition.name == name
    for part in (definition.target, definition.data.obtain, definition.cases[0].name):
        assert part in text
    for row in definition.rows:
        for published in row.published:
            recalled = "recalled" in published.source or "thesis" in published.source
            assert not (recalled and published.verified), (row.name, published)


def test_an_unknown_benchmark_lists_the_known_ones():
    with pytest.raises(BadInput, match=r"no benchmark 'brats'; there are .*song2022-brats"):
        load_definition("brats")


@pytest.mark.parametrize(("lines", "kept", "centre"), [(60, 60, 14), (30, 31, 7), (10, 10, 2)])
def test_song_2022_masks_keep_the_columns_that_the_released_code_keeps(lines, kept, centre):
    mask = paper_columns((240, 240), mask="song2022", seed=0, lines=lines)
    start = (240 - centre + 1) // 2
    assert int(mask.sum()) == kept
    assert bool(mask[start : start + centre].all())


def test_random_lines_are_exactly_as_many_as_asked_and_seeded():
    masks = [paper_columns((320, 320), mask="lines-random", seed=s, acc=4) for s in (0, 0, 1)]
    assert [int(m.sum()) for m in masks] == [80, 80, 80]
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


def test_equispaced_lines_are_more_than_their_nominal_share():
    mask = paper_columns((320, 320), mask="lines-equispaced", seed=0, acc=4)
    assert 320 / int(mask.sum()) == pytest.approx(3.23, abs=0.03)


def test_a_missing_data_set_says_where_it_is_obtained(tmp_path):
    with pytest.raises(BadInput, match=r"holds no \.npz or \.npy file.*BraTS 2021"):
        open_items(load_definition("song2022-brats"), tmp_path)
    with pytest.raises(BadInput, match="needs --data DIR"):
        open_items(load_definition("song2022-brats"), None)


def test_images_of_another_size_and_partial_sets_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", images=np.zeros((2, 64, 64), np.uint8))
    with pytest.raises(BadInput, match=r"\(240, 240\) pixels; got \(2, 64, 64\)"):
        open_items(load_definition("song2022-brats"), tmp_path)
    np.savez(tmp_path / "a.npz", images=np.zeros((2, 240, 240), np.uint8))
    with pytest.raises(BadInput, match=r"takes 1000 items; .* holds 2.*--limit 2"):
        open_items(load_definition("song2022-brats"), tmp_path)
    assert len(open_items(load_definition("song2022-brats"), tmp_path, limit=2)) == 2


def test_items_keep_their_seed_whatever_stands_beside_them(tmp_path):
    np.savez(tmp_path / "b.npz", images=np.zeros((1, 240, 240), np.uint8))
    alone = open_items(load_definition("song2022-brats"), tmp_path, limit=1)
    np.savez(tmp_path / "a.npz", images=np.zeros((1, 240, 240), np.uint8))
    both = open_items(load_definition("song2022-brats"), tmp_path, limit=2)
    assert both[1].key == alone[0].key
    assert both[1].number == alone[0].number != both[0].number


def test_results_resume_and_refuse_another_definition(tmp_path):
    identity = {"definition": "a", "prior": "b"}
    record = {"row": "r", "case": "c", "item": "i", "scores": {"psnr": 30.0}}
    Results(tmp_path, identity).add(record)
    with (tmp_path / "results.jsonl").open("a") as file:
        file.write('{"row": "cut short')
    again = Results(tmp_path, identity)
    assert again.done == {("r", "c", "i")}
    with pytest.raises(BadInput, match="made with another prior"):
        Results(tmp_path, {**identity, "prior": "other"})


def test_shards_write_apart_and_read_together(tmp_path):
    for k in (0, 1):
        results = Results(tmp_path, {"definition": "a"}, (k, 2))
        results.add({"row": "r", "case": "c", "item": str(k), "scores": {"psnr": 30.0}})
    assert len(Results(tmp_path, {"definition": "a"}).records) == 2


def test_a_table_shows_ours_beside_the_published_and_marks_the_unverified():
    definition = load_definition("song2022-brats")
    row = definition.rows[0].name
    records = [
        {"row": row, "case": "8x", "item": str(k), "scores": {"psnr": value}, "nfe": 2000}
        for k, value in enumerate((36.0, 38.0))
    ]
    lines = tables.rows_of(definition, records)
    text = tables.markdown(lines)
    assert "37.00 ± 1.41 [37.63 ± 2.7*]" in text
    assert "| 2000 |" in text
    assert tables.latex(lines).count(r"\\") == len(lines)


def test_psnr_inside_the_body_ignores_the_background():
    metric = replace(load_definition("fastmri-knee").metric, region="body")
    target = np.zeros((1, 64, 64))
    target[0, 16:48, 16:48] = 1.0
    inside = body_mask(target, 0.1)
    wrong = target + 0.1 * ~inside
    found = scores(metric, target, wrong, inside)
    assert inside.sum() == 32 * 32
    assert found["psnr body"] == float("inf")
    assert found["psnr outside"] == pytest.approx(20.0)


def test_the_frechet_distance_of_two_gaussians_is_its_closed_form():
    rng = torch.Generator().manual_seed(0)
    a = torch.randn(4000, 3, generator=rng, dtype=torch.float64)
    a = (a - a.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(a.T))).T
    scale = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
    b = a * scale + torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    # Commuting covariances: |m|^2 + sum (s - 1)^2.
    assert frechet_distance(a, b) == pytest.approx(1.0 + 0.0 + 1.0 + 0.25, rel=1e-9)


def test_the_inception_score_of_certain_uniform_classes_is_their_number():
    logits = 200.0 * torch.eye(5, dtype=torch.float64).repeat(40, 1)
    assert inception_score(logits, splits=4) == pytest.approx(5.0, rel=1e-6)


def test_every_image_of_a_run_is_shown_beside_the_truth_and_its_error(tmp_path):
    definition = load_definition("mini-ct")
    results = Results(tmp_path, {"definition": "a"})
    truth = np.linspace(-1000, 400, 64 * 64, dtype=np.float32).reshape(64, 64)
    results.add({"row": "FBP", "case": "30 views", "item": "a/b", "scores": {"psnr": 20.0}})
    figures.keep(results, "30 views", "a/b", "truth", truth)
    figures.keep(results, "30 views", "a/b", "FBP", truth + 280)
    (path,) = figures.write(definition, results)
    pixels = np.asarray(Image.open(path).convert("L"))
    assert pixels.shape == (2 * 64 + 15 + 4, 2 * 64 + 4)
    # 280 HU are a fifth of the window: the brightest error there is; the truth has none.
    errors = pixels[-64:]
    assert errors[0, -64] > 200
    assert errors[0, 0] < 10


def test_coverage_counts_the_bodys_pixels_whose_truth_lies_within_the_samples():
    truth = np.zeros((4, 4))
    inside = np.zeros((1, 4, 4), dtype=bool)
    inside[:, 1:3] = True
    samples = torch.tensor([-1.0, 1.0])[:, None, None, None, None].expand(2, 1, 1, 4, 4).clone()
    samples[:, :, :, 1] = 5.0
    scene = Scene(None, truth, inside, lambda x: x[:, 0].numpy())
    assert scene.covered(samples) == 0.5
