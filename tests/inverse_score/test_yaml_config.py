"""YAML configurations: safe, strict, and helpful about a misspelt key."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from inverse_score.errors import BadInput
from inverse_score.io.config import build, dump_yaml, load_yaml, override, parse_yaml, to_mapping


@dataclass(frozen=True)
class Inner:
    rate: float = 1e-3
    size: tuple[int, int] | None = None

    def __post_init__(self):
        if self.rate < 0:
            raise ValueError(f"rate must be >= 0; got {self.rate}")


@dataclass(frozen=True)
class Outer:
    name: str
    kind: Literal["one", "two"] = "one"
    inner: Inner = field(default_factory=Inner)
    options: dict[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    steps: int = 3
    quick: bool = False
    values: list[float] = field(default_factory=list)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1e4", 1e4),
        ("-.5E+2", -50.0),
        ("010", 10),
        ("no", "no"),
        ("Yes", "Yes"),
        ("12:30", "12:30"),
        ("2001-01-01", "2001-01-01"),
        ("true", True),
        ("0x10", "0x10"),
        ("1_000", "1_000"),
        ("'7'", "7"),
        ("null", None),
        ("[1, 2.5, {a: ~}]", [1, 2.5, {"a": None}]),
    ],
)
def test_a_scalar_means_what_it_looks_like(text, value):
    read = parse_yaml(text)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: !!python/object/apply:os.system ['touch x']", "tags are not read"),
        ("!x\na: 1", "tags are not read"),
        ("a: &b [1]\nc: *b", "anchors and aliases"),
        ("a: &a [*a]", "anchors and aliases"),
        ("a: 1\nb: 2\na: 3", "line 3.*'a' comes twice"),
        ("a: {b: 1, b: 2}", "'b' comes twice"),
        ("? [1, 2]\n: 3", "a key must be a word"),
        ("[" * 40 + "]" * 40, "nested deeper"),
        ("a: [1", "is not YAML"),
        ("a: 1\n--- \nb: 2", "is not YAML"),
    ],
)
def test_what_could_run_expand_or_hide_is_refused_with_its_line(text, says):
    with pytest.raises(BadInput, match=says):
        parse_yaml(text)


def test_a_huge_file_is_refused_unread(tmp_path):
    file = tmp_path / "huge.yaml"
    with file.open("wb") as stream:
        stream.truncate(1 << 31)
    with pytest.raises(BadInput, match="at most"):
        load_yaml(file)


def test_a_configuration_survives_being_written_and_read():
    config = Outer(
        "no", inner=Inner(1e-5, (3, 4)), options={"a": "1e5", "b": ["010", None, "~"]},
        folder=Path("x/y"), values=[1.0, 1e20],
    )  # fmt: skip
    again = build(Outer, parse_yaml(dump_yaml(config)))
    assert again == config
    assert to_mapping(again)["inner"]["size"] == [3, 4]


@pytest.mark.parametrize(
    ("mapping", "says"),
    [
        ({"name": "x", "stepz": 1}, "unknown key 'stepz'; did you mean 'steps'"),
        ({"name": "x", "inner": {"rat": 1}}, r"unknown key 'inner\.rat'; did you mean 'rate'"),
        ({}, "name is missing"),
        ({"name": 3}, "name must be a text; got 3"),
        ({"name": "x", "steps": 1.5}, "steps must be an integer; got 1.5"),
        ({"name": "x", "steps": True}, "steps must be an integer; got True"),
        ({"name": "x", "quick": 1}, "quick must be true or false"),
        ({"name": "x", "kind": "tow"}, "one, two; got 'tow'; did you mean 'two'"),
        ({"name": "x", "inner": {"rate": "1"}}, r"inner\.rate must be a number"),
        ({"name": "x", "inner": {"rate": -1}}, "inner: rate must be >= 0"),
        ({"name": "x", "inner": {"size": [1]}}, r"inner\.size must be a list of 2"),
        ({"name": "x", "inner": 4}, "inner must be a section"),
        ({"name": "x", "values": [1, "a"]}, r"values\[1\] must be a number"),
    ],
)
def test_a_wrong_value_names_its_place_and_what_was_expected(mapping, says):
    with pytest.raises(BadInput, match=says):
        build(Outer, mapping)


def test_an_override_reaches_inside_and_leaves_the_original_alone():
    before = {"name": "x", "inner": {"rate": 1.0}, "options": None}
    after = override(before, ["inner.rate=1e-4", "options.depth=[1, 2]", "kind=two"])
    assert build(Outer, after).inner.rate == 1e-4
    assert after["options"] == {"depth": [1, 2]}
    assert before == {"name": "x", "inner": {"rate": 1.0}, "options": None}


@pytest.mark.parametrize("bad", ["noequals", "=3", "a..b=1", "name.deeper=1"])
def test_a_malformed_override_is_quoted_back(bad):
    with pytest.raises(BadInput):
        override({"name": "x"}, [bad])
