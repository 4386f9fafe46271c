"""The released implementations themselves, run on the cases of inverse_score.testing.released.

    python tests/studies/reference_networks.py CLONES --write tests/inverse_score/parity.npz

CLONES holds score_sde_pytorch, guided-diffusion, ncsnv2 and edm (git clones of the commits in
REPOSITORIES); diffusers is imported from the environment. Their code runs as it is, with two
repairs without which it does not run at all on a CPU: the CUDA extension that score_sde_pytorch
compiles when imported is not compiled (its own path in PyTorch serves), and the calls in REPAIRS,
which PyTorch refuses and which no released configuration makes, become what they mean.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from inverse_score.testing.released import CASES, ReleasedCase, diffusers_config, formula

REPOSITORIES = {
    "score_sde_pytorch": ("yang-song/score_sde_pytorch", "cb1f359"),
    "guided-diffusion": ("openai/guided-diffusion", "22e0df8"),
    "ncsnv2": ("ermongroup/ncsnv2", "1bcea03"),
    "edm": ("NVlabs/edm", "008a4e5"),
}
_FOLDERS = {"score_sde": "score_sde_pytorch", "guided-diffusion": "guided-diffusion",
            "ncsnv2": "ncsnv2", "edm": "edm"}  # fmt: skip
REPAIRS = {
    "models.up_or_down_sampling": (
        ("w = w[..., ::-1, ::-1]", "w = torch.flip(w, [3, 4])"),
        ("stride = [1, 1, factor, factor]", "stride = (factor, factor)"),
    ),
    "models.layerspp": (
        ("F.interpolate(x, (H * 2, W * 2), 'nearest')", "F.interpolate(x, (H * 2, W * 2))"),
    ),
}


class Missing(Exception):
    """A reference implementation is not there."""


@contextlib.contextmanager
def clone(clones: Path, name: str) -> Iterator[None]:
    """Import from CLONES/name; what it imported is forgotten afterwards, because names clash."""
    folder = clones / name
    if not folder.is_dir():
        where, commit = REPOSITORIES[name]
        raise Missing(f"no {folder}: git clone https://github.com/{where} and check out {commit}")
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    sys.modules.setdefault("ml_collections", types.ModuleType("ml_collections"))
    cpp_extension = importlib.import_module("torch.utils.cpp_extension")
    load = cpp_extension.load
    cpp_extension.load = lambda *args, **kwargs: None
    try:
        yield
    finally:
        cpp_extension.load = load
        sys.path.remove(str(folder))
        for module in set(sys.modules) - before:
            source = getattr(sys.modules[module], "__file__", None) or ""
            if source.startswith(str(folder)):
                del sys.modules[module]


def song_config(config: dict[str, Any]) -> SimpleNamespace:
    """score_sde_pytorch's configuration of one of our networks."""
    label = config.get("conditioning", {"label": "log-sigma"})["label"]
    model = {
        "conditional": True, "fir": True, "fir_kernel": [1, 3, 3, 1], "skip_rescale": True,
        "resblock_type": "biggan", "progressive": "none", "progressive_input": "residual",
        "progressive_combine": "sum", "embedding_type": "fourier", "fourier_scale": 16,
        "resamp_with_conv": True, "dropout": 0.1, "init_scale": 0.0, "nonlinearity": "swish",
        "normalization": "GroupNorm", "scale_by_sigma": label in ("log-sigma", "level"),
        "sigma_min": 0.01, "sigma_max": 50.0, "num_scales": 1000,
    }  # fmt: skip
    model.update({k: v for k, v in config.items() if k in (*model, "nf", "ch_mult",
                  "num_res_blocks", "attn_resolutions")})  # fmt: skip
    if "widths" in config:
        model["nf"] = config["widths"][0]
        model["ch_mult"] = [width // model["nf"] for width in config["widths"]]
    centered = config.get("centered", "widths" in config)
    data = {"image_size": config["image_size"], "num_channels": config["channels"],
            "centered": centered}  # fmt: skip
    return SimpleNamespace(
        model=SimpleNamespace(**model), data=SimpleNamespace(**data), device="cpu",
        training=SimpleNamespace(continuous=True),
    )  # fmt: skip


def score_sde_network(case: ReleasedCase) -> nn.Module:
    """NCSNpp or DDPM of score_sde_pytorch."""
    if case.network == "ddpm":
        return importlib.import_module("models.ddpm").DDPM(song_config(case.config))
    for name, repairs in REPAIRS.items():
        module = importlib.import_module(name)
        source = Path(str(module.__file__)).read_text()
        for broken, meant in repairs:
            source = source.replace(broken, meant)
        exec(compile(source, name, "exec"), module.__dict__)
    return importlib.import_module("models.ncsnpp").NCSNpp(song_config(case.config))


def guided_network(case: ReleasedCase) -> nn.Module:
    c = case.config
    unet = importlib.import_module("guided_diffusion.unet")
    return unet.UNetModel(
        c["image_size"], c["channels"], c["num_channels"],
        c["channels"] * (2 if c.get("learn_sigma", True) else 1), c["num_res_blocks"],
        tuple(c["image_size"] // r for r in c["attention_resolutions"]),
        channel_mult=c["channel_mult"],
        num_heads=c.get("num_heads") or 1, num_head_channels=c["num_head_channels"] or -1,
        use_scale_shift_norm=c.get("use_scale_shift_norm", True),
        resblock_updown=c.get("resblock_updown", True),
    )  # fmt: skip


def ncsnv2_network(case: ReleasedCase) -> nn.Module:
    c = case.config
    module = importlib.import_module("models.ncsnv2")
    name = {"ncsnv2": "NCSNv2", "deeper": "NCSNv2Deeper", "deepest": "NCSNv2Deepest"}
    data = {"logit_transform": False, "rescaled": False, "channels": c["channels"],
            "image_size": 32}  # fmt: skip
    model = {"ngf": c["ngf"], "num_classes": 1000, "sigma_dist": "geometric", "sigma_begin": 50.0,
             "sigma_end": 0.01, "normalization": "InstanceNorm++", "nonlinearity": "elu",
             "spec_norm": False}  # fmt: skip
    config = SimpleNamespace(
        data=SimpleNamespace(**data), model=SimpleNamespace(**model), device="cpu"
    )
    return getattr(module, name[c.get("depth", "ncsnv2")])(config)


def edm_network(case: ReleasedCase) -> nn.Module:
    """A preconditioned network of EDM."""
    c = case.config
    networks = importlib.import_module("training.networks")
    label = c["conditioning"]["label"]
    if case.network == "adm":
        arguments = {"model_type": "DhariwalUNet", "model_channels": c["num_channels"],
                     "attn_resolutions": list(c["attention_resolutions"]),
                     "channel_mult": list(c["channel_mult"])}  # fmt: skip
    else:
        fourier = c.get("embedding_type", "fourier") == "fourier"
        encoder = {"none": "standard", "input_skip": "skip", "residual": "residual"}
        noise = c.get("embedding_channels", c["nf"]) * (2 if fourier else 1) // c["nf"]
        arguments = {
            "model_type": "SongUNet", "model_channels": c["nf"], "channel_mult": list(c["ch_mult"]),
            "attn_resolutions": list(c["attn_resolutions"]), "channel_mult_noise": noise,
            "embedding_type": "fourier" if fourier else "positional",
            "encoder_type": encoder[c.get("progressive_input", "residual")],
            "decoder_type": "skip" if c.get("progressive") == "output_skip" else "standard",
            "resample_filter": [1, 3, 3, 1] if c.get("fir", True) else [1, 1],
        }  # fmt: skip
    precond = {"karras": "EDMPrecond", "time": "VPPrecond", "log-sigma": "VEPrecond"}[label]
    return getattr(networks, precond)(
        c["image_size"], c["channels"], num_blocks=c["num_res_blocks"], **arguments
    )


def diffusers_network(case: ReleasedCase) -> nn.Module:
    """UNet2DModel; Missing if diffusers is not installed."""
    try:
        from diffusers import UNet2DModel  # type: ignore[import-not-found]
    except ImportError as error:
        raise Missing(f"diffusers is not installed: {error}") from None
    return UNet2DModel(**diffusers_config(case.config))


BUILDERS = {"score_sde": score_sde_network, "guided-diffusion": guided_network,
            "ncsnv2": ncsnv2_network, "edm": edm_network,
            "diffusers": diffusers_network}  # fmt: skip
_STATIC = ("resample_filter", "sigmas")


def released_names(network: nn.Module) -> list[str]:
    """ "name shape" of every tensor that training or the frozen frequencies need."""
    return [
        f"{prefixless(key)} {tuple(value.shape)}"
        for key, value in network.state_dict().items()
        if key.rpartition(".")[2] not in _STATIC
    ]


def prefixless(key: str) -> str:
    """EDM's preconditioners hold their network as `model`."""
    return key.removeprefix("model.")


@torch.no_grad()
def run(case: ReleasedCase, clones: Path) -> tuple[np.ndarray, list[str]]:
    """The reference's output on the case, and the names and shapes of its tensors."""
    folder = _FOLDERS.get(case.layout)
    with clone(clones, folder) if folder else contextlib.nullcontext():
        network = BUILDERS[case.layout](case).eval()
        for key, value in network.state_dict().items():
            if key.rpartition(".")[2] not in _STATIC:
                value.copy_(torch.from_numpy(formula(prefixless(key), tuple(value.shape))))
        x, t = case.inputs()
        return call(case, network, x, t).numpy(), released_names(network)


def call(case: ReleasedCase, network: nn.Module, x: Tensor, t: Tensor) -> Tensor:
    """The reference's output with our labels' meaning: score, eps or x0_hat at time t."""
    ours = case.build().conditioning
    kind = case.config.get("conditioning", {"label": "log-sigma"})["label"]
    if case.layout == "ncsnv2":
        # Its output at level 0 is F / sigma_max.
        level0 = torch.zeros(len(t), dtype=torch.long)
        sigma = ours.sde.sigma(t)[:, None, None, None]
        return network(x, level0) * network.sigmas[0] / sigma
    if case.layout == "edm":
        return edm_call(kind, network, ours.sde, x, t)
    label = ours.sde.sigma(t) if kind == "log-sigma" else ours(t)[1]
    y = network(x, label)
    y = y.sample if case.layout == "diffusers" else y
    return y[:, : case.config["channels"]]


def edm_call(kind: str, network: nn.Module, sde: Any, x: Tensor, t: Tensor) -> Tensor:
    """D(x; sigma), or the score (VE) or eps (VP) that it is made of."""
    sigma = sde.ratio(t)
    if kind == "karras":
        return network(x, sigma)
    if kind == "time":
        # F itself: its VPPrecond finds t from sigma in single precision, to about 1e-5.
        return network.model(x, (network.M - 1) * t, class_labels=None)
    column = sigma[:, None, None, None]
    return (network(x, sigma) - x) / column**2


def digest(names: list[str]) -> str:
    """SHA-256 of the sorted names and shapes."""
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()


def kept(y: np.ndarray) -> np.ndarray:
    """About 400 of the outputs, evenly spread: a fixture of a few kB a network."""
    return y.reshape(-1)[:: max(1, y.size // 400)]


def write(path: Path, clones: Path) -> None:
    """Run every case on its reference and keep the outputs and the digests of the names."""
    arrays = {}
    for name, case in CASES.items():
        y, names = run(case, clones)
        arrays[name] = kept(y)
        arrays[f"{name}: names"] = np.array(digest(names))
        print(f"{name}: {y.shape}, {len(names)} tensors")
    np.savez_compressed(path, **arrays)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("clones", type=Path)
    parser.add_argument("--write", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    write(arguments.write, arguments.clones)


if __name__ == "__main__":
    main()
