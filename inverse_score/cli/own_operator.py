"""`--operator package.module:factory`: an operator that the user wrote, and typed the name of.

factory(path) -> LinearOperator, path the file of measurements (which may hold what the operator
needs beside them). The operator serves every slice of the file: batch None, in_shape
(channels, H, W) as the prior's, out_shape one slice of `y`; y = A x + n with x in the prior's data
units. Nothing else in the package - no YAML, no prior, no recipe file - can name code.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BadInput

if TYPE_CHECKING:
    from operators.linear import LinearOperator


@dataclass(frozen=True)
class Factory:
    """A user's factory; sha256 is of the source that it was read from, None for compiled code."""

    name: str
    make: Callable[[Path], Any]
    sha256: str | None

    def __call__(self, path: Path) -> LinearOperator:
        """The checked operator of this file; BadInput unless it is one, and A.T its adjoint."""
        import torch

        from operators import check_adjoint
        from operators.linear import LinearOperator

        operator = self.make(path)
        if not isinstance(operator, LinearOperator):
            raise BadInput(
                f"{self.name}({path.name}) must return a LinearOperator; got "
                f"{type(operator).__name__} (LinearOperator.from_function makes one of a function)"
            )
        if operator.batch is not None:
            raise BadInput(
                f"{self.name}: one operator serves every slice (batch None); got batch "
                f"{operator.batch}"
            )
        check_adjoint(operator, dtype=torch.float32, tol=1e-4)
        return operator


def own_factory(name: str) -> Factory:
    """The factory of "package.module:factory", also of a module in the working folder."""
    module_name, _, attribute = name.partition(":")
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise BadInput(
            f"--operator {name}: there is no module {error.name!r}, neither installed nor in the "
            "working folder"
        ) from None
    except ValueError:
        raise BadInput(f"--operator must be package.module:factory; got {name!r}") from None
    finally:
        sys.path.remove(here)
    make = getattr(module, attribute, None)
    if not callable(make):
        raise BadInput(f"--operator {name}: {module_name} has no function {attribute!r}")
    source = inspect.getsourcefile(module)
    sha256 = hashlib.sha256(Path(source).read_bytes()).hexdigest() if source else None
    return Factory(name, make, sha256)
