"""How the priors that ship are made: their data, and the training images cut from it.

`inverse-score prepare NAME --out DIR` fills DIR; `inverse-score train NAME.yaml --set
data.path=DIR`, with the NAME.yaml of this folder, trains on `datasets(DIR)`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from inverse_score.errors import BadInput


def datasets(
    folder: str | Path, size: int | None = None, seed: int = 0, labels: bool = False
) -> tuple[Any, Any]:
    """(training images, held-out images or None) of a folder that `prepare` filled, in data units.

    size: pixels a side of the training images (digits have their own). labels: (image, label), for
    a classifier. Held-out images are whole slices of people that no training image shows.
    """
    from .bodies import Bodies
    from .digits import Digits
    from .heads import Heads
    from .held_out import HELD_OUT
    from .photos import Photos

    folder = Path(folder)
    try:
        name = json.loads((folder / "prepared.json").read_text(encoding="utf-8"))["prior"]
    except (OSError, ValueError, KeyError) as error:
        raise BadInput(f"{folder} was not filled by `inverse-score prepare`: {error}") from None
    train = {"brain-mri": Heads, "body-ct": Bodies, "photo-patches": Photos}.get(name)
    if name == "digits":
        return Digits(folder / "train", labels), Digits(folder / "held_out", labels)
    if train is None or labels:
        raise BadInput(
            f"{folder} holds the data of {name!r}: not to be trained on, or without labels"
        )
    training = train(folder / "train", seed=seed, **({} if size is None else {"size": size}))
    return training, HELD_OUT[name](folder / "held_out")
