"""Hostile and damaged files: each is refused in one sentence, cheaply, before it is believed."""

import io
import resource
import zipfile

import h5py
import numpy as np
import pytest

from inverse_score.errors import BadInput
from inverse_score.io import guard
from inverse_score.io.formats.npy import npy_array, npz_array
from inverse_score.io.guard.sniff import sniff
from inverse_score.io.names import inside, printable, safe_name
from inverse_score.io.reading import read_scan

RNG = np.random.default_rng(0)
KSPACE = (RNG.standard_normal((3, 2, 8, 6)) + 1j * RNG.standard_normal((3, 2, 8, 6))).astype("c8")


@pytest.fixture
def folder(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["kspace"] = KSPACE
    (tmp_path / "secret.txt").write_text("s3cret" * 100)
    return tmp_path


def external_link(file, folder):
    file["kspace"] = h5py.ExternalLink("other.h5", "/kspace")


def external_link_on_the_way(file, folder):
    file["kspace"] = h5py.SoftLink("/away/kspace")
    file["away"] = h5py.ExternalLink("other.h5", "/")


def external_storage(file, folder):
    file.create_dataset("kspace", (60,), "u1", external=[(str(folder / "secret.txt"), 0, 60)])


def virtual_source(file, folder):
    layout = h5py.VirtualLayout((2, 4, 4), "c8")
    layout[:] = h5py.VirtualSource("gone.h5", "kspace", (2, 4, 4))
    file.create_virtual_dataset("kspace", layout)


def link_to_itself(file, folder):
    file["kspace"] = h5py.SoftLink("/kspace")


def dangling_link(file, folder):
    file["kspace"] = h5py.SoftLink("/nothing")


def terabytes_declared(file, folder):
    shape, chunks = (10**5, 64, 4096, 4096), (1, 1, 256, 256)
    file.create_dataset("kspace", shape, "c8", chunks=chunks, compression="gzip")


def zeros_compressed(file, folder):
    zeros = np.zeros((3, 1, 1024, 1024), "c8")
    file.create_dataset("kspace", data=zeros, chunks=(1, 1, 512, 512), compression="gzip")


def one_giant_chunk(file, folder):
    shape = (1, 1, 2**14, 2**15)
    file.create_dataset("kspace", shape, "c8", chunks=shape, compression="gzip")


def never_written(file, folder):
    file.create_dataset("kspace", (4, 2, 8, 8), "c8")


def half_written(file, folder):
    data = file.create_dataset("kspace", (4, 2, 8, 8), "c8", chunks=(1, 2, 8, 8))
    data[:2] = 1


def a_group(file, folder):
    file.create_group("kspace")


def text_for_numbers(file, folder):
    file["kspace"] = ["no", "numbers"]


HOSTILE = {
    external_link: "link to another file",
    external_link_on_the_way: "link to another file",
    external_storage: "keeps its values in another file",
    virtual_source: "is virtual",
    link_to_itself: "loop of links",
    dangling_link: "does not exist",
    terabytes_declared: "GiB; the limit is",
    zeros_compressed: "more than 200 times",
    one_giant_chunk: "more than 200 times|limit",
    never_written: "never completely written",
    half_written: "never completely written",
    a_group: "is a group",
    text_for_numbers: "must have|must hold numbers",
}


@pytest.mark.parametrize("make", HOSTILE, ids=lambda make: make.__name__)
def test_a_hostile_hdf5_file_is_refused_by_name(folder, make):
    with h5py.File(folder / "scan.h5", "w") as file:
        make(file, folder)
    with pytest.raises(BadInput, match=HOSTILE[make]) as caught:
        read_scan(folder / "scan.h5", kind="kspace")
    assert "scan.h5" in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert str(folder) not in str(caught.value)


def test_refusing_a_bomb_needs_no_memory(folder):
    with h5py.File(folder / "scan.h5", "w") as file:
        terabytes_declared(file, folder)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(BadInput):
        read_scan(folder / "scan.h5")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB


def test_a_link_within_the_file_is_followed(folder):
    with h5py.File(folder / "scan.h5", "w") as file:
        file["there/raw"] = KSPACE
        file["kspace"] = h5py.SoftLink("/there/raw")
    with guard.open_hdf5(folder / "scan.h5") as file:
        np.testing.assert_array_equal(guard.read_array(guard.dataset(file, "kspace")), KSPACE)


def test_undersampled_kspace_is_no_bomb(folder):
    kspace = np.tile(KSPACE, (1, 8, 16, 24))
    kspace[..., np.arange(144) % 12 != 0] = 0
    with h5py.File(folder / "scan.h5", "w") as file:
        file.create_dataset("kspace", data=kspace, compression="gzip", compression_opts=9)
    limits = guard.Limits(small=1)
    with guard.open_hdf5(folder / "scan.h5") as file:
        assert guard.dataset(file, "kspace", limits=limits).shape == kspace.shape


def test_an_unreadable_chunk_costs_only_its_slice(folder):
    path = folder / "scan.h5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset("kspace", data=KSPACE, chunks=(1, 2, 8, 6), compression="gzip")
        place = data.id.get_chunk_info(1).byte_offset
    content = bytearray(path.read_bytes())
    content[place : place + 40] = bytes(40)
    path.write_bytes(content)
    scan = read_scan(path, axes="slice,coil,y,x")
    np.testing.assert_array_equal(scan[0], KSPACE[0])
    with pytest.raises(BadInput, match=r"scan\.h5.*slice 1 cannot be read"):
        scan[1]


def test_a_flipped_bit_is_found_where_a_checksum_was_written(folder):
    path = folder / "scan.h5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset("kspace", data=KSPACE, chunks=(1, 2, 8, 6), fletcher32=True)
        place = data.id.get_chunk_info(2).byte_offset
    content = bytearray(path.read_bytes())
    content[place + 17] ^= 4
    path.write_bytes(content)
    with pytest.raises(BadInput, match="slice 2 cannot be read"):
        read_scan(path, axes="slice,coil,y,x")[2]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"is empty \(0 bytes\)"),
        (b"<!DOCTYPE html><html><title>Sign in</title>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        (b"<?xml version='1.0'?><Error>denied</Error>", "XML"),
        (b"\x80\x04\x95pickle", "pickle"),
        (bytes(4096), "zeros only"),
        (b"hello there, this is no scan", "unknown format"),
    ],
)
def test_what_is_no_scan_is_named_for_what_it_is(tmp_path, content, message):
    (tmp_path / "scan.h5").write_bytes(content)
    with pytest.raises(BadInput, match=message):
        sniff(tmp_path / "scan.h5")
    with pytest.raises(BadInput, match=message), guard.open_hdf5(tmp_path / "scan.h5"):
        pass


def test_a_truncated_hdf5_file_tells_both_sizes(folder):
    content = (folder / "other.h5").read_bytes()
    (folder / "half.h5").write_bytes(content[: len(content) // 2])
    with pytest.raises(BadInput, match=f"it has {len(content) // 2} of {len(content)} bytes"):
        read_scan(folder / "half.h5")


def test_a_missing_file_is_not_created(tmp_path):
    with pytest.raises(BadInput, match="no such file"):
        read_scan(tmp_path / "none.h5")
    assert not list(tmp_path.iterdir())


def test_a_source_is_opened_for_reading_only(folder):
    (folder / "other.h5").chmod(0o444)
    before = (folder / "other.h5").read_bytes()
    assert read_scan(folder / "other.h5", axes="slice,coil,y,x").shape == KSPACE.shape
    assert (folder / "other.h5").read_bytes() == before


class Spy:
    touched = False

    def __reduce__(self):
        return (setattr, (Spy, "touched", True))


def test_npz_never_unpickles(tmp_path):
    np.savez(tmp_path / "a.npz", kspace=np.array([Spy()], dtype=object))
    np.save(tmp_path / "a.npy", np.array([Spy()], dtype=object), allow_pickle=True)
    for read in (
        lambda: npz_array(tmp_path / "a.npz", None),
        lambda: npy_array(tmp_path / "a.npy"),
    ):
        with pytest.raises(BadInput, match="pickles and never loaded"):
            read()
    assert not Spy.touched


def test_npz_bombs_and_lies_are_refused(tmp_path):
    np.savez_compressed(tmp_path / "bomb.npz", image=np.zeros((10, 512, 512)))
    with pytest.raises(BadInput, match="more than 200 times"):
        read_scan(tmp_path / "bomb.npz", kind="image")
    header = np.lib.format.header_data_from_array_1_0(np.zeros(1))
    lie = io.BytesIO()
    np.lib.format.write_array_header_1_0(lie, {**header, "shape": (1 << 40, 8, 8)})
    with zipfile.ZipFile(tmp_path / "lie.npz", "w") as archive:
        archive.writestr("image.npy", lie.getvalue() + bytes(64))
    with pytest.raises(BadInput, match="declares shape"):
        read_scan(tmp_path / "lie.npz", kind="image")


@pytest.mark.parametrize("name", ["../../x", "/etc/x", "..", "", "CON", "com1.h5", "a\nb", "a\0b",
                                  "x" * 300, "‮txt.exe", "<b>", ".hidden", "a/b\\c"])  # fmt: skip
def test_no_name_of_a_file_leaves_the_output_folder(tmp_path, name):
    safe = safe_name(name)
    assert inside(tmp_path, safe).parent == tmp_path
    assert 0 < len(safe) <= 101
    assert all(char.isascii() and (char.isalnum() or char in "._-") for char in safe)
    assert safe.split(".")[0].upper() not in {"CON", "COM1"}
    assert not safe.startswith(".")


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../b", "a\0b"])
def test_an_output_outside_its_folder_is_refused(tmp_path, name):
    with pytest.raises(BadInput, match="must stay in its folder"):
        inside(tmp_path, name)


def test_a_link_out_of_the_folder_is_seen_through(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "away").symlink_to(tmp_path)
    with pytest.raises(BadInput, match="must stay"):
        inside(tmp_path / "out", "away/x")


def test_terminal_escapes_and_direction_marks_are_not_printed():
    assert printable("a\x1b[2Jb\r\nc‮d\x9bm") == "a[2Jb cdm"
    assert len(printable("x" * 10**6)) == 200


def test_a_heap_that_never_ends_is_refused_and_not_walked(tmp_path):
    """libhdf5 would loop for ever on a free object of size 0, deaf to Ctrl-C."""
    path = tmp_path / "loop.h5"
    with h5py.File(path, "w") as file:
        file["note"] = "kept in a global heap"
        file["kspace"] = KSPACE
    content = bytearray(path.read_bytes())
    heap = content.find(b"GCOL")
    place = heap + 16
    while content[place : place + 2] != b"\0\0":
        place += 16 + (int.from_bytes(content[place + 8 : place + 16], "little") + 7) // 8 * 8
    content[place + 8 : place + 16] = bytes(8)
    path.write_bytes(content)
    with (
        guard.open_hdf5(path) as file,
        pytest.raises(BadInput, match=f"its heap at byte {heap} does not end"),
    ):
        guard.read_text(file, "note")
