"""Pictures of a benchmark run: for each case and item, truth and each row's image and error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from inverse_score.io.formats.npy import npy_array
from inverse_score.io.names import safe_name
from inverse_score.io.pictures import colour, to_bytes
from inverse_score.io.runs.commits import commit_bytes

from .definition import Case, Definition
from .results import Results

# Errors are shown from 0 to this share of the window.
_ERROR = 0.2
_TITLE, _GAP = 15, 4
# A window in Hounsfield units that shows lung and soft tissue.
_HU_WINDOW = (-1000.0, 400.0)


def keep(results: Results, case: str, item: str, name: str, image: np.ndarray) -> None:
    """Put one image (H, W) beside the results, for `write`."""
    path = _path(results.folder, case, item, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    commit_bytes(path, _npy(image.astype(np.float32)))


def write(definition: Definition, results: Results) -> list[Path]:
    """figures/CASE--ITEM.png: the truth and every row's image above its error's magnitude."""
    made = []
    for item in sorted({record["item"] for record in results.records}):
        for case in definition.cases:
            columns = _columns(definition, results, case, item)
            if len(columns) > 1:
                path = results.folder / "figures" / f"{safe_name(f'{case.name}--{item}')}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                commit_bytes(path, _png(_sheet(columns, definition.metric.data_range == "hu")))
                made.append(path)
    return made


def _columns(
    definition: Definition, results: Results, case: Case, item: str
) -> list[tuple[str, np.ndarray]]:
    """(title, image) of the truth, then of each row that has been run."""
    columns = []
    for name in ("truth", *(row.name for row in definition.rows)):
        path = _path(results.folder, case.name, item, name)
        if path.exists():
            scores = next(
                (
                    record["scores"]
                    for record in results.records
                    if (record["row"], record["case"], record["item"]) == (name, case.name, item)
                ),
                {},
            )
            title = f"{name}, {scores['psnr']:.1f} dB" if "psnr" in scores else name
            columns.append((title, npy_array(path)))
    return columns


def _sheet(columns: list[tuple[str, np.ndarray]], hounsfield: bool) -> Image.Image:
    truth = columns[0][1]
    low, high = _HU_WINDOW if hounsfield else (0.0, float(np.quantile(truth, 0.998)))
    H, W = truth.shape
    canvas = Image.new("RGB", (len(columns) * (W + _GAP) - _GAP, 2 * H + _TITLE + _GAP), "white")
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(11)
    for k, (title, image) in enumerate(columns):
        left = k * (W + _GAP)
        pen.text((left + 1, 1), title, fill="black", font=font)
        canvas.paste(Image.fromarray(to_bytes(image, low, high)), (left, _TITLE))
        error = np.abs(np.clip(image, low, high) - np.clip(truth, low, high))
        wrong = colour(to_bytes(error, 0.0, _ERROR * (high - low)))
        canvas.paste(Image.fromarray(wrong), (left, _TITLE + H + _GAP))
    return canvas


def _path(folder: Path, case: str, item: str, name: str) -> Path:
    return folder / "images" / f"{safe_name(f'{item}--{case}--{name}')}.npy"


def _npy(image: np.ndarray) -> bytes:
    from io import BytesIO

    file = BytesIO()
    np.save(file, image, allow_pickle=False)
    return file.getvalue()


def _png(image: Image.Image) -> bytes:
    from io import BytesIO

    file = BytesIO()
    image.quantize(256, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
    return file.getvalue()
