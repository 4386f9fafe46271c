"""A second process for what C libraries make of a hostile file: bounded in time and memory.

libhdf5 and the decoders of compressed DICOM pixels can be made to loop, to crash or to allocate
without end, and Python cannot stop them from within. They meet a file in this process first, or
only there; if it dies, that is a BadInput, and the next request starts another one. Answers are
JSON and plain arrays, never pickles, so that a process that a file took over cannot pass it on.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Any

import numpy as np

from ...errors import BadInput

SECONDS = 5
"""Processor time of one request; a file that needs more is refused."""
WALL = 120
"""Time by the clock, long enough for a slow network."""
GiB = 1 << 30


class Worker:
    """One child process, started when first needed, anew after it died and after a fork."""

    def __init__(self):
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._lock = threading.Lock()

    def ask(self, task: str, what: str, memory: int = 2 * GiB, seconds: int = SECONDS, **given):
        """What `worker_tasks.TASKS[task](**given)` returns: JSON, or an array.

        memory and seconds are what it may use beyond what the process has. BadInput says `what`
        went beyond them, killed the process, or could not be read.
        """
        request = {"task": task, "memory": memory, "seconds": seconds, "given": given}
        with self._lock:
            process = self._started()
            alarm = threading.Timer(WALL, process.kill)
            alarm.start()
            try:
                requests, answers = _pipes(process)
                requests.write(json.dumps(request).encode() + b"\n")
                requests.flush()
                answer = json.loads(answers.readline() or "null")
                size = (answer or {}).get("bytes", 0)
                content = answers.read(size) if size else b""
            except (OSError, ValueError):
                answer = None
            finally:
                alarm.cancel()
            if answer is None or len(content) != size:
                self.stop()
                raise BadInput(
                    f"{what} is damaged or hostile: reading it hung, crashed or took more than "
                    f"{memory / GiB:.3g} GiB"
                )
        if "error" in answer:
            raise BadInput(f"{what} cannot be read: damaged or cut ({answer['error']})")
        if "shape" in answer:
            return np.frombuffer(content, np.dtype(answer["dtype"])).reshape(answer["shape"])
        return answer["value"]

    def stop(self) -> None:
        """End the process, if this one started it."""
        process, self._process = self._process, None
        if process is None:
            return
        if self._owner != os.getpid():
            # The child of our parent: not ours to wait for.
            process.returncode = 0
            return
        process.kill()
        process.wait()
        for pipe in _pipes(process):
            # What is left in a pipe that nobody reads is of no use.
            with _ignored():
                pipe.close()

    def _started(self) -> subprocess.Popen[bytes]:
        ours = self._owner == os.getpid()
        if self._process is not None and (not ours or self._process.poll() is not None):
            self.stop()
        if self._process is None:
            self._owner = os.getpid()
            self._process = _start()
        return self._process


def _pipes(process: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes]]:
    """What the child reads, and what it writes."""
    assert process.stdin is not None
    assert process.stdout is not None
    return process.stdin, process.stdout


def _start() -> subprocess.Popen[bytes]:
    root = str(Path(__file__).parents[3])
    program = (
        f"import sys; sys.path.insert(0, {root!r}); "
        "from inverse_score.io.guard.worker_tasks import serve; serve()"
    )
    return subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        # Ctrl-C is for the parent; this process ends when its input does.
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )


def _ignored():
    import contextlib

    return contextlib.suppress(OSError)


WORKER = Worker()
atexit.register(WORKER.stop)


def ask(task: str, what: str, **given: Any):
    """`Worker.ask` of the one worker of this process."""
    return WORKER.ask(task, what, **given)
