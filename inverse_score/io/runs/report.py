"""One self-contained HTML page of a result: slices to compare, maps, scores and provenance.

It loads nothing: images are data URIs, and its policy allows only the script and style inside it,
by their hashes. Every text that came from a file is escaped.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from ..names import printable
from ..pictures import colour, data_uri, to_bytes
from .commits import commit_bytes
from .volume import IMAGES, MAPS, ResultFile, open_volume, score

_PRESETS = {"HU": {"Soft tissue": (400, 40), "Lung": (1500, -600), "Bone": (1800, 400)}}
_SHOWN_FACTS = ("slice", "scale", "noise_std", "misfit", "prior_share", "nfe")


def write_report(result: str | Path, path: str | Path) -> None:
    """Write the page of a result file (`volume.write_volume`) to path, whole or not at all."""
    commit_bytes(path, render(open_volume(result)).encode())


def render(volume: ResultFile) -> str:
    """The page as text; of large volumes, evenly spaced slices (`Volume.shown`)."""
    parts = {name: _asset(f"report.{name}") for name in ("css", "js")}
    attributes = volume.attributes
    fields = {
        "title": _text(attributes.get("name", "Reconstruction")),
        "style": parts["css"],
        "script": parts["js"],
        "style_hash": _hash(parts["css"]),
        "script_hash": _hash(parts["js"]),
        "badges": _badges(volume),
        "presets": _presets(attributes.get("units", "")),
        "explanation": _explanation(volume),
        "scores": _scores(volume),
        "slices": _slice_table(volume),
        "provenance": _table(("", ""), _provenance(attributes)),
        # "<" would end the script element, whatever quotes it stands in.
        "content": json.dumps(_content(volume)).replace("<", "\\u003c"),
    }
    page = _asset("report.html")
    return re.sub(r"\{\{(\w+)\}\}", lambda match: fields[match.group(1)], page)


def _content(volume: ResultFile) -> dict[str, Any]:
    shown = volume.shown()
    images = [name for name in IMAGES if name in volume.names]
    low, high = _range(volume, shown, images)
    window, level = (400.0, 40.0) if volume.attributes.get("units") == "HU" else (None, None)
    tops = {name: volume.top(name, shown) for name in MAPS if name in volume.names}
    slices = [_slice(volume, k, images, (low, high), tops) for k in shown]
    is_colour = volume["reconstruction", 0].ndim == 3
    names = {**IMAGES, **MAPS, "sample": "One sample"}
    if "baseline" in volume.attributes:
        names["baseline"] = f"Baseline ({clean(volume.attributes['baseline'])})"
    return {
        "slices": slices,
        "names": names,
        "left": "zero_filled" if "zero_filled" in images else "reconstruction",
        "right": "reconstruction",
        "low": low,
        "high": high,
        "window": window or high - low,
        "level": (low + high) / 2 if level is None else level,
        "start": len(slices) // 2,
        "colour": is_colour,
    }


def _slice(volume: ResultFile, k: int, images: list[str], ends, tops: dict[str, float]) -> dict:
    pixels = {name: _pack(volume[name, k], *ends) for name in images}
    if volume.num_samples:
        pixels["sample"] = _pack(volume.sample(0, k), *ends)
    maps = {}
    for name, top in tops.items():
        grey = to_bytes(_luminance(volume[name, k]), 0.0, top)
        unit = "" if name == "prior_share" else str(volume.attributes.get("units", ""))
        maps[name] = {"image": data_uri(colour(grey)), "low": 0.0, "high": top, "unit": unit}
    label = f"{volume.facts[k].get('slice', k)} ({k + 1} of {volume.count})"
    return {"label": label, "images": pixels, "maps": maps}


def _pack(image: np.ndarray, low: float, high: float) -> str:
    """Grey in 12 bits over red and green, for window and level in the page; colour as it is."""
    if image.ndim == 3:
        return data_uri(np.moveaxis(to_bytes(image, low, high), 0, -1).copy())
    level = np.rint(np.clip((image - low) / max(high - low, 1e-30), 0, 1) * 4095).astype(np.uint16)
    pixels = np.stack([level >> 4, (level & 15) << 4, np.zeros_like(level)], -1)
    return data_uri(pixels.astype(np.uint8))


def _range(volume: ResultFile, shown, images: list[str]) -> tuple[float, float]:
    """Display range: whole HU, else 0 to just above what the mean holds."""
    if volume.attributes.get("units") == "HU":
        return -1024.0, 3071.0
    if volume["reconstruction", 0].ndim == 3:
        return 0.0, float(volume.attributes.get("white", 1.0))
    return 0.0, volume.top("reconstruction", shown)


def _luminance(image: np.ndarray) -> np.ndarray:
    return image.mean(axis=0) if image.ndim == 3 else image


def _badges(volume: ResultFile) -> str:
    a = volume.attributes
    samples = int(a.get("num_samples", volume.num_samples))
    badges = [(f"{samples} posterior samples" if samples > 1 else "1 sample: no std", "")]
    badges.append((clean(a.get("operator", "")), ""))
    if a.get("acceleration_achieved"):
        nominal = f" (asked {_digits(a['acceleration'])})" if a.get("acceleration") else ""
        badges.append((f"acceleration {_digits(a['acceleration_achieved'])}{nominal}", ""))
    good = bool(a.get("calibrated"))
    badges.append(("uncertainty calibrated" if good else "uncertainty not calibrated",
                   "good" if good else "warn"))  # fmt: skip
    for check in ("fit", "withheld"):
        if a.get(check):
            badges.append((clean(a[check]), "good" if a.get(f"{check}_ok") else "warn"))
    if a.get("simulated"):
        badges.append((clean(a["simulated"]), "warn"))
    return "".join(
        f"<span{f' class={css}' if css else ''}>{_text(text)}</span>"
        for text, css in badges
        if text
    )


def _explanation(volume: ResultFile) -> str:
    a, n = volume.attributes, int(volume.attributes.get("num_samples", volume.num_samples))
    lines = [
        f"The mean is over {n} samples of the posterior, drawn by {a.get('method', 'a sampler')} "
        f"with the prior {a.get('prior', '')}. A single sample is as sharp as the prior's images; "
        "detail that differs between samples is not in the data.",
    ]
    if n > 1:
        lines.append(
            f"Std is the spread of {n} samples, itself uncertain by about "
            f"{100 / math.sqrt(2 * (n - 1)):.0f} %. Low std does not mean correct: "
            + f"{a.get('calibration', 'it has not been checked')}"
            + ("." if a.get("calibrated") else " (inverse-score verify).")
        )
    lines.append(
        "The residual is what the mean does not explain of the data, taken back to the image; its "
        "misfit is near 1 for samples that agree with the data within the noise. The share of the "
        "prior is how much of a pixel the data did not determine at this noise."
    )
    return "".join(f"<p>{_text(line)}</p>" for line in lines)


def _scores(volume: ResultFile) -> str:
    if "reference" not in volume.names:
        return "<p>The scan has no reference to score against.</p>"
    rows = []
    for name in ("zero_filled", "baseline", "reconstruction"):
        if name in volume.names and volume["reconstruction", 0].ndim == 2:
            s = score(volume, name)
            label = _content_name(volume, name)
            rows.append((label, f"{s['psnr']:.2f}", f"{s['ssim']:.4f}", f"{s['nmse']:.5f}"))
    reference = clean(volume.attributes.get("reference", "reference"))
    note = f"<p>Against {html.escape(reference)}; data range: the volume's maximum.</p>"
    return note + _table(("", "PSNR (dB)", "SSIM", "NMSE"), rows)


def _content_name(volume: ResultFile, name: str) -> str:
    if name == "baseline":
        return f"Baseline ({clean(volume.attributes.get('baseline', ''))})"
    return IMAGES[name]


def _slice_table(volume: ResultFile) -> str:
    present = [key for key in _SHOWN_FACTS if any(key in fact for fact in volume.facts)]
    rows = [tuple(_digits(_in_short(fact.get(key, ""))) for key in present)
            for fact in volume.facts]  # fmt: skip
    return _table(tuple(key.replace("_", " ") for key in present), rows)


def _in_short(value: Any) -> Any:
    """A list of a number a sample as its mean and range."""
    if not (isinstance(value, list) and len(value) > 1 and isinstance(value[0], float)):
        return value
    return f"{sum(value) / len(value):.4g} ({min(value):.4g} to {max(value):.4g})"


def _provenance(attributes: dict[str, Any]) -> list[tuple[str, str]]:
    return [(key, _digits(value)) for key, value in sorted(attributes.items()) if value != ""]


def _presets(units: str) -> str:
    return "".join(
        f'<button type="button" data-window="{width}" data-level="{level}">{name}</button>'
        for name, (width, level) in _PRESETS.get(units, {}).items()
    )


def _table(head: tuple[str, ...], rows: list[tuple]) -> str:
    def cells(row: tuple, tag: str) -> str:
        return "".join(
            f"<{tag}{' class=number' if i and len(row) > 2 else ''}>{_text(c)}</{tag}>"
            for i, c in enumerate(row)
        )

    top = f"<thead><tr>{cells(head, 'th')}</tr></thead>" if any(head) else ""
    body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows)
    return f"<table>{top}<tbody>{body}</tbody></table>"


def _digits(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_digits(v) for v in value)
    return f"{value:.4g}" if isinstance(value, float) else clean(value)


def clean(value: Any) -> str:
    """One printable line, whatever a file said."""
    return printable(value, 2000)


def _text(value: Any) -> str:
    return html.escape(clean(value), quote=True)


def _hash(content: str) -> str:
    digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
    return f"sha256-{digest}"


def _asset(name: str) -> str:
    return (files("inverse_score.io.runs") / name).read_text(encoding="utf-8")
