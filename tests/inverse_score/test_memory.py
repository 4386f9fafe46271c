"""Freed memory is kept for what comes next, where the C library is glibc and nobody objects."""

import os
import subprocess
import sys

import pytest

# What was set, and the minor page faults of 60 new blocks of 8 MiB after a few that warm up.
COUNT = """
import resource
from inverse_score.memory import keep_freed_memory
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
kept, size = keep_freed_memory(), 8 << 20
def run(count):
    for _ in range(count):
        # Three at once are more than glibc keeps by itself.
        first, second, third = b"a" * size, b"b" * size, b"c" * size
        del first, second, third
run(3)
before = faults()
run(20)
print(int(kept), faults() - before)
"""


def counted(**extra: str) -> tuple[bool, int]:
    own = ("MALLOC_", "GLIBC_TUNABLES", "INVERSE_SCORE_KEEP_MEMORY")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    done = subprocess.run(
        [sys.executable, "-c", COUNT], env=clean | extra, capture_output=True, text=True, check=True
    )
    kept, faults = done.stdout.split()
    return bool(int(kept)), int(faults)


def is_glibc() -> bool:
    return sys.platform == "linux" and "glibc" in str(os.confstr("CS_GNU_LIBC_VERSION"))


@pytest.mark.skipif(not is_glibc(), reason="only glibc has mallopt's thresholds")
def test_new_blocks_reuse_freed_pages_instead_of_faulting_new_ones_in():
    kept, faults = counted()
    off, faults_off = counted(INVERSE_SCORE_KEEP_MEMORY="0")
    assert (kept, off) == (True, False)
    # Of 60 blocks of 2048 pages each: a few while the heap still grows, against most of them.
    assert faults < 5 * 2048
    assert faults_off > 20 * 2048


@pytest.mark.parametrize("variable", ["MALLOC_ARENA_MAX", "GLIBC_TUNABLES"])
def test_a_user_who_tunes_malloc_is_left_alone(monkeypatch, variable):
    from inverse_score.memory import keep_freed_memory

    monkeypatch.setenv(variable, "1")
    assert not keep_freed_memory()


def test_other_c_libraries_are_left_alone(monkeypatch):
    from inverse_score import memory

    monkeypatch.delenv("INVERSE_SCORE_KEEP_MEMORY", raising=False)
    monkeypatch.setattr(memory, "_is_glibc", lambda: False)
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: pytest.fail("no mallopt to call"))
    assert not memory.keep_freed_memory()
