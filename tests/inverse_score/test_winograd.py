"""Winograd's convolution is the convolution."""

import os
import subprocess
import sys

import pytest
import torch
from torch.nn import functional

from inverse_score.networks import conv3x3, winograd
from inverse_score.networks.conv3x3 import KeptKernels
from inverse_score.networks.convolutions import Conv3x3, FilteredConv, downsample, upsample


@pytest.mark.parametrize("size", [(16, 16), (13, 7), (5, 1), (34, 9)])
def test_winograd_convolution_equals_the_direct_one_at_any_size(size):
    torch.manual_seed(0)
    x, bias = torch.randn(2, 64, *size, dtype=torch.float64), torch.randn(70, dtype=torch.float64)
    weight = torch.randn(70, 64, 3, 3, dtype=torch.float64)
    want = functional.conv2d(x, weight, bias, padding=1)
    torch.testing.assert_close(winograd.transformed(x, weight, bias), want, rtol=1e-11, atol=1e-10)


def test_winograd_gradients_equal_the_direct_ones():
    torch.manual_seed(0)
    x = torch.randn(1, 64, 9, 10, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(64, 64, 3, 3, dtype=torch.float64, requires_grad=True)
    cotangent = torch.randn(1, 64, 9, 10, dtype=torch.float64)
    got = torch.autograd.grad(winograd.transformed(x, weight), (x, weight), cotangent)
    want = torch.autograd.grad(functional.conv2d(x, weight, padding=1), (x, weight), cotangent)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-9)


# PyTorch's own, when it first differentiates forwards.
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is:DeprecationWarning")
def test_winograd_has_derivatives_of_both_modes_batched_and_second():
    """Against finite differences: gradients, many at once, d y / d s, and d <J_x v, u> / d weight.

    5 x 6 pixels end within a tile, 8 x 4 with one.
    """
    torch.manual_seed(0)
    weight = torch.randn(3, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(3, dtype=torch.float64, requires_grad=True)
    for size in ((5, 6), (8, 4)):
        x = torch.randn(1, 2, *size, dtype=torch.float64, requires_grad=True)
        inputs = (x, weight, bias)
        assert torch.autograd.gradcheck(
            winograd.transformed, inputs, check_forward_ad=True, check_batched_grad=True
        )
    assert torch.autograd.gradgradcheck(winograd.transformed, inputs)


def test_winograd_maps_over_cotangents():
    """vmap of a vjp, the exact trace of a Jacobian: as the direct convolution's."""
    torch.manual_seed(0)
    x, weight = torch.randn(1, 64, 4, 4).double(), torch.randn(64, 64, 3, 3).double()
    _, pull = torch.func.vjp(lambda z: winograd.transformed(z, weight), x)
    _, direct = torch.func.vjp(lambda z: functional.conv2d(z, weight, padding=1), x)
    cotangents = torch.randn(3, 1, 64, 4, 4).double()
    torch.testing.assert_close(torch.vmap(pull)(cotangents)[0], torch.vmap(direct)(cotangents)[0])


def test_winograd_rounding_in_single_precision_is_a_few_parts_in_a_million():
    torch.manual_seed(0)
    x, weight = torch.randn(1, 128, 32, 32), torch.randn(128, 128, 3, 3) / 34
    want = functional.conv2d(x.double(), weight.double(), padding=1)
    error = (winograd.transformed(x, weight) - want).norm() / want.norm()
    assert 1e-7 < error < 3e-6


def test_strips_do_not_show():
    """An image of many strips, and its gradients, against the convolution in one piece."""
    torch.manual_seed(0)
    x = torch.randn(1, 64, 200, 60, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(64, 64, 3, 3, dtype=torch.float64, requires_grad=True)
    assert winograd._STRIP < 50 * 15
    want, got = functional.conv2d(x, weight, padding=1), winograd.transformed(x, weight)
    torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-9)
    for a, b in zip(*(torch.autograd.grad(y, (x, weight), want) for y in (got, want)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-6)


def _upfirdn(x, kernel, up=1, down=1, pad=(0, 0)):
    """Zeros between pixels, padding, filtering, every `down`-th pixel: the definition."""
    batch, channels, height, width = x.shape
    zeros = torch.zeros(batch, channels, height * up, width * up, dtype=x.dtype)
    zeros[:, :, ::up, ::up] = x
    padded = functional.pad(zeros, (*pad, *pad)).flatten(0, 1)[:, None]
    y = functional.conv2d(padded, kernel.flip(0, 1)[None, None])
    return y[:, 0].reshape(batch, channels, *y.shape[2:])[:, :, ::down, ::down]


@pytest.mark.parametrize("taps", [(1, 3, 3, 1), (1, 1), (1, 5, 10, 10, 5, 1)])
def test_resampling_is_the_filter_between_zeros(taps):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 6, 10, dtype=torch.float64)
    line = torch.tensor(taps, dtype=torch.float64)
    kernel, p = torch.outer(line, line) / line.sum() ** 2, len(taps) - 2
    down = _upfirdn(x, kernel, down=2, pad=((p + 1) // 2, p // 2))
    torch.testing.assert_close(downsample(x, taps), down)
    up = _upfirdn(x, 4 * kernel, up=2, pad=((p + 1) // 2 + 1, p // 2))
    torch.testing.assert_close(upsample(x, taps), up)


def test_filtered_downsampling_convolution_is_the_filter_then_every_second_pixel():
    torch.manual_seed(0)
    layer = FilteredConv(3, 5, "down", (1, 3, 3, 1)).double()
    x = torch.randn(1, 3, 8, 12, dtype=torch.float64)
    line = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=torch.float64)
    filtered = _upfirdn(x, torch.outer(line, line) / 64, pad=(2, 2))
    want = functional.conv2d(filtered, layer.weight, layer.bias)[:, :, ::2, ::2]
    torch.testing.assert_close(layer(x), want)


def test_kept_kernels_follow_the_weights():
    """In-place changes, new storage and other modules' weights are all noticed."""
    torch.manual_seed(0)
    layer, x = Conv3x3(64, 64), torch.randn(1, 64, 16, 16)

    def check():
        with torch.no_grad():
            torch.testing.assert_close(
                layer(x), functional.conv2d(x, layer.weight, layer.bias, padding=1),
                rtol=1e-3, atol=1e-4,
            )  # fmt: skip
        assert layer._kept._found is not None

    check()
    with torch.no_grad():
        layer.weight.mul_(2)
    check()
    layer.load_state_dict({k: 3 * v for k, v in layer.state_dict().items()}, assign=True)
    check()
    layer.weight.data = layer.weight.data + 1
    check()


@pytest.mark.parametrize(
    ("channels", "size"), [(64, (16, 16)), (64, (48, 33)), (96, (5, 5)), (32, (40, 40))]
)
def test_the_one_entry_is_conv2d_whichever_way_it_takes(channels, size, monkeypatch):
    """Kept kernels, kernels of this call, few pixels, few channels; switched off, bit by bit."""
    torch.manual_seed(0)
    layer, x = Conv3x3(channels, 64), torch.randn(1, channels, *size)
    want = functional.conv2d(x, layer.weight, layer.bias, padding=1)
    taken = []
    convolve = winograd._convolve
    monkeypatch.setattr(winograd, "_convolve", lambda *a: taken.append(1) or convolve(*a))
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            torch.testing.assert_close(layer(x), want, rtol=1e-4, atol=1e-5)
    expected = {(16, 16): 1, (48, 33): 2, (5, 5): 0, (40, 40): 0}
    assert len(taken) == expected[size]
    monkeypatch.setattr(conv3x3, "enabled", False)
    assert torch.equal(layer(x), want)
    assert len(taken) == expected[size]


def test_the_environment_switches_it_off():
    code = "from inverse_score.networks import conv3x3; print(conv3x3.enabled)"
    for value, shown in (("0", "False"), ("1", "True")):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "INVERSE_SCORE_WINOGRAD": value},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == shown


def test_memory_of_kept_kernels_is_bounded_and_given_back():
    torch.manual_seed(0)
    x, before = torch.randn(1, 64, 16, 16), KeptKernels.total
    layers = [Conv3x3(64, 64) for _ in range(3)]
    with torch.no_grad():
        for layer in layers:
            layer(x)
    assert KeptKernels.total == before + 3 * 4 * 64 * 64 * 9 * 4
    for layer in layers:
        layer._kept.forget()
    assert KeptKernels.total == before
