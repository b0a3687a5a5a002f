"""From parsed JSON to dataclasses: types and ranges stand in their annotations, and nothing unknown passes.

An annotation is what msgspec takes, ``Annotated[int, Meta(ge=1, le=512)]``. msgspec is loaded when the first value is
checked, for it takes longer than the package.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

from .errors import ConfigError, quoted

T = TypeVar("T")

TAG = "network"
"""The field by which one of several dataclasses is told."""

_NAMES = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}


def decode(kind: type[T], values: object, what: str) -> T:
    """Build the dataclass `kind` from parsed JSON.

    Args:
        kind: its fields are values that msgspec checks, dataclasses, or tuples of such.
        values: a JSON object; what is missing takes its default.
        what: what it is, for messages.

    Raises:
        ConfigError: it is no object, a key is unknown or missing, or a value is not what its annotation says.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{what} must be a JSON object, not {quoted(values)}")
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(set(values) - set(fields)):
        known = ", ".join(sorted(fields))
        raise ConfigError(f"{what} has unknown keys {quoted(unknown)}; this version knows {known}")
    if missing := [name for name, field in fields.items() if name not in values and _is_required(field)]:
        raise ConfigError(f"{what}: {', '.join(missing)} missing")
    hints = _hints(cast("Any", kind))
    return kind(**{name: _value(hints[name], value, name) for name, value in values.items()})


def decode_one_of(kinds: tuple[Any, ...], values: object) -> Any:
    """Build that of several dataclasses which the JSON object names by `TAG`; the first where it does not say.

    Raises:
        ConfigError: it names none of them, or as `decode`.
    """
    by_name = {getattr(kind, TAG): kind for kind in kinds}
    name = values.get(TAG, next(iter(by_name))) if isinstance(values, Mapping) else next(iter(by_name))
    if not isinstance(name, str) or name not in by_name:
        raise ConfigError(f"{TAG} must be one of {', '.join(by_name)}, not {quoted(name)}")
    return decode(by_name[name], values, "network")


def check(config: object) -> None:
    """Check the fields of a dataclass against their annotations; those that are dataclasses have checked themselves.

    Raises:
        ConfigError: a value is not what its annotation says.
    """
    for name, hint in _hints(cast("Any", type(config))).items():
        _value(hint, getattr(config, name), name)


def _value(hint: Any, value: object, name: str) -> Any:
    import msgspec

    kinds: list[Any] = [kind for kind in (hint, *get_args(hint)) if dataclasses.is_dataclass(kind)]
    if get_origin(hint) is tuple and kinds and isinstance(value, list):
        return tuple(_value(kinds[0], each, f"{name}[{index}]") for index, each in enumerate(value))
    if kinds and get_origin(hint) is not tuple:
        if isinstance(value, tuple(kinds)):
            return value
        return decode(kinds[0], value, name) if len(kinds) == 1 else decode_one_of(tuple(kinds), value)
    try:
        return msgspec.convert(value, hint)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{name} must be {_wanted(hint)}, not {quoted(value)}") from error


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    from msgspec import Meta

    return get_type_hints(kind, localns={"Meta": Meta}, include_extras=True)


def _wanted(hint: Any) -> str:
    """Return in words what an annotation asks for."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        meta = arguments[1]
        if meta.description:
            return str(meta.description)
        if meta.ge is not None and meta.le is not None:
            return f"{_wanted(arguments[0])} from {meta.ge:g} to {meta.le:g}"
        return f"{_wanted(arguments[0])} of at least {meta.ge}"
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin is tuple:
        return f"a list, each {_wanted(arguments[0])}"
    if type(None) in arguments:  # X | None
        return f"{_wanted(arguments[0])} or null"
    return _NAMES.get(hint, str(hint))
