"""Errors that the command line turns into exit codes; all are ValueErrors for Python callers."""


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
