"""Maps of real numbers (the std over samples) as a DICOM Parametric Map, float32 and with a unit.

Its own series and its own kind of object, so that nobody takes it for an image of the patient.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...errors import BadInput
from ...version import __version__
from ..names import printable
from ..runs.commits import committing
from .dicom_provenance import stamp_time
from .dicom_writer import NOTICE, Derivation

UNITS = {"HU": ("[hnsf'U]", "Hounsfield unit"), "": ("1", "no units"), "1": ("1", "no units")}


def write_parametric_map(
    path: str | Path,
    volume: np.ndarray,
    series: Sequence[str | Path],
    derivation: Derivation,
    *,
    units: str = "",
) -> Path:
    """volume (slices, H, W) >= 0 as one multi-frame file, on the grid of the DICOM `series`.

    series: the files of `write_dicom`, one a slice in the order of the volume: patient, study and
    geometry are theirs. units: "HU" or "". Needs highdicom; BadInput without it.
    """
    highdicom, pydicom = _libraries()
    volume = np.asarray(volume, dtype=np.float32)
    sources = [pydicom.dcmread(file) for file in series]
    if volume.ndim != 3 or len(sources) != len(volume) or not np.isfinite(volume).all():
        raise ValueError(
            f"a map must be finite, one slice for each of {len(sources)} files; got {volume.shape}"
        )
    concept = pydicom.sr.codedict.codes.DCM.StandardDeviation
    unit = pydicom.sr.coding.Code(UNITS[units][0], "UCUM", UNITS[units][1])
    mapping = highdicom.pm.RealWorldValueMapping(
        lut_label=printable(derivation.label, 16),
        lut_explanation=printable(derivation.label, 64),
        unit=unit,
        value_range=(float(volume.min()), float(max(volume.max(), volume.min() + 1e-30))),
        slope=1,
        intercept=0,
        quantity_definition=concept,
    )
    uids = [
        pydicom.uid.generate_uid(entropy_srcs=[what, derivation.run, derivation.label])
        for what in ("map series", "map")
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about empty patient elements, which are wanted
        made = highdicom.pm.ParametricMap(
            source_images=sources,
            pixel_array=volume,
            series_instance_uid=uids[0],
            series_number=int(sources[0].SeriesNumber) + 1,
            sop_instance_uid=uids[1],
            instance_number=1,
            manufacturer="inverse_score",
            manufacturer_model_name="inverse_score",
            software_versions=__version__,
            device_serial_number="none",
            contains_recognizable_visual_features=False,
            real_world_value_mappings=[mapping],
            window_center=float(np.median(volume)),
            window_width=float(max(np.ptp(volume), 1e-12)),
            content_label="STD",
            series_description=printable(f"{derivation.label} {NOTICE}", 64),
        )
    made.DerivationDescription = printable(derivation.text, 1024)
    made.ImageComments = NOTICE
    made.preamble = bytes(128)
    if sources[0].get("Laterality") is not None:
        made.Laterality = sources[0].Laterality
    stamp_time(made)
    with committing(path) as temporary:
        made.save_as(temporary, enforce_file_format=True)
    return Path(path)


def highdicom_missing() -> bool:
    """Whether the package that writes parametric maps is not installed."""
    return importlib.util.find_spec("highdicom") is None


def _libraries():
    try:
        import highdicom
        import pydicom
        import pydicom.sr.codedict
    except ImportError:
        raise BadInput("parametric maps need highdicom: pip install highdicom") from None
    return highdicom, pydicom
