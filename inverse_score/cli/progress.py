"""Progress on stderr: one line that moves on a terminal, one plain line now and then in a log."""

from __future__ import annotations

import sys
import time


class Progress:
    """Counts finished units; `total` of them, `done` already there."""

    def __init__(self, total: int, done: int = 0, *, quiet: bool = False, every: float = 30.0):
        self.total, self.done, self.quiet, self.every = total, done, quiet, every
        self.began = self.said = time.monotonic()
        self.fresh = 0
        self.terminal = sys.stderr.isatty()

    def step(self, what: str) -> None:
        """One more unit is done."""
        self.done, self.fresh = self.done + 1, self.fresh + 1
        now = time.monotonic()
        due = now - self.said >= self.every or self.done == self.total
        if self.quiet or not (self.terminal or due):
            return
        self.said = now
        left = (now - self.began) / self.fresh * (self.total - self.done)
        line = f"{self.done}/{self.total} {what}, {duration(left)} left"
        if self.terminal:
            print(f"\r\x1b[K{line}", end="\n" if self.done == self.total else "", file=sys.stderr)
        else:
            print(line, file=sys.stderr)
        sys.stderr.flush()

    def note(self, text: str) -> None:
        """A line of its own that leaves the moving line whole."""
        if not self.quiet:
            print(f"\r\x1b[K{text}" if self.terminal else text, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """12 s, 3 min, 2 h 05 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
