"""Errors that the command line turns into exit codes, and its end by a signal.

What is wrong with input or options is a ValueError for Python callers.
"""


class BadRequest(ValueError):
    """Options that are no values of theirs, contradict each other or do nothing (exit code 2)."""

    exit_code = 2


class BadInput(ValueError):
    """A file or array that cannot be used as it is (exit code 3)."""

    exit_code = 3


class BadPrior(ValueError):
    """A checkpoint or prior that is damaged or does not fit the problem (exit code 4)."""

    exit_code = 4


class PartialFailure(RuntimeError):
    """Some slices failed and the rest were written (exit code 5)."""

    exit_code = 5


class OutOfResources(RuntimeError):
    """Out of memory or disk (exit code 6)."""

    exit_code = 6


class Interrupted(SystemExit):
    """SIGINT or SIGTERM: unwinds like an error, and ends with 128 + the signal's number."""

    def __init__(self, number: int):
        super().__init__(128 + number)
