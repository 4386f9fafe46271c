"""What a file claims is compared with what it has; what cannot be compared runs in bounds."""

import os
import struct
import zlib

import h5py
import numpy as np
import pytest

from inverse_score.errors import BadInput
from inverse_score.io import guard
from inverse_score.io.guard.chunks import check_chunks
from inverse_score.io.guard.heaps import check_references
from inverse_score.io.guard.worker import Worker
from inverse_score.io.reading import read_scan

VALUES = np.arange(7, dtype="f4")
ROWS = np.dtype([("a", "i4"), ("text", h5py.string_dtype()), ("b", "f8"),
                 ("values", h5py.vlen_dtype("f4"))])  # fmt: skip


def varying(path, **options):
    """A table whose rows have texts and lists of 1 to 5 entries."""
    rows = np.empty(5, ROWS)
    for k in range(5):
        rows[k] = (k, "x" * (k + 1), k / 2, VALUES[: k + 1])
    with h5py.File(path, "w", userblock_size=options.pop("userblock", 0)) as file:
        file.create_dataset("table", data=rows, **options)
    return path


def check(path):
    with h5py.File(path) as file:
        check_references(file["table"], path)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"userblock": 512},
        {"chunks": (2,)},
        {"chunks": (3,), "compression": "gzip", "shuffle": True, "fletcher32": True},
    ],
    ids=["plain", "user block", "chunks", "filters"],
)
def test_honest_values_of_variable_length_pass(tmp_path, options):
    check(varying(tmp_path / "a.h5", **options))


@pytest.mark.parametrize("claimed", [1 << 31, 4], ids=["gigabytes", "less than is there"])
def test_a_length_must_be_that_of_the_object_in_the_heap(tmp_path, claimed):
    """libhdf5 allocates the length first, or copies more than it allocated."""
    path = varying(tmp_path / "a.h5")
    with h5py.File(path) as file:
        at = file["table"].id.get_offset() + 5 * 44 - 16  # the last row's list, 5 long
    content = bytearray(path.read_bytes())
    assert struct.unpack_from("<I", content, at) == (5,)
    struct.pack_into("<I", content, at, claimed)
    path.write_bytes(content)
    with pytest.raises(BadInput, match=f"{4 * claimed} bytes are claimed .* which has 20"):
        check(path)


def test_a_list_that_is_neither_sequence_nor_text_is_refused(tmp_path):
    path = varying(tmp_path / "a.h5")
    content = bytearray(path.read_bytes())
    # The class of the type of `values`: version 1, variable length, then which of the two.
    at = content.index(b"\x19\0\0\0" + struct.pack("<I", 16) + b"\x11")
    content[at + 1] = 0x0F
    path.write_bytes(content)
    with pytest.raises(BadInput, match="must be text or numbers"):
        check(path)


def test_text_in_an_attribute_is_read_in_bounds(tmp_path):
    """A length of gigabytes in an attribute's descriptor costs the other process, not this one."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.attrs["word"] = "unmistakable"
    with guard.open_hdf5(tmp_path / "a.h5") as file:
        assert guard.attribute(file, "word") == "unmistakable"
    content = bytearray((tmp_path / "a.h5").read_bytes())
    at = content.index(struct.pack("<I", 12) + struct.pack("<Q", content.index(b"GCOL")))
    struct.pack_into("<I", content, at, 0xFFFFFFFF)
    (tmp_path / "b.h5").write_bytes(content)
    with guard.open_hdf5(tmp_path / "b.h5") as file, pytest.raises(BadInput, match="word"):
        guard.attribute(file, "word")


def test_a_chunk_of_no_bytes_is_refused_before_its_checksum_is_looked_for(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("d", data=np.ones((2, 64), "f4"), chunks=(1, 64), fletcher32=True)
    content = bytearray((tmp_path / "a.h5").read_bytes())
    at = content.index(struct.pack("<II", 64 * 4 + 4, 0))  # size and filter mask of a chunk
    struct.pack_into("<I", content, at, 0)
    (tmp_path / "a.h5").write_bytes(content)
    with h5py.File(tmp_path / "a.h5") as file, pytest.raises(BadInput, match="in 0 bytes"):
        check_chunks(file["d"], "a.h5")


def test_a_chunk_that_inflates_beyond_its_size_is_refused(tmp_path, monkeypatch):
    """Chunks that cannot reach a gigabyte are left to HDF5, here those below a megabyte."""
    monkeypatch.setattr("inverse_score.io.guard.chunks._HARMLESS", 1 << 20)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name in ("bomb", "honest"):
            data = file.create_dataset(name, (1 << 20,), "u1", chunks=True, compression="gzip")
            size = data.chunks[0] if name == "honest" else 1 << 24
            for k in range(data.shape[0] // data.chunks[0]):
                data.id.write_direct_chunk((k * data.chunks[0],), zlib.compress(bytes(size), 9))
    with h5py.File(tmp_path / "a.h5") as file:
        check_chunks(file["honest"], "a.h5")
        with pytest.raises(BadInput, match="inflates to more"):
            check_chunks(file["bomb"], "a.h5")


def test_an_array_of_no_entries_and_a_cut_header_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((0, 2, 4, 4), np.complex64))
    with pytest.raises(BadInput, match="declares shape"):
        read_scan(tmp_path / "a.npy")
    (tmp_path / "a.ra").write_bytes(struct.pack("<3Q", 0x7961727261776172, 0, 4))
    with pytest.raises(BadInput, match="damaged or cut"):
        read_scan(tmp_path / "a.ra")


@pytest.fixture
def worker():
    made = Worker()
    yield made
    made.stop()


def test_a_worker_that_hangs_or_takes_too_much_is_replaced(worker, tmp_path, monkeypatch):
    """A device that never ends takes memory, a queue that nobody fills takes time."""
    good = varying(tmp_path / "a.h5")
    assert worker.ask("walk_hdf5", "a.h5", path=str(good)) == 2
    os.mkfifo(tmp_path / "queue")
    monkeypatch.setattr("inverse_score.io.guard.worker.WALL", 1)
    with pytest.raises(BadInput, match=r"q is damaged or hostile: reading it hung"):
        worker.ask("walk_hdf5", "q", path=str(tmp_path / "queue"))
    monkeypatch.setattr("inverse_score.io.guard.worker.WALL", 120)
    assert worker.ask("walk_hdf5", "a.h5", path=str(good)) == 2


def test_a_workers_errors_quote_nothing_of_the_file(worker, tmp_path):
    (tmp_path / "DOE^JANE").write_bytes(b"no HDF5")
    with pytest.raises(BadInput) as caught:
        worker.ask("walk_hdf5", "a.h5", path=str(tmp_path / "DOE^JANE"))
    assert str(caught.value) == "a.h5 cannot be read: damaged or cut (OSError)"
