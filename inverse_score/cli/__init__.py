"""The command line `inverse-score`, one module a command. Modules import torch inside commands."""

from __future__ import annotations

import errno
import os
import signal
import sys
import traceback
import warnings
from pathlib import Path

from ..device import is_out_of_memory
from ..errors import Interrupted
from ..memory import keep_freed_memory

# Each module registers itself with @app.command().
from . import (  # noqa: F401
    benchmark,
    convert,
    doctor,
    export,
    info,
    likelihood,
    prepare,
    reconstruct,
    report,
    sample,
    simulate,
    train,
    verify,
)
from .application import app


def main() -> None:
    """Run the app; errors become one line on stderr and the exit codes of the documentation.

    0 done, 1 internal, 2 usage, 3 bad input, 4 bad prior, 5 some slices failed, 6 out of memory
    or disk, 130 SIGINT, 143 SIGTERM. INVERSE_SCORE_DEBUG=1 adds the traceback;
    INVERSE_SCORE_KEEP_MEMORY=0 leaves the C library's malloc as it is.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    # Threads that spin at a barrier beside a neighbour's load make small steps 10 times slower;
    # OpenMP reads this once, when torch is first imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    keep_freed_memory()
    # Not the line of code, which tells a user nothing.
    warnings.formatwarning = lambda message, *_: f"inverse-score: warning: {message}\n"
    try:
        app(standalone_mode=True)
    except SystemExit:
        raise
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # Whoever read our output has left; Python would complain again while flushing at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except Exception as error:
        if os.environ.get("INVERSE_SCORE_DEBUG"):
            traceback.print_exc()
        code, text = explain(error)
        print(f"inverse-score: {text}", file=sys.stderr)
        sys.exit(code)


def explain(error: BaseException) -> tuple[int, str]:
    """(exit code, one printable line) for an error, without values that files brought along."""
    from ..io.names import printable

    text = printable(error, 1000) or type(error).__name__
    if isinstance(code := getattr(error, "exit_code", None), int):
        return code, text
    if is_out_of_memory(error):
        return 6, f"out of memory ({text}): a smaller --batch-size, or fewer processes"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return 6, f"no room left on the disk ({os.strerror(error.errno)})"
    if isinstance(error, OSError) and error.errno is not None:
        name = Path(str(error.filename or "")).name
        return 3, f"{printable(name)}: {os.strerror(error.errno)}"
    if isinstance(error, ValueError):
        return 3, text
    frame = traceback.extract_tb(error.__traceback__)[-1:] or [None]
    where = f" in {Path(frame[0].filename).name}:{frame[0].lineno}" if frame[0] else ""
    # An unforeseen message may quote a file's header, and so a patient.
    return 1, f"internal error: {type(error).__name__}{where}; INVERSE_SCORE_DEBUG=1 tells more"


def _interrupt(number: int, _frame: object) -> None:
    # A second signal ends at once: what is committed stays, and everything else is temporary.
    for other in (signal.SIGINT, signal.SIGTERM):
        signal.signal(other, lambda n, _: os._exit(128 + n))
    raise Interrupted(number)
