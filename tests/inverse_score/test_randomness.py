import os
import subprocess
import sys

import pytest
import torch

from inverse_score.randomness import CORRECTOR, PREDICTOR, Noise


def test_the_bits_do_not_depend_on_batch_order_or_size():
    whole = Noise(3, [5, 9, 2])(torch.empty(3, 2, 7), step=4)
    swapped = Noise(3, [2, 5])(torch.empty(2, 2, 7), step=4)
    assert torch.equal(whole[[2, 0]], swapped)


def test_the_bits_do_not_depend_on_how_many_cores_draw(monkeypatch):
    like, noise = torch.empty(3, 300000), Noise(0, [0, 1, 2])
    many = noise(like, 0)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0}, raising=False)
    assert torch.equal(many, noise(like, 0))


def test_the_bits_are_the_same_in_float64():
    like = torch.empty(2, 5)
    single, double = Noise(0, [0, 1])(like, 1), Noise(0, [0, 1])(like.double(), 1)
    assert double.dtype == torch.float64
    assert torch.equal(single.double(), double)


def test_seed_item_sample_step_and_stream_all_matter():
    like = torch.empty(1, 50)
    draws = [
        Noise(0, [0])(like, 0, PREDICTOR),
        Noise(1, [0])(like, 0, PREDICTOR),
        Noise(0, [1])(like, 0, PREDICTOR),
        Noise(0, [0], [1])(like, 0, PREDICTOR),
        Noise(0, [0])(like, 1, PREDICTOR),
        Noise(0, [0])(like, 0, CORRECTOR),
    ]
    correlation = torch.corrcoef(torch.cat(draws)).fill_diagonal_(0)
    assert correlation.abs().max() < 0.6


def test_draws_are_standard_normal_and_independent():
    z = Noise(0, range(4))(torch.empty(4, 250000), 0).double()
    n = z[0].numel()
    assert z.mean(1).abs().max() < 4 / n**0.5
    assert (z.var(1) - 1).abs().max() < 4 * (2 / n) ** 0.5
    assert (z.pow(4).mean(1) - 3).abs().max() < 4 * (96 / n) ** 0.5
    assert torch.corrcoef(z).fill_diagonal_(0).abs().max() < 4 / n**0.5


def test_events_of_a_few_numbers_are_standard_normal_too():
    """torch fills fewer than 16 numbers by another rule."""
    n = 8000
    z = Noise(0, range(n))(torch.empty(n, 3), 0).double()
    assert z.mean(0).abs().max() < 4 / n**0.5
    assert (z.var(0) - 1).abs().max() < 4 * (2 / n) ** 0.5
    assert torch.corrcoef(z.T).fill_diagonal_(0).abs().max() < 4 / n**0.5


# Draws of another process, saved to its argument.
DRAW = """
import sys, torch
from inverse_score.randomness import Noise
like, noise = torch.empty(2, 50001), Noise(3, [2**40, 9], [7, 0])
torch.save([noise(like, 4), noise.uniform(like, 4), noise.rademacher(like, 4)], sys.argv[1])
"""


@pytest.mark.fixed_seeds
def test_another_instruction_set_moves_normal_draws_by_rounding_and_no_other(tmp_path):
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": "default"}
    command = [sys.executable, "-c", DRAW, str(tmp_path / "draws.pt")]
    subprocess.run(command, env=environment, check=True)
    normal, uniform, signs = torch.load(tmp_path / "draws.pt")
    like, noise = torch.empty(2, 50001), Noise(3, [2**40, 9], [7, 0])
    assert torch.equal(noise.uniform(like, 4), uniform)
    assert torch.equal(noise.rademacher(like, 4), signs)
    # Radius sqrt(-2 log u) <= 5.8, times the rounding of cos(2 pi v): 2.2e-6 in 400 000 draws.
    torch.testing.assert_close(noise(like, 4), normal, rtol=0, atol=5e-6)


@pytest.mark.fixed_seeds
def test_the_stream_is_the_one_that_earlier_results_were_drawn_from():
    """A change here changes every stored sample: rounding of log and cos aside, these are fixed."""
    z = Noise(3, [2**40 + 5], [7])(torch.empty(1, 20), 11, CORRECTOR)[0]
    u = Noise(3, [2**40 + 5], [7]).uniform(torch.empty(1, 20), 11, CORRECTOR)[0]
    torch.testing.assert_close(
        z[[0, 7, 19]], torch.tensor([-1.3277230, -0.8244832, -0.2994545]), rtol=0, atol=1e-5
    )
    torch.testing.assert_close(
        u[[0, 7, 19]], torch.tensor([0.6635296, 0.1912048, 0.2117746]), rtol=0, atol=1e-7
    )


def test_a_generator_whose_words_lie_elsewhere_is_an_error(monkeypatch):
    monkeypatch.setattr("inverse_score.randomness._WORDS", slice(32, 32 + 624 * 8))
    with pytest.raises(RuntimeError, match="keeps its generator's state elsewhere"):
        Noise(0, [0])(torch.empty(1, 3), 0)


def test_rademacher_probes_are_fair_signs():
    v = Noise(0, [0]).rademacher(torch.empty(1, 100000), 0)
    assert v.abs().eq(1).all()
    assert v.mean().abs() < 4 / 100000**0.5


def test_rows_keep_their_noise():
    noise = Noise(0, [3, 4, 5], [0, 1, 2])
    like = torch.empty(3, 4)
    assert torch.equal(noise(like, 2)[1:], noise.rows(slice(1, None))(like[1:], 2))


def test_wrong_lengths_are_named():
    with pytest.raises(ValueError, match="3 items name the rows; got a batch 2"):
        Noise(0, [0, 1, 2])(torch.empty(2, 4), 0)
    with pytest.raises(ValueError, match="got 2 items, 1 samples"):
        Noise(0, [0, 1], [0])
