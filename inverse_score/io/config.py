"""YAML into nested frozen dataclasses: safe, strict, and with the nearest key suggested.

The YAML read here is a subset: mappings with unique string keys, lists, and scalars. 1e-4 is a
float, true and false alone are booleans (no is the string "no"), 010 is the integer 10, 12:30 a
string. Tags, anchors and aliases are refused, so that a file can neither name code nor expand.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from ..errors import BadInput

Config = TypeVar("Config")
_MAX_BYTES, _MAX_DEPTH = 1 << 20, 32


class _Loader(yaml.SafeLoader):
    """SafeLoader without YAML 1.1's surprises, aliases and tags."""

    yaml_implicit_resolvers: typing.ClassVar[dict] = {}
    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            _refuse(event.start_mark, "anchors and aliases are not read")
        if getattr(event, "tag", None) is not None:
            _refuse(event.start_mark, f"tags are not read; got {event.tag}")
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            _refuse(event.start_mark, f"nested deeper than {_MAX_DEPTH}")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict:
        seen: set[str] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                _refuse(key_node.start_mark, "a key must be a word")
            if key_node.value in seen:
                _refuse(key_node.start_mark, f"the key {key_node.value!r} comes twice")
            seen.add(key_node.value)
        return {
            key_node.value: self.construct_object(value_node, deep=True)
            for key_node, value_node in node.value
        }

    def construct_document(self, node: Any) -> Any:
        return self.construct_object(node, deep=True)


_Loader.add_constructor("tag:yaml.org,2002:map", _Loader.construct_mapping)
_Loader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(node.value))
_Loader.add_constructor("tag:yaml.org,2002:bool", lambda loader, node: node.value == "true")
_Loader.add_constructor(
    "tag:yaml.org,2002:float", lambda loader, node: float(node.value.lower().replace(".inf", "inf"))
)
for _tag, _pattern, _first in (
    ("null", r"^(?:null|~|)$", ["n", "~", ""]),
    ("bool", r"^(?:true|false)$", list("tf")),
    ("int", r"^[-+]?[0-9]+$", list("-+0123456789")),
    (
        "float",
        r"^(?:[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?\.inf)$",
        list("-+.0123456789"),
    ),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), _first)


def _refuse(mark: Any, message: str) -> typing.NoReturn:
    raise BadInput(f"line {mark.line + 1}, column {mark.column + 1}: {message}")


def parse_yaml(text: str, name: str = "YAML") -> Any:
    """The value that this YAML text holds; BadInput names the line of what is refused."""
    if len(text.encode()) > _MAX_BYTES:
        raise BadInput(f"{name}: a configuration is at most {_MAX_BYTES} bytes; got {len(text)}")
    try:
        return yaml.load(text, Loader=_Loader)
    except BadInput as error:
        raise BadInput(f"{name}, {error}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise BadInput(f"{name} is not YAML: {' '.join(str(error).split())}") from None


def load_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in this YAML file; an empty file is an empty mapping."""
    path = Path(path)
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise BadInput(f"{path.name}: a configuration is at most {_MAX_BYTES} bytes")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} cannot be read: {error}") from None
    value = parse_yaml(text, path.name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadInput(f"{path.name} must hold a mapping of keys; got {type(value).__name__}")
    return value


def override(mapping: Mapping[str, Any], assignments: Iterable[str]) -> dict[str, Any]:
    """A copy of mapping with `a.b=value` assignments made; values are read as YAML."""
    result = _copy(mapping)
    for assignment in assignments:
        path, equals, value = assignment.partition("=")
        keys = path.strip().split(".")
        if not equals or not all(keys):
            raise BadInput(f"an override reads key.key=value; got {assignment!r}")
        place = result
        for key in keys[:-1]:
            # `network: null` may be opened by an override.
            if place.get(key) is None:
                place[key] = {}
            place = place[key]
            if not isinstance(place, dict):
                raise BadInput(f"{path}: {key} is not a section")
        place[keys[-1]] = parse_yaml(value, path)
    return result


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy(inner) for key, inner in value.items()}
    return [_copy(inner) for inner in value] if isinstance(value, list) else value


def build(cls: type[Config], mapping: Mapping[str, Any], where: str = "") -> Config:
    """The dataclass `cls` from a mapping, nested ones included; types are checked.

    An unknown key is an error that names the nearest known one; so is a key without default that
    is missing. An int serves as a float; nothing else is converted.
    """
    if not isinstance(mapping, Mapping):
        raise BadInput(f"{where or cls.__name__} must be a section of keys; got {mapping!r}")
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}  # type: ignore[arg-type]
    hints = typing.get_type_hints(cls)
    check_keys(mapping, fields, where)
    for name, field in fields.items():
        missing = field.default is field.default_factory is dataclasses.MISSING
        if missing and name not in mapping:
            raise BadInput(f"{_join(where, name)} is missing")
    values = {key: _convert(value, hints[key], _join(where, key)) for key, value in mapping.items()}
    try:
        return cls(**values)
    except BadInput:
        raise
    except ValueError as error:
        raise BadInput(f"{where + ': ' if where else ''}{error}") from None


def check_keys(mapping: Iterable[str], known: Iterable[str], where: str = "") -> None:
    """Raise BadInput at the first key that is not known, with the nearest one suggested."""
    known = list(known)
    for key in mapping:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise BadInput(
                f"unknown key {_join(where, str(key))!r}; {hint}known keys: {', '.join(known)}"
            )


def to_mapping(config: Any) -> Any:
    """Dataclasses, tuples and paths as the plain mapping that `build` reads."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {f.name: to_mapping(getattr(config, f.name)) for f in dataclasses.fields(config)}
    if isinstance(config, Mapping):
        return {str(key): to_mapping(value) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return [to_mapping(value) for value in config]
    return str(config) if isinstance(config, Path) else config


def dump_yaml(config: Any) -> str:
    """YAML text that `parse_yaml` reads back to the same mapping."""
    return yaml.dump(to_mapping(config), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


class _Dumper(yaml.SafeDumper):
    """Quotes the strings that this module's reader would take for numbers; writes no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?$"),
    list("-+.0123456789"),
)


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _convert(value: Any, hint: Any, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        return _convert_union(value, args, where)
    if origin is typing.Literal:
        return _one_of(value, args, where)
    if dataclasses.is_dataclass(hint):
        if isinstance(value, hint):  # type: ignore[arg-type]
            return value
        return build(hint, value, where)  # type: ignore[type-var]
    if origin in (tuple, list):
        return _convert_sequence(value, origin, args, where)
    if origin is dict or hint is dict:
        if isinstance(value, Mapping):
            return dict(value)
        raise BadInput(f"{where} must be a section of keys; got {value!r}")
    return _convert_scalar(value, hint, where)


def _convert_union(value: Any, args: Sequence[Any], where: str) -> Any:
    if value is None and type(None) in args:
        return None
    choices = [arg for arg in args if arg is not type(None)]
    for choice in choices[:-1]:
        try:
            return _convert(value, choice, where)
        except BadInput:
            continue
    return _convert(value, choices[-1], where)


def _one_of(value: Any, known: Sequence[Any], where: str) -> Any:
    if value in known and not isinstance(value, bool):
        return value
    near = difflib.get_close_matches(str(value), [str(k) for k in known], n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise BadInput(f"{where} must be one of {', '.join(map(str, known))}; got {value!r}{hint}")


def _convert_sequence(value: Any, origin: type, args: Sequence[Any], where: str) -> Any:
    if not isinstance(value, (list, tuple)):
        raise BadInput(f"{where} must be a list; got {value!r}")
    if origin is tuple and not (len(args) == 2 and args[1] is Ellipsis):
        if len(value) != len(args):
            raise BadInput(f"{where} must be a list of {len(args)}; got {len(value)}")
        inner = list(args)
    else:
        inner = [args[0] if args else Any] * len(value)
    items = [
        _convert(v, hint, f"{where}[{i}]")
        for i, (v, hint) in enumerate(zip(value, inner, strict=True))
    ]
    return origin(items)


def _convert_scalar(value: Any, hint: Any, where: str) -> Any:
    if hint is float and type(value) in (int, float):
        if math.isnan(value):
            raise BadInput(f"{where} must be a number; got nan")
        return float(value)
    if hint is Path and isinstance(value, (str, Path)):
        return Path(value)
    if type(value) is hint:
        return value
    words = {int: "an integer", float: "a number", str: "a text", bool: "true or false"}
    raise BadInput(f"{where} must be {words.get(hint, hint)}; got {value!r}")
