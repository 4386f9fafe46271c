"""Prior files: what goes in comes out, and nothing else gets in."""

import json
import pickle
import signal
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from inverse_score import KarrasSDE, Prior, SubVPSDE, load_prior, save_prior
from inverse_score.errors import BadPrior, OutOfResources
from inverse_score.io.priors import KEY, find_prior, read_header
from inverse_score.networks import build_network

SDE = {"name": "karras", "sigma_max": 12.0}


@pytest.fixture
def prior():
    network = build_network("unet", channels=2, sde=SDE, widths=(8, 16), sigma_data=0.3)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.01)
    return Prior(
        network, KarrasSDE(12.0), output="x0", event_shape=(2, None, None), range=(3.0, -1.0),
        card={"domain": "a test"},
    )  # fmt: skip


@pytest.fixture
def path(prior, tmp_path):
    save_prior(prior, tmp_path / "p.safetensors")
    return tmp_path / "p.safetensors"


def test_a_prior_read_back_denoises_to_the_same_bits(prior, path):
    read = load_prior(path)
    x = torch.linspace(-1, 1, 2 * 2 * 7 * 5).reshape(2, 2, 7, 5)
    with torch.no_grad():
        assert torch.equal(read.denoise(x, 0.7), prior.network.eval() and prior.denoise(x, 0.7))
    assert (read.sde, read.range, read.t_min, read.card) == (
        prior.sde, prior.range, prior.t_min, prior.card,
    )  # fmt: skip
    assert read.event_shape == (2, None, None)
    assert not any(parameter.requires_grad for parameter in read.network.parameters())


def test_half_precision_halves_the_file_and_rounds_by_less_than_two_to_the_minus_ten(prior, path):
    half = path.with_name("half.safetensors")
    save_prior(prior, half, storage="float16")
    whole, rounded = load_file(path), load_file(half)
    assert sum(t.nbytes for t in rounded.values()) * 2 == sum(t.nbytes for t in whole.values())
    read = load_prior(half)
    for name, tensor in read.network.state_dict().items():
        assert tensor.dtype == torch.float32
        assert (tensor - whole[name]).abs().max() <= 2**-10 * whole[name].abs().max()


def test_a_weight_too_large_for_half_precision_is_refused(prior, tmp_path):
    with torch.no_grad():
        next(prior.network.parameters())[0] = 1e5
    with pytest.raises(BadPrior, match=r"float16.*must be finite"):
        save_prior(prior, tmp_path / "x.safetensors", storage="float16")
    assert list(tmp_path.iterdir()) == []


def test_the_header_is_read_without_the_weights(path):
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    zeroed = path.with_name("zeroed.safetensors")
    zeroed.write_bytes(data[: 8 + length] + b"\xff" * (len(data) - 8 - length))
    assert read_header(zeroed)["card"] == {"domain": "a test"}
    with pytest.raises(BadPrior, match="must be finite"):
        load_prior(zeroed)


class Sentinel:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("name", ["evil.pth", "evil.safetensors"])
@pytest.mark.parametrize("writer", ["pickle", "torch"])
def test_a_pickle_is_refused_before_it_runs(tmp_path, name, writer):
    sentinel, file = tmp_path / "sentinel", tmp_path / name
    if writer == "pickle":
        file.write_bytes(pickle.dumps(Sentinel(sentinel)))
    else:
        torch.save(Sentinel(sentinel), file)
    with pytest.raises(BadPrior, match="pickled checkpoint"):
        load_prior(file)
    with pytest.raises(BadPrior, match="pickled checkpoint"):
        read_header(file)
    assert not sentinel.exists()


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda data: b"", "not a safetensors file"),
        (lambda data: data[:-100], "truncated"),
        (lambda data: data[:40], "truncated"),
        (lambda data: struct.pack("<Q", 2**40) + data[8:], "truncated"),
        (lambda data: b"<!DOCTYPE html><html>" + data, "not a safetensors file"),
    ],
)
def test_a_damaged_file_is_named_and_refused(path, damage, says):
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(BadPrior, match=f"p.safetensors.*{says}"):
        load_prior(path)


def rewritten(path, change):
    """The file at path with its tensors and header changed."""
    header = {k: v for k, v in read_header(path).items() if k not in ("format", "version")}
    tensors = load_file(path)
    change(tensors, header)
    save_file(tensors, path, metadata={KEY: json.dumps({"format": 1, "version": "x", **header})})
    return path


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t, h: t.pop("last.bias"), r"missing last\.bias; unexpected nothing"),
        (lambda t, h: t.update(extra=torch.ones(1)), "missing nothing; unexpected extra"),
        (lambda t, h: t.update({"last.bias": torch.ones(3)}), r"last\.bias must be \(8,\).*\(3,\)"),
        (lambda t, h: t["last.bias"].fill_(float("nan")), r"must be finite; not so last\.bias"),
        (lambda t, h: h["architecture"].update(name="os.system"), "must be one of unet"),
        (lambda t, h: h["architecture"].update(_target_="os.system"), "_target_"),
        (lambda t, h: h["sde"].update(name="builtins.eval"), "must be one of ve, vp"),
        (lambda t, h: h["sde"].update(sigma_max=-1), "sigma_max"),
        (lambda t, h: h.update(output="exec"), "output must be one of"),
        (lambda t, h: h.update(range=[0, 0]), "range"),
        (lambda t, h: h.update(kind="classifier"), "holds a classifier"),
        (lambda t, h: h.pop("sde"), "lacks sde"),
        (lambda t, h: h["architecture"].update(widths=[8, 2**20]), r"must be \(.*1048576"),
    ],
)
def test_a_file_that_does_not_fit_says_what_was_expected(path, change, says):
    with pytest.raises(BadPrior, match=says):
        load_prior(rewritten(path, change))


def test_a_newer_format_says_which_one_is_read(path):
    tensors = load_file(path)
    save_file(tensors, path, metadata={KEY: json.dumps({"format": 99})})
    with pytest.raises(BadPrior, match=r"format 99.*reads 1"):
        load_prior(path)


def test_a_name_that_is_no_file_lists_what_ships(tmp_path):
    with pytest.raises(BadPrior, match="no shipped prior of that name"):
        find_prior("no-such-prior")
    with pytest.raises(BadPrior, match="no prior file"):
        find_prior("../assets/no-such-prior")


def test_a_network_of_ones_own_is_saved_and_loaded_into_another_of_its_class(tmp_path):
    network = nn.Linear(3, 3)
    save_prior(Prior(network, SubVPSDE(), output="eps"), tmp_path / "own.safetensors")
    with pytest.raises(BadPrior, match=r"class 'Linear'; pass .*network="):
        load_prior(tmp_path / "own.safetensors")
    read = load_prior(tmp_path / "own.safetensors", network=nn.Linear(3, 3))
    assert torch.equal(read.network.weight, network.weight)
    with pytest.raises(BadPrior, match=r"weight must be \(3, 4\)"):
        load_prior(tmp_path / "own.safetensors", network=nn.Linear(4, 3))


def test_a_full_disk_leaves_the_previous_file_and_no_other(path, prior):
    resource = pytest.importorskip("resource")
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        with pytest.raises(OutOfResources, match=r"no room to write .*p\.safetensors"):
            save_prior(prior, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
