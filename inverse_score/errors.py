"""Errors that callers tell apart: those with an `exit_code` end the command line by it.

What is wrong with input or options is a ValueError for Python callers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


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


class MisfitWarning(UserWarning):
    """Samples that do not explain their data, or hold values that no image has."""


class NotFinite(ValueError):
    """A state of a sampler that holds infinite numbers or none at all."""


class Diverged(ValueError):
    """Sampling left all bounds: step, time and the last bounded x0_hat (in data units)."""

    def __init__(self, message: str, step: int, time: float, state: Tensor | None):
        super().__init__(message)
        self.step, self.time, self.state = step, time, state


class Interrupted(SystemExit):
    """SIGINT or SIGTERM: unwinds like an error, and ends with 128 + the signal's number."""

    def __init__(self, number: int):
        super().__init__(128 + number)
