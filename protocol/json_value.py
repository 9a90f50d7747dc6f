"""What can stand in a JSON object of the protocol: that which JSON, msgpack and every language carry without loss."""

from __future__ import annotations

import math
from typing import Any

JsonObject = dict[str, Any]

# Deeper nesting is an attack or a mistake; msgpack and JSON readers elsewhere stop between 100 and 1,000.
MAX_JSON_DEPTH = 64
# msgpack carries no larger integers.
MIN_INTEGER = -(2**63)
MAX_INTEGER = 2**64 - 1


def check_json_object(value: JsonObject) -> JsonObject:
    """Return the object when it is lossless in JSON and msgpack.

    Raises:
        ValueError: says what is wrong with the first value that is not, and where it stands.
    """
    pending: list[tuple[Any, str, int]] = [(value, "", 0)] if value else []
    while pending:
        item, path, depth = pending.pop()
        if depth > MAX_JSON_DEPTH:
            raise ValueError(f"at {path[:80]}: nested deeper than {MAX_JSON_DEPTH} levels")
        pending.extend(_children(item, path, depth + 1))
    return value


def _children(item: Any, path: str, depth: int) -> list[tuple[Any, str, int]]:
    match item:
        case dict():
            return [(child, f"{path}.{_text(key, path)}", depth) for key, child in item.items()]
        case list():
            return [(child, f"{path}[{index}]", depth) for index, child in enumerate(item)]
        case _:
            _check_scalar(item, path)
            return []


def _check_scalar(item: Any, path: str) -> None:
    match item:
        case None | bool():
            return
        case str():
            _text(item, path)
        case int() if MIN_INTEGER <= item <= MAX_INTEGER:
            return
        case float() if math.isfinite(item):
            return
        case int() | float():
            raise ValueError(f"at {path[:80]}: the number {str(item)[:30]} does not fit JSON and msgpack")
        case _:
            raise ValueError(f"at {path[:80]}: a {type(item).__name__} is not a JSON value")


def _text(item: Any, path: str) -> str:
    if not isinstance(item, str):
        raise ValueError(f"at {path[:80]}: the key {item!r:.40} is not text")
    try:
        item.encode()
    except UnicodeEncodeError:
        raise ValueError(f"at {path[:80]}: text holds a lone surrogate, which UTF-8 cannot carry") from None
    return item
