"""Preparing the shipped priors' data: packages by hash, readers, people kept apart, few steps."""

import dataclasses
import gzip
import hashlib
import io
import json
import struct
import sys
import tarfile
import zipfile

import numpy as np
import pytest
import torch
import yaml

from inverse_score.errors import BadInput
from inverse_score.io.priors import load_classifier, load_prior
from inverse_score.training import load_config, train
from recipes.priors import datasets, prepare
from recipes.priors.bodies import AIR, other_patient
from recipes.priors.heads import Heads, spin_echo
from recipes.priors.packages import Package, fetch, members
from recipes.priors.planes import Plane, VoxelStack, cut, free_plane, load_stack
from recipes.priors.volumes import read_idx, read_nifti, read_nrrd

RNG = np.random.default_rng(0)


def nifti(image: np.ndarray, voxel=(1.0, 1.0, 1.0)) -> bytes:
    """image (slices, rows, columns) of int16; NIfTI stores columns first."""
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, *image.shape[::-1], 1, 1, 1, 1)
    struct.pack_into("<h", header, 70, 4)
    struct.pack_into("<8f", header, 76, 1.0, *voxel[::-1], 0, 0, 0, 0)
    struct.pack_into("<3f", header, 108, 352.0, 0.0, 0.0)
    header[344:348] = b"n+1\0"
    return gzip.compress(bytes(header) + image.astype("<i2").tobytes())


def nrrd(image: np.ndarray, voxel=(6.5, 0.8, 0.8)) -> bytes:
    z, y, x = voxel
    sizes = " ".join(map(str, image.shape[::-1]))
    head = (
        f"NRRD0004\n# comment: none\ntype: short\ndimension: 3\nsizes: {sizes}\n"
        f"space directions: ({x},0,0) (0,-{y},0) (0,0,{z})\nendian: little\nencoding: gzip\n\n"
    )
    return head.encode() + gzip.compress(image.astype("<i2").tobytes())


def idx(values: np.ndarray) -> bytes:
    shape = struct.pack(f">{values.ndim}I", *values.shape)
    return bytes([0, 0, 8, values.ndim]) + shape + values.astype(np.uint8).tobytes()


def tarball(files: dict[str, bytes], top: str = "package-1.0/") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(top + name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def debian(files: dict[str, bytes]) -> bytes:
    def entry(name: str, content: bytes) -> bytes:
        head = f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n"
        return head.encode() + content + b"\n" * (len(content) % 2)

    data = tarball(files, top="./")
    return b"!<arch>\n" + entry("debian-binary", b"2.0\n\n") + entry("data.tar.gz", data)


def wheel(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def head(seed: int, shape=(24, 40, 36)) -> np.ndarray:
    """A bright ellipsoid with texture, the layout of a head in air."""
    grid = np.stack(np.meshgrid(*[np.linspace(-1.2, 1.2, n) for n in shape], indexing="ij"))
    inside = (grid**2).sum(0) < 1
    return (inside * (500 + 200 * np.random.default_rng(seed).random(shape))).astype(np.int16)


@pytest.mark.parametrize("make", [tarball, debian, wheel])
def test_members_of_every_kind_of_package_are_found_by_path(tmp_path, make):
    path = tmp_path / "archive"
    path.write_bytes(make({"data/a.bin": b"odd", "data/b.bin": b"even", "other": b"x"}))
    found = dict(members(path, lambda name: name.startswith("data/")))
    assert found == {"data/a.bin": b"odd", "data/b.bin": b"even"}


def test_nifti_and_nrrd_come_with_slices_first_and_voxels_in_the_same_order():
    image = RNG.integers(-5, 900, (3, 4, 5)).astype(np.int16)
    for read, content in (
        (read_nifti, nifti(image, (3, 2, 1))),
        (read_nrrd, nrrd(image, (3, 2, 1))),
    ):
        values, voxel = read(content)
        np.testing.assert_array_equal(values, image)
        assert voxel == (3.0, 2.0, 1.0)


def test_idx_is_read_and_other_bytes_are_refused():
    values = RNG.integers(0, 256, (4, 3, 2))
    np.testing.assert_array_equal(read_idx(idx(values)), values)
    for read in (read_idx, read_nrrd, read_nifti):
        with pytest.raises(BadInput, match="not a"):
            read(b"\0" * 400)


@dataclasses.dataclass(frozen=True)
class Local(Package):
    """A package whose client writes these words to a file."""

    words: str = "content"

    def command(self):
        return [sys.executable, "-c", f"open('got.bin', 'w').write({self.words!r})"]


def package(**changes):
    fields = {
        "name": "thing", "client": "npm", "version": "1.0", "licence": "MIT",
        "sha256": hashlib.sha256(b"content").hexdigest(),
    }  # fmt: skip
    return Local(**{**fields, **changes})


def test_a_package_is_fetched_once_and_then_found(tmp_path):
    path = fetch(package(), tmp_path)
    assert path.read_text() == "content"
    assert fetch(package(words="never written"), tmp_path) == path


def test_other_bytes_than_expected_are_an_error_and_leave_nothing(tmp_path):
    with pytest.raises(BadInput, match=r"thing@1\.0 has SHA-256 .* cut short"):
        fetch(package(words="cont"), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_truncated_archive_in_the_cache_is_fetched_again(tmp_path):
    path = fetch(package(), tmp_path)
    path.write_text("cont")
    assert fetch(package(), tmp_path).read_text() == "content"


@pytest.mark.parametrize("command", [["no-such-client-here"], [sys.executable, "-c", "exit(1)"]])
def test_a_client_that_is_missing_or_fails_gives_none(tmp_path, monkeypatch, command):
    monkeypatch.setattr(Local, "command", lambda self: command)
    assert fetch(package(), tmp_path) is None


def test_the_commands_name_the_version():
    for client, word in (
        ("pip-wheel", "x==2"),
        ("pip-sdist", "x==2"),
        ("apt", "x=2"),
        ("npm", "x@2"),
    ):
        assert Package("x", client, "2", "0", "MIT").command()[-1] == word


@pytest.mark.parametrize("name", prepare.names())
def test_no_person_of_a_shipped_prior_is_on_two_sides(name):
    packages, files = prepare.load_sources(name)
    sides = {
        use: {f.person for f in files if f.use == use and f.person} for use in ("train", "held_out")
    }
    assert not sides["train"] & sides["held_out"]
    assert all(len(package.sha256) == 64 and package.licence for package in packages.values())
    places = [(f.package, pattern) for f in files for pattern in f.patterns]
    assert len(places) == len(set(places))


def write_sources(folder, name, files, content):
    """NAME.sources.yaml of one npm package and its archive in the cache."""
    archive = tarball(content)
    folder.mkdir(exist_ok=True)
    cache = folder / "cache"
    cache.mkdir(exist_ok=True)
    (cache / "made-1.archive").write_bytes(archive)
    pin = {"name": "made", "client": "npm", "version": "1", "licence": "MIT"}
    packages = [{**pin, "sha256": hashlib.sha256(archive).hexdigest()}]
    files = [{"package": "made", "what": "made by the test", **file} for file in files]
    text = yaml.safe_dump({"packages": packages, "files": files})
    (folder / f"{name}.sources.yaml").write_text(text)
    return cache


def source(name, path, kind, use, person=""):
    return {"name": name, "path": path, "kind": kind, "use": use, "person": person}


def made(tmp_path, name):
    """A prepared folder of prior `name` in the layout of the real one."""
    texture = RNG.integers(0, 256, (12, 28, 28))
    tissue = [np.clip(head(k) // 8, 0, 255) for k in (1, 2)]
    content = {
        "t1.nii.gz": nifti(head(3)), "b1.nrrd": nrrd(head(4)), "b2.nrrd": nrrd(head(5)),
        "gm.nii.gz": nifti(tissue[0]), "wm.nii.gz": nifti(tissue[1]),
        "ct.nii.gz": nifti(head(6) - 1000), "images": idx(texture), "images2": idx(255 - texture),
        "labels": idx(texture[:, 0, 0] % 10), "labels2": idx(texture[:, 0, 0] % 10),
    }  # fmt: skip
    files = {
        "brain-mri": [
            source("colin27", "t1.nii.gz", "volume", "train", "a"),
            source("brain1", "b1.nrrd", "slices", "train", "b"),
            source("mni152-tissue", ["gm.nii.gz", "wm.nii.gz"], "tissue", "train"),
            source("brain2", "b2.nrrd", "slices", "held_out", "c"),
        ],
        "body-ct": [
            source("lung1", "ct.nii.gz", "slices", "train", "a"),
            source("lung2", "b2.nrrd", "slices", "held_out", "b"),
        ],
        "digits": [
            source("mnist-train", ["images", "labels"], "labelled", "train"),
            source("mnist-test", ["images2", "labels2"], "labelled", "held_out"),
        ],
    }[name]
    cache = write_sources(tmp_path / "sources", name, files, content)
    out = tmp_path / "data"
    prepare.prepare(name, out, cache=cache, folder=tmp_path / "sources", report=lambda line: None)
    return out


@pytest.mark.parametrize("name", ["brain-mri", "body-ct", "digits"])
def test_each_definition_trains_a_few_steps_on_what_prepare_made(tmp_path, name):
    dataset, held_out = datasets(made(tmp_path, name), size=16)
    unet = "network.unet" if name == "digits" else "network"
    small = [f"{unet}.widths=[8, 8]", f"{unet}.blocks=1", "train.steps=2", "train.batch_size=2",
             "train.evaluate_items=2", "train.measure=false", "train.evaluate_every=0",
             f"out={tmp_path / 'run'}"]  # fmt: skip
    small += [] if name == "digits" else ["data.crop=[16, 16]"]
    config = load_config(prepare.FOLDER / f"{name}.yaml", small)
    train(config, dataset=dataset, held_out=held_out)
    prior = load_prior(tmp_path / "run" / "prior.safetensors")
    assert prior.card["not_for"] == config.card["not_for"]
    assert prior.event_shape == ({"brain-mri": 2}.get(name, 1), None, None)
    assert prior.range == {"body-ct": (1000, -500), "digits": (0.5, 0.5)}.get(name, (1, 0))


def test_the_digit_classifier_trains_a_few_steps_and_only_digits_have_labels(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    dataset, _ = datasets(made(tmp_path / "a", "digits"), labels=True)
    small = ["network.widths=[8, 8]", "train.steps=2", "train.batch_size=2", "train.measure=false",
             "train.evaluate_every=0", f"out={tmp_path / 'run'}"]  # fmt: skip
    train(load_config(prepare.FOLDER / "digits-classifier.yaml", small), dataset=dataset)
    classifier = load_classifier(tmp_path / "run" / "classifier.safetensors")
    assert classifier(torch.randn(3, 1, 28, 28), torch.ones(3)).shape == (3, 10)
    with pytest.raises(BadInput, match="without labels"):
        datasets(made(tmp_path / "b", "body-ct"), labels=True)


def test_photographs_train_a_few_steps(tmp_path):
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (120, 130, 3), dtype=np.uint8)).save(buffer, "png")
    files = [source("photographs", "*.png", "pictures", "train")]
    cache = write_sources(tmp_path / "s", "photo-patches", files, {"a.png": buffer.getvalue()})
    out = tmp_path / "data"
    prepare.prepare(
        "photo-patches", out, cache=cache, folder=tmp_path / "s", report=lambda line: None
    )
    dataset, held_out = datasets(out, size=16)
    assert dataset[0].shape == (3, 16, 16)
    assert 0 <= dataset[0].min() <= dataset[0].max() <= 1
    assert {patch.shape for patch in held_out} == {(3, 128, 128)}
    small = ["network.widths=[8, 8]", "train.steps=2", "train.batch_size=2", "data.crop=[16, 16]",
             "train.measure=false", f"out={tmp_path / 'run'}"]  # fmt: skip
    prior = train(load_config(prepare.FOLDER / "photo-patches.yaml", small), dataset=dataset)
    assert prior.range == (0.5, 0.5)


def test_a_held_out_slice_that_is_also_trained_on_is_refused(tmp_path):
    copied = head(1)
    copied[:20] = head(2)[:20]
    content = {"a.nii.gz": nifti(head(1)), "b.nrrd": nrrd(copied)}
    files = [
        source("one", "a.nii.gz", "volume", "train", "a"),
        source("two", "b.nrrd", "slices", "held_out", "b"),
    ]
    cache = write_sources(tmp_path, "brain-mri", files, content)
    with pytest.raises(BadInput, match="slices of held-out two are also in one"):
        prepare.prepare("brain-mri", tmp_path / "out", cache=cache, folder=tmp_path)
    assert not (tmp_path / "out").exists()


def test_a_person_on_two_sides_is_refused(tmp_path):
    files = [
        source("one", "a", "volume", "train", "p"),
        source("two", "b", "slices", "held_out", "p"),
    ]
    write_sources(tmp_path, "brain-mri", files, {"a": b""})
    with pytest.raises(BadInput, match="p is both trained on and held out"):
        prepare.load_sources("brain-mri", tmp_path)


def test_what_cannot_be_fetched_is_skipped_by_name_unless_nothing_is_left(tmp_path, monkeypatch):
    content = {"a.nii.gz": nifti(head(1))}
    cache = write_sources(
        tmp_path, "brain-mri", [source("one", "a.nii.gz", "volume", "train")], content
    )
    (cache / "made-1.archive").unlink()
    monkeypatch.setattr("shutil.which", lambda name: None)
    said = []
    with pytest.raises(BadInput, match="nothing to train brain-mri on"):
        prepare.prepare(
            "brain-mri", tmp_path / "out", cache=cache, folder=tmp_path, report=said.append
        )
    assert said == ["skipped made@1: it cannot be fetched here"]
    assert not (tmp_path / "out").exists()


def test_a_full_folder_and_an_unknown_prior_are_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="not empty"):
        prepare.prepare("brain-mri", tmp_path)
    with pytest.raises(BadInput, match="known: body-ct, brain-mri, digits, photo-patches"):
        prepare.prepare("brain", tmp_path / "out")
    with pytest.raises(BadInput, match="was not filled by"):
        datasets(tmp_path)


def test_an_image_is_a_function_of_seed_and_index(tmp_path):
    folder = made(tmp_path, "brain-mri") / "train"
    first, again, other = Heads(folder, 24), Heads(folder, 24), Heads(folder, 24, seed=1)
    torch.testing.assert_close(first[7], again[7], rtol=0, atol=0)
    assert not torch.equal(first[7], first[8])
    assert not torch.equal(first[7], other[7])


def test_heads_have_a_99th_percentile_of_about_one_and_little_phase(tmp_path):
    heads = Heads(made(tmp_path, "brain-mri") / "train", 40)
    images = torch.stack([heads[i] for i in range(60)])
    magnitude = images.square().sum(1).sqrt().flatten(1)
    assert 0.8 < magnitude.quantile(0.99, dim=1).median() < 1.3
    assert images[:, 1].square().mean() < 0.3 * images[:, 0].square().mean()
    assert json.loads((tmp_path / "data" / "prepared.json").read_text())["prior"] == "brain-mri"


def test_a_plane_along_the_voxels_copies_them():
    stack = VoxelStack("s", torch.rand(1, 9, 8, 7), (1.0, 1.0, 1.0), False)
    plane = Plane(np.array([4.0, 4.0, 3.0]), np.array([0.0, 1.0, 0.0]), np.array([0.0, 0.0, -1.0]))
    image = cut(stack, plane, 4, RNG)
    torch.testing.assert_close(image[0], stack.voxels[0, 4, 2:6, [5, 4, 3, 2]], atol=1e-5, rtol=0)


def test_thick_slices_are_never_crossed():
    stack = VoxelStack(
        "s", torch.arange(5.0).reshape(1, 5, 1, 1).expand(1, 5, 40, 40), (6.5, 1, 1), True
    )
    for _ in range(5):
        plane = free_plane(stack, RNG, (0.9, 1.1), warp=2.0)
        image = cut(stack, plane, 12, RNG)[0]
        torch.testing.assert_close(image, image.round(), atol=1e-4, rtol=0)
        assert image.max() - image.min() < 1e-4


def test_free_planes_have_pixels_of_the_size_asked_for():
    stack = VoxelStack("s", torch.zeros(1, 9, 9, 9), (1.0, 2.0, 0.5), False)
    for _ in range(20):
        plane = free_plane(stack, RNG, (0.6, 1.5), warp=0.0)
        sizes = [np.linalg.norm(axis * np.array(stack.voxel)) for axis in (plane.u, plane.v)]
        assert 0.6 <= sizes[0] <= 1.5
        np.testing.assert_allclose(sizes[0], sizes[1])
        assert abs((plane.u * stack.voxel) @ (plane.v * stack.voxel)) < 1e-9


def test_spin_echo_of_pure_tissue_is_its_signal_and_of_air_is_nothing():
    contrast = spin_echo(np.random.default_rng(3))
    pure = torch.eye(3)[:, :, None]
    signal = contrast(pure)[:, 0]
    assert signal.min() > 0
    torch.testing.assert_close(contrast(0.5 * pure)[:, 0], 0.5 * signal)
    assert contrast(torch.zeros(3, 1, 1)).item() == 0


def test_other_patients_keep_air_and_the_order_of_tissues():
    hounsfield = torch.linspace(-1000, 3000, 81)
    for seed in range(20):
        curve = other_patient(hounsfield, np.random.default_rng(seed))
        assert curve[0] == AIR
        assert (curve.diff() >= 0).all()
        assert abs(float(curve[21]) - 50) < 90


def test_half_millimetre_volumes_come_at_one(tmp_path):
    image = head(1)
    np.savez(
        tmp_path / "t.npz", image=image, voxel=np.array([0.5, 0.5, 0.5]), kind=np.array("volume")
    )
    stack = load_stack(tmp_path / "t.npz")
    assert stack.voxel == (1.0, 1.0, 1.0)
    assert stack.voxels.shape == (1, 12, 20, 18)
    np.testing.assert_allclose(stack.voxels[0, 3, 4, 5], image[6:8, 8:10, 10:12].mean(), rtol=1e-6)
