"""operators <- inverse_score <- recipes <- inverse_score.cli, and --help stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def imported_modules(path: Path) -> set[str]:
    """Absolute names of what a file imports, relative imports resolved."""
    package = path.relative_to(ROOT).with_suffix("").parts
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level]) if node.level else []
            name = ".".join([*base, node.module] if node.module else base)
            found |= {name} | {f"{name}.{alias.name}" for alias in node.names}
    return found


def layer(module: str) -> int | None:
    """0 operators, 1 inverse_score, 2 recipes, 3 the command line, None for anything else."""
    if module.startswith("inverse_score.cli"):
        return 3
    return {"operators": 0, "inverse_score": 1, "recipes": 2}.get(module.split(".")[0])


@pytest.mark.parametrize("folder", ["operators", "inverse_score", "recipes"])
def test_no_package_imports_a_layer_above_it(folder):
    files = [path for path in (ROOT / folder).rglob("*.py") if path.name != "__main__.py"]
    assert files
    for path in files:
        own = layer(".".join(path.relative_to(ROOT).with_suffix("").parts))
        above = {name for name in imported_modules(path) if (layer(name) or 0) > (own or 0)}
        assert not above, f"{path.relative_to(ROOT)} imports {sorted(above)}"


def test_inverse_score_knows_no_concrete_operator():
    # The contract: the two bases, linear algebra, and the form of the singular values.
    allowed = (
        "operators",
        "operators.linear",
        "operators.nonlinear",
        "operators.linalg",
        "operators.spectral",
    )
    for path in (ROOT / "inverse_score").rglob("*.py"):
        # Toy problems for tests are made of operators, and nothing is made of them.
        if {"cli", "testing"} & set(path.parts):
            continue
        concrete = {
            name
            for name in imported_modules(path)
            if name.startswith("operators")
            and not name.startswith(allowed[1:])
            and name != allowed[0]
            and name
            not in {"operators.LinearOperator", "operators.as_channels", "operators.as_complex"}
        }
        assert not concrete, f"{path.relative_to(ROOT)} imports {sorted(concrete)}"


def test_only_tests_import_what_is_for_tests():
    for folder in ("operators", "inverse_score", "recipes"):
        for path in (ROOT / folder).rglob("*.py"):
            toys = {name for name in imported_modules(path) if "inverse_score.testing" in name}
            assert not toys or "testing" in path.parts, f"{path.relative_to(ROOT)} imports {toys}"


@pytest.mark.parametrize("heavy", ["torch", "scipy", "torchdiffeq", "skimage", "h5py", "pydicom"])
def test_help_imports_nothing_heavy(heavy):
    code = (
        "import sys; import inverse_score.cli; from typer.main import get_command;"
        "get_command(inverse_score.cli.app);"
        f"sys.exit({heavy!r} in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
