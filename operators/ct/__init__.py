"""CT: the scan and its filtered backprojection; and what makes its products fast.

`radon` and `geometry` are the mathematics, `filtering` the filtered backprojection. `rays` weighs
pixels along lines, `stored` keeps the weights, `symmetry` keeps fewer, `projector` takes products.
"""

from .radon import WATER, Radon, from_hounsfield, to_hounsfield

__all__ = ["WATER", "Radon", "from_hounsfield", "to_hounsfield"]
