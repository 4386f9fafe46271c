"""The tensor names of each released format, derived from the structure of our networks.

Each function takes one of our networks and lists its parts in the released module's order, which
is the order of score_sde's nameless moving average.
"""

from __future__ import annotations

from itertools import count

from torch import nn

from ...networks.convolutions import FilteredConv, NearestConv, StridedConv
from ...networks.layers import ResBlock
from ...networks.ncsnv2 import NCSNv2
from ...networks.score_network import ScoreNetwork
from ...networks.score_unet import Combine, Resolution, ScoreUNet
from .parts import Layout, Part, rows_by_head, rows_interleaved


def song(network: ScoreNetwork) -> list[Part]:
    """score_sde_pytorch's NCSN++, DDPM++ and DDPM: all_modules.N in order of construction."""
    net: ScoreUNet = network.net  # type: ignore[assignment]
    layout, numbers = Layout(network), count()
    shortcut = "NIN_0" if _has_nin(network) else "Conv_2"

    def slot() -> str:
        return f"all_modules.{next(numbers)}"

    def block(own: str) -> None:
        _song_block(layout, own, slot(), shortcut)

    def resampler(own: str, layer: nn.Module | None) -> None:
        if isinstance(layer, ResBlock):
            block(own)
        elif layer is not None:
            layout_or_skip(own, layer, slot())

    def layout_or_skip(own: str, layer: nn.Module, released: str) -> None:
        if isinstance(layer, Combine):
            layout.module(f"{own}.conv", f"{released}.Conv_0")
        elif isinstance(layer, FilteredConv):
            layout.module(own, f"{released}.Conv2d_0")
        elif isinstance(layer, StridedConv | NearestConv):
            layout.module(own, f"{released}.Conv_0")

    def blocks(own: str, level: Resolution) -> None:
        for j, (_, attention) in enumerate(level.pairs()):
            block(f"{own}.blocks.{j}")
            if attention is not None:
                _song_attention(layout, f"{own}.attention.{j}", slot())

    def head(own: str, layer: nn.Module | None) -> None:
        if layer is not None:
            layout.module(f"{own}.norm", slot())
            layout.module(f"{own}.conv", slot())

    _song_embedding(layout, net, slot)
    layout.module("net.stem", slot())
    for i, level in enumerate(net.down):
        blocks(f"net.down.{i}", level)  # type: ignore[arg-type]
        resampler(f"net.down.{i}.resample", level.resample)  # type: ignore[arg-type]
        resampler(f"net.down.{i}.pyramid", level.pyramid)  # type: ignore[arg-type]
    block("net.mid0")
    _song_attention(layout, "net.mid_attention", slot())
    block("net.mid1")
    for i, level in enumerate(net.up):
        blocks(f"net.up.{i}", level)  # type: ignore[arg-type]
        head(f"net.up.{i}.head", level.head)  # type: ignore[arg-type]
        resampler(f"net.up.{i}.pyramid", level.pyramid)  # type: ignore[arg-type]
        resampler(f"net.up.{i}.resample", level.resample)  # type: ignore[arg-type]
    head("net.head", net.head)
    return layout.finished()


def _has_nin(network: ScoreNetwork) -> bool:
    return network.config.get("resblock_type", "ddpm") == "ddpm"


def _song_embedding(layout: Layout, net: ScoreUNet, slot) -> None:
    if net.embedding is None:
        return
    if net.embedding.kind == "fourier":
        layout.tensor("net.embedding.W", f"{slot()}.W", trained=False)
    layout.module("net.embedding.linear0", slot())
    layout.module("net.embedding.linear1", slot())


def _song_block(layout: Layout, own: str, released: str, shortcut: str) -> None:
    layout.module(f"{own}.norm0", f"{released}.GroupNorm_0")
    layout.module(f"{own}.conv0", f"{released}.Conv_0")
    layout.module(f"{own}.dense", f"{released}.Dense_0")
    layout.module(f"{own}.norm1", f"{released}.GroupNorm_1")
    layout.module(f"{own}.conv1", f"{released}.Conv_1")
    if f"{own}.skip.weight" not in layout.shapes:
        return
    if shortcut == "NIN_0":
        layout.transposed(f"{own}.skip", f"{released}.NIN_0")
    else:
        layout.module(f"{own}.skip", f"{released}.Conv_2")


def _song_attention(layout: Layout, own: str, released: str) -> None:
    layout.module(f"{own}.norm", f"{released}.GroupNorm_0")
    names = [f"{released}.NIN_{i}" for i in range(3)]
    layout.joined(f"{own}.qkv", names, "W", "b", transpose=True)
    layout.transposed(f"{own}.proj", f"{released}.NIN_3")


def guided(network: ScoreNetwork) -> list[Part]:
    """guided-diffusion's UNetModel: input_blocks, middle_block, output_blocks."""
    net: ScoreUNet = network.net  # type: ignore[assignment]
    layout = Layout(network)
    new_order = bool(network.config.get("use_new_attention_order", False))

    def level_of(own: str, level: Resolution, released: str, numbers, up: bool) -> None:
        for j, (_, attention) in enumerate(level.pairs()):
            slot = f"{released}.{next(numbers)}"
            _guided_block(layout, f"{own}.blocks.{j}", f"{slot}.0")
            if attention is not None:
                _guided_attention(layout, f"{own}.attention.{j}", f"{slot}.1", attention, new_order)
        if level.resample is None:
            return
        # On the way up the resampling is the last part of the level's last entry.
        place = f"{slot}.{1 if attention is None else 2}" if up else f"{released}.{next(numbers)}.0"
        if isinstance(level.resample, ResBlock):
            _guided_block(layout, f"{own}.resample", place)
        else:
            layout.module(f"{own}.resample", f"{place}.{'conv' if up else 'op'}")

    layout.module("net.embedding.linear0", "time_embed.0")
    layout.module("net.embedding.linear1", "time_embed.2")
    numbers = count()
    layout.module("net.stem", f"input_blocks.{next(numbers)}.0")
    for i, level in enumerate(net.down):
        level_of(f"net.down.{i}", level, "input_blocks", numbers, up=False)  # type: ignore[arg-type]
    _guided_block(layout, "net.mid0", "middle_block.0")
    _guided_attention(layout, "net.mid_attention", "middle_block.1", net.mid_attention, new_order)
    _guided_block(layout, "net.mid1", "middle_block.2")
    numbers = count()
    for i, level in enumerate(net.up):
        level_of(f"net.up.{i}", level, "output_blocks", numbers, up=True)  # type: ignore[arg-type]
    layout.module("net.head.norm", "out.0")
    layout.module("net.head.conv", "out.2")
    return layout.finished()


def _guided_block(layout: Layout, own: str, released: str) -> None:
    layout.module(f"{own}.norm0", f"{released}.in_layers.0")
    layout.module(f"{own}.conv0", f"{released}.in_layers.2")
    layout.module(f"{own}.dense", f"{released}.emb_layers.1")
    layout.module(f"{own}.norm1", f"{released}.out_layers.0")
    layout.module(f"{own}.conv1", f"{released}.out_layers.3")
    layout.module(f"{own}.skip", f"{released}.skip_connection")


def _guided_attention(layout: Layout, own: str, released: str, attention, new_order: bool) -> None:
    layout.module(f"{own}.norm", f"{released}.norm")
    order = (lambda rows: rows) if new_order else rows_by_head(attention.heads)
    layout.packed(f"{own}.qkv", f"{released}.qkv", order, 1)
    layout.reshaped(f"{own}.proj", f"{released}.proj_out", 1)


def edm(network: ScoreNetwork) -> list[Part]:
    """EDM's SongUNet and DhariwalUNet: enc and dec, named by resolution."""
    net: ScoreUNet = network.net  # type: ignore[assignment]
    layout, size = Layout(network), network.config["image_size"]
    adm = network.config.get("num_channels") is not None

    def at(level: int) -> str:
        return f"{size >> level}x{size >> level}"

    def block(own: str, released: str, attention: str | None = None) -> None:
        for name in ("norm0", "conv0", "norm1", "conv1", "skip"):
            layout.module(f"{own}.{name}", f"{released}.{name}")
        layout.module(f"{own}.dense", f"{released}.affine")
        if attention is not None:
            layout.module(f"{attention}.norm", f"{released}.norm2")
            layout.packed(f"{attention}.qkv", f"{released}.qkv", rows_interleaved, 1, 1)
            layout.reshaped(f"{attention}.proj", f"{released}.proj", 1, 1)

    def blocks(own: str, level: Resolution, released: str) -> None:
        for j, (_, attention) in enumerate(level.pairs()):
            beside = None if attention is None else f"{own}.attention.{j}"
            block(f"{own}.blocks.{j}", f"{released}_block{j}", beside)

    if net.embedding.kind == "fourier":  # type: ignore[union-attr]
        layout.tensor("net.embedding.W", "map_noise.freqs", trained=False)
    layout.module("net.embedding.linear0", "map_layer0")
    layout.module("net.embedding.linear1", "map_layer1")
    layout.module("net.stem", f"enc.{at(0)}_conv")
    for i, level in enumerate(net.down):
        own = f"net.down.{i}"
        blocks(own, level, f"enc.{at(i)}")  # type: ignore[arg-type]
        if level.resample is not None:
            block(f"{own}.resample", f"enc.{at(i + 1)}_down")
        if isinstance(level.pyramid, Combine):
            layout.module(f"{own}.pyramid.conv", f"enc.{at(i + 1)}_aux_skip")
        elif level.pyramid is not None:
            layout.module(f"{own}.pyramid", f"enc.{at(i + 1)}_aux_residual")
    lowest = len(net.down) - 1
    block("net.mid0", f"dec.{at(lowest)}_in0", "net.mid_attention")
    block("net.mid1", f"dec.{at(lowest)}_in1")
    for i, level in zip(range(lowest, -1, -1), net.up, strict=True):
        own = f"net.up.{lowest - i}"
        blocks(own, level, f"dec.{at(i)}")  # type: ignore[arg-type]
        if level.head is not None:
            layout.module(f"{own}.head.norm", f"dec.{at(i)}_aux_norm")
            layout.module(f"{own}.head.conv", f"dec.{at(i)}_aux_conv")
        if level.resample is not None:
            block(f"{own}.resample", f"dec.{at(i - 1)}_up")
    if net.head is not None:
        layout.module("net.head.norm", "out_norm" if adm else f"dec.{at(0)}_aux_norm")
        layout.module("net.head.conv", "out_conv" if adm else f"dec.{at(0)}_aux_conv")
    return layout.finished()


def diffusers(network: ScoreNetwork) -> list[Part]:
    """diffusers' UNet2DModel, with the attention names since 0.15 (to_q, to_k, to_v, to_out.0)."""
    net: ScoreUNet = network.net  # type: ignore[assignment]
    layout = Layout(network)
    names = {"norm0": "norm1", "conv0": "conv1", "dense": "time_emb_proj", "norm1": "norm2",
             "conv1": "conv2", "skip": "conv_shortcut"}  # fmt: skip

    def block(own: str, released: str) -> None:
        for ours, theirs in names.items():
            layout.module(f"{own}.{ours}", f"{released}.{theirs}")

    def attention(own: str, released: str) -> None:
        layout.module(f"{own}.norm", f"{released}.group_norm")
        layers = [f"{released}.{name}" for name in ("to_q", "to_k", "to_v")]
        layout.joined(f"{own}.qkv", layers, "weight", "bias", transpose=False)
        layout.module(f"{own}.proj", f"{released}.to_out.0")

    def level_of(own: str, level: Resolution, released: str, way: str) -> None:
        attended = count()
        for j, (_, layer) in enumerate(level.pairs()):
            block(f"{own}.blocks.{j}", f"{released}.resnets.{j}")
            if layer is not None:
                attention(f"{own}.attention.{j}", f"{released}.attentions.{next(attended)}")
        if isinstance(level.resample, ResBlock):
            skips = net.pyramid_in != "none"
            place = f"resnet_{way}" if skips else f"{way}samplers.0"
            block(f"{own}.resample", f"{released}.{place}")
        elif level.resample is not None:
            layout.module(f"{own}.resample", f"{released}.{way}samplers.0.conv")
        if level.pyramid is not None:
            layout.module(f"{own}.pyramid.conv", f"{released}.skip_conv")
        if level.head is not None:
            last = level is net.up[-1]
            norm, conv = f"{released}.skip_norm", f"{released}.skip_conv"
            layout.module(f"{own}.head.norm", "conv_norm_out" if last else norm)
            layout.module(f"{own}.head.conv", "conv_out" if last else conv)

    if net.embedding.kind == "fourier":  # type: ignore[union-attr]
        layout.tensor("net.embedding.W", "time_proj.weight", trained=False)
    layout.module("net.embedding.linear0", "time_embedding.linear_1")
    layout.module("net.embedding.linear1", "time_embedding.linear_2")
    layout.module("net.stem", "conv_in")
    for i, level in enumerate(net.down):
        level_of(f"net.down.{i}", level, f"down_blocks.{i}", "down")  # type: ignore[arg-type]
    block("net.mid0", "mid_block.resnets.0")
    if net.mid_attention is not None:
        attention("net.mid_attention", "mid_block.attentions.0")
    block("net.mid1", "mid_block.resnets.1")
    for i, level in enumerate(net.up):
        level_of(f"net.up.{i}", level, f"up_blocks.{i}", "up")  # type: ignore[arg-type]
    if net.head is not None:
        layout.module("net.head.norm", "conv_norm_out")
        layout.module("net.head.conv", "conv_out")
    return layout.finished()


# NCSNv2's names of its stages and refinements, by depth.
_RES = {
    "ncsnv2": ("1", "2", "3", "4"),
    "deeper": ("1", "2", "3", "4", "5"),
    "deepest": ("1", "2", "3", "31", "4", "5"),
}
_REF = {
    "ncsnv2": ("1", "2", "3", "4"),
    "deeper": ("1", "2", "3", "4", "5"),
    "deepest": ("1", "2", "31", "3", "4", "5"),
}


def ncsnv2(network: NCSNv2) -> list[Part]:
    """ncsnv2's NCSNv2, NCSNv2Deeper and NCSNv2Deepest."""
    layout, net, depth = Layout(network), network.net, network.config["depth"]

    def norm(own: str, released: str) -> None:
        for name in ("alpha", "gamma", "beta"):
            layout.tensor(f"{own}.{name}", f"{released}.{name}")

    def units(own: str, released: str, number: int) -> None:
        for i in range(number):
            for j in range(2):
                layout.module(f"{own}.convs.{2 * i + j}", f"{released}.{i + 1}_{j + 1}_conv")

    def stage(own: str, released: str, block) -> None:
        pooled = ".conv" if block.pool else ""
        layout.module(f"{own}.conv1", f"{released}.conv1")
        norm(f"{own}.norm2", f"{released}.normalize2")
        layout.module(f"{own}.conv2", f"{released}.conv2{pooled}")
        layout.module(f"{own}.skip", f"{released}.shortcut{pooled}")
        norm(f"{own}.norm1", f"{released}.normalize1")

    layout.module("net.stem", "begin_conv")
    norm("net.norm", "normalizer")
    layout.module("net.last", "end_conv")
    for i, (name, blocks) in enumerate(zip(_RES[depth], net.stages, strict=True)):  # type: ignore[arg-type]
        for j, block in enumerate(blocks):  # type: ignore[arg-type]
            stage(f"net.stages.{i}.{j}", f"res{name}.{j}", block)
    for i, (name, block) in enumerate(zip(_REF[depth], net.refine, strict=True)):  # type: ignore[arg-type]
        own, released = f"net.refine.{i}", f"refine{name}"
        for j in range(len(block.adapt)):  # type: ignore[arg-type]
            units(f"{own}.adapt.{j}", f"{released}.adapt_convs.{j}", 2)
        units(f"{own}.output", f"{released}.output_convs", len(block.output.convs) // 2)  # type: ignore[union-attr, arg-type]
        for j in range(len(block.merge)):  # type: ignore[arg-type]
            layout.module(f"{own}.merge.{j}", f"{released}.msf.convs.{j}")
        for j in range(2):
            layout.module(f"{own}.pooling.convs.{j}", f"{released}.crp.convs.{j}")
    return layout.finished()


LAYOUTS = {
    "score_sde": song,
    "guided-diffusion": guided,
    "edm": edm,
    "diffusers": diffusers,
    "ncsnv2": ncsnv2,
}
