"""Every operator and some compositions at one image size, for tests that hold for all of them."""

import math

import torch

from operators import (
    REC601,
    Blur,
    CartesianMRI,
    CompressedSensing,
    Diagonal,
    Downsample,
    EachSlice,
    GaussianBlur,
    Grayscale,
    Identity,
    ItemWise,
    LinearOperator,
    Mask,
    MotionBlur,
    Radon,
    from_physics,
    from_scipy,
    to_physics,
    vstack,
)
from operators.mri.coils import unit_norm
from operators.mri.coilwise import CoilwiseMRI
from operators.observed import Observed

SIZES = [(8, 6), (9, 7), (6, 9)]


def zoo(H, W):
    g = torch.Generator().manual_seed(H * W)

    def uniform(*shape):
        return torch.rand(*shape, generator=g, dtype=torch.float64)

    def maps(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.complex128)

    mask, masks = uniform(3, H, W) > 0.5, uniform(2, H, W) > 0.4
    columns = torch.arange(W) % 3 != 1
    gray, factor = Grayscale((3, H, W), REC601), 3 if H % 3 == 0 and W % 3 == 0 else 2
    size = (factor * (H // factor), factor * (W // factor))
    angles = torch.tensor([0.0, 0.4, math.pi / 2, 2.0, 3.0], dtype=torch.float64)
    radon = Radon((H, W), angles, pixel_size=0.7)
    items = CartesianMRI(masks, maps(2, 3, H, W))
    fan = {"source_distance": 20.0, "detector_spacing": 1.3, "detector_offset": 0.4}
    return {
        "identity": Identity((3, H, W)),
        "mask": Mask(mask),
        "mask of all channels": Mask(mask[:1], (3, H, W)),
        "mask per item": Mask(uniform(2, 1, H, W) > 0.5, (3, H, W)),
        "grayscale": gray,
        "diagonal": Diagonal(uniform(1, H, W) + 0.1, (3, H, W)),
        "gaussian blur": GaussianBlur((2, H, W), 0.8),
        "motion blur": MotionBlur((2, H, W), 2.0, 0.5),
        "blur per item": Blur(uniform(2, 3, 4), (2, H, W)),
        "block means": Downsample((2, *size), factor),
        "bicubic": Downsample((2, *size), factor, kernel="bicubic"),
        "hartley sensing": CompressedSensing((2, H, W), 17, transform="hartley"),
        "hadamard sensing": CompressedSensing((2, 8, 4), 11),
        "single coil, columns": CartesianMRI(columns, image_shape=(H, W)),
        "single coil, grid": CartesianMRI(masks[0]),
        "single coil per item": CartesianMRI(masks),
        "multi-coil, columns": CartesianMRI(columns, maps(3, H, W)),
        "multi-coil, grid": CartesianMRI(masks[0], maps(3, H, W)),
        "multi-coil per item": items,
        "coil by coil": CoilwiseMRI(columns, sens_maps=unit_norm(maps(3, H, W))),
        "parallel beam": radon,
        "parallel beam, nothing stored": Radon((H, W), angles, memory_limit=0),
        "flat fan": Radon((H, W), angles, geometry="fan-flat", **fan),
        "arc fan": Radon((H, W), angles, geometry="fan-arc", channels=2, **fan),
        "scaled": -2.5 * gray,
        "scaled per item": CartesianMRI(masks) * torch.tensor([2.0, -3.0], dtype=torch.float64),
        "composition": Mask(mask[:1], (1, H, W)) @ gray,
        "whitened": Diagonal(uniform(3, H, W) + 0.1, complex=True) @ items,
        "observed mask": Observed(Mask(mask), uniform(3, H, W) > 0.3),
        "observed k-space": Observed(CartesianMRI(masks), uniform(2, 1, H, W) > 0.3),
        "observed beams": Observed(0.5 * radon, uniform(*radon.out_shape) > 0.3),
        "stack of one shape": vstack([CartesianMRI(masks[0]), items]),
        "stack of many shapes": vstack([Identity((2, H, W)), CartesianMRI(masks[1])]),
        "slices": EachSlice(radon, 3),
        "slices, each its own": EachSlice(items, 2),
        "operators per item": ItemWise([items[0], items[1]]),
        "slices, each an operator": EachSlice(ItemWise([radon, 2.0 * radon, radon]), 3),
        "function": LinearOperator.from_function(
            lambda x: x.cumsum(-1)[..., ::2], (2, H, W), dtype=torch.float64
        ),
        "scipy": from_scipy(uniform(5, H * W).numpy(), (1, H, W)),
        "physics": from_physics(to_physics(gray), (3, H, W)),
    }


NAMES = list(zoo(*SIZES[0]))


def draw(shape, seed, complex_=False):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=g, dtype=torch.complex128 if complex_ else torch.float64)
