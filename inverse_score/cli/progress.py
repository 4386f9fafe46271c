"""Progress on stderr: one line that moves on a terminal, one plain line now and then in a log."""

from __future__ import annotations

import sys
import time
from typing import Any

from ..io.names import duration


class ProgressLine:
    """Listens to a run: line(event), an event of `recipes.run`. quiet: only why it ended early."""

    def __init__(self, *, quiet: bool = False, every: float = 30.0):
        self.quiet, self.every = quiet, every
        self.began: float | None = None
        self.said, self.fresh = time.monotonic(), 0
        self.terminal = sys.stderr.isatty()

    def __call__(self, event: Any) -> None:
        # The first event is that the work begins.
        self.began = self.began or time.monotonic()
        if event.kind == "unit":
            self.step(event.done, event.total)
        elif event.kind == "left" or not self.quiet:
            # A line of its own that leaves the moving line whole.
            text = f"\r\x1b[K{event.text}" if self.terminal else event.text
            print(text, file=sys.stderr, flush=True)

    def step(self, done: int, total: int) -> None:
        """One more unit is done."""
        self.fresh += 1
        now = time.monotonic()
        due = now - self.said >= self.every or done == total
        if self.quiet or not (self.terminal or due):
            return
        self.said = now
        left = (now - (self.began or now)) / self.fresh * (total - done)
        line = f"{done}/{total} units, {duration(left)} left"
        if self.terminal:
            print(f"\r\x1b[K{line}", end="\n" if done == total else "", file=sys.stderr)
        else:
            print(line, file=sys.stderr)
        sys.stderr.flush()
