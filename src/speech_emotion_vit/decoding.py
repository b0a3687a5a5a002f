"""From parsed JSON to dataclasses: annotations give types and ranges, and unknown keys are refused.

An annotation is what msgspec takes, ``Annotated[int, Meta(ge=1, le=512)]``. msgspec is loaded when the first value is
checked, because its import takes longer than the package's.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

from .errors import ConfigError, quoted

T = TypeVar("T")

TAG = "network"
"""The field that says which of several dataclasses is meant."""

_NAMES = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}


def decode(kind: type[T], values: object, what: str) -> T:
    """Build the dataclass `kind` from parsed JSON.

    Args:
        kind: its fields are values that msgspec checks, dataclasses, or tuples of these.
        values: a JSON object; missing fields take their defaults.
        what: name of the object, for messages.

    Raises:
        ConfigError: it is no object, a key is unknown or missing, or a value does not fit its annotation.
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
    """Build the dataclass that the JSON object names under `TAG`, or the first of `kinds` if it names none.

    Raises:
        ConfigError: it names an unknown one, or as in `decode`.
    """
    by_name = {getattr(kind, TAG): kind for kind in kinds}
    name = values.get(TAG, next(iter(by_name))) if isinstance(values, Mapping) else next(iter(by_name))
    if not isinstance(name, str) or name not in by_name:
        raise ConfigError(f"{TAG} must be one of {', '.join(by_name)}, not {quoted(name)}")
    return decode(by_name[name], values, "network")


def check(config: object) -> None:
    """Check the fields of a dataclass against their annotations, except those that are dataclasses.

    Raises:
        ConfigError: a value does not fit its annotation.
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
    """Describe in words what an annotation allows."""
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
