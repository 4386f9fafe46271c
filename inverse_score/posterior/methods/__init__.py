"""The methods of `solve` by name: a file each, which ends with its METHOD."""

from __future__ import annotations

from ..method import Course, Method, NoOptions, Walk, grid_for
from . import (
    baselines,
    daps,
    ddnm,
    ddrm,
    dds,
    diffpir,
    dps,
    jalal,
    mcg,
    moment_matching,
    pigdm,
    red_diff,
    replacement,
    score_mri,
    smc,
    song21,
    song22,
    split_gibbs,
)

__all__ = ["METHODS", "Course", "Method", "NoOptions", "Walk", "grid_for"]

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        moment_matching.METHOD,
        pigdm.METHOD,
        dps.METHOD,
        mcg.METHOD,
        song21.METHOD,
        jalal.METHOD,
        replacement.METHOD,
        song22.METHOD,
        score_mri.METHOD,
        red_diff.METHOD,
        ddnm.METHOD,
        diffpir.METHOD,
        dds.METHOD,
        daps.METHOD,
        split_gibbs.METHOD,
        smc.METHOD,
        ddrm.METHOD,
        *baselines.METHODS,
    )
}
