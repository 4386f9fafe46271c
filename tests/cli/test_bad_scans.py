"""Files that cannot be reconstructed: each is refused by its own exit code and a message to act on.

No file is in the repository: every test makes its own.
"""

import json
import os
import stat

import h5py
import numpy as np
import pytest
from command_line import command, tiny_prior

from inverse_score.testing.scans import fastmri_file, kspace

MASK = np.isin(np.arange(32), [0, 4, 8, 12, 13, 14, 15, 16, 17, 18, 19, 20, 24, 28])


SHORT = ("--steps", 2, "--samples", 1, "--baseline", "none", "--no-pages", "--quiet")


@pytest.fixture(scope="module")
def prior(tmp_path_factory):
    return tiny_prior(tmp_path_factory.mktemp("prior") / "tiny.safetensors")


@pytest.fixture
def refusal(capsys, prior, tmp_path):
    """(exit code, message) of reconstructing a file; nothing may be left under a final name."""

    def run(source, *arguments, prior=prior):
        out = tmp_path / "out"
        done = command(capsys, "reconstruct", source, "--prior", prior, "-o", out, "--steps", 2,
                       "--samples", 1, "--baseline", "none", "--no-pages", *arguments)  # fmt: skip
        assert not list(out.glob("*.h5"))
        assert "Traceback" not in done.err
        return done.code, done.err

    return run


def edited(path, change):
    with h5py.File(path, "r+") as file:
        change(file)
    return path


def remade(path, make):
    def change(file):
        del file["kspace"]
        make(file)

    return edited(fastmri_file(path, mask=MASK), change)


def external_link(file):
    file["kspace"] = h5py.ExternalLink("other.h5", "/kspace")


def external_storage(file):
    secret = os.path.abspath(__file__)  # noqa: PTH100
    file.create_dataset("kspace", (2, 2, 2), "f8", external=[(secret, 0, 64)])


def virtual(file):
    layout = h5py.VirtualLayout((2, 4, 24, 32), "c8")
    layout[:] = h5py.VirtualSource("gone.h5", "kspace", (2, 4, 24, 32))
    file.create_virtual_dataset("kspace", layout)


def loop(file):
    file["kspace"] = h5py.SoftLink("/kspace")


def dangling(file):
    file["kspace"] = h5py.SoftLink("/nowhere")


def huge(file):
    shape = (10**5, 64, 4096, 4096)
    file.create_dataset("kspace", shape, "c8", chunks=(1, 1, 256, 256), compression="gzip")


def bomb(file):
    zeros = np.zeros((4, 8, 512, 512), np.complex64)
    file.create_dataset("kspace", data=zeros, chunks=True, compression="gzip")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (external_link, "link to another file"),
        (external_storage, "another file"),
        (virtual, "virtual"),
        (loop, "loop of links"),
        (dangling, "does not exist"),
        (huge, "GiB; the limit is"),
        (bomb, "times compressed"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_hostile_hdf5_is_refused(refusal, tmp_path, make, message):
    code, text = refusal(remade(tmp_path / "a.h5", make))
    assert code == 3
    assert message in text


def test_damaged_and_foreign_files_say_what_they_are(refusal, tmp_path):
    good = fastmri_file(tmp_path / "good.h5", mask=MASK).read_bytes()
    for content, message in [
        (good[: len(good) // 2], "is cut off: it has"),
        (b"<!DOCTYPE html><html>login</html>", "this is a web page"),
        (b"", "is empty"),
    ]:
        (tmp_path / "a.h5").write_bytes(content)
        code, text = refusal(tmp_path / "a.h5")
        assert code == 3
        assert message in text
    code, text = refusal(tmp_path / "missing.h5")
    assert code == 3
    assert "missing.h5: no such file" in text
    assert not (tmp_path / "missing.h5").exists()


def test_an_unreadable_chunk_is_named_by_its_slice(refusal, tmp_path):
    path = fastmri_file(tmp_path / "a.h5", mask=MASK)
    with h5py.File(path) as file:
        chunk = file["kspace"].id.get_chunk_info(1)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset + 50] ^= 255
    path.write_bytes(content)
    code, text = refusal(path)
    assert code == 3
    assert "slice 1" in text


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda k: k.__setitem__((0, 2, 1, 12), np.nan), "slice 0, coil 2: 1 values are NaN"),
        (lambda k: k.__setitem__(0, 0), "slice 0: every k-space value is zero"),
        (lambda k: k.__setitem__((0, 3), 0), "slice 0, coil 3: every k-space value is zero"),
    ],
    ids=["nan", "zero slice", "zero coil"],
)
def test_bad_values_name_their_slice(refusal, tmp_path, spoil, message):
    def change(file):
        k = file["kspace"][:]
        spoil(k)
        file["kspace"][...] = k

    code, text = refusal(edited(fastmri_file(tmp_path / "a.h5", mask=MASK), change))
    assert code == 3
    assert message in text


def test_bad_values_become_zero_only_where_that_is_asked_for(capsys, prior, tmp_path):
    """What was refused leaves no run behind, so that the same folder serves the next."""
    source = fastmri_file(tmp_path / "a.h5", mask=MASK, slices=1)
    edited(source, lambda file: file["kspace"].__setitem__((0, 2, 1, 12), np.nan))
    arguments = ("reconstruct", source, "--prior", prior, "-o", tmp_path / "out", *SHORT)
    assert command(capsys, *arguments).code == 3
    assert not (tmp_path / "out").exists()
    done = command(capsys, *arguments, "--nan", "zero")
    assert done.code == 0, done.err


def test_a_mask_that_disagrees_with_its_kspace_is_named(capsys, prior, tmp_path):
    source = fastmri_file(tmp_path / "a.h5", mask=MASK)
    k, _ = kspace()
    edited(source, lambda file: file["kspace"].__setitem__(..., k))
    done = command(capsys, "reconstruct", source, "--prior", prior, "-o", tmp_path / "out",
                   *SHORT, "--dry-run")  # fmt: skip
    assert "mask disagrees with its k-space" in done.out
    assert "% of the energy lies outside it" in done.out


def test_a_mask_that_keeps_everything_says_that_there_is_nothing_to_do(capsys, prior, tmp_path):
    np.save(tmp_path / "mask.npy", np.ones(32))
    source = fastmri_file(tmp_path / "a.h5")
    done = command(capsys, "reconstruct", source, "--prior", prior, "-o", tmp_path / "out",
                   *SHORT, "--mask", tmp_path / "mask.npy", "--dry-run")  # fmt: skip
    assert "keeps everything: nothing is undersampled" in done.out


@pytest.mark.filterwarnings("ignore:the data lie")
@pytest.mark.parametrize("shape", [(23, 31), (7, 40)])
def test_odd_and_tiny_images_come_back_in_their_size(capsys, prior, tmp_path, shape):
    source = fastmri_file(tmp_path / "a.h5", shape=shape, slices=1)
    done = command(capsys, "reconstruct", source, "--prior", prior, "-o", tmp_path / "out",
                   *SHORT, "--noise-std", 0.01)  # fmt: skip
    assert done.code == 0, done.err
    with h5py.File(tmp_path / "out/a.h5") as file:
        assert file["reconstruction"].shape == (1, *shape)


def test_a_line_is_too_small_an_image_and_says_so(refusal, tmp_path):
    code, text = refusal(fastmri_file(tmp_path / "a.h5", shape=(1, 32), slices=1))
    assert code == 3
    assert "no calibration region: only" in text


def test_a_flipped_bit_in_a_result_is_found_when_it_is_read(capsys, prior, tmp_path):
    source = fastmri_file(tmp_path / "a.h5", mask=MASK, slices=1)
    done = command(capsys, "reconstruct", source, "--prior", prior, "-o", tmp_path / "out", *SHORT)
    assert done.code == 0, done.err
    result = tmp_path / "out/a.h5"
    with h5py.File(result) as file:
        chunk = file["reconstruction"].id.get_chunk_info(0)
    content = bytearray(result.read_bytes())
    content[chunk.byte_offset + 40] ^= 1
    result.write_bytes(content)
    done = command(capsys, "report", result)
    assert done.code == 3
    assert "a.h5" in done.err


def test_a_full_disk_is_a_matter_of_resources(refusal, tmp_path):
    import resource
    import signal

    source = fastmri_file(tmp_path / "a.h5", mask=MASK, slices=1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        code, text = refusal(source)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert code == 6
    assert "no room to write" in text
    assert "--resume" in text


@pytest.mark.filterwarnings("ignore:the data lie")
def test_a_mask_without_a_centre_serves_all_but_periodic_maps(refusal, capsys, prior, tmp_path):
    source = fastmri_file(tmp_path / "a.h5", mask=np.arange(32) % 3 == 1, slices=1)
    code, text = refusal(source, "--maps", "low-resolution")
    assert code == 3
    assert "no calibration region" in text
    assert "sens_maps" in text
    done = command(capsys, "reconstruct", source, "--prior", prior, "-o", tmp_path / "fitted",
                   *SHORT, "--noise-std", 0.01)  # fmt: skip
    assert done.code == 0, done.err


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros(32), "at least one 1"),
        (np.ones(31), r"the mask must be (32,) or (24, 32); got (31,)"),
        (np.ones((32, 24)), r"got (32, 24)"),
        (np.full(32, 0.5), "0 and 1"),
    ],
    ids=["empty", "short", "transposed", "soft"],
)
def test_a_given_mask_must_fit(refusal, tmp_path, mask, message):
    np.save(tmp_path / "mask.npy", mask)
    code, text = refusal(fastmri_file(tmp_path / "a.h5"), "--mask", tmp_path / "mask.npy")
    assert code == 3
    assert message in text


def test_a_given_mask_cannot_ask_for_what_was_not_measured(refusal, tmp_path):
    np.save(tmp_path / "mask.npy", np.ones(32))
    code, text = refusal(
        fastmri_file(tmp_path / "a.h5", mask=MASK), "--mask", tmp_path / "mask.npy"
    )
    assert code == 3
    assert "has not measured" in text


def test_an_acceleration_that_contradicts_the_file_is_refused(refusal, tmp_path):
    code, text = refusal(fastmri_file(tmp_path / "a.h5", mask=MASK), "--acc", 8)
    assert code == 3
    assert "undersampled already, by 2.29: leave out --acc 8" in text


def test_an_unknown_pattern_lists_the_known_ones(refusal, tmp_path):
    code, text = refusal(fastmri_file(tmp_path / "a.h5"), "--mask", "spiril", "--acc", 4)
    assert code == 3
    assert "equispaced-fraction" in text


@pytest.mark.parametrize(
    ("channels", "size", "message"),
    [(3, None, "is of 3 channels"), (1, None, "needs 2: complex images"), (2, 16, "(16, 16) only")],
)
def test_a_prior_that_cannot_fit_is_refused_with_the_reason(
    refusal, tmp_path, channels, size, message
):
    other = tiny_prior(tmp_path / "other.safetensors", channels, size)
    code, text = refusal(fastmri_file(tmp_path / "a.h5", mask=MASK), prior=other)
    assert code == 4
    assert message in text


def test_a_prior_that_is_no_prior_is_refused(refusal, tmp_path):
    (tmp_path / "bad.safetensors").write_bytes(b"\x80\x04junk junk")
    source = fastmri_file(tmp_path / "a.h5", mask=MASK)
    code, text = refusal(source, prior=tmp_path / "bad.safetensors")
    assert code == 4
    assert "pickled" in text


def test_magnitudes_and_ambiguous_axes_are_refused(refusal, tmp_path):
    k, _ = kspace()
    code, text = refusal(remade(tmp_path / "a.h5", lambda f: f.__setitem__("kspace", np.abs(k))))
    assert code == 3
    assert "magnitudes cannot be reconstructed" in text
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["kspace"] = k[0]
    code, text = refusal(tmp_path / "b.h5")
    assert code == 3
    assert "--axes" in text


def test_a_folder_that_cannot_be_written_is_a_matter_of_resources(refusal, tmp_path, monkeypatch):
    source = fastmri_file(tmp_path / "a.h5", mask=MASK)
    if os.geteuid() == 0:
        import inverse_score.io.runs.atomic as atomic

        def read_only(*_arguments):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(atomic.Path, "replace", read_only)
        monkeypatch.setattr(atomic.os, "replace", read_only)
    else:
        (tmp_path / "out").mkdir()
        (tmp_path / "out").chmod(stat.S_IRUSR | stat.S_IXUSR)
    code, text = refusal(source)
    assert code == 6
    assert "Permission denied" in text


def test_a_run_that_is_locked_is_refused(refusal, tmp_path):
    from inverse_score.io.runs.commits import locked

    source = fastmri_file(tmp_path / "a.h5", mask=MASK)
    with locked(tmp_path / "out", "shard-1-of-1"):
        code, text = refusal(source)
    assert code == 3
    assert f"process {os.getpid()}" in text


def test_usage_errors_exit_two(capsys, tmp_path):
    assert command(capsys, "reconstruct", "--nonsense").code == 2
    assert command(capsys, "reconstruct", tmp_path / "a.h5", "--shard", "3/2").code == 2


def test_nothing_about_a_patient_is_written_or_said(capsys, prior, tmp_path):
    name = "DOE^JANE"
    source = fastmri_file(tmp_path / "scan.h5", mask=MASK, slices=1)
    with h5py.File(source, "r+") as file:
        file.attrs["patient_id"] = name
        file.attrs["acquisition"] = name
        file.attrs["simulated"] = name
        text = file["ismrmrd_header"][()].decode()
        del file["ismrmrd_header"]
        patient = f"<subjectInformation><patientName>{name}</patientName></subjectInformation>"
        file["ismrmrd_header"] = text.replace("<encoding>", f"{patient}<encoding>", 1)
    done = command(capsys, "reconstruct", source, "--prior", prior, "-o", tmp_path / "out",
                   "--steps", 2, "--samples", 2, "--json")  # fmt: skip
    assert done.code == 0, done.err
    written = [p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()]
    assert len(written) > 8
    for content in (*written, done.out.encode(), done.err.encode()):
        assert name.encode() not in content
        assert b"JANE" not in content


def test_names_from_elsewhere_stay_in_the_folder_and_out_of_the_terminal(capsys, prior, tmp_path):
    source = fastmri_file(tmp_path / "a\x1b[2J<script>\n.h5", mask=MASK, slices=1)
    done = command(capsys, "reconstruct", source, "--prior", prior, "-o", tmp_path / "out",
                   "--steps", 2, "--samples", 1, "--baseline", "none")  # fmt: skip
    assert done.code == 0, done.err
    assert "\x1b" not in done.out + done.err
    (page,) = (tmp_path / "out").glob("*.html")
    assert "<script>\n" not in page.name
    assert page.read_text().count("<script") == 2


def test_hashed_names_do_not_repeat_the_input(capsys, prior, tmp_path):
    source = fastmri_file(tmp_path / "jane.h5", mask=MASK, slices=1)
    done = command(capsys, "reconstruct", source, "--prior", prior, "-o", tmp_path / "out",
                   "--steps", 2, "--samples", 1, "--baseline", "none", "--no-pages",
                   "--hash-names", "--json")  # fmt: skip
    assert done.code == 0, done.err
    assert json.loads(done.out)["scans"][0]["name"].startswith("scan-")
    assert "jane" not in done.out
