"""Tables of the samplers and the likelihood on priors with a known law.

    python tests/studies/samplers.py [--tables quality,mixture,...] [--out FILE]

All of them take about five minutes of one core. Each is a section of FILE, and those that are not
run again stay as they are.
"""

from __future__ import annotations

import argparse
import re
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from sampler_checks import table_likelihood, table_orders, table_others
from sampler_costs import table_noise, table_overhead
from sampler_tables import table_adaptive, table_corrector, table_mixture, table_quality

TABLES: dict[str, Callable[[], str]] = {
    "quality": table_quality,
    "others": table_others,
    "corrector": table_corrector,
    "mixture": table_mixture,
    "adaptive": table_adaptive,
    "orders": table_orders,
    "likelihood": table_likelihood,
    "overhead": table_overhead,
    "noise": table_noise,
}
_MARK = "<!-- python tests/studies/samplers.py --tables {} -->"


def merge(text: str, sections: dict[str, str]) -> str:
    """The file's text with these sections in place of its own, in the order of TABLES."""
    mark = re.escape(_MARK).replace(r"\{\}", r"([\w-]+)")
    parts = re.split(mark, text)
    kept = {name: body.strip() for name, body in zip(parts[1::2], parts[2::2], strict=True)}
    found = {**kept, **sections}
    known = [f"{_MARK.format(name)}\n{found[name].strip()}\n" for name in TABLES if name in found]
    return "\n".join(known)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--tables", default=",".join(TABLES), help="comma-separated names")
    parser.add_argument("--out", type=Path, help="put the tables into this file")
    chosen = parser.parse_args(arguments)
    names = chosen.tables.split(",")
    unknown = sorted(set(names) - set(TABLES))
    if unknown:
        parser.error(f"unknown tables {', '.join(unknown)}; known: {', '.join(TABLES)}")
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    for name in names:
        began = time.process_time()
        text = TABLES[name]()
        text += f"\n({time.process_time() - began:.0f} s of one core)\n"
        print(text, flush=True)
        if chosen.out is not None:
            before = chosen.out.read_text() if chosen.out.exists() else ""
            chosen.out.parent.mkdir(parents=True, exist_ok=True)
            chosen.out.write_text(merge(before, {name: text}))


if __name__ == "__main__":
    main()
