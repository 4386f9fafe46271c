"""MRI: Cartesian and free trajectories, coil by coil or joined by coil maps.

`cartesian`, `nufft` and `coilwise` are the operators, `normal` and `rows` the speed of the first;
`kspace` and `trajectories` sample k-space, `coils` estimates maps.
"""

from .cartesian import CartesianMRI
from .coilwise import CoilwiseMRI
from .nufft import NonCartesianMRI

__all__ = ["CartesianMRI", "CoilwiseMRI", "NonCartesianMRI"]
