"""What can stand in a JSON object of the protocol: that which JSON, msgpack and every language carry without loss."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from protocol.errors import abbreviate

JsonObject = dict[str, Any]

# Deeper nesting is an attack or a mistake; msgpack and JSON readers elsewhere stop between 100 and 1,000.
MAX_JSON_DEPTH = 64
# Text may be large, and structure may not: a byte or two on the wire become a Python object of 50 to 200 bytes, and
# take a microsecond to check. A larger table goes into the prompt as text (one value), or into a file.
MAX_JSON_VALUES = 50_000
# As much of a path as an error shows.
_MAX_PATH_CHARS = 160
# msgpack carries no larger integers.
MIN_INTEGER = -(2**63)
MAX_INTEGER = 2**64 - 1


def check_json_object(value: Any) -> Any:
    """Return the object when it is lossless in JSON and msgpack; what is no dict is returned too, for others to judge.

    Raises:
        ValueError: says what is wrong with the first value that is not, and where it stands.
    """
    if isinstance(value, dict):
        _Walk().check(value, MAX_JSON_DEPTH)
    return value


class _Misplaced(ValueError):
    """Something that has no place in a JSON object. Its path is gathered on the way up, so good values pay nothing."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.path: list[object] = []

    def __str__(self) -> str:
        place = "".join(f"[{abbreviate(key)}]" for key in reversed(self.path))
        return f"at {place[:_MAX_PATH_CHARS]}: {self.args[0]}" if place else str(self.args[0])


class _Walk:
    """One walk over one object."""

    def __init__(self) -> None:
        self._values_left = MAX_JSON_VALUES

    def check(self, item: Any, levels_left: int) -> None:
        """Look at a value and at everything in it.

        Raises:
            _Misplaced: at the first value that JSON or msgpack cannot carry.
        """
        if isinstance(item, dict):
            for key in item:
                _check_key(key)
            self._check_children(item.items(), len(item), levels_left)
        elif isinstance(item, list):
            self._check_children(enumerate(item), len(item), levels_left)
        else:
            _check_scalar(item)

    def _check_children(self, children: Iterable[tuple[object, Any]], count: int, levels_left: int) -> None:
        self._values_left -= count
        if self._values_left < 0:
            raise _Misplaced(f"there are more than {MAX_JSON_VALUES:,} values in all")
        if levels_left < 0:
            raise _Misplaced(f"nested deeper than {MAX_JSON_DEPTH} levels")
        for key, child in children:
            try:
                self.check(child, levels_left - 1)
            except _Misplaced as error:
                error.path.append(key)
                raise


def _check_scalar(item: Any) -> None:
    if isinstance(item, str):
        _check_text(item)
    elif isinstance(item, int):  # a bool is one, and is within the bounds
        if not MIN_INTEGER <= item <= MAX_INTEGER:
            raise _Misplaced(f"an integer of {item.bit_length()} bits does not fit msgpack")
    elif isinstance(item, float):
        if not math.isfinite(item):
            raise _Misplaced(f"the number {item} does not fit JSON")
    elif item is not None:
        raise _Misplaced(f"a {type(item).__name__} is not a JSON value")


def _check_key(key: object) -> None:
    if not isinstance(key, str):
        raise _Misplaced(f"the key {abbreviate(key)} is not text")
    _check_text(key)


def _check_text(text: str) -> None:
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _Misplaced("text holds a lone surrogate, which UTF-8 cannot carry") from None
