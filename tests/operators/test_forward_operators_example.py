import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "forward_operators.py"


def test_example_draws_every_operator(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    spec = importlib.util.spec_from_file_location("example_operators", EXAMPLE)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    for title, A, x in example.cases(32):
        picture = example.recovered(A, A(x))
        assert np.isfinite(picture).all(), title
        assert picture.std() > 0.02, title
        assert np.isfinite(example.measured(A(x))).all(), title
    out = tmp_path / "operators.png"
    monkeypatch.setattr(sys, "argv", ["forward_operators.py", "--size", "32", "--out", str(out)])
    example.main()
    assert out.stat().st_size > 1000
