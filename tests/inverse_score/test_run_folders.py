"""Commits, locks and run folders: whole files or none, one owner, resumption only of the same."""

import json
import os
import resource
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from inverse_score.errors import BadInput, OutOfResources
from inverse_score.io.runs.commits import commit_bytes, committing, locked, sha256_json
from inverse_score.io.runs.results import RunFolder, Unit, unique_names

INPUTS = [
    {"name": "a", "sha256": "00", "slices": [0, 2]},
    {"name": "b", "sha256": "11", "slices": [3, 4]},
]


def prepared(out, seed=0, **options):
    return RunFolder.prepare(Path(out), {"seed": seed}, INPUTS, 2, **options)


def save(folder, unit, value=1.0):
    folder.save(unit, {"samples": np.full((2, 3), value)}, {"nfe": 5})


def test_units_are_every_slice_and_chunk_once(tmp_path):
    folder = prepared(tmp_path)
    assert folder.units == [Unit(0, 0, 0), Unit(0, 0, 1), Unit(0, 1, 0), Unit(0, 1, 1),
                            Unit(1, 3, 0), Unit(1, 3, 1)]  # fmt: skip


@pytest.mark.parametrize("count", [1, 2, 4, 7])
def test_shards_part_the_units(tmp_path, count):
    folder = prepared(tmp_path)
    shares = [unit for i in range(count) for unit in folder.share(i + 1, count)]
    assert sorted(shares) == folder.units


def test_a_saved_unit_comes_back(tmp_path):
    folder = prepared(tmp_path)
    save(folder, folder.units[1], 7.0)
    arrays, facts = folder.load(folder.units[1])
    assert arrays["samples"].tolist() == [[7.0] * 3] * 2
    assert facts["nfe"] == 5
    assert folder.missing() == [u for u in folder.units if u != folder.units[1]]


def test_the_same_unit_has_the_same_bytes(tmp_path):
    one, two = prepared(tmp_path / "1"), prepared(tmp_path / "2")
    save(one, one.units[0])
    save(two, two.units[0])
    assert one.path(one.units[0]).read_bytes() == two.path(two.units[0]).read_bytes()


def test_an_unfinished_run_is_neither_joined_nor_replaced_by_accident(tmp_path):
    save(prepared(tmp_path), Unit(0, 0, 0))
    with pytest.raises(BadInput, match=r"unfinished run.*--resume.*--overwrite"):
        prepared(tmp_path)
    assert not prepared(tmp_path, resume=True).missing([Unit(0, 0, 0)])
    assert prepared(tmp_path, overwrite=True).missing([Unit(0, 0, 0)])


def test_resume_refuses_other_settings_by_name(tmp_path):
    prepared(tmp_path)
    with pytest.raises(BadInput, match="started with other seed"):
        prepared(tmp_path, seed=1, resume=True)


def test_resume_needs_a_run(tmp_path):
    with pytest.raises(BadInput, match="no run to go on with"):
        prepared(tmp_path, resume=True)


def test_a_damaged_manifest_is_no_run(tmp_path):
    prepared(tmp_path)
    (tmp_path / "manifest.json").write_text('{"run"')
    with pytest.raises(BadInput, match="damaged; --overwrite"):
        prepared(tmp_path, resume=True)


def test_damaged_and_foreign_units_are_swept(tmp_path):
    folder = prepared(tmp_path)
    for unit in folder.units:
        save(folder, unit)
    flipped = folder.path(folder.units[0])
    content = bytearray(flipped.read_bytes())
    content[len(content) // 2] ^= 1
    flipped.write_bytes(content)
    folder.path(folder.units[1]).write_bytes(content[:100])
    (flipped.parent / ".x.npz").write_bytes(b"half")
    other = prepared(tmp_path / "other", seed=9)
    save(other, folder.units[2])
    folder.path(folder.units[2]).write_bytes(other.path(folder.units[2]).read_bytes())
    folder.sweep()
    assert folder.missing() == folder.units[:3]


def test_an_output_is_never_an_input_by_any_of_its_names(tmp_path):
    source = tmp_path / "raw.h5"
    source.write_bytes(b"scan")
    for link in (os.link, os.symlink):
        (tmp_path / "a.h5").unlink(missing_ok=True)
        link(source, tmp_path / "a.h5")
        with pytest.raises(BadInput, match="would overwrite an input"):
            prepared(tmp_path, sources=[source], overwrite=True)
    assert source.read_bytes() == b"scan"


def test_a_finished_output_is_not_overwritten(tmp_path):
    (tmp_path / "a.h5").write_bytes(b"precious")
    with pytest.raises(BadInput, match=r"already holds a.h5; nothing was written"):
        prepared(tmp_path)
    assert (tmp_path / "a.h5").read_bytes() == b"precious"


@pytest.mark.parametrize(
    "name", ["../../x", "/etc/passwd", "CON", "x" * 300, "a\nb\0c", "\u202eab"]
)
def test_hostile_names_stay_in_the_folder(tmp_path, name):
    (made,) = unique_names([name], ["ab" * 32])
    path = (tmp_path / f"{made}.h5").resolve()
    assert path.parent == tmp_path.resolve()
    assert made.isascii()
    assert made.isprintable()
    assert len(made) <= 100


def test_names_that_meet_are_told_apart_by_content():
    assert unique_names(["a", "A", "b"], ["1" * 64, "2" * 64, "3" * 64]) == [
        "a-" + "1" * 12, "A-" + "2" * 12, "b"]  # fmt: skip
    with pytest.raises(BadInput, match="given twice"):
        unique_names(["a", "a"], ["1" * 64, "1" * 64])


def test_a_second_owner_is_refused_and_told_who_holds_the_lock(tmp_path):
    with locked(tmp_path, "x"), pytest.raises(BadInput, match=f"process {os.getpid()} on"):
        locked(tmp_path, "x").__enter__()
    with locked(tmp_path, "x"):
        pass


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path):
    code = (
        "import sys, os, signal; from pathlib import Path\n"
        "from inverse_score.io.runs.commits import locked\n"
        "with locked(Path(sys.argv[1]), 'x'): os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / ".x.lock").exists()
    with locked(tmp_path, "x"):
        pass


def test_a_lock_from_another_host_is_never_stale(tmp_path):
    record = {"pid": 1, "host": socket.gethostname() + "-other", "start": "0"}
    (tmp_path / ".x.lock").write_text(json.dumps(record))
    with pytest.raises(BadInput, match="-other"):
        locked(tmp_path, "x").__enter__()


def test_another_number_of_shards_is_refused_while_one_works(tmp_path):
    folder = prepared(tmp_path)
    with folder.lock(1, 2), pytest.raises(BadInput, match="another number of shards"):
        folder.lock(1, 3)
    with folder.lock(1, 2), folder.lock(2, 2):
        pass


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    commit_bytes(tmp_path / "a", b"old")

    def half_way():
        with committing(tmp_path / "a") as temporary:
            temporary.write_bytes(b"new")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        half_way()
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


def test_a_full_disk_is_out_of_resources_and_leaves_nothing(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(OutOfResources, match=r"no room to write a\.h5"):
            commit_bytes(tmp_path / "a.h5", bytes(50_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert list(tmp_path.iterdir()) == []


def test_the_hash_of_a_configuration_ignores_the_order_of_its_keys():
    assert sha256_json({"a": 1, "b": 2}) == sha256_json({"b": 2, "a": 1})
    assert sha256_json({"a": 1}) != sha256_json({"a": 2})
