"""Results on disk: one JSON line an item, written once, so that a run resumes where it stopped."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from inverse_score.errors import BadInput, OutOfResources
from inverse_score.io.priors import find_prior, load_prior
from inverse_score.io.runs.commits import commit_json, sha256_file
from inverse_score.networks.precision import InBfloat16, has_quick_bfloat16
from inverse_score.networks.unet import UNet
from inverse_score.prior import Prior

from .definition import Definition

Key = tuple[str, str, str]  # row, case, item


class Results:
    """The folder of one benchmark run. identity: what must not change between runs."""

    def __init__(self, folder: Path, identity: dict[str, str], shard: tuple[int, int] = (0, 1)):
        self.folder, self.identity = folder, identity
        name = "results" if shard[1] == 1 else f"results-{shard[0]}-of-{shard[1]}"
        self.path = folder / f"{name}.jsonl"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with self.path.open("a"):
                pass
        except OSError as error:
            raise OutOfResources(f"cannot write results in {folder}: {error.strerror}") from None
        self.reload()

    def reload(self) -> None:
        """Read what every process of the run has finished so far."""
        found = {
            (r["row"], r["case"], r["item"]): r
            for r in self._read(self.folder.glob("results*.jsonl"))
        }
        self.records = list(found.values())
        self.done: set[Key] = set(found)

    def add(self, record: dict[str, Any]) -> None:
        """Append one record and force it to the disk."""
        record = {**record, "identity": self.identity}
        try:
            with self.path.open("a") as file:
                file.write(json.dumps(record) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OutOfResources(f"cannot write {self.path.name}: {error.strerror}") from None
        self.records.append(record)
        self.done.add((record["row"], record["case"], record["item"]))

    def describe_environment(self, **facts: Any) -> None:
        """environment.json: versions and hardware beside the results."""
        import numpy
        import torch

        import inverse_score

        commit_json(
            self.folder / "environment.json",
            {
                "inverse_score": inverse_score.__version__,
                "python": sys.version.split()[0],
                "torch": torch.__version__,
                "numpy": numpy.__version__,
                "machine": platform.machine(),
                "threads": torch.get_num_threads(),
                **self.identity,
                **facts,
            },
        )

    def _read(self, paths: Iterable[Path]) -> Iterable[dict[str, Any]]:
        for path in sorted(paths):
            for number, line in enumerate(path.read_text().splitlines(), 1):
                try:
                    record = json.loads(line)
                except ValueError:
                    # A line cut short by a kill was not finished: its item is done again.
                    continue
                if record.get("identity") != self.identity:
                    theirs = record.get("identity", {})
                    changed = [k for k in self.identity if theirs.get(k) != self.identity[k]]
                    raise BadInput(
                        f"{path.name}, line {number} was made with another "
                        f"{', '.join(changed) or 'identity'}; choose another --out"
                    )
                yield record


def described_prior(source: str | None, definition: Definition) -> tuple[Prior, str]:
    """(prior, SHA-256 of its file) for a file or a shipped name; as `reconstruct` runs it."""
    if source is None:
        raise BadInput(
            f"{definition.name} has no shipped prior: give --prior. "
            f"The paper's: {definition.prior.published}"
        )
    prior = load_prior(source)
    if has_quick_bfloat16("cpu") and isinstance(prior.network, UNet):
        prior.network = InBfloat16(prior.network)
    return prior, sha256_file(find_prior(source))
