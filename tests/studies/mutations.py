"""Which tests notice a wrong constant or rule: `python tests/studies/mutations.py [NUMBER ...]`.

Each mutation is made in a copy of the tracked files, where the tests named beside it are run: a
test that fails has caught it. Ends with exit code 1 where a mutation survived. Some ten minutes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
RUN, IO, POSTERIOR = "recipes/run/", "inverse_score/io/runs/", "inverse_score/posterior/"
ASSEMBLY, PAGE = "tests/cli/test_assembly.py", "tests/inverse_score/test_report_page.py"
SOLVE, TRUST = "tests/inverse_score/test_solve.py", "tests/cli/test_trust.py"
RUNS, GRIDS = "tests/inverse_score/test_run_folders.py", "tests/inverse_score/test_sampler_grids.py"
CONTRACT = "tests/inverse_score/test_contract.py"
INDENT = "\n" + 12 * " "
SCALE, SCANS = "tests/recipes/test_image_scale.py", "tests/recipes/test_scan_recipes.py"


class Mutation(NamedTuple):
    file: str
    old: str
    new: str
    test: str
    choice: str = ""  # pytest's -k


MUTATIONS = [
    # Policy: constants that decide what a result says.
    Mutation("recipes/calibration.py", "QUANTILE, OVERVIEW = 0.99,", "QUANTILE, OVERVIEW = 0.9,",
             SCALE),
    Mutation("recipes/calibration.py", "OVERVIEW = 0.99, 56", "OVERVIEW = 0.99, 28", SCALE),
    Mutation(POSTERIOR + "methods/diffpir.py", '"lam": 7.0', '"lam": 70.0',
             "tests/inverse_score/test_posterior_samplers.py", "paper_preset"),
    Mutation(POSTERIOR + "moments.py", "- count - 5 * scatter", "- count - 2 * scatter",
             "tests/inverse_score/test_error_spectrum.py", "chance"),
    Mutation("inverse_score/fit.py", "(1 + 1 / n) * spread", "1 * spread",
             "tests/inverse_score/test_fit.py", "few_draws"),
    Mutation(POSTERIOR + "method.py", "level / 5", "level / 3", SOLVE, "fifth"),
    Mutation("inverse_score/sampling/grid.py", "least / 5", "least / 3", GRIDS, "fifth"),
    Mutation(RUN + "verdict.py", "FIT_LIMIT = 4.0", "FIT_LIMIT = 40.0", ASSEMBLY, "alarm"),
    Mutation("operators/forms.py", f"{INDENT}self.family,{INDENT}gram,{INDENT}solve=None if "
             "self.solve is None else _scaled", f'{INDENT}"Scaled",{INDENT}gram,{INDENT}solve=None '
             "if self.solve is None else _scaled", SOLVE, "scaled"),
    Mutation(RUN + "assemble.py", "0.1 * size.max()", "0.5 * size.max()", ASSEMBLY, "maps"),
    Mutation(RUN + "verdict.py", "NEAR = 0.25", "NEAR = 0.75", TRUST, "another_setting"),
    Mutation(RUN + "verdict.py", "WITHHELD_DRAWS = 19", "WITHHELD_DRAWS = 9", TRUST, "predicted"),
    Mutation(RUN + "verdict.py", "math.sqrt(1 + 1 / n)", "1.0", TRUST, "stored_factor"),
    Mutation(RUN + "plan.py", "self.slices[len(self.slices) // 2]", "self.slices[0]",
             ASSEMBLY, "middle"),
    Mutation("recipes/coil_maps.py", "Rounds(1, 100.0, 1.0)", "Rounds(0, 100.0, 1.0)",
             "tests/recipes/test_coil_maps.py"),
    Mutation("operators/coil_fit.py", "OVER = 1.5", "OVER = 1.0",
             "tests/recipes/test_coil_maps.py"),
    Mutation("recipes/problem.py", "SAMPLES = 8", "SAMPLES = 4", SCANS, "one_answer"),
    # Plans: what a run is divided into.
    Mutation(RUN + "plan.py", "CHUNK = 4", "CHUNK = 3", ASSEMBLY, "five_samples"),
    Mutation(RUN + "plan.py", "min(CHUNK, self.request.samples - chunk * CHUNK)", "CHUNK",
             ASSEMBLY, "five_samples"),
    Mutation(RUN + "plan.py", "{self.tasks[scan].sha256}/{k}/{chunk}",
             "{self.tasks[scan].sha256}/{k}", ASSEMBLY, "five_samples"),
    Mutation(RUN + "plan.py", '"fast" if device.type == "cpu" else "accurate"',
             '"accurate" if device.type == "cpu" else "fast"', ASSEMBLY, "five_samples"),
    Mutation(RUN + "request.py", "(None if colon else start + 1)", "None",
             ASSEMBLY, "five_samples"),
    Mutation(RUN + "options.py", 'place="operator.seed", result=True', 'place="operator.seed"',
             ASSEMBLY, "another_run"),
    # Assembly: what the units of a slice become.
    Mutation(RUN + "assemble.py",
             'np.array([len(arrays["samples"]) for arrays, _ in loaded]) / len(samples)',
             "np.full(len(loaded), 1 / len(loaded))", ASSEMBLY, "maps"),
    Mutation(RUN + "assemble.py", "np.abs(mean) if np.iscomplexobj(mean) else mean",
             "np.abs(samples).mean(0)", ASSEMBLY, "image_and_std"),
    Mutation(RUN + "assemble.py", "ddof=1", "ddof=0", ASSEMBLY, "image_and_std"),
    Mutation(RUN + "assemble.py", 'for _, f in loaded for m in f["misfit"]',
             'for _, f in loaded[:1] for m in f["misfit"]', ASSEMBLY, "image_and_std"),
    Mutation(RUN + "assemble.py", "np.float32(std_factor) *", "np.float32(1) *", TRUST,
             "stored_factor"),
    # Results, volumes and pages.
    Mutation(IO + "results.py", "self.units[index - 1 :: count]", "self.units[index :: count]",
             RUNS, "shards"),
    Mutation(IO + "results.py", "[slug.lower() for slug in slugs]", "list(slugs)", RUNS,
             "names_that_meet"),
    Mutation(IO + "results.py", 'json.loads(str(file["__facts__"]))["run"] == self.manifest["run"]',
             "True", RUNS, "swept"),
    Mutation(IO + "volume.py", "fletcher32=True", "fletcher32=False",
             "tests/cli/test_bad_scans.py", "flipped_bit"),
    Mutation(IO + "volume.py", "not failed and not np.isfinite(array).all()", "False", PAGE,
             "hole"),
    Mutation(IO + "volume.py", "offset = 1000.0 if", "offset = 0.0 if", PAGE, "air"),
    Mutation(IO + "volume.py", "(0.998, 1.0) if name in MAPS", "(0.9, 1.0) if name in MAPS", PAGE,
             "maps_end"),
    Mutation(IO + "report.py", "math.sqrt(2 * (n - 1))", "math.sqrt(2 * n)", PAGE, "third"),
    Mutation(IO + "report.py", "return -1024.0, 3071.0", "return -1000.0, 1000.0", PAGE, "ct_is"),
    Mutation(IO + "report.py", '"good" if a.get(f"{check}_ok") else "warn"', '"good"', PAGE,
             "alarm"),
    Mutation(IO + "report.py", "* 4095).astype", "* 255).astype", PAGE, "twelve_bits"),
    # The solver's decisions.
    Mutation(POSTERIOR + "resolve.py", "{**own.sampler_options, **self.sampling}",
             "{**self.sampling, **own.sampler_options}", CONTRACT, "committed_table"),
    Mutation(POSTERIOR + "resolve.py",
             "own = {**kept, **{key: value for key, value in rest.items() if key in known}}",
             "own = {**{key: value for key, value in rest.items() if key in known}, **kept}",
             CONTRACT, "committed_table"),
    Mutation("inverse_score/solver.py", "math.floor(4 * math.log2(value) + 1e-3) / 4",
             "math.floor(math.log2(value) + 1e-3)", SOLVE, "octave"),
    Mutation("inverse_score/solver.py", "return 1e4 * max", "return 1e30 * max", SOLVE,
             "far_beyond"),
    Mutation(POSTERIOR + "auto.py", 'entry["covariance"] = "isotropic"',
             'entry["covariance"] = "jacobian"', SOLVE, "without_a_spectrum"),
    Mutation("inverse_score/sampling/grid.py", "return max(wanted, floor)", "return wanted", GRIDS,
             "clipped"),
    Mutation("inverse_score/sampling/grid.py", "rho: float = 7.0", "rho: float = 5.0", GRIDS,
             "spacings"),
]  # fmt: skip


def main(numbers: list[int]) -> int:
    chosen = [(k, m) for k, m in enumerate(MUTATIONS, 1) if not numbers or k in numbers]
    with tempfile.TemporaryDirectory() as folder:
        copy = copied(Path(folder))
        caught = [report(k, mutation, copy) for k, mutation in chosen]
    print(f"{sum(caught)} of {len(caught)} caught")
    return 0 if all(caught) else 1


def copied(folder: Path) -> Path:
    """The tracked files, and those not yet tracked."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in names.splitlines():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).exists():
            shutil.copy2(ROOT / name, target)
    return folder


def report(number: int, mutation: Mutation, copy: Path) -> bool:
    path = copy / mutation.file
    text = path.read_text()
    if text.count(mutation.old) != 1:
        print(f"{number:2} STALE     {mutation.file} holds {mutation.old!r} "
              f"{text.count(mutation.old)} times", flush=True)  # fmt: skip
        return False
    path.write_text(text.replace(mutation.old, mutation.new))
    try:
        code = run(mutation, copy)
    finally:
        path.write_text(text)
    verdict = {0: "SURVIVED ", 1: "caught   "}.get(code, f"BROKEN {code} ")
    print(f"{number:2} {verdict} {mutation.file}: {mutation.old} -> {mutation.new} "
          f"[{mutation.test} -k {mutation.choice!r}]", flush=True)  # fmt: skip
    return code == 1


def run(mutation: Mutation, copy: Path) -> int:
    """pytest's exit code: 1 where a test failed."""
    # Byte code is told apart by second and size, which a mutation may leave alone.
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-n", "0", "-p", "no:cacheprovider",
               mutation.test, "-k", mutation.choice]  # fmt: skip
    return subprocess.run(command, cwd=copy, env=environment, capture_output=True).returncode


if __name__ == "__main__":
    sys.exit(main([int(number) for number in sys.argv[1:]]))
