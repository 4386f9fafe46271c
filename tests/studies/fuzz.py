"""Mutated files against every reader: the long run of inverse_score.testing.fuzz.

    python tests/studies/fuzz.py --files 20000

mutates small valid files of each format and prints how many were read, refused, and failed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from inverse_score.testing.fuzz import run, table
from inverse_score.testing.fuzz_targets import make_targets


def main() -> None:
    """Run the fuzzing and print its table; exit status 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first file")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        targets = make_targets(Path(name))
        results = run(targets, options.files, options.seed, options.first)
    print("\n".join(table(targets, results)))
    sys.exit(any(outcome not in ("read", "refused") for _, outcome, _, _ in results))


if __name__ == "__main__":
    main()
