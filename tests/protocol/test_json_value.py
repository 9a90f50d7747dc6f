"""What may stand in params and metadata: exactly that which JSON and msgpack both carry."""

import json
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.json_value import MAX_JSON_DEPTH, MAX_JSON_VALUES, check_json_object
from tests.protocol import strategies


def nested(levels: int) -> dict[str, Any]:
    """Return an object with so many lists in each other."""
    value: Any = 0
    for _ in range(levels):
        value = [value]
    return {"a": value}


@given(strategies.json_objects)
def test_what_is_let_through_survives_json_and_msgpack(value: dict[str, Any]) -> None:
    """The check promises that nothing is lost on either way."""
    assert check_json_object(value) is value
    assert json.loads(json.dumps(value)) == value
    assert msgpack.unpackb(msgpack.packb(value)) == value


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ({"a": float("nan")}, r"^at \['a'\]: the number nan does not fit JSON$"),
        ({"a": [1, float("inf")]}, r"^at \['a'\]\[1\]: the number inf"),
        ({"a": 2**64}, r"^at \['a'\]: an integer of 65 bits does not fit msgpack"),
        ({"a": -(2**63) - 1}, "does not fit"),
        ({"a": 10**5000}, "an integer of 16610 bits does not fit"),
        ({"a": {"b": b"bytes"}}, r"^at \['a'\]\['b'\]: a bytes is not a JSON value$"),
        ({"a": (1,)}, "a tuple is not a JSON value"),
        ({1: 2}, "^the key 1 is not text$"),
        ({"a": {b"x": 1}}, r"^at \['a'\]: the key b'x' is not text$"),
        ({"a": "\ud800"}, r"^at \['a'\]: text holds a lone surrogate"),
        ({"\ud800": 1}, "^text holds a lone surrogate"),
        ({"a": {"\udfff": 1}}, r"^at \['a'\]: text holds a lone surrogate"),
        ({"\x1b[31m": object()}, r"^at \['\\x1b\[31m'\]: a object is not a JSON value$"),
    ],
)
def test_what_would_be_lost_is_refused_with_its_place(value: dict[str, Any], error: str) -> None:
    """The error leads to the value, and shows keys escaped."""
    with pytest.raises(ValueError, match=error):
        check_json_object(value)


def test_nesting_is_allowed_up_to_the_limit_and_not_beyond() -> None:
    """The limit is that of readers elsewhere; a bomb is told by a short message."""
    check_json_object(nested(MAX_JSON_DEPTH))
    with pytest.raises(ValueError, match="nested deeper than 64 levels") as caught:
        check_json_object(nested(MAX_JSON_DEPTH + 1))
    assert len(str(caught.value)) < 300


def test_a_bomb_of_any_depth_is_refused() -> None:
    """The walk stops at the limit, so it cannot exhaust the stack."""
    with pytest.raises(ValueError, match="nested deeper"):
        check_json_object(nested(100_000))


def test_structure_is_allowed_up_to_the_limit_and_not_beyond() -> None:
    """The number of values is limited, because each takes far more room in memory than on the wire."""
    check_json_object({"rows": [[0] * 98] * ((MAX_JSON_VALUES - 1) // 99)})
    with pytest.raises(ValueError, match="more than 50,000 values in all"):
        check_json_object({"rows": [[0] * 99] * (MAX_JSON_VALUES // 99)})


def test_long_keys_and_deep_places_give_short_messages() -> None:
    """Whatever the object looks like, the error fits a line or two."""
    value: Any = object()
    for _ in range(60):
        value = {"k" * 5_000: value}
    with pytest.raises(ValueError, match="is not a JSON value") as caught:
        check_json_object(value)
    assert len(str(caught.value)) < 300


@given(st.none() | st.integers() | st.text() | st.lists(st.integers()))
def test_what_is_no_object_is_left_to_the_field(value: object) -> None:
    """The type of the field is judged by the field, which names it."""
    assert check_json_object(value) is value
