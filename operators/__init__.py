"""Linear forward operators with exact adjoints: y = A(x), A.T(y), closed-form solves."""

from .algebra import Composition, Diagonal, FromFunction, Scaled, VStack, vstack
from .color import REC601, Grayscale
from .ct import Radon
from .fourier import fft2c, ifft2c
from .linalg import SolveInfo, conjugate_gradient
from .linear import LinearOperator, as_channels, as_complex, check_adjoint
from .masks import Identity, Mask, box_mask, half_mask
from .mri import CartesianMRI
from .spectral import SVD, Transform

__all__ = [
    "REC601",
    "SVD",
    "CartesianMRI",
    "Composition",
    "Diagonal",
    "FromFunction",
    "Grayscale",
    "Identity",
    "LinearOperator",
    "Mask",
    "Radon",
    "Scaled",
    "SolveInfo",
    "Transform",
    "VStack",
    "as_channels",
    "as_complex",
    "box_mask",
    "check_adjoint",
    "conjugate_gradient",
    "fft2c",
    "half_mask",
    "ifft2c",
    "vstack",
]
