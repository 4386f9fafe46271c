"""The compact U-Net: any size, Karras preconditioning in float32, time by its SDE."""

import math

import pytest
import torch

from inverse_score.networks import build_network
from inverse_score.networks.unet import PixelAttention, UNet, pad_to_multiple
from inverse_score.prior import Prior
from inverse_score.sde import SDES, VPSDE, KarrasSDE

SMALL = {"widths": [8, 16], "blocks": 1, "embedding": 16}


def network(channels=1, **changes):
    torch.manual_seed(0)
    unet = UNet(channels, **{**SMALL, **changes})
    with torch.no_grad():
        for parameter in unet.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return unet.eval()


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (5, 31), (16, 16), (33, 20)])
def test_any_size_comes_back_as_it_went_in(size):
    x = torch.randn(2, 3, *size)
    out = network(3)(x, torch.tensor([0.1, 2.0]))
    assert out.shape == x.shape
    assert out.isfinite().all()


def test_padding_is_below_and_right_and_reflects():
    x = torch.arange(6.0).reshape(1, 1, 2, 3)
    padded = pad_to_multiple(x, 4)
    assert padded.shape[-2:] == (4, 4)
    torch.testing.assert_close(padded[..., :2, :3], x)
    # Too small to reflect by two rows: the last row repeats.
    torch.testing.assert_close(padded[0, 0, 3, :3], x[0, 0, 1])
    reflected = pad_to_multiple(torch.arange(25.0).reshape(1, 1, 5, 5), 4)
    torch.testing.assert_close(reflected[0, 0, 5], reflected[0, 0, 3])


def test_a_fresh_network_is_the_wiener_filter_of_white_images():
    """F = 0 at the start, so x0_hat = sigma_data^2 / (s^2 + sigma_data^2) x."""
    unet = UNet(2, sigma_data=0.4, **SMALL)
    x, s = torch.randn(1, 2, 8, 8), 0.3
    expected = 0.4**2 / (0.4**2 + s**2) * x
    torch.testing.assert_close(unet(x, torch.tensor([s])), expected)


def test_preconditioning_gives_the_network_unit_variance_in_and_out():
    """Var[c_in (x0 + s n)] = 1 and Var[(x0 - c_skip (x0 + s n)) / c_out] = 1 (Karras, App. B.6)."""
    unet = UNet(1, sigma_data=0.4, **SMALL)
    s = torch.logspace(-3, 2, 11)
    c_skip, c_out, c_in = unet.preconditioning(s)
    torch.testing.assert_close(c_in**2 * (0.4**2 + s**2), torch.ones(11))
    target = (1 - c_skip) ** 2 * 0.4**2 + (c_skip * s) ** 2
    torch.testing.assert_close(target / c_out**2, torch.ones(11))


def test_the_same_noise_to_signal_gives_the_same_estimate_under_any_sde():
    karras = network(sde={"name": "karras", "sigma_max": 80.0})
    vp = network(sde={"name": "vp"})
    x0_plus_noise, s = torch.randn(3, 1, 12, 12), 0.7
    t = VPSDE().time(s)
    estimate = karras(x0_plus_noise, torch.full((3,), s))
    torch.testing.assert_close(
        vp(VPSDE().alpha(t) * x0_plus_noise, torch.full((3,), t)), estimate, atol=1e-4, rtol=1e-4
    )


def test_it_is_a_denoiser_of_a_prior_with_output_x0():
    unet = network()
    prior = Prior(unet, KarrasSDE(), output="x0", event_shape=(1, None, None))
    x = torch.randn(2, 1, 9, 7)
    torch.testing.assert_close(prior.denoise(x, 0.5), unet(x, torch.full((2,), 0.5)))


def test_items_of_a_batch_never_meet():
    unet = network(norm="group", attention=True)
    x, t = torch.randn(3, 1, 12, 12), torch.tensor([0.1, 1.0, 10.0])
    torch.testing.assert_close(unet(x, t)[1:2], unet(x[1:2], t[1:2]), atol=1e-5, rtol=1e-5)


def test_at_low_noise_bfloat16_keeps_x_to_float32():
    """c_skip x is float32: at s = 0.002 the estimate leaves x by s, not by bfloat16's 2^-9 of x."""
    unet = network(sigma_data=0.5)
    x, t = 1 + 0.1 * torch.randn(1, 1, 16, 16), torch.tensor([0.002])
    with torch.no_grad():
        exact = unet(x, t)
        with torch.autocast("cpu", torch.bfloat16):
            rough = unet(x, t)
    assert rough.dtype == torch.float32
    # bfloat16 x alone would be off by 2^-9 = 0.002.
    assert (rough - exact).abs().max() < 1e-4
    assert (exact - x).abs().max() > 1e-4


def test_first_convolution_stays_in_float32_under_autocast():
    unet, seen = network(), []
    unet.first.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    unet.down[0][0].conv1.register_forward_hook(
        lambda module, inputs, output: seen.append(output.dtype)
    )
    with torch.autocast("cpu", torch.bfloat16):
        unet(torch.randn(1, 1, 8, 8), torch.ones(1))
    assert seen == [torch.float32, torch.bfloat16]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_estimate_keeps_the_dtype_of_x(dtype):
    assert network()(torch.randn(1, 1, 8, 8, dtype=dtype), torch.ones(1)).dtype == dtype


def test_gradients_reach_every_parameter():
    unet = network(norm="group", attention=True, groups=4)
    unet(torch.randn(2, 1, 8, 8), torch.tensor([0.1, 1.0])).square().sum().backward()
    silent = [name for name, p in unet.named_parameters() if not (p.grad != 0).any()]
    # A bias before a softmax over keys cancels.
    assert silent in ([], ["attend.qkv.bias"])


def test_a_shift_by_its_multiple_shifts_the_estimate():
    """Fully convolutional: what is right at a training crop is right inside a larger image."""
    unet = network()
    x, t = torch.randn(1, 1, 64, 64), torch.ones(1)
    whole, part = unet(x, t), unet(x[..., 8:56, 8:56], t)
    torch.testing.assert_close(whole[..., 28:36, 28:36], part[..., 20:28, 20:28])


def test_its_config_builds_it_again():
    unet = network(2, attention=True, norm="group", patch=1)
    again = build_network("unet", **unet.config)
    again.load_state_dict(unet.state_dict())
    x, t = torch.randn(1, 2, 8, 8), torch.ones(1)
    torch.testing.assert_close(again.eval()(x, t), unet(x, t))


def test_attention_is_softmax_attention():
    torch.manual_seed(0)
    layer = PixelAttention(8)
    with torch.no_grad():
        layer.out.weight.copy_(torch.randn_like(layer.out.weight))
    x = torch.randn(1, 8, 2, 3)
    q, k, v = layer.qkv(layer.norm(x)).flatten(2)[0].chunk(3)
    weights = torch.softmax(q.T @ k / math.sqrt(8), dim=1)
    expected = layer.out.weight[:, :, 0, 0] @ (v @ weights.T)
    torch.testing.assert_close((layer(x) - x)[0].flatten(1), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"norm": "batch"}, "norm must be one of group, none; got 'batch'"),
        ({"sigma_data": 0.0}, "sigma_data must be positive and finite; got 0.0"),
        ({"widths": []}, "widths"),
        ({"blocks": 0}, "blocks"),
        ({"sde": {"name": "vq"}}, f"sde's name must be one of {', '.join(SDES)}; got 'vq'"),
    ],
)
def test_what_cannot_be_built_is_refused_with_its_rule(changes, message):
    with pytest.raises(ValueError, match=message):
        UNet(1, **{**SMALL, **changes})
