"""Every released network family against outputs of its released implementation."""

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from inverse_score.io.checkpoints import PRESETS
from inverse_score.io.checkpoints.layouts import LAYOUTS
from inverse_score.io.checkpoints.parts import released_shapes
from inverse_score.networks import build_network
from inverse_score.networks.conditioning import Schedule
from inverse_score.networks.layers import dropout
from inverse_score.networks.score_network import parameter_count
from inverse_score.sde import VPSDE
from inverse_score.testing.released import CASES, formula

PARITY = np.load(Path(__file__).with_name("parity.npz"))


@pytest.mark.parametrize("name", CASES)
def test_outputs_equal_those_of_the_released_implementation(name):
    """Weights by a formula of key and shape; 1e-5 of the root mean square."""
    ours = CASES[name].ours().numpy().reshape(-1)
    theirs = PARITY[name]
    ours = ours[:: max(1, ours.size // 400)]
    assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max()
    assert np.linalg.norm(ours - theirs) <= 5e-6 * np.linalg.norm(theirs)


@pytest.mark.parametrize("name", CASES)
def test_tensor_names_and_shapes_are_those_of_the_released_implementation(name):
    names = "\n".join(sorted(CASES[name].released_names()))
    assert hashlib.sha256(names.encode()).hexdigest() == str(PARITY[f"{name}: names"])


def test_the_weight_formula_is_reproducible():
    assert formula("a.weight", (2, 3)).ravel()[:3].tolist() == pytest.approx(
        formula("a.weight", (6,)).ravel()[:3] * 10 - 10, abs=1e-5
    )
    assert float(np.std(formula("b", (64, 64)))) == pytest.approx(1 / 8, rel=0.02)


def _network(preset: str) -> torch.nn.Module:
    with torch.device("meta"):
        return build_network(PRESETS[preset].network, **PRESETS[preset].config)


def _released(preset: str) -> dict[str, tuple[int, ...]]:
    return released_shapes(LAYOUTS[PRESETS[preset].layout](_network(preset)))


# (parameters in the released model, entries of all_modules)
SONG = {
    "ve/cifar10_ncsnpp_continuous": (62_758_915, 59),
    "ve/cifar10_ncsnpp_deep_continuous": (107_587_075, 95),
    "ve/cifar10_ncsnpp": (62_693_251, 58),
    "vp/cifar10_ddpmpp_continuous": (61_804_419, 55),
    "subvp/cifar10_ddpmpp_deep_continuous": (106_632_579, 91),
    "ve/ffhq_256_ncsnpp_continuous": (65_574_549, 77),
    "ve/church_ncsnpp_continuous": (65_574_549, 77),
    "ve/ffhq_ncsnpp_continuous": (105_785_896, 70),
    "score-mri/fastmri_knee_320": (61_433_601, 54),
}


@pytest.mark.parametrize("preset", SONG)
def test_released_configurations_of_score_sde_have_the_known_sizes(preset):
    parameters, modules = SONG[preset]
    assert parameter_count(_network(preset)) == parameters
    keys = _released(preset)
    assert {int(k.split(".")[1]) for k in keys} == set(range(modules))


@pytest.mark.parametrize(
    ("preset", "parameters"),
    [
        ("dps/ffhq_10m", 93_563_910),
        ("guided/256x256_diffusion_uncond", 552_814_086),
        ("dds/aapm256", 374_022_658),
    ],
)
def test_released_configurations_of_guided_diffusion_have_the_known_sizes(preset, parameters):
    assert parameter_count(_network(preset)) == parameters


def test_the_moving_average_leaves_out_only_the_fourier_frequencies():
    """62,758,787 of CIFAR-10 NCSN++'s 62,758,915 numbers: all but W (128)."""
    network = _network("ve/cifar10_ncsnpp_continuous")
    parts = LAYOUTS["score_sde"](network)
    frozen = [part for part in parts if not part.trained]
    assert [part.released for part in frozen] == [((("all_modules.0.W"), (128,)),)]
    assert sum(p.numel() for p in network.parameters()) == 62_758_787


def test_modules_of_cifar10_ncsnpp_come_in_the_released_order():
    """0 W; 1, 2 linear; 3 conv; 4-29 down; 30-32 middle; 33-56 up; 57 norm; 58 conv."""
    keys = _released("ve/cifar10_ncsnpp_continuous")
    assert [k for k in keys if re.match(r"all_modules\.[0-3]\.", k)] == [
        "all_modules.0.W", "all_modules.1.weight", "all_modules.1.bias", "all_modules.2.weight",
        "all_modules.2.bias", "all_modules.3.weight", "all_modules.3.bias",
    ]  # fmt: skip
    # Down: 4 blocks, the resampling block, the residual of the input.
    assert keys["all_modules.9.Conv2d_0.weight"] == (128, 3, 3, 3)
    assert "all_modules.31.NIN_3.W" in keys
    assert keys["all_modules.33.Conv_0.weight"] == (256, 512, 3, 3)
    assert keys["all_modules.57.weight"] == (128,)
    assert keys["all_modules.58.weight"] == (3, 128, 3, 3)


def test_layers_of_the_256_networks_come_at_the_known_places():
    """Attention at 16 pixels after blocks 21 and 23 down; 50 up; pyramid heads 38-39 ... 75-76."""
    keys = _released("ve/ffhq_256_ncsnpp_continuous")
    attention = sorted({int(k.split(".")[1]) for k in keys if k.endswith("NIN_0.W")})
    assert attention == [21, 23, 33, 50]
    heads = [38, 44, 51, 57, 63, 69, 75]
    assert all(f"all_modules.{n}.weight" in keys for n in heads)
    assert all(keys[f"all_modules.{n + 1}.weight"][0] == 3 for n in heads)


def test_score_mri_has_attention_only_in_its_middle():
    """320, 160, 80 and 40 pixels are none of 16."""
    keys = _released("score-mri/fastmri_knee_320")
    assert len({k.split(".")[1] for k in keys if k.endswith("NIN_0.W")}) == 1


def test_attention_is_by_level_and_not_by_run_time_size():
    """A 24 x 24 image meets the layers of the 16 x 16 one it was built for."""
    config = {"channels": 1, "image_size": 16, "nf": 8, "ch_mult": [1, 1], "num_res_blocks": 1,
              "attn_resolutions": [16]}  # fmt: skip
    network = build_network("ncsnpp", **config).eval()
    assert network(torch.rand(1, 1, 24, 24), torch.tensor([0.5])).shape == (1, 1, 24, 24)
    with pytest.raises(ValueError, match=r"H and W multiples of 2; got \(1, 1, 25, 24\)"):
        network(torch.rand(1, 1, 25, 24), torch.tensor([0.5]))


def test_schedule_labels_are_matched_by_noise_to_signal():
    """DDPM's chain at index k has 1 - a_k^2 = 1 - prod (1 - beta_j): the label returns k."""
    schedule = Schedule(VPSDE())
    betas = np.linspace(1e-4, 0.02, 1000)
    a2 = np.cumprod(1 - betas)
    for k in (0, 1, 57, 700, 990):
        t = VPSDE().time(float(np.sqrt((1 - a2[k]) / a2[k])))
        scale, label, _, _ = schedule(torch.tensor([t], dtype=torch.float64))
        assert label.item() == pytest.approx(k, abs=1e-6)
        assert scale.item() == pytest.approx(1.0, abs=1e-9)
    # t (steps - 1) would have said 0.99 for the chain's start.
    assert schedule.smallest_time() == pytest.approx(VPSDE().time(np.sqrt(1e-4 / (1 - 1e-4))))


def test_networks_can_be_differentiated_twice():
    """<v, J v> from vjp alone and from the derivative of a vjp: attention and convolutions have
    second derivatives, which Jacobian-vector products by double backward need."""
    network = build_network(
        "ncsnpp", channels=1, image_size=8, nf=8, ch_mult=[1, 1], num_res_blocks=1,
        attn_resolutions=[4],
    ).eval().double()  # fmt: skip
    x, t = torch.rand(1, 1, 8, 8).double().requires_grad_(), torch.tensor([0.5]).double()
    v = torch.randn(1, 1, 8, 8).double()
    dummy = torch.zeros_like(x, requires_grad=True)
    (pulled,) = torch.autograd.grad(network(x, t), x, dummy, create_graph=True)
    (pushed,) = torch.autograd.grad(pulled, dummy, v)
    (pulled_v,) = torch.autograd.grad(network(x, t), x, v)
    torch.testing.assert_close((v * pushed).sum(), (v * pulled_v).sum())


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_dropout_drops_its_share_of_independent_entries_and_keeps_the_mean(share):
    """Shares by their binomial standard errors; neighbours, four of which share one number."""
    torch.manual_seed(0)
    h = torch.ones(4, 64, 32, 32).contiguous(memory_format=torch.channels_last)
    dropped = dropout(h, share)
    error = (share * (1 - share) / h.numel()) ** 0.5
    assert abs(float((dropped == 0).double().mean()) - share) < 4 * error
    assert abs(float(dropped.double().mean()) - 1) < 4 * error / (1 - share)
    assert dropped.unique().tolist() == pytest.approx([0, 1 / (1 - share)], rel=1e-4)
    zero = (dropped == 0).permute(0, 2, 3, 1).flatten()
    for step in (1, 2, 3, 4):
        pairs = float((zero[:-step] & zero[step:]).double().mean())
        assert abs(pairs - share**2) < 4 * error
    assert not torch.equal(dropped, dropout(h, share))
    odd = dropout(torch.ones(1, 3, 5, 7), share)
    assert odd.shape == (1, 3, 5, 7)
    torch.testing.assert_close(dropout(h, 1.0), torch.zeros_like(h))
