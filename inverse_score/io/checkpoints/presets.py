"""Published checkpoints as data: what their files do not say.

Each preset is a layout, a network with its configuration (noise schedule and range of the images
included) and the settings of the paper's samples and likelihoods, from the released
configurations (score_sde_pytorch cb1f359, guided-diffusion 22e0df8, DPS effbde7, DDS 509b140,
score-MRI 8359aae, csgm-mri 91e0a5a, edm 008a4e5, InverseBench b113d67).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

UNIT, SIGNED = (1.0, 0.0), (0.5, 0.5)


@dataclass(frozen=True)
class Preset:
    """range: (scale, offset), data = scale u + offset, data in [0, 1] for pictures.

    sampling: how the paper drew samples, by `settings.sampling_options`. steps, t_end and, for a
    predictor with corrector, predictor, corrector and snr. t_min: smallest time of training.
    prefixed: guided-diffusion's names within a preconditioner's `model`.
    """

    layout: str
    network: str
    config: dict[str, Any]
    range: tuple[float, float] = UNIT
    sampling: dict[str, Any] = field(default_factory=dict)
    t_min: float | None = None
    domain: str = ""
    prefixed: bool = False


def _ve(sigma_max: float) -> dict[str, Any]:
    return {"name": "ve", "sigma_min": 0.01, "sigma_max": sigma_max}


_VP = {"name": "vp", "beta_min": 0.1, "beta_max": 20.0}
_SUBVP = {**_VP, "name": "subvp"}
_KARRAS = {"name": "karras", "sigma_max": 80.0}
_SKIPS = {"progressive": "output_skip", "progressive_input": "input_skip", "num_res_blocks": 2,
          "ch_mult": [1, 1, 2, 2, 2, 2, 2], "image_size": 256, "dropout": 0.0}  # fmt: skip
_LARGE = {**_SKIPS, "nf": 16, "ch_mult": [1, 2, 4, 8, 16, 32, 32, 32], "num_res_blocks": 1,
          "image_size": 1024}  # fmt: skip
_PLAIN = {"fir": False, "progressive_input": "none"}
_POSITIONAL = {"embedding_type": "positional", "centered": True}


def _pc(snr: float, steps: int, corrector: str = "langevin", predictor: str = "reverse-diffusion"):
    return {"predictor": predictor, "corrector": corrector, "snr": snr, "steps": steps,
            "t_end": 1e-5}  # fmt: skip


def _predictor(predictor: str) -> dict[str, Any]:
    return {"predictor": predictor, "corrector": "none", "steps": 1000, "t_end": 1e-3}


def _song_ve(sigma_max: float, snr: float, steps: int = 1000, domain: str = "", **config: Any):
    config = {**config, "sde": _ve(sigma_max)}
    config.setdefault("conditioning", {"label": "log-sigma"})
    return Preset("score_sde", "ncsnpp", config, UNIT, _pc(snr, steps), 1e-5, domain)


def _song_vp(sde: dict[str, Any], label: dict[str, Any], predictor: str, **config: Any) -> Preset:
    config = {**_POSITIONAL, **config, "sde": sde, "conditioning": label}
    t_min = None if label["label"] == "schedule" else 1e-5
    return Preset("score_sde", "ncsnpp", config, SIGNED, _predictor(predictor), t_min, "CIFAR-10")


_TIME, _CHAIN = {"label": "time", "steps": 1000}, {"label": "schedule"}
_EM = "euler-maruyama"
_LEVELS = {"embedding_type": "positional", "conditioning": {"label": "level", "steps": 1000}}
_CIFAR = "CIFAR-10"


def _ddpm(label: dict[str, Any], predictor: str, sde: dict[str, Any] = _VP, **config: Any):
    config = {**config, "sde": sde, "conditioning": label}
    t_min = None if label["label"] == "schedule" else 1e-5
    domain = config.pop("domain", _CIFAR)
    return Preset("score_sde", "ddpm", config, SIGNED, _predictor(predictor), t_min, domain)


_DDPM_256 = {"image_size": 256, "widths": [128, 128, 256, 256, 512, 512], "dropout": 0.0}

SCORE_SDE = {
    "ve/cifar10_ncsnpp_continuous": _song_ve(50.0, 0.16, domain=_CIFAR),
    "ve/cifar10_ncsnpp_deep_continuous": _song_ve(50.0, 0.16, domain=_CIFAR, num_res_blocks=8),
    "ve/cifar10_ncsnpp": _song_ve(50.0, 0.16, domain=_CIFAR, **_LEVELS),
    "ve/celeba_ncsnpp": _song_ve(90.0, 0.17, domain="CelebA", image_size=64, **_LEVELS),
    "ve/bedroom_ncsnpp_continuous": _song_ve(378.0, 0.075, 2000, "LSUN bedroom", **_SKIPS),
    "ve/church_ncsnpp_continuous": _song_ve(380.0, 0.075, 2000, "LSUN church", **_SKIPS),
    "ve/ffhq_256_ncsnpp_continuous": _song_ve(348.0, 0.075, 2000, "FFHQ", **_SKIPS),
    "ve/celebahq_256_ncsnpp_continuous": _song_ve(348.0, 0.075, 2000, "CelebA-HQ", **_SKIPS),
    "ve/ffhq_ncsnpp_continuous": _song_ve(1348.0, 0.15, 2000, "FFHQ", **_LARGE),
    "ve/celebahq_ncsnpp_continuous": _song_ve(1348.0, 0.15, 2000, "CelebA-HQ", **_LARGE),
    "vp/cifar10_ddpmpp": _song_vp(_VP, _CHAIN, "ancestral", **_PLAIN),
    "vp/cifar10_ddpmpp_continuous": _song_vp(_VP, _TIME, _EM, **_PLAIN),
    "vp/cifar10_ddpmpp_deep_continuous": _song_vp(_VP, _TIME, _EM, num_res_blocks=8, **_PLAIN),
    "vp/cifar10_ncsnpp": _song_vp(_VP, _CHAIN, "reverse-diffusion"),
    "vp/cifar10_ncsnpp_continuous": _song_vp(_VP, _TIME, _EM),
    "vp/cifar10_ncsnpp_deep_continuous": _song_vp(_VP, _TIME, _EM, num_res_blocks=8),
    "subvp/cifar10_ddpmpp_continuous": _song_vp(_SUBVP, _TIME, _EM, **_PLAIN),
    "subvp/cifar10_ddpmpp_deep_continuous": _song_vp(
        _SUBVP, _TIME, _EM, num_res_blocks=8, **_PLAIN
    ),
    "subvp/cifar10_ncsnpp_continuous": _song_vp(_SUBVP, _TIME, _EM),
    "subvp/cifar10_ncsnpp_deep_continuous": _song_vp(_SUBVP, _TIME, _EM, num_res_blocks=8),
    "vp/ddpm/cifar10": _ddpm(_CHAIN, "ancestral"),
    "vp/ddpm/cifar10_continuous": _ddpm(_TIME, _EM),
    "subvp/cifar10_ddpm_continuous": _ddpm(_TIME, _EM, _SUBVP),
    "vp/ddpm/bedroom": _ddpm(_CHAIN, "ancestral", domain="LSUN bedroom", **_DDPM_256),
    "vp/ddpm/church": _ddpm(_CHAIN, "ancestral", domain="LSUN church", **_DDPM_256),
    "vp/ddpm/celebahq": _ddpm(_CHAIN, "ancestral", domain="CelebA-HQ", **_DDPM_256),
    "score-mri/fastmri_knee_320": _song_ve(
        378.0, 0.16, 2000, "fastMRI knee, magnitudes in [0, 1]", channels=1, image_size=320
    ),
}

_ADM_256 = {"image_size": 256, "attention_resolutions": [16], "num_res_blocks": 1}
_DDS = {"range": UNIT, "sampling": {"method": "ddim", "steps": 50, "eta": 0.85}}
_DDIM = {"method": "ancestral", "steps": 1000}


def _guided(domain: str, *, range=SIGNED, sampling=_DDIM, **config: Any) -> Preset:
    config = {**config, "sde": _VP, "conditioning": {"label": "schedule"}}
    return Preset("guided-diffusion", "adm", config, range, sampling, None, domain)


GUIDED = {
    "guided/256x256_diffusion_uncond": _guided("ImageNet 256x256"),
    "guided/lsun_bedroom": _guided("LSUN bedroom", dropout=0.1),
    "dps/ffhq_10m": _guided("FFHQ 256x256", num_channels=128, **_ADM_256),
    "dps/imagenet256": _guided("ImageNet 256x256"),
    "dds/aapm256": _guided("AAPM low-dose CT", channels=1, **_DDS, **_ADM_256),
    "dds/fastmri_knee_320_complex": _guided(
        "fastMRI knee, real and imaginary part", channels=2, **_DDS,
        **{**_ADM_256, "image_size": 320},
    ),
}  # fmt: skip

_HEUN = {"method": "heun", "steps": 18}
_INVERSEBENCH = {"num_channels": 128, "channel_mult": [1, 1, 1, 2, 2], "num_res_blocks": 1,
                 "attention_resolutions": [16], "learn_sigma": False, "min_group": 4}  # fmt: skip


def _edm(label: dict[str, Any], sde: dict[str, Any], t_min: float, **config: Any) -> Preset:
    """The network itself is read from the tensors' names; only the preconditioning is given."""
    config = {**config, "sde": sde, "conditioning": label}
    return Preset("edm", "", config, SIGNED, _HEUN, t_min)


def _inversebench(domain: str, channels: int, size: int) -> Preset:
    config = {**_INVERSEBENCH, "channels": channels, "image_size": size, "sde": _KARRAS,
              "conditioning": {"label": "karras", "sigma_data": 0.5}}  # fmt: skip
    return Preset("edm", "adm", config, UNIT, _HEUN, 0.002, domain)


EDM = {
    "edm/edm": _edm({"label": "karras", "sigma_data": 0.5}, _KARRAS, 0.002),
    "edm/vp": _edm(_TIME, _VP, 1e-5),
    "edm/ve": _edm(
        {"label": "log-sigma", "gain": 0.5}, {"name": "ve", "sigma_min": 0.02, "sigma_max": 100.0},
        1e-5,
    ),
    "edm/iddpm": _edm({"label": "schedule", "kind": "cosine"}, _VP, None),  # type: ignore[arg-type]
    "inversebench/mri-knee": _inversebench("fastMRI knee MVUE, 99th percentile 1", 2, 320),
    "inversebench/mri-brain": _inversebench("fastMRI brain MVUE, 99th percentile 1", 2, 320),
    "inversebench/ffhq256": Preset(
        "guided-diffusion", "adm",
        {**_ADM_256, "num_channels": 128, "sde": _VP, "conditioning": _TIME},
        SIGNED, {}, 1e-5, "FFHQ 256x256", prefixed=True,
    ),
}  # fmt: skip


def _ncsnv2(sigma_max: float, sigma_min: float, size: int, depth: str, levels: int, **more: Any):
    config = {"image_size": size, "depth": depth,
              "sde": {"name": "ve", "sigma_min": sigma_min, "sigma_max": sigma_max}}  # fmt: skip
    domain = more.pop("domain")
    sampling = {"method": "annealed-langevin", "steps": levels, "t_end": 1e-5,
                **more.pop("sampling", {})}  # fmt: skip
    return Preset("ncsnv2", "ncsnv2", {**config, **more}, UNIT, sampling, 1e-5, domain)


NCSNV2 = {
    "ncsnv2/cifar10": _ncsnv2(50.0, 0.01, 32, "ncsnv2", 232, domain=_CIFAR),
    "ncsnv2/celeba": _ncsnv2(90.0, 0.01, 64, "ncsnv2", 500, domain="CelebA"),
    "ncsnv2/church": _ncsnv2(140.0, 0.01, 64, "deeper", 788, domain="LSUN church"),
    "ncsnv2/bedroom": _ncsnv2(190.0, 0.01, 128, "deeper", 1086, domain="LSUN bedroom"),
    "ncsnv2/tower": _ncsnv2(190.0, 0.01, 128, "deeper", 1086, domain="LSUN tower"),
    "ncsnv2/ffhq": _ncsnv2(348.0, 0.01, 256, "deepest", 2311, domain="FFHQ"),
    "csgm-mri/brain": _ncsnv2(
        232.0, 0.0066, 384, "deepest", 2311, channels=2,
        domain="fastMRI brain T2 MVUE, 99th percentile 1",
    ),
}  # fmt: skip

PRESETS: dict[str, Preset] = {**SCORE_SDE, **GUIDED, **EDM, **NCSNV2}
