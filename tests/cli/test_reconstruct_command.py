"""`inverse-score reconstruct`: what it writes, how it scores, and that it can be interrupted."""

import json
import os
import signal
import subprocess
import sys

import h5py
import numpy as np
import pytest
import torch
from command_line import command, tiny_prior

from inverse_score.io.runs.results import Unit
from inverse_score.metrics import volume_scores
from inverse_score.testing.scans import TINY, fastmri_file

QUICK = ("--steps", 2, "--samples", 5, "--maps", "low-resolution", "--quiet", "--no-pages",
         "--baseline", "none")  # fmt: skip
MASK = np.isin(np.arange(32), [0, 4, 8, 12, 13, 14, 15, 16, 17, 18, 19, 20, 24, 28])


@pytest.fixture(scope="module")
def prior(tmp_path_factory):
    return tiny_prior(tmp_path_factory.mktemp("prior") / "tiny.safetensors")


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    return fastmri_file(tmp_path_factory.mktemp("scan") / "scan.h5", mask=MASK)


@pytest.fixture
def reconstruct(capsys, prior, scan, tmp_path):
    def run(*arguments, out="out", source=scan):
        return command(
            capsys, "reconstruct", source, "--prior", prior, "-o", tmp_path / out, *QUICK,
            *arguments,
        )  # fmt: skip

    return run


def outputs(folder):
    """Bytes of the volume, the page and the pictures: all that may not depend on the way there."""
    found = {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    return {k: v for k, v in found.items() if k.suffix in (".h5", ".html", ".png")}


def test_a_run_writes_volume_page_pictures_and_summary(reconstruct, tmp_path):
    done = reconstruct("--json", "--acc", 32 / 14, "--pages")
    assert done.code == 0, done.err
    summary = json.loads(done.out)
    assert summary["status"] == "complete"
    with h5py.File(tmp_path / "out/scan.h5") as file:
        assert file["reconstruction"].shape == (2, *TINY)
        assert file["reconstruction"].dtype == np.float32
        assert file["samples"].shape == (5, 2, *TINY)
        samples = file["samples"][:]
        np.testing.assert_allclose(file["reconstruction"][:], abs(samples.mean(0)), rtol=1e-5)
        np.testing.assert_allclose(file["std"][:], abs(samples).std(0, ddof=1), rtol=1e-4)
        assert file["mask"][:].tolist() == MASK.tolist()
        assert file.attrs["status"] == "complete"
        truth, image = file["reference"][:], file["reconstruction"][:]
    assert (tmp_path / "out/scan.html").stat().st_size > 10_000
    assert (tmp_path / "out/scan/slice-0001-std.png").read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "out/.units").exists()
    scores = summary["scans"][0]["scores"]["reconstruction"]
    expected = volume_scores(truth, image)
    for key in expected:
        assert scores[key] == pytest.approx(expected[key], rel=1e-6)


def test_scaling_the_scan_scales_the_result_and_nothing_else(reconstruct, scan, tmp_path):
    """Noise is named by content, so the noise of the two runs differs: one item is forced."""
    from inverse_score.io.formats.fastmri import open_fastmri
    from inverse_score.io.priors import load_prior
    from recipes.mri import mri

    k = torch.from_numpy(open_fastmri(scan)[0])
    prior = load_prior(tiny_prior(tmp_path / "p.safetensors"))
    recipe = mri(prior, torch.from_numpy(MASK), steps=3)
    one = recipe(k, num_samples=2, items=[7])
    # A power of two leaves every rounding as it was, and so where iterative solves stop.
    c = 2.0**20
    many = recipe(c * k, num_samples=2, items=[7])
    torch.testing.assert_close(many.samples, c * one.samples, rtol=1e-4, atol=1e2)
    torch.testing.assert_close(many.misfit, one.misfit, rtol=1e-3, atol=1e-3)
    tiny = recipe(k / c, num_samples=2, items=[7])
    torch.testing.assert_close(tiny.samples, one.samples / c, rtol=1e-4, atol=1e-10)


def test_shards_make_the_same_bytes_as_one_process(reconstruct, tmp_path):
    assert reconstruct(out="one").code == 0
    for part in ("2/3", "1/3"):
        done = reconstruct("--shard", part, out="three")
        assert done.code == 0, done.err
        assert not (tmp_path / "three/scan.h5").exists()
    assert "left to other shards" in done.err
    assert reconstruct("--shard", "3/3", out="three").code == 0
    assert outputs(tmp_path / "three") == outputs(tmp_path / "one")


def test_an_interrupted_run_resumes_to_the_same_bytes(reconstruct, tmp_path, monkeypatch):
    from inverse_score.cli import Interrupted
    from inverse_score.io.runs.results import RunFolder

    assert reconstruct("--pages", out="one").code == 0
    save, calls = RunFolder.save, []

    def interrupted(self, unit, *rest):
        calls.append(unit)
        if len(calls) == 3:
            raise Interrupted(15)
        save(self, unit, *rest)

    monkeypatch.setattr(RunFolder, "save", interrupted)
    done = reconstruct(out="two")
    assert done.code == 143
    assert "2 of 4 units are left; the same command with --resume goes on" in done.err
    monkeypatch.setattr(RunFolder, "save", save)
    assert "unfinished run" in reconstruct(out="two").err
    refused = reconstruct("--resume", "--seed", 5, out="two")
    assert refused.code == 3
    assert "started with other seed" in refused.err
    assert reconstruct("--resume", "--pages", out="two").code == 0
    assert outputs(tmp_path / "two") == outputs(tmp_path / "one")


def test_nothing_is_overwritten_without_being_asked(reconstruct, tmp_path):
    assert reconstruct().code == 0
    before = (tmp_path / "out/scan.h5").read_bytes()
    again = reconstruct("--seed", 1)
    assert again.code == 3
    assert "--overwrite" in again.err
    assert (tmp_path / "out/scan.h5").read_bytes() == before
    assert reconstruct("--seed", 1, "--overwrite").code == 0
    assert (tmp_path / "out/scan.h5").read_bytes() != before


def test_the_output_folder_of_the_scan_is_refused_whatever_the_options(capsys, prior, tmp_path):
    source = fastmri_file(tmp_path / "scan.h5", mask=MASK)
    before = source.read_bytes()
    done = command(capsys, "reconstruct", source, "--prior", prior, "-o", tmp_path, "--overwrite",
                   *QUICK)  # fmt: skip
    assert done.code == 3
    assert "would overwrite an input" in done.err
    assert source.read_bytes() == before


def test_a_bad_slice_is_named_and_the_rest_can_go_on(capsys, prior, tmp_path):
    source = fastmri_file(tmp_path / "bad.h5", mask=MASK, slices=3)
    with h5py.File(source, "r+") as file:
        file["kspace"][2, 1, 3, 12] = np.inf
    arguments = ("reconstruct", source, "--prior", prior, "-o", tmp_path / "out", *QUICK)
    done = command(capsys, *arguments)
    assert done.code == 3
    assert "slice 2, coil 1: 1 values are NaN or infinite" in done.err
    done = command(capsys, *arguments, "--resume", "--keep-going", "--json")
    assert done.code == 5, done.err
    slices = json.loads(done.out)["scans"][0]["slices"]
    assert [s["status"] for s in slices] == ["ok", "ok", "failed"]
    with h5py.File(tmp_path / "out/bad.h5") as file:
        assert file.attrs["status"] == "partial"
        assert np.isnan(file["reconstruction"][2]).all()
        assert np.isfinite(file["reconstruction"][:2]).all()


def test_a_slice_that_failed_in_one_shard_is_known_to_the_one_that_ends(capsys, prior, tmp_path):
    source = fastmri_file(tmp_path / "bad.h5", mask=MASK, slices=2)
    with h5py.File(source, "r+") as file:
        file["kspace"][0, 1, 3, 12] = np.nan
    arguments = ("reconstruct", source, "--prior", prior, "-o", tmp_path / "out", *QUICK,
                 "--samples", 2, "--keep-going", "--json")  # fmt: skip
    first = command(capsys, *arguments, "--shard", "1/2")
    assert first.code == 5
    assert "1 units failed, 1 are left to other shards" in first.err
    last = command(capsys, *arguments, "--shard", "2/2")
    assert last.code == 5, last.err
    slices = json.loads(last.out)["scans"][0]["slices"]
    assert [s["status"] for s in slices] == ["failed", "ok"]
    assert "slice 0, coil 1: 1 values are NaN" in slices[0]["error"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_what_is_finished(reconstruct, tmp_path, monkeypatch, number, code):
    from inverse_score.io.runs.results import RunFolder

    save = RunFolder.save

    def signalled(self, unit, *rest):
        save(self, unit, *rest)
        os.kill(os.getpid(), number)

    monkeypatch.setattr(RunFolder, "save", signalled)
    done = reconstruct("--samples", 1)
    assert done.code == code
    assert "1 of 2 units are left" in done.err
    assert not list((tmp_path / "out").glob(".shard*"))


@pytest.mark.slow
def test_workers_of_torchrun_make_the_bytes_of_one_process(prior, scan, tmp_path):
    options = ["reconstruct", scan, "--prior", prior, *QUICK, "--json", "-o"]
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for name, before in (("one", []), ("two", launch)):
        done = subprocess.run(
            [sys.executable, *before, "-m", "inverse_score", *map(str, options), tmp_path / name],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["status"] == "complete"
    assert outputs(tmp_path / "two") == outputs(tmp_path / "one")


def test_memory_that_runs_out_is_asked_for_in_smaller_batches(reconstruct, tmp_path, monkeypatch):
    import recipes.problem as problem

    solve, sizes = problem.solve, []

    def small(*arguments, batch_size=None, **options):
        if batch_size is not None:
            sizes.append(batch_size)
            if batch_size > 1:
                raise torch.OutOfMemoryError("CUDA out of memory")
        return solve(*arguments, batch_size=batch_size, **options)

    assert reconstruct("--slices", 1, out="one").code == 0
    monkeypatch.setattr(problem, "solve", small)
    assert reconstruct("--slices", 1, out="two").code == 0
    assert sizes[:3] == [4, 2, 1]
    volumes = [h5py.File(tmp_path / name / "scan.h5") for name in ("one", "two")]
    np.testing.assert_allclose(volumes[0]["samples"][:], volumes[1]["samples"][:], atol=1e-4)

    def never(*arguments, batch_size=None, **options):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(problem, "solve", never)
    done = reconstruct(out="three")
    assert done.code == 6
    assert "even one sample at a time" in done.err


def test_divergence_is_a_failed_slice(reconstruct, monkeypatch):
    import recipes.problem as problem
    from inverse_score.solver import Diverged

    def diverges(*arguments, **options):
        raise Diverged("x0_hat is not finite at step 1", 1, 0.5, None)

    monkeypatch.setattr(problem, "solve", diverges)
    done = reconstruct()
    assert done.code == 5
    assert "scan, slice 0: x0_hat is not finite at step 1" in done.err


def test_a_dry_run_says_what_it_found_and_writes_nothing(reconstruct, tmp_path):
    done = reconstruct("--dry-run", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["scans"][0]["axes"] == "(slice, coil, readout, phase) = (2, 4, 24, 32)"
    assert found["scans"][0]["first slice"]["maps"] == "low-resolution"
    assert found["refused"] == []
    assert not (tmp_path / "out").exists()
    refused = reconstruct("--dry-run", "--acc", 9)
    assert refused.code == 3
    assert "undersampled already" in refused.out


def test_two_files_of_one_name_are_two_outputs(capsys, prior, tmp_path):
    for folder, seed in (("a", 1), ("b", 2)):
        (tmp_path / folder).mkdir()
        fastmri_file(tmp_path / folder / "scan.h5", mask=MASK, seed=seed, slices=1)
    done = command(capsys, "reconstruct", tmp_path / "*" / "scan.h5", "--prior", prior, "-o",
                   tmp_path / "out", *QUICK, "--quiet")  # fmt: skip
    assert done.code == 0, done.err
    assert len(list((tmp_path / "out").glob("scan-*.h5"))) == 2


def test_units_follow_the_samples(reconstruct, tmp_path):
    assert reconstruct("--shard", "1/6", "--samples", 9).code == 0
    assert [p.name for p in (tmp_path / "out/.units").iterdir()] == [Unit(0, 0, 0).file_name]
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert manifest["chunks"] == 3


def test_a_recipe_file_gives_the_options_that_were_not_typed(reconstruct, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("recipe: mri\noperator: {seed: 4, noise_std: 2e-2}\nmethod: {samples: 1}\n")
    done = reconstruct("--recipe", recipe, "--json", "--slices", 0)
    assert done.code == 0, done.err
    scan = json.loads(done.out)["scans"][0]
    assert scan["attributes"]["num_samples"] == 5
    assert scan["attributes"]["seed"] == 4
    assert scan["slices"][0]["noise_std"] == pytest.approx(0.02)
    saved = (tmp_path / "out/recipe.yaml").read_text()
    assert "recipe: mri" in saved
    assert "seed: 4" in saved
    recipe.write_text("recipe: mri\noperator: {noise_sdt: 1}\n")
    done = reconstruct("--recipe", recipe, out="other")
    assert done.code == 3
    assert "did you mean 'noise_std'" in done.err
