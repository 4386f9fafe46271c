"""Applications: a prior and an operator become a sampler in the data's own units.

`recipes.mri(prior, mask)(kspace)`, likewise ct, inpainting, colorization, class_conditional,
deblurring, super_resolution, compressed_sensing and interpolation; `volume` holds a scan's slices
together; `load` makes one from YAML.
"""

# Each name is a function here; its module is reached as `from recipes.NAME import ...`.
from .class_conditional import class_conditional
from .colorization import colorization
from .compressed_sensing import compressed_sensing
from .ct import ct
from .deblurring import deblurring
from .inpainting import inpainting
from .interpolation import interpolation
from .load import load
from .mri import mri
from .super_resolution import super_resolution
from .volume import volume

__all__ = [
    "class_conditional",
    "colorization",
    "compressed_sensing",
    "ct",
    "deblurring",
    "inpainting",
    "interpolation",
    "load",
    "mri",
    "super_resolution",
    "volume",
]
