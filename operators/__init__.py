"""Linear forward operators with exact adjoints: y = A(x), A.T(y), closed-form solves."""

from .adapters import from_linop, from_physics, from_scipy, to_physics, to_scipy
from .algebra import Composition, Diagonal, FromFunction, Scaled
from .blur import Blur, GaussianBlur, MotionBlur
from .checks import check_adjoint, check_operator
from .color import REC601, Grayscale
from .compressed import CompressedSensing
from .ct.radon import Radon, from_hounsfield, to_hounsfield
from .forms import Forms
from .fourier import fft2c, ifft2c
from .linalg import SolveInfo, conjugate_gradient
from .linear import LinearOperator, as_channels, as_complex
from .masks import Identity, Mask, box_mask, half_mask
from .mri.cartesian import CartesianMRI
from .mri.coils import birdcage_maps, calibration_region, espirit, low_resolution_maps
from .mri.kspace import SamplingMask, column_mask, file_seed, grid_mask
from .mri.nufft import NonCartesianMRI
from .noise import Transmission, add_gaussian, poisson_transmission
from .resample import Downsample
from .spectral import SVD, Transform
from .stacks import VStack, vstack
from .volume import EachSlice, ItemWise

__all__ = [
    "REC601",
    "SVD",
    "Blur",
    "CartesianMRI",
    "Composition",
    "CompressedSensing",
    "Diagonal",
    "Downsample",
    "EachSlice",
    "Forms",
    "FromFunction",
    "GaussianBlur",
    "Grayscale",
    "Identity",
    "ItemWise",
    "LinearOperator",
    "Mask",
    "MotionBlur",
    "NonCartesianMRI",
    "Radon",
    "SamplingMask",
    "Scaled",
    "SolveInfo",
    "Transform",
    "Transmission",
    "VStack",
    "add_gaussian",
    "as_channels",
    "as_complex",
    "birdcage_maps",
    "box_mask",
    "calibration_region",
    "check_adjoint",
    "check_operator",
    "column_mask",
    "conjugate_gradient",
    "espirit",
    "fft2c",
    "file_seed",
    "from_hounsfield",
    "from_linop",
    "from_physics",
    "from_scipy",
    "grid_mask",
    "half_mask",
    "ifft2c",
    "low_resolution_maps",
    "poisson_transmission",
    "to_hounsfield",
    "to_physics",
    "to_scipy",
    "vstack",
]
