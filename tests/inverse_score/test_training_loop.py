"""The training loop: exact, resumable, and honest when something is wrong."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from inverse_score import load_prior
from inverse_score.errors import BadInput, OutOfResources
from inverse_score.io.priors import load_classifier, read_header
from inverse_score.networks.unet import UNet
from inverse_score.training import OptimizerConfig, train
from inverse_score.training.config import load_config
from inverse_score.training.items import Items, positions
from inverse_score.training.log import read_log
from inverse_score.training.measure import langevin_snr, largest_distance, levels_for
from inverse_score.training.state import CHECKPOINT, EMA


def blobs(seed: int, position: int) -> torch.Tensor:
    """One blurred spot, a pure function of its number."""
    rng = np.random.default_rng([seed, position])
    y, x = np.mgrid[-1:1:12j, -1:1:12j]
    cy, cx, width = rng.uniform(-0.5, 0.5), rng.uniform(-0.5, 0.5), rng.uniform(0.1, 0.4)
    return torch.from_numpy(np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / width))[None].float()


class Blobs:
    def __init__(self, count, offset=0):
        self.count, self.offset = count, offset

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return blobs(7, self.offset + index)


def config(folder: Path, steps: int = 6, **train_options) -> dict:
    return {
        "out": str(folder),
        "network": {"name": "unet", "widths": [8, 8], "blocks": 1, "embedding": 16},
        "optimizer": {"lr": 1e-3, "warmup": 3, "decay": "cosine", "ema": 0.9},
        "data": {"crop": [8, 10], "flip": True},
        "train": {
            "steps": steps, "batch_size": 4, "log_every": 2, "evaluate_every": 3,
            "evaluate_items": 4, "measure": False, "precision": "float32", **train_options,
        },
    }  # fmt: skip


def same_run(one: Path, other: Path) -> bool:
    a, b = load_file(one / CHECKPOINT), load_file(other / CHECKPOINT)
    assert a.keys() == b.keys()
    return all(torch.equal(a[name], b[name]) for name in a)


def lines(folder: Path) -> list[dict]:
    return [{k: v for k, v in entry.items() if k != "time"} for entry in read_log(folder)]


class Stop(Exception):
    pass


@pytest.mark.parametrize("options", [{"accumulate": 2}, {"precision": "bfloat16"}])
def test_a_run_cut_off_and_resumed_ends_in_the_same_bits_and_the_same_log(tmp_path, options):
    """Weights, average, moments, order, cuts, noise and dropout go on as if nothing had been."""
    whole = config(tmp_path / "whole", **options)
    train(whole, dataset=Blobs(9), held_out=Blobs(5, 100))
    cut = config(tmp_path / "cut", checkpoint_minutes=1e-9, **options)

    def stop(step, loss):
        if step == 4:
            raise Stop

    with pytest.raises(Stop):
        train(cut, dataset=Blobs(9), held_out=Blobs(5, 100), callback=stop)
    train(cut, dataset=Blobs(9), held_out=Blobs(5, 100), resume=True)
    assert same_run(tmp_path / "whole", tmp_path / "cut")
    assert lines(tmp_path / "whole") == lines(tmp_path / "cut")
    assert [entry["step"] for entry in lines(tmp_path / "cut")] == [2, 3, 4, 6, 6]


class Dropout(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.SiLU(), nn.Dropout(0.5), nn.Conv2d(8, 1, 3, padding=1)
        )

    def forward(self, x, t):
        return self.net(x)


def test_dropout_and_a_network_of_ones_own_resume_exactly_too(tmp_path):
    def network():
        torch.manual_seed(4)
        return Dropout()

    options = {"network": {"name": "unet"}, "output": "eps", "sde": {"name": "vp"}}
    whole = {**config(tmp_path / "whole", steps=4), **options}
    first = {**config(tmp_path / "parts", steps=2), **options}
    # The learning rate of a cosine depends on the number of steps.
    for each in (whole, first):
        each["optimizer"] = {"lr": 1e-3}
    train(whole, dataset=blobs, network=network())
    train(first, dataset=blobs, network=network())
    later = {**first, "train": {**first["train"], "steps": 4}}
    state = torch.get_rng_state()
    train(later, dataset=blobs, network=network(), resume=True)
    assert torch.equal(torch.get_rng_state(), state)
    assert same_run(tmp_path / "whole", tmp_path / "parts")
    header = read_header(tmp_path / "parts" / "prior.safetensors")
    assert header["architecture"] == {"name": "custom", "class": "Dropout"}


def test_accumulating_gradients_changes_nothing_but_rounding(tmp_path):
    train(config(tmp_path / "one"), dataset=blobs)
    train(config(tmp_path / "four", accumulate=4), dataset=blobs)
    one, four = (load_file(tmp_path / name / CHECKPOINT) for name in ("one", "four"))
    for name in one:
        if name.startswith("network/"):
            torch.testing.assert_close(four[name], one[name], rtol=1e-3, atol=2e-5)


def test_reading_ahead_in_workers_changes_nothing(tmp_path):
    one = config(tmp_path / "one", steps=3)
    two = config(tmp_path / "two", steps=3)
    two["data"] = {**two["data"], "workers": 2}
    train(one, dataset=Blobs(9))
    train(two, dataset=Blobs(9))
    assert same_run(tmp_path / "one", tmp_path / "two")


_TWO = """
import sys
sys.path[:0] = {paths!r}
import torch
torch.set_num_threads(1)
from test_training_loop import Blobs, config
from inverse_score.training import train
from pathlib import Path
train(config(Path({out!r}), steps=3, log_every=1, threads=1), dataset=Blobs(9),
      held_out=Blobs(4, 50))
"""


@pytest.mark.slow
def test_two_processes_have_the_loss_curve_of_one_at_the_same_global_batch(tmp_path):
    train(config(tmp_path / "one", steps=3, log_every=1), dataset=Blobs(9), held_out=Blobs(4, 50))
    script = tmp_path / "two.py"
    paths = [str(Path(__file__).parent)]
    script.write_text(_TWO.format(paths=paths, out=str(tmp_path / "two")))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    subprocess.run(
        [*command, "--standalone", str(script)], check=True, timeout=300, capture_output=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    for one, two in zip(lines(tmp_path / "one"), lines(tmp_path / "two"), strict=True):
        assert one.keys() == two.keys()
        for key in one.keys() & {"loss", "held_out"}:
            assert two[key] == pytest.approx(one[key], rel=1e-5)


def test_the_order_of_images_is_a_permutation_in_every_epoch_and_shared_by_all_processes():
    items = Items(Blobs(10), seed=3)
    epochs = [[items.index(10 * epoch + k) for k in range(10)] for epoch in range(3)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1]
    together = [p for rank in range(4) for p in positions(5, 32, rank, 4)]
    assert together == list(positions(5, 32))
    assert positions(6, 32)[0] == together[-1] + 1


def test_an_item_is_a_pure_function_of_seed_and_position():
    items = Items(Blobs(10), seed=3, crop=(5, 6), flip=True)
    again = Items(Blobs(10), seed=3, crop=(5, 6), flip=True)
    other = Items(Blobs(10), seed=4, crop=(5, 6), flip=True)
    assert torch.equal(items[17][0], again[17][0])
    assert items[17][0].shape == (1, 5, 6)
    assert not torch.equal(items[17][0], other[17][0])


def test_data_units_reach_the_network_as_the_priors_own(tmp_path):
    seen = []

    class Spy(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.zeros(()))

        def forward(self, x, t):
            seen.append(x.detach())
            return x * self.scale

    settings = config(tmp_path / "run", steps=1)
    settings["data"] = {"range": [2.0, 5.0]}
    settings["sde"] = {"name": "ve", "sigma_min": 1e-6, "sigma_max": 2e-6}
    settings["t_min"] = 1e-3
    prior = train(settings, dataset=lambda seed, p: torch.full((1, 4, 4), 9.0), network=Spy())
    torch.testing.assert_close(seen[0], torch.full((4, 1, 4, 4), 2.0), atol=1e-4, rtol=0)
    assert prior.range == (2.0, 5.0)
    torch.testing.assert_close(prior.to_data(seen[0]), torch.full((4, 1, 4, 4), 9.0))


def test_the_average_starts_as_the_papers_warm_up_and_ends_at_its_decay():
    network = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(network.weight)
    ema = EMA(network, 0.5)
    network.weight.data.fill_(1.0)
    expected = 0.0
    for n in range(30):
        ema.update(network, n)
        decay = min(0.5, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay)
        assert ema.tensors["weight"].item() == pytest.approx(expected, rel=1e-6)


def test_the_learning_rate_warms_up_and_decays_as_said():
    cosine = OptimizerConfig(lr=2.0, warmup=4, decay="cosine", final_lr=0.1)
    rates = [cosine.lr_at(step, 24) for step in range(25)]
    assert rates[:4] == [0.5, 1.0, 1.5, 2.0]
    assert rates[14] == pytest.approx(2.0 * (0.1 + 0.9 * 0.5))
    assert rates[24] == pytest.approx(0.2)
    root = OptimizerConfig(lr=2.0, warmup=4, decay="inverse-sqrt")
    assert root.lr_at(15, 100) == pytest.approx(1.0)
    assert OptimizerConfig(lr=2.0, warmup=0).lr_at(0, 9) == 2.0


def test_a_trained_prior_is_measured_and_carries_its_card(tmp_path):
    settings = config(tmp_path / "run", steps=4, measure=True, samples=4, sample_steps=3)
    settings["card"] = {"licence": "CC0", "people": 0}
    settings["sde"] = {"name": "karras", "sigma_max": 9.0}
    train(settings, dataset=Blobs(9), held_out=Blobs(5, 100))
    header = read_header(tmp_path / "run" / "prior.safetensors")
    card = header["card"]
    assert card["licence"] == "CC0"
    assert card["training"]["steps"] == 4
    assert card["training"]["held_out_images"] == 5
    assert card["training"]["last"]["held_out_loss"] > 0
    spectrum = card["error_spectrum"]
    assert spectrum["held_out"]
    assert spectrum["images"] == 4
    assert set(card["suggestions"]) >= {"sigma_max", "levels", "snr"}
    prior = load_prior(tmp_path / "run" / "prior.safetensors")
    assert prior.denoise(torch.zeros(1, 1, 9, 7), 1.0).shape == (1, 1, 9, 7)
    for name in ("samples.png", "levels.png", "loss.png", "config.yaml"):
        assert (tmp_path / "run" / name).stat().st_size > 0
    again = load_config(tmp_path / "run" / "config.yaml")
    assert again.sde == {"name": "karras", "sigma_max": 9.0}


def test_images_that_are_all_the_same_are_refused():
    with pytest.raises(BadInput, match="the first 3 training images are one and the same"):
        largest_distance(torch.ones(3, 1, 4, 4))


def test_sigma_max_is_by_default_the_largest_distance_between_images(tmp_path):
    prior = train(config(tmp_path / "run", steps=1), dataset=Blobs(6))
    images = torch.stack([Items(Blobs(6), 0, crop=(8, 10), flip=True)[p][0] for p in range(6)])
    pairs = [(a - b).norm().item() for a in images for b in images]
    assert prior.sde.sigma_max == pytest.approx(max(pairs), rel=1e-5)
    assert largest_distance(images) == pytest.approx(max(pairs), rel=1e-5)


def test_the_suggested_levels_and_rates_are_those_of_the_paper():
    """Song & Ermon 2020, table 5: CIFAR-10, 50 to 0.01, 232 levels; CelebA 64, 90 to 0.01, 500
    levels, for an overlap of about 0.5; 5 steps of 6.2e-6 and 3.3e-6 at 0.01.
    """
    for size, sigma_max, levels, step in ((32, 50.0, 232, 6.2e-6), (64, 90.0, 500, 3.3e-6)):
        assert levels_for(3 * size**2, 0.01, sigma_max) == pytest.approx(levels, rel=0.07)
        gamma = (sigma_max / 0.01) ** (1 / (levels - 1))
        assert 2 * langevin_snr(gamma, steps=5) ** 2 == pytest.approx(step / 1e-4, rel=0.1)


def test_training_can_start_from_a_prior(tmp_path):
    first = config(tmp_path / "first", steps=2)
    first["data"] = {"range": [2.0, 0.5]}
    train(first, dataset=blobs)
    start = tmp_path / "first" / "prior.safetensors"
    settings = config(tmp_path / "second", steps=1)
    settings["data"] = {}
    settings |= {"network": {"name": "unet"}, "init_from": str(start)}
    settings["optimizer"] = {"lr": 1e-12, "warmup": 0}
    prior = train(settings, dataset=blobs)
    first = load_prior(start)
    assert prior.sde == first.sde
    assert prior.range == first.range == (2.0, 0.5)
    for name, tensor in first.network.state_dict().items():
        torch.testing.assert_close(prior.network.state_dict()[name], tensor, rtol=0, atol=1e-9)


def test_a_classifier_trains_on_labels_and_guides_by_its_log_probability(tmp_path):
    def labelled(seed, position):
        label = position % 2
        return blobs(seed, position) * (1 if label else -1), label

    settings = config(tmp_path / "run", steps=60)
    settings |= {
        "network": {"name": "classifier", "classes": 2, "widths": [8], "blocks": 1, "patch": 2},
        "sde": {"name": "vp"}, "loss": {"name": "classifier"},
        "optimizer": {"lr": 1e-2, "warmup": 0, "ema": 0.5},
    }  # fmt: skip
    train(settings, dataset=labelled, held_out=[labelled(1, p) for p in range(8)])
    assert lines(tmp_path / "run")[-1]["accuracy"][0] == 1.0
    classifier = load_classifier(tmp_path / "run" / "classifier.safetensors")
    x = torch.stack([labelled(2, p)[0] for p in range(4)]).requires_grad_()
    log_prob = classifier.log_prob(torch.tensor([0, 1, 0, 1]))(x, 0.01)
    assert (log_prob > -0.5).all()
    assert torch.autograd.grad(log_prob.sum(), x)[0].abs().sum() > 0
    with pytest.raises(ValueError, match="labels must be integers from 0 to 1"):
        classifier.log_prob(2)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"network": {"name": "unet", "width": [8]}}, r"network\.width.*did you mean 'widths'"),
        ({"network": {"name": "unett"}}, r"network\.name must be one of unet"),
        ({"sde": {"name": "edm"}}, "SDE must be one of"),
        ({"data": {"crop": [99, 8]}}, r"crop \(99, 8\) is larger than an image \(1, 12, 12\)"),
        ({"train": {"batch_size": 5, "accumulate": 2}}, "multiple of accumulate; got 5 and 2"),
        ({"train": {"device": "cuda:7"}}, "no CUDA|no such"),
        ({"optimizer": {"lr": -1.0}}, "lr must be positive"),
        ({"loss": {"name": "ddpm"}}, "needs an SDE with beta"),
    ],
)
def test_a_mistake_in_the_configuration_is_named_before_training(tmp_path, change, says):
    if "cuda" in str(change) and torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    settings = config(tmp_path / "run", steps=1)
    with pytest.raises(ValueError, match=says):
        train({**settings, **change}, dataset=blobs)


def test_widths_without_a_name_are_those_of_the_default_network(tmp_path):
    """`--set network.widths=[8]` means a narrower U-Net, which runs as if it were named."""
    unnamed = config(tmp_path / "unnamed", steps=2)
    del unnamed["network"]["name"]
    one, other = (
        train(unnamed, dataset=blobs),
        train(config(tmp_path / "named", steps=2), dataset=blobs),
    )
    assert type(one.network) is type(other.network) is UNet
    assert one.network.config["widths"] == [8, 8]
    for a, b in zip(one.network.parameters(), other.network.parameters(), strict=True):
        assert torch.equal(a, b)


class Poisoned(nn.Module):
    """Right three times, infinite from then on."""

    def __init__(self):
        super().__init__()
        self.scale, self.calls = nn.Parameter(torch.zeros(())), 0

    def forward(self, x, t):
        self.calls += 1
        return x * self.scale * (1.0 if self.calls <= 3 else float("inf"))


def test_a_loss_that_is_not_finite_stops_and_keeps_the_checkpoint_before(tmp_path):
    settings = config(tmp_path / "run", checkpoint_minutes=1e-9)
    with pytest.raises(BadInput, match=r"step 4: the loss or its gradient is not finite"):
        train(settings, dataset=blobs, network=Poisoned())
    kept = load_file(tmp_path / "run" / CHECKPOINT)
    assert all(tensor.isfinite().all() for tensor in kept.values())


def test_images_of_mixed_shapes_or_with_nan_are_named(tmp_path):
    def mixed(seed, position):
        return torch.zeros(1, 8, 8 + position % 2) + torch.rand(1)

    settings = config(tmp_path / "run")
    settings["data"] = {}
    with pytest.raises(BadInput, match=r"one shape; got \(1, 8, 8\), \(1, 8, 9\).*data\.crop"):
        train(settings, dataset=mixed)
    settings = config(tmp_path / "other")
    with pytest.raises(BadInput, match="item 0 has values that are NaN"):
        train(settings, dataset=lambda seed, p: torch.full((1, 12, 12), float("nan")))


def test_an_existing_run_is_neither_overwritten_nor_resumed_with_another_configuration(tmp_path):
    settings = config(tmp_path / "run", steps=1)
    with pytest.raises(BadInput, match="nothing to resume"):
        train(settings, dataset=blobs, resume=True)
    train(settings, dataset=blobs, resume="auto")
    with pytest.raises(BadInput, match="holds a run already"):
        train(settings, dataset=blobs)
    changed = {**settings, "seed": 5, "optimizer": {**settings["optimizer"], "lr": 2e-3}}
    with pytest.raises(BadInput, match=r"optimizer\.lr \(0\.001 before, 0\.002 now\); seed"):
        train(changed, dataset=blobs, resume=True)


def test_a_full_disk_while_saving_leaves_the_previous_checkpoint(tmp_path):
    resource = pytest.importorskip("resource")
    settings = config(tmp_path / "run", steps=2)
    train(settings, dataset=blobs)
    path = tmp_path / "run" / CHECKPOINT
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        longer = {**settings, "train": {**settings["train"], "steps": 4}}
        with pytest.raises(OutOfResources, match="no room to write"):
            train(longer, dataset=blobs, resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == before
    train(longer, dataset=blobs, resume=True)
    assert lines(tmp_path / "run")[-1]["step"] == 4


_KILLED = """
import sys
sys.path[:0] = {paths!r}
import torch, time
torch.set_num_threads(1)
from test_training_loop import Blobs, config
from inverse_score.training import train
from pathlib import Path
train(config(Path({out!r}), steps=12, log_every=1, checkpoint_minutes=1e-9), dataset=Blobs(9),
      callback=lambda step, loss: time.sleep(0.15))
"""


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_a_killed_run_resumes_to_the_bits_of_an_unbroken_one(tmp_path, number):
    train(config(tmp_path / "whole", steps=12, log_every=1), dataset=Blobs(9))
    paths = [str(Path(__file__).parent)]
    script = _KILLED.format(paths=paths, out=str(tmp_path / "cut"))
    child = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE)
    log, deadline = tmp_path / "cut" / "log.jsonl", time.monotonic() + 120
    while not (log.exists() and log.read_text().count("\n") >= 4):
        assert child.poll() is None, child.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    child.send_signal(number)
    child.communicate(timeout=60)
    assert child.returncode == (143 if number == signal.SIGTERM else -signal.SIGKILL)
    resumed = config(tmp_path / "cut", steps=12, log_every=1)
    train(resumed, dataset=Blobs(9), resume=True)
    assert same_run(tmp_path / "whole", tmp_path / "cut")
    assert json.dumps(lines(tmp_path / "whole")) == json.dumps(lines(tmp_path / "cut"))


def test_a_log_line_cut_short_by_a_crash_does_not_stop_a_resume(tmp_path):
    train(config(tmp_path / "run", steps=2), dataset=blobs)
    with (tmp_path / "run" / "log.jsonl").open("a") as file:
        file.write('{"step": 3, "lo')
    train(config(tmp_path / "run", steps=4), dataset=blobs, resume=True)
    assert [entry["step"] for entry in lines(tmp_path / "run")] == [2, 4]
