"""The XML header of ISMRMRD raw data: the encoded grid, and facts that are not of the patient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from xml.etree.ElementTree import Element

import numpy as np

from ...errors import BadInput
from .. import guard
from .fastmri import parse_xml

# The standard calls the counters so in readouts, and otherwise in the header.
STEPS: tuple[str, ...] = ("kspace_encode_step_1", "kspace_encode_step_2")
LIMITS = ("kspace_encoding_step_1", "kspace_encoding_step_2")


@dataclass(frozen=True)
class Grid:
    """The encoded matrix (readout, phase 1, phase 2), where its centre is, and its size in mm.

    matrix is with readout oversampling, readout the samples that remain without it; crop the size
    of the scanner's image in pixels of this grid.
    """

    matrix: tuple[int, int, int]
    readout: int
    centre: tuple[int, int]
    field_mm: tuple[float, float, float]
    crop: tuple[int, int]
    slices: int

    @classmethod
    def from_header(cls, root: Element, heads: np.ndarray, name: str) -> Grid:
        """From encodedSpace, reconSpace and encodingLimits of the first encoding."""
        encoded, recon = "encoding/encodedSpace", "encoding/reconSpace"
        x, y, z = (int(header_number(root, f"{encoded}/matrixSize/{a}", name)) for a in "xyz")
        matrix = (x, y, z)
        field, wanted = (
            tuple(header_number(root, f"{space}/fieldOfView_mm/{a}", name) for a in "xyz")
            for space in (encoded, recon)
        )
        if not all(1 <= n <= 65536 for n in matrix) or min(*field, *wanted) <= 0:
            raise BadInput(f"{name}: matrix {matrix} and field of view {field} must be positive")
        plane = 8 * int(heads["active_channels"].max()) * matrix[0] * matrix[1]
        guard.check_slice(f"{name}, one slice", plane)
        readout, phase = (
            min(n, max(1, round(n * part / whole)))
            for n, part, whole in zip(matrix[:2], wanted, field, strict=False)
        )
        limits = "encoding/encodingLimits"
        centre = [
            int(header_number(root, f"{limits}/{step}/center", name, n // 2))
            for step, n in zip(LIMITS, matrix[1:], strict=True)
        ]
        highest = int(heads["idx"]["slice"].max())
        return cls(
            matrix=matrix,
            readout=readout,
            centre=(centre[0], centre[1]),
            field_mm=(field[0] * readout / matrix[0], field[1], field[2]),
            crop=(readout, phase),
            slices=1 + int(header_number(root, f"{limits}/slice/maximum", name, highest)),
        )


def read_header(text: str, name: str) -> Element:
    root = parse_xml(text, f"{name}, ISMRMRD header")
    if root.tag.split("}")[-1] != "ismrmrdHeader":
        raise BadInput(f"{name}: the header must be an ismrmrdHeader, got {root.tag[:80]!r}")
    trajectory = header_text(root, "encoding/trajectory", "cartesian")
    if trajectory not in ("cartesian", "epi"):
        raise BadInput(f"{name}: only Cartesian scans are read, this one is {trajectory[:40]!r}")
    return root


def header_text(root: Element, path: str, default: str) -> str:
    """Text of the first node at a path, whatever the namespace."""
    node = root.find("/".join(f"{{*}}{part}" for part in path.split("/")))
    return default if node is None or node.text is None else node.text.strip()


def header_facts(header: Element, heads: np.ndarray) -> Mapping[str, str | int | float]:
    """What the header says of the scanner and the sequence; nothing of the subject or the study."""
    facts: dict[str, str | int | float] = {"coils": int(heads["active_channels"][0])}
    for name, where in {
        "MagneticFieldStrength": "acquisitionSystemInformation/systemFieldStrength_T",
        "RepetitionTime": "sequenceParameters/TR",
        "EchoTime": "sequenceParameters/TE",
        "acceleration": "encoding/parallelImaging/accelerationFactor/kspace_encoding_step_1",
    }.items():
        text = header_text(header, where, "")
        try:
            facts[name] = float(text)
        except ValueError:
            continue
    return facts


def header_number(root: Element, path: str, name: str, default: float | None = None) -> float:
    """The finite number at a path; BadInput names a path that has none and no default."""
    node = root.find("/".join(f"{{*}}{part}" for part in path.split("/")))
    text = "" if node is None or node.text is None else node.text.strip()
    if not text and default is not None:
        return float(default)
    try:
        value = float(text)
        if not np.isfinite(value):
            raise ValueError
    except ValueError:
        raise BadInput(f"{name}: the ISMRMRD header has no number at {path}") from None
    return value
