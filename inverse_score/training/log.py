"""What a run says while it goes: JSON lines in its folder, a line or a bar on stderr."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any, TextIO

from ..io.runs.atomic import write_text

LOG = "log.jsonl"


class Log:
    """Appends one JSON object a line to log.jsonl.

    Opened at a step, it drops what a run that was killed had written for later steps, so that the
    log of a resumed run is that of an uninterrupted one.
    """

    def __init__(self, folder: Path, step: int):
        self.path = folder / LOG
        if self.path.exists():
            kept = [entry for entry in read_log(folder) if entry.get("step", 0) <= step]
            write_text(self.path, "".join(json.dumps(e) + "\n" for e in (kept if step else [])))

    def write(self, **entry: Any) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")


def read_log(folder: str | Path) -> list[dict[str, Any]]:
    """The entries of a run's log; a last line that was cut short is left out."""
    entries = []
    for line in (Path(folder) / LOG).read_text(encoding="utf-8").splitlines():
        try:
            entries.append(json.loads(line))
        except ValueError:
            break
    return entries


class Progress:
    """`step 1200/20000  loss 0.123  85 images/s  2 h 10 min left` on stderr.

    On a terminal the line is rewritten; elsewhere one is printed every `interval` seconds.
    """

    def __init__(self, steps: int, start: int, *, interval: float = 30.0, to: TextIO | None = None):
        self.steps, self.start, self.to = steps, start, to or sys.stderr
        self.live = self.to.isatty()
        self.interval = 0.5 if self.live else interval
        self.began = self.said = time.monotonic()

    def step(self, done: int, loss: float | None, batch_size: int) -> None:
        now = time.monotonic()
        if now - self.said < self.interval and done < self.steps:
            return
        self.said = now
        rate = (done - self.start) / max(now - self.began, 1e-9)
        left = duration((self.steps - done) / rate) if rate > 0 else "?"
        shown = "" if loss is None else f"  loss {loss:.4g}"
        images = f"{rate * batch_size:.3g} images/s"
        self.say(f"step {done}/{self.steps}{shown}  {images}  {left} left", last=done >= self.steps)

    def say(self, text: str, *, last: bool = False) -> None:
        if self.live:
            print(f"\r\x1b[K{text}", end="\n" if last else "", file=self.to, flush=True)
        else:
            print(text, file=self.to, flush=True)

    def note(self, text: str) -> None:
        """A line that stays."""
        print(("\r\x1b[K" if self.live else "") + text, file=self.to, flush=True)


def duration(seconds: float) -> str:
    """90 -> "1 min 30 s"; 7800 -> "2 h 10 min"."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    minutes, seconds = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s"
    return f"{minutes // 60} h {minutes % 60} min"
