"""What the training images of each shipped prior were varied by, in the words of its card."""

AUGMENTATION = {
    "brain-mri": (
        "planes of any orientation (thick slices: in the plane only), a part of them the scan's "
        "own slices without interpolation; pixels of 0.6 to 1.5 mm; elastic displacements of about "
        "1.5 pixels; powers and random curves of intensity; spin-echo contrasts of tissue maps "
        "with random TR, TE and inversion; coil shading of up to about 20 %; smooth residual "
        "phase, mostly below 0.5 rad; scale varied by 15 %"
    ),
    "body-ct": (
        "axial planes, half of them the scan's own slices (fine ones also averaged two by two), "
        "half turned at random with pixels of 0.7 to 2 mm and elastic displacements of about 1.5 "
        "pixels; increasing curves of Hounsfield units about 12 % from the identity"
    ),
    "digits": "none",
    "photo-patches": (
        "patches at 1 to 1/4 of the picture's resolution, turned by right angles and mirrored; "
        "powers of intensity of about 1 +- 0.2"
    ),
}
