"""API pages of the three packages, made of their docstrings: `python .github/api/build.py [OUT]`.

OUT is build/api by default. The docstrings are plain text and their formulas laid out by hand, so
pages show them as they are written (module.html.jinja2). Ends with an error where a module cannot
be imported or anything warns. Half a minute.
"""

from __future__ import annotations

import importlib
import os
import sys
import typing
import warnings
from pathlib import Path
from types import ModuleType

import pdoc
import pdoc.render

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PACKAGES = ("operators", "inverse_score", "recipes")


def modules() -> list[str]:
    """Dotted names of all modules but those that run when they are imported."""
    found = []
    for path in sorted(path for name in PACKAGES for path in (ROOT / name).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[-1] != "__main__":
            found.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return found


def complete(module: ModuleType) -> None:
    """Load what a module loads on first use, and evaluate the annotations of its named tuples."""
    for name in getattr(module, "__all__", ()):
        vars(module).setdefault(name, getattr(module, name))
    for value in list(vars(module).values()):
        if isinstance(value, type) and hasattr(value, "_field_defaults"):
            value.__new__.__annotations__ = typing.get_type_hints(value)


def main(out: Path) -> None:
    # h5py asks the system for its processor when it is imported.
    os.environ["PDOC_ALLOW_EXEC"] = "1"
    warnings.simplefilter("error")
    # A package without __all__ brings its modules, which are named here as well.
    warnings.filterwarnings("ignore", "The module specification .* has already been added")
    names = modules()
    for name in names:
        complete(importlib.import_module(name))
    pdoc.render.configure(template_directory=HERE, show_source=False)
    pdoc.pdoc(*names, output_directory=out)
    print(f"{out / 'index.html'}: {len(names)} modules")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "api")
