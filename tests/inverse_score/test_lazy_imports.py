import json
import subprocess
import sys

import inverse_score

# Third-party packages that one reader, one method or one command needs.
HEAVY = ["scipy", "torchdiffeq", "skimage", "h5py", "pydicom", "PIL", "yaml", "typer", "matplotlib"]


def loaded_after(code: str) -> list[str]:
    """Which of HEAVY, and torch, a fresh interpreter has loaded after `code`."""
    report = (
        f"import json, sys; print(json.dumps([m for m in {[*HEAVY, 'torch']} if m in sys.modules]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; {report}"], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def test_the_package_itself_loads_not_even_torch():
    assert loaded_after("import inverse_score") == []


def test_all_public_names_load_torch_alone():
    names = ", ".join(name for name in inverse_score.__all__ if name != "__version__")
    sampling = "sample(GaussianPrior([0.0], [[1.0]], VPSDE()), 2, steps=3)"
    assert loaded_after(f"from inverse_score import {names}; {sampling}") == ["torch"]


def test_what_needs_an_ode_solver_loads_it_when_it_runs():
    ode = "sample(GaussianPrior([0.0], [[1.0]], VPSDE()), 2, method='ode')"
    code = f"from inverse_score import GaussianPrior, VPSDE, sample; {ode}"
    assert "torchdiffeq" in loaded_after(code)
