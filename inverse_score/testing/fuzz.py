"""Mutated files against every reader: each must be read, or be refused in one sentence.

Small valid files of each format are mutated (flipped bits, overwritten numbers, cuts, insertions,
moved pieces) and each read wholly in a worker process with limited memory. Counted are files read,
files refused (BadInput, BadPrior), and four kinds of failure, of which there must be none: another
exception, a hang, a crash, memory above the cap. File k of seed s is always the same file.
"""

from __future__ import annotations

import collections
import contextlib
import os
import resource
import select
import signal
import struct
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from inverse_score.errors import BadInput, BadPrior
from inverse_score.io.config import load_yaml
from inverse_score.io.reading import read_scan

SECONDS = 60
GROWTH_MB = 300
NUMBERS = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 40, (1 << 64) - 1)


def mutate(content: bytes, seed: tuple[int, ...]) -> bytes:
    """One to eight random changes; a pure function of content and seed."""
    rng = np.random.default_rng(seed)
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 9))):
        if not data:
            break
        MUTATIONS[int(rng.integers(len(MUTATIONS)))](data, rng)
    return bytes(data)


def _flip(data: bytearray, rng: np.random.Generator) -> None:
    data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))


def _overwrite(data: bytearray, rng: np.random.Generator) -> None:
    """A number at the border of some type, of some width, in some byte order."""
    width = int(rng.choice([1, 2, 4, 8]))
    number = NUMBERS[int(rng.integers(len(NUMBERS)))] & ((1 << 8 * width) - 1)
    at = int(rng.integers(len(data)))
    order = "<" if rng.integers(2) else ">"
    data[at : at + width] = struct.pack(f"{order}Q", number)[:: 1 if order == "<" else -1][:width]


def _cut(data: bytearray, rng: np.random.Generator) -> None:
    if rng.integers(4) == 0:
        del data[int(rng.integers(len(data))) :]


def _remove(data: bytearray, rng: np.random.Generator) -> None:
    at = int(rng.integers(len(data)))
    del data[at : at + int(rng.integers(1, 64))]


def _insert(data: bytearray, rng: np.random.Generator) -> None:
    at = int(rng.integers(len(data)))
    data[at:at] = rng.integers(0, 256, int(rng.integers(1, 64)), dtype=np.uint8).tobytes()


def _move(data: bytearray, rng: np.random.Generator) -> None:
    source, to = (int(v) for v in rng.integers(len(data), size=2))
    piece = bytes(data[source : source + int(rng.integers(1, 256))])
    data[to : to + len(piece)] = piece


def _noise(data: bytearray, rng: np.random.Generator) -> None:
    at, size = int(rng.integers(len(data))), int(rng.integers(1, 32))
    data[at : at + size] = rng.integers(0, 256, size, dtype=np.uint8).tobytes()


MUTATIONS = (_flip, _flip, _overwrite, _overwrite, _cut, _remove, _insert, _move, _noise)


@dataclass(frozen=True)
class Target:
    """A valid file to mutate and what reads it wholly; others are files beside it."""

    name: str
    content: bytes
    file: str
    read: Callable[[Path], None]
    beside: dict[str, bytes] = field(default_factory=dict)


def read_wholly(path: Path, kind: str | None = None) -> None:
    """Every slice, reference and fact of a scan."""
    scan = read_scan(path, kind=kind)
    for k in range(len(scan)):
        scan[k]
        for reference in scan.references.values():
            reference(k)


def read_prior_header(path: Path) -> None:
    from inverse_score.io.priors import read_any_header

    read_any_header(path)


def read_yaml(path: Path) -> None:
    load_yaml(path)


def attempt(target: Target, content: bytes, folder: Path) -> str:
    """ "read", "refused", or the name of an exception that should not have come."""
    path = folder / target.file
    path.write_bytes(content)
    for name, other in target.beside.items():
        (folder / name).write_bytes(other)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            target.read(path)
    except (BadInput, BadPrior) as error:
        text = str(error)
        return "refused" if text and "\n" not in text else "message of several lines"
    except MemoryError:
        return "memory"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:80]}"
    return "read"


def work(targets: list[Target], first: int, stop: int, seed: int, pipe: int) -> None:
    """Try files first to stop - 1, telling each before and after; runs in a child process."""
    shm = Path("/dev/shm")
    place = shm if shm.is_dir() else None
    with tempfile.TemporaryDirectory(dir=place) as name, open(os.devnull, "w") as null:  # noqa: PTH123
        os.dup2(null.fileno(), 1)
        os.dup2(null.fileno(), 2)
        for number in range(first, stop):
            target = targets[number % len(targets)]
            content = mutate(target.content, (seed, number))
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            began = time.perf_counter()
            outcome = attempt(target, content, Path(name))
            seconds = time.perf_counter() - began
            grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
            outcome = "memory" if grown > GROWTH_MB else outcome
            line = f"{number}\t{outcome}\t{seconds:.4f}\t{grown:.1f}\n".replace("\r", " ")
            os.write(pipe, line.encode())


def run(
    targets: list[Target], count: int, seed: int = 0, first: int = 0
) -> list[tuple[int, str, float, float]]:
    """(number, outcome, seconds, MB grown) of files first to first + count - 1.

    A dead or hanging worker is replaced.
    """
    results: list[tuple[int, str, float, float]] = []
    while len(results) < count:
        with _worker(targets, first + len(results), first + count, seed) as pipe:
            for fields in _lines(pipe):
                if fields is None:
                    break
                results.append((int(fields[0]), fields[1], float(fields[2]), float(fields[3])))
                _tell(targets, results)
            else:
                if len(results) < count:
                    results.append((first + len(results), "crash", 0.0, 0.0))
                    _tell(targets, results)
                continue
            results.append((first + len(results), "hang", float(SECONDS), 0.0))
            _tell(targets, results)
    return results


def _tell(targets: list[Target], results: list[tuple[int, str, float, float]]) -> None:
    """Failures as they come, and every thousandth file, on stderr."""
    number, outcome, seconds, grown = results[-1]
    if outcome not in ("read", "refused") or number % 1000 == 999:
        name = targets[number % len(targets)].name
        print(f"{number} {name}: {outcome} ({seconds:.2f} s, {grown:.0f} MB)", file=sys.stderr)


@contextlib.contextmanager
def _worker(targets: list[Target], first: int, stop: int, seed: int) -> Iterator[int]:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        code = 1
        try:
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            work(targets, first, stop, seed, writer)
            code = 0
        finally:
            os._exit(code)
    os.close(writer)
    try:
        yield reader
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reader)


def _lines(pipe: int) -> Iterator[list[str] | None]:
    """Fields of each line; None once nothing came for SECONDS; ends when the worker does."""
    rest = b""
    while True:
        if not select.select([pipe], [], [], SECONDS)[0]:
            yield None
            return
        block = os.read(pipe, 1 << 16)
        if not block:
            return
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            yield line.decode("utf-8", "replace").split("\t")


def table(targets: list[Target], results: list[tuple[int, str, float, float]]) -> list[str]:
    """Markdown rows a format, and one for each kind of failure."""
    rows = ["| format | files | read | refused | failures | slowest | largest growth |",
            "|---|---|---|---|---|---|---|"]  # fmt: skip
    failures: collections.Counter[str] = collections.Counter()
    for index, target in enumerate(targets):
        own = [r for r in results if r[0] % len(targets) == index]
        counts = collections.Counter(outcome for _, outcome, _, _ in own)
        bad = {o: n for o, n in counts.items() if o not in ("read", "refused")}
        failures.update({f"{target.name}: {outcome}": n for outcome, n in bad.items()})
        slowest, grown = max(r[2] for r in own), max(r[3] for r in own)
        rows.append(
            f"| {target.name} | {len(own)} | {counts['read']} | {counts['refused']} | "
            f"{sum(bad.values())} | {1000 * slowest:.0f} ms | {grown:.0f} MB |"
        )
    return rows + [f"\n{number} x {what}" for what, number in failures.most_common()]
