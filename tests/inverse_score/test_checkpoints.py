"""Files in the released layouts become priors; anything else is one clear error."""

import json
import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from inverse_score.errors import BadPrior
from inverse_score.io.checkpoints import (
    PRESETS,
    import_checkpoint,
    published_likelihood,
    published_sampling,
    read_released,
)
from inverse_score.io.checkpoints.convert import _different, _shapes, fitting
from inverse_score.io.checkpoints.infer import edm_config, taps_of
from inverse_score.io.checkpoints.layouts import LAYOUTS
from inverse_score.io.checkpoints.parts import released_shapes
from inverse_score.io.checkpoints.presets import Preset
from inverse_score.io.priors import load_prior, save_prior
from inverse_score.likelihood import bits_per_dim
from inverse_score.networks import build_network
from inverse_score.sampling import sample
from inverse_score.solver import solve
from inverse_score.testing.released import CASES, diffusers_config, formula
from operators import Mask

CIFAR = CASES["NCSN++, CIFAR-10's (Fourier, residual input)"]
GUIDED = CASES["guided-diffusion, resblock_updown"]
SONG_EDM = CASES["EDM SongUNet, skips, EDM preconditioning"]
ADM_EDM = CASES["EDM DhariwalUNet, EDM preconditioning"]
NCSNV2 = CASES["NCSNv2 Deepest (csgm-mri)"]
DIFFUSERS = CASES["diffusers UNet2DModel, NCSN++"]
DDPM = CASES["diffusers UNet2DModel, DDPM"]
OVERRIDES = {k: list(v) if isinstance(v, tuple) else v for k, v in CIFAR.config.items()}
VE = "ve/cifar10_ncsnpp_continuous"


def released(case, dtype=torch.float32) -> OrderedDict:
    """The tensors of a case by released name."""
    network = build_network(case.network, **case.config)
    shapes = released_shapes(LAYOUTS[case.layout](network))
    return OrderedDict((k, torch.from_numpy(formula(k, s)).to(dtype)) for k, s in shapes.items())


def score_sde(case, **changes) -> dict:
    """{"optimizer", "model", "ema", "step"} as score_sde_pytorch writes it: the average is the
    weights and the model is twice them, but for the frozen frequencies."""
    tensors = released(case)
    model = OrderedDict([("module.sigmas", torch.logspace(2, -2, 1000, dtype=torch.float64))])
    for key, value in tensors.items():
        model[f"module.{key}"] = value if key == "all_modules.0.W" else 2 * value
    shadow = [v for k, v in tensors.items() if k != "all_modules.0.W"]
    ema = {"decay": 0.999, "num_updates": 7, "shadow_params": shadow}
    return {"optimizer": {"state": {}, "param_groups": []}, "model": model, "ema": ema, "step": 9,
            **changes}  # fmt: skip


def saved(tmp_path, what, name="checkpoint.pth"):
    torch.save(what, tmp_path / name)
    return tmp_path / name


def assert_equal_outputs(prior, case):
    """The prior's network gives what the case's network gives."""
    with torch.no_grad():
        y, want = prior.network(*case.inputs()), case.ours()
    assert (y - want).abs().max() <= 1e-5 * want.abs().max()


def test_score_sde_checkpoint_is_its_average_over_its_frozen_frequencies(tmp_path):
    path = saved(tmp_path, score_sde(CIFAR))
    prior = import_checkpoint(path, trust=True, preset=VE, overrides=OVERRIDES)
    assert_equal_outputs(prior, CIFAR)
    assert prior.range == (1.0, 0.0)
    assert prior.t_min == 1e-5
    assert prior.output == "score"
    assert prior.event_shape == (3, None, None)
    assert prior.card["training"]["image_shape"] == [3, 16, 16]
    assert prior.card["checkpoint"]["step"] == 9


@pytest.mark.parametrize("prefix", ["", "module.", "module.module."])
def test_prefixes_of_data_parallel_do_not_matter(tmp_path, prefix):
    tensors = {f"{prefix}{k}": v for k, v in released(CIFAR).items()}
    prior = import_checkpoint(saved(tmp_path, tensors), trust=True, preset=VE, overrides=OVERRIDES)
    assert_equal_outputs(prior, CIFAR)


@pytest.fixture
def imported(tmp_path):
    """A score_sde checkpoint, imported, through a prior file."""
    path = saved(tmp_path, score_sde(CIFAR))
    prior = import_checkpoint(path, trust=True, preset=VE, overrides=OVERRIDES)
    save_prior(prior, tmp_path / "prior.safetensors")
    return load_prior(tmp_path / "prior.safetensors")


def test_imported_prior_survives_its_file_and_samples_as_published(imported):
    assert_equal_outputs(imported, CIFAR)
    settings = published_sampling(imported)
    assert settings["times"][0] == 1.0
    assert settings["times"][-1] == pytest.approx(1e-5)
    assert len(settings["times"]) == 1000
    assert settings["corrector_options"] == {"snr": 0.16}
    settings["times"] = settings["times"][::333]
    assert sample(imported, (1, 3, 16, 16), **settings).isfinite().all()


def test_imported_prior_has_bits_per_dim_by_the_published_settings(imported):
    settings = published_likelihood(imported)
    assert settings["t_end"] == 1e-5
    x = (torch.rand(1, 3, 8, 8) * 255).round() / 255
    bits = bits_per_dim(x, imported, **{**settings, "rtol": 0.1, "atol": 0.1, "draws": 1})
    assert bits.isfinite().all()


def test_imported_prior_solves_an_inverse_problem(imported):
    x = torch.rand(1, 3, 16, 16)
    operator = Mask((torch.rand(16, 16) < 0.5).float(), image_shape=(3, 16, 16))
    found = solve(operator(x), operator, imported, noise_std=0.1, method="diffpir", steps=3)
    assert found.samples.shape == (1, 1, 3, 16, 16)
    assert found.samples.isfinite().all()


def test_guided_diffusion_checkpoint_in_half_precision(tmp_path):
    path = saved(tmp_path, released(GUIDED, torch.float16), "model.pt")
    prior = import_checkpoint(
        path, trust=True, preset="dds/fastmri_knee_320_complex", overrides=GUIDED.config
    )
    y, want = prior.network(*GUIDED.inputs()), GUIDED.ours()
    assert (y - want).abs().max() < 0.02 * want.abs().max()
    assert prior.card["checkpoint"]["stored as"] == "float16"


def test_classes_of_a_conditional_checkpoint_are_folded_into_a_bias(tmp_path):
    """time_embed.2.bias + label_emb[y]: the network at class y."""
    tensors = released(GUIDED)
    tensors["label_emb.weight"] = torch.randn(10, 128)
    path = saved(tmp_path, tensors, "model.pt")
    options = {"trust": True, "preset": "guided/256x256_diffusion_uncond"}
    prior = import_checkpoint(path, **options, overrides={**GUIDED.config, "label": 3})
    bias = prior.network.state_dict()["net.embedding.linear1.bias"]
    torch.testing.assert_close(bias, tensors["time_embed.2.bias"] + tensors["label_emb.weight"][3])
    with pytest.raises(BadPrior, match=r"class-conditional: label must be in \[0, 10\)"):
        import_checkpoint(path, **options, overrides=GUIDED.config)


@pytest.mark.parametrize("case", [SONG_EDM, ADM_EDM])
def test_edm_network_is_read_from_its_names(tmp_path, case):
    """EDMPrecond's state_dict, held as "ema" beside "net" as InverseBench does."""
    tensors = {f"model.{k}": v for k, v in released(case).items()}
    if case is SONG_EDM:
        line = torch.tensor([1.0, 3.0, 3.0, 1.0])
        filters = torch.outer(line, line)[None, None] / 64
        tensors["model.enc.8x8_down.conv0.resample_filter"] = filters
        tensors["model.map_augment.weight"] = torch.ones(12, 9)
    broken = {k: torch.zeros_like(v) for k, v in tensors.items()}
    path = saved(tmp_path, {"net": broken, "ema": tensors, "optimizer": {}}, "mri.pt")
    overrides = {"conditioning": {"label": "karras", "sigma_data": 0.5}}
    prior = import_checkpoint(path, trust=True, preset="edm/edm", overrides=overrides)
    assert_equal_outputs(prior, case)
    assert prior.output == "x0"
    assert prior.t_min == 0.002
    with pytest.raises(BadPrior, match=r"fits several checkpoints.*edm/edm, edm/vp, edm/ve"):
        import_checkpoint(path, trust=True)


def test_filters_of_edm_are_recovered():
    line = torch.tensor([1.0, 3.0, 3.0, 1.0])
    assert taps_of([torch.outer(line, line)[None, None] / 64]) == [1, 3, 3, 1]
    assert taps_of([torch.full((1, 1, 2, 2), 0.25)]) == [1, 1]
    assert edm_config(released(ADM_EDM), "x")[1]["num_res_blocks"] == 1


def test_ncsnv2_list_is_its_average_and_its_own_levels(tmp_path):
    tensors = released(NCSNV2)
    model = {f"module.{k}": 0 * v for k, v in tensors.items()}
    model["module.sigmas"] = torch.logspace(np.log10(232.0), np.log10(0.00066), 2311)
    path = saved(tmp_path, [model, {"state": {}, "param_groups": []}, 3, 100, dict(tensors)])
    prior = import_checkpoint(path, trust=True, preset="csgm-mri/brain")
    assert prior.sde.sigma_max == pytest.approx(232.0)
    assert prior.sde.sigma_min == pytest.approx(0.00066)
    x, _ = NCSNV2.inputs()
    t = torch.tensor([0.3, 0.9])
    raw = prior.network(x, t) * prior.sde.sigma(t)[:, None, None, None]
    ours = NCSNV2.build()
    want = ours(x, t) * ours.sde.sigma(t)[:, None, None, None]
    torch.testing.assert_close(raw, want)


def folder(tmp_path, case, config, scheduler):
    (tmp_path / "unet").mkdir()
    (tmp_path / "scheduler").mkdir()
    save_file(dict(released(case)), tmp_path / "unet" / "diffusion_pytorch_model.safetensors")
    unet = {"_class_name": "UNet2DModel", **config}
    (tmp_path / "unet" / "config.json").write_text(json.dumps(unet))
    (tmp_path / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
    return tmp_path


def test_diffusers_folder_with_a_ve_scheduler(tmp_path):
    scheduler = {"_class_name": "ScoreSdeVeScheduler", "sigma_max": 50.0, "snr": 0.15}
    path = folder(tmp_path, DIFFUSERS, diffusers_config(DIFFUSERS.config), scheduler)
    prior = import_checkpoint(path)
    assert_equal_outputs(prior, DIFFUSERS)
    assert prior.range == (1.0, 0.0)
    assert published_sampling(prior)["corrector_options"] == {"snr": 0.15}


def test_diffusers_folder_with_a_ddpm_scheduler(tmp_path):
    """Labels by the chain: at noise-to-signal of index k the network sees k."""
    scheduler = {"_class_name": "DDPMScheduler", "beta_schedule": "linear",
                 "prediction_type": "epsilon"}  # fmt: skip
    config = {**diffusers_config(DDPM.config), "_diffusers_version": "0.1"}
    prior = import_checkpoint(folder(tmp_path, DDPM, config, scheduler))
    assert prior.output == "eps"
    assert prior.range == (0.5, 0.5)
    # The chain starts at 1 - a^2 = 1e-4.
    assert prior.sde.ratio(prior.t_min) == pytest.approx(0.01, rel=1e-4)
    assert prior.sde.ratio(1.0) == pytest.approx(157.4, rel=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_class_embeds": 10}, "no class embedding"),
        ({"act_fn": "mish"}, "act_fn silu"),
        ({"sample_size": None}, "sample_size must be an integer"),
        ({"_class_name": "UNet2DConditionModel"}, "must be a UNet2DModel"),
    ],
)
def test_other_diffusers_networks_are_named_as_such(tmp_path, change, message):
    config = {**diffusers_config(DDPM.config), **change}
    path = folder(tmp_path, DDPM, config, {"_class_name": "DDPMScheduler", "beta_start": 1e-4})
    with pytest.raises(BadPrior, match=message):
        import_checkpoint(path)


def test_a_pickle_is_not_opened_without_trust(tmp_path):
    path = saved(tmp_path, score_sde(CIFAR))
    with pytest.raises(BadPrior, match=r"is a pickle, which can run code.*--trust"):
        import_checkpoint(path, preset=VE)


class _Payload:
    def __init__(self, sentinel):
        self.sentinel = sentinel

    def __reduce__(self):
        return (open, (str(self.sentinel), "w"))


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_a_poisoned_pickle_runs_nothing_even_when_trusted(tmp_path, how):
    sentinel, path = tmp_path / "sentinel", tmp_path / "poison.pth"
    poison = {"model": _Payload(sentinel)}
    if how == "torch":
        torch.save(poison, path)
    else:
        path.write_bytes(pickle.dumps(poison))
    with pytest.raises(BadPrior, match=r"was not opened|truncated or damaged"):
        import_checkpoint(path, trust=True, preset=VE)
    assert not sentinel.exists()


def test_a_truncated_file_is_said_to_be_so(tmp_path):
    path = saved(tmp_path, released(GUIDED), "model.pt")
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(BadPrior, match="truncated or damaged"):
        import_checkpoint(path, trust=True, preset="dps/ffhq_10m")


@pytest.mark.parametrize("content", [b"", b"<html>login</html>", bytes(100)])
def test_a_file_that_is_no_checkpoint_is_said_to_be_none(tmp_path, content):
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    with pytest.raises(BadPrior, match="not a safetensors file"):
        import_checkpoint(path, trust=True)


def _dropped(state, suffix):
    key = next(k for k in state["model"] if k.endswith(suffix))
    del state["model"][key]
    del state["ema"]["shadow_params"][-1]
    return state


def _with_nan(state):
    state["ema"]["shadow_params"][5][0] = float("nan")
    return state


def _short_average(state):
    state["ema"]["shadow_params"] = state["ema"]["shadow_params"][:-2]
    return state


def _permuted_average(state):
    state["ema"]["shadow_params"].reverse()
    return state


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_with_nan, r"weights must be finite; not so all_modules\.3\.bias"),
        (_short_average, r"moving average has \d+ tensors for \d+ trained ones"),
        (_permuted_average, r"moving average has \(3,\) where all_modules\.1\.weight is"),
        (lambda s: {**s, "model": {"module.lstm.weight": torch.ones(2)}, "ema": None},
         r"is of no known family: its tensors are lstm\.weight"),
        (lambda s: {**s, "ema": {"decay": 1}}, "must hold a list shadow_params"),
        (lambda s: 3, "must hold a dictionary or list of tensors; got a int"),
        (lambda s: {"epoch": 3}, "must hold tensors only; not so epoch"),
    ],
)  # fmt: skip
def test_spoilt_checkpoints_are_named_errors(tmp_path, spoil, message):
    path = saved(tmp_path, spoil(score_sde(CIFAR)))
    with pytest.raises(BadPrior, match=message):
        import_checkpoint(path, trust=True, preset=VE, overrides=OVERRIDES)


def test_a_network_of_another_size_lists_the_first_few_tensors(tmp_path):
    path = saved(tmp_path, score_sde(CIFAR))
    wrong = {**OVERRIDES, "nf": 16}
    with pytest.raises(BadPrior, match=r"of another shape all_modules\.0\.W \(12,\) for \(16,\)"):
        import_checkpoint(path, trust=True, preset=VE, overrides=wrong)
    deeper = {**OVERRIDES, "num_res_blocks": 2}
    with pytest.raises(BadPrior, match=r"missing all_modules.*and \d+ more"):
        import_checkpoint(path, trust=True, preset=VE, overrides=deeper)


def test_a_preset_of_another_family_and_an_unknown_argument_are_errors(tmp_path):
    path = saved(tmp_path, score_sde(CIFAR))
    with pytest.raises(BadPrior, match="is a checkpoint of score_sde, and the preset dps/ffhq_10m"):
        import_checkpoint(path, trust=True, preset="dps/ffhq_10m")
    with pytest.raises(BadPrior, match=r"no such network ncsnpp.*widths"):
        import_checkpoint(path, trust=True, preset=VE, overrides={"widths": 3})
    with pytest.raises(BadPrior, match="preset must be one of"):
        import_checkpoint(path, trust=True, preset="cifar")
    with pytest.raises(BadPrior, match="has the tensors of no published checkpoint"):
        import_checkpoint(path, trust=True)


def _meta_checkpoint(preset: Preset):
    """read_released's result for a published checkpoint, its tensors on the meta device."""
    from inverse_score.io.checkpoints import Released

    shapes = _shapes(preset.layout, preset.network, preset.config)
    tensors = {k: torch.empty(s, device="meta") for k, s in shapes.items()}
    return Released("x", preset.layout, tensors, prefixed=preset.prefixed)


@pytest.mark.parametrize(
    ("preset", "candidates"),
    [
        ("ve/cifar10_ncsnpp_continuous", ["ve/cifar10_ncsnpp_continuous"]),
        ("score-mri/fastmri_knee_320", ["score-mri/fastmri_knee_320"]),
        ("ve/church_ncsnpp_continuous",
         ["ve/bedroom_ncsnpp_continuous", "ve/church_ncsnpp_continuous",
          "ve/ffhq_256_ncsnpp_continuous"]),
        ("subvp/cifar10_ddpmpp_continuous",
         ["vp/cifar10_ddpmpp", "vp/cifar10_ddpmpp_continuous", "subvp/cifar10_ddpmpp_continuous"]),
        ("guided/256x256_diffusion_uncond", ["guided/256x256_diffusion_uncond"]),
        ("dps/ffhq_10m", ["dps/ffhq_10m"]),
        ("inversebench/ffhq256", ["inversebench/ffhq256"]),
    ],
)  # fmt: skip
def test_tensors_name_their_checkpoint_or_leave_a_choice(preset, candidates):
    found = fitting(_meta_checkpoint(PRESETS[preset]))
    assert preset in found
    assert _different(found) == candidates


@pytest.mark.parametrize("name", [n for n, p in PRESETS.items() if p.network])
def test_every_preset_builds_its_network_and_its_prior_fields_are_right(name):
    preset = PRESETS[name]
    with torch.device("meta"):
        network = build_network(preset.network, **preset.config)
    assert network.output == {"score_sde": network.output, "ncsnv2": "score"}.get(
        preset.layout, "x0" if "karras" in str(preset.config.get("conditioning")) else "eps"
    )
    # Networks of signed images know it, and of images in [0, 1] do the rest themselves.
    if preset.range == (0.5, 0.5):
        assert network.centered


def test_read_released_gives_names_without_building_anything(tmp_path):
    found = read_released(saved(tmp_path, score_sde(CIFAR)), trust=True)
    assert found.layout == "score_sde"
    assert len(found.levels) == 1000
    assert "all_modules.0.W" in found.tensors
