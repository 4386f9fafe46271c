"""The folder of a run: a manifest, one committed file a work unit, and the volumes made of them.

A work unit is (scan, slice, chunk of samples). Its file appears whole or not at all, so a run that
was killed at any moment resumes with the units that are there, and the volume is put together by
one process once all are. Nothing in a volume depends on time, order, shard or process.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import BadInput
from ..names import safe_name
from .commits import commit_json, committing, holder, locked, sha256_json

MANIFEST, UNITS, FAILED = "manifest.json", ".units", ".failed"


@dataclass(frozen=True, order=True)
class Unit:
    """The smallest piece of work that is computed, committed and resumed."""

    scan: int
    slice: int
    chunk: int

    @property
    def file_name(self) -> str:
        return f"{self.scan:04d}-{self.slice:05d}-{self.chunk:03d}.npz"


def unique_names(names: Sequence[str], hashes: Sequence[str]) -> list[str]:
    """Safe file names of scans; names that meet, also but for case, get the start of their hash."""
    slugs = [safe_name(name, 80) for name in names]
    slugs = [f"scan-{h[:12]}" if s == "unnamed" else s for s, h in zip(slugs, hashes, strict=True)]
    folded = [slug.lower() for slug in slugs]
    unique = [
        slug if folded.count(slug.lower()) == 1 else f"{slug}-{sha[:12]}"
        for slug, sha in zip(slugs, hashes, strict=True)
    ]
    if len(set(unique)) != len(unique):
        raise BadInput("the same scan is given twice: " + ", ".join(sorted(set(unique))))
    return unique


class RunFolder:
    """out/manifest.json, out/.units/*.npz while running, and the outputs by name."""

    def __init__(self, out: Path, manifest: dict[str, Any]):
        self.out, self.manifest = Path(out), manifest
        self.units = [
            Unit(i, k, c)
            for i, scan in enumerate(manifest["inputs"])
            for k in range(*scan["slices"])
            for c in range(manifest["chunks"])
        ]

    @staticmethod
    def prepare(
        out: Path,
        config: dict[str, Any],
        inputs: list[dict[str, Any]],
        chunks: int,
        *,
        sources: Iterable[Path] = (),
        resume: bool = False,
        overwrite: bool = False,
        shared: bool = False,
    ) -> RunFolder:
        """Start a run, or go on with the one that is there; BadInput where neither may be.

        inputs: [{"name", "sha256", "slices": [first, stop]}]. An unfinished run is continued with
        resume, whose config and inputs must be equal, and replaced with overwrite; shared lets
        shards of one run join it. An output that is one of the sources is never written.
        """
        manifest = {"version": 1, "config": config, "inputs": inputs, "chunks": chunks}
        manifest["run"] = sha256_json(manifest)
        run = RunFolder(out, manifest)
        run._spare(sources)
        # Shards that start together must not clear what another has begun.
        with locked(run.out, "start", patience=60.0 if shared else 0.0):
            return run._start(resume, overwrite, shared)

    def _start(self, resume: bool, overwrite: bool, shared: bool) -> RunFolder:
        run, out, manifest = self, self.out, self.manifest
        old = run._old_manifest()
        if old is None and resume:
            raise BadInput(f"--resume: {out.name or out} holds no run to go on with")
        joined = shared and old is not None and old.get("run") == manifest["run"]
        if old is not None and (resume or (joined and not overwrite)):
            run._check_same(old)
            return run
        if overwrite and shared:
            raise BadInput("--overwrite cannot be shared out: delete the outputs, or do it in one")
        existing = [path.name for path in run.outputs() if path.exists()]
        if (existing or old is not None) and not overwrite:
            what = existing[0] if existing else "an unfinished run"
            raise BadInput(
                f"{Path(out).name or out} already holds {what}; nothing was written: --resume "
                "continues an interrupted run, --overwrite replaces it, --out names another folder"
            )
        run._clear()
        commit_json(run.out / MANIFEST, manifest)
        return run

    def outputs(self) -> Iterator[Path]:
        """Final files of this run, by name."""
        for scan in self.manifest["inputs"]:
            for suffix in (".h5", ".html"):
                yield self.out / f"{scan['name']}{suffix}"
        yield self.out / "summary.json"

    def path(self, unit: Unit) -> Path:
        return self.out / UNITS / unit.file_name

    def save(self, unit: Unit, arrays: dict[str, np.ndarray], facts: dict[str, Any]) -> None:
        """Commit a unit: arrays by name, and facts as JSON."""
        text = json.dumps({"run": self.manifest["run"], **facts})
        with committing(self.path(unit)) as temporary, temporary.open("wb") as file:
            np.savez(file, __facts__=np.array(text), **arrays)  # type: ignore[arg-type]

    def load(self, unit: Unit) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """The arrays and facts of a committed unit of this run."""
        with np.load(self.path(unit), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        return arrays, json.loads(str(arrays.pop("__facts__")))

    def fail(self, unit: Unit, text: str) -> None:
        """Record why a unit failed, for the process that puts the volume together."""
        commit_json(self.path(unit).with_suffix(FAILED), {"error": text})

    def failures(self) -> dict[Unit, str]:
        """Units that failed, in any process, since the run was started or resumed."""
        paths = {unit: self.path(unit).with_suffix(FAILED) for unit in self.units}
        return {
            unit: json.loads(path.read_text())["error"]
            for unit, path in paths.items()
            if path.exists() and not self.done(unit)
        }

    def done(self, unit: Unit) -> bool:
        """Whether the unit's file is there; `sweep` removes those that are damaged."""
        return self.path(unit).exists()

    def missing(self, units: Iterable[Unit] | None = None) -> list[Unit]:
        return [unit for unit in (self.units if units is None else units) if not self.done(unit)]

    def share(self, index: int, count: int, *, whole: bool = False) -> list[Unit]:
        """Units of shard index (from 1) of count: every one in exactly one shard.

        whole: the slices of a scan stay together, chunk by chunk.
        """
        if not whole:
            return self.units[index - 1 :: count]
        groups = sorted({(unit.scan, unit.chunk) for unit in self.units})[index - 1 :: count]
        return [unit for unit in self.units if (unit.scan, unit.chunk) in groups]

    def sweep(self) -> list[str]:
        """Remove damaged, foreign and half-written unit files; returns the names of damaged ones.

        Every byte is read against the checksums of the archive. Failed units are tried again.
        """
        folder, damaged = self.out / UNITS, []
        for path in folder.glob(f"*{FAILED}"):
            path.unlink()
        known = {unit.file_name for unit in self.units}
        for path in sorted(folder.glob("*.npz")) if folder.exists() else []:
            if path.name.startswith(".") or path.name not in known or not self._intact(path):
                path.unlink()
                damaged.append(path.name)
        return damaged

    def lock(self, index: int, count: int):
        """Context: this process is shard index of count, and the only one in this folder."""
        for path in self.out.glob(".shard-*.lock"):
            owner = holder(path)
            if owner is not None and not path.name.endswith(f"-of-{count}.lock"):
                raise BadInput(
                    f"{self.out.name} is being written by process {owner.get('pid')} on "
                    f"{owner.get('host')} with another number of shards; wait for it"
                )
        return locked(self.out, f"shard-{index}-of-{count}")

    def withdraw(self) -> None:
        """Take back a run that came to nothing, so that the next needs no --overwrite."""
        units = self.out / UNITS
        if units.exists() and any(units.iterdir()):
            return
        with contextlib.suppress(OSError):
            if units.exists():
                units.rmdir()
            (self.out / MANIFEST).unlink(missing_ok=True)

    def finish(self) -> None:
        """Remove the unit files, once every volume is written."""
        shutil.rmtree(self.out / UNITS, ignore_errors=True)
        commit_json(self.out / MANIFEST, {**self.manifest, "status": "complete"})

    def _intact(self, path: Path) -> bool:
        try:
            with zipfile.ZipFile(path) as archive:
                if archive.testzip() is not None:
                    return False
            with np.load(path, allow_pickle=False) as file:
                return json.loads(str(file["__facts__"]))["run"] == self.manifest["run"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return False

    def _spare(self, sources: Iterable[Path]) -> None:
        sources = list(sources)
        for path in self.outputs():
            # Refused by content, not by name: links to an input are the input.
            if path.exists() and any(s.exists() and path.samefile(s) for s in sources):
                raise BadInput(
                    f"the output {path.name} would overwrite an input; choose another --out"
                )

    def _old_manifest(self) -> dict[str, Any] | None:
        path = self.out / MANIFEST
        if not path.exists():
            return None
        try:
            old = json.loads(path.read_text())
            return old if isinstance(old, dict) and "run" in old else {}
        except (OSError, ValueError):
            raise BadInput(
                f"{path.parent.name}/{MANIFEST} is damaged; --overwrite starts anew"
            ) from None

    def _check_same(self, old: dict[str, Any]) -> None:
        if old.get("run") == self.manifest["run"]:
            return
        pairs = [(old.get("config", {}), self.manifest["config"])]
        pairs.append(({"inputs": old.get("inputs")}, {"inputs": self.manifest["inputs"]}))
        changed = sorted(
            key
            for was, now in pairs
            for key in was.keys() | now.keys()
            if was.get(key) != now.get(key)
        )
        raise BadInput(
            f"--resume: {self.out.name} was started with other {', '.join(changed) or 'settings'}; "
            "repeat the command as it was, or choose another --out"
        )

    def _clear(self) -> None:
        shutil.rmtree(self.out / UNITS, ignore_errors=True)
        for path in (*self.outputs(), self.out / MANIFEST):
            path.unlink(missing_ok=True)
