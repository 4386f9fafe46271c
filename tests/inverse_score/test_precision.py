"""bfloat16 inside a network changes its estimate far less than its own error."""

import torch

from inverse_score.networks.precision import InBfloat16, has_quick_bfloat16
from inverse_score.networks.unet import UNet


def trained_looking_network():
    torch.manual_seed(0)
    network = UNet(1, widths=[16, 16], blocks=1, embedding=16)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network


def test_the_estimate_moves_by_about_2_to_the_minus_9_of_what_the_network_adds():
    network = trained_looking_network()
    x, t = 1 + torch.randn(2, 1, 32, 32), torch.full((2,), 0.05)
    with torch.no_grad():
        exact, rough = network(x, t), InBfloat16(network)(x, t)
    assert rough.dtype == torch.float32
    added = (exact - x).square().mean().sqrt()
    moved = (rough - exact).square().mean().sqrt()
    assert 0 < moved < 0.02 * added


def test_its_gradient_is_the_exact_one_within_bfloat16():
    network = trained_looking_network()
    t, gradients = torch.full((1,), 0.3), []
    x = torch.randn(1, 1, 16, 16)
    for call in (network, InBfloat16(network)):
        leaf = x.clone().requires_grad_()
        (call(leaf, t) ** 2).sum().backward()
        gradients.append(leaf.grad)
    exact, rough = gradients
    assert rough.dtype == torch.float32
    assert (rough - exact).norm() < 0.02 * exact.norm()


def test_only_processors_with_tiles_count_as_quick(monkeypatch):
    for answer in (True, False):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda answer=answer: answer)
        assert has_quick_bfloat16("cpu") is answer
    assert not has_quick_bfloat16("meta")
