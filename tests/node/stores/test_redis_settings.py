"""The settings of the Redis store."""

from __future__ import annotations

import pytest

from node.stores.redis import RedisAddress, RedisSettings
from protocol import ErrorCode, PeertaskError


def test_the_defaults_are_those_of_the_reference() -> None:
    """A server on this machine, a day to live, three more tries, five seconds."""
    # covers REDIS-3, REDIS-13, REDIS-14, REDIS-15, REDIS-16, REDIS-17
    settings = RedisSettings()
    assert settings.connection_string == "localhost:6379"
    assert settings.instance_name == "peertask:"
    assert settings.task_ttl_hours == 24
    assert settings.ttl_s == 86_400
    assert settings.connect_retry_count == 3
    assert settings.connect_timeout_ms == 5_000
    assert str(settings.address) == "redis://localhost:6379/0"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("localhost", RedisAddress(host="localhost")),
        ("127.0.0.1:7000", RedisAddress(host="127.0.0.1", port=7000)),
        ("[::1]:7000", RedisAddress(host="::1", port=7000)),
        ("redis://cache.example/3", RedisAddress(host="cache.example", database=3)),
        (
            "redis://me:p%40ss@cache.example:7000/0",
            RedisAddress(host="cache.example", port=7000, username="me", password="p@ss"),
        ),
        ("rediss://:secret@cache.example", RedisAddress(host="cache.example", password="secret", tls=True)),
    ],
)
def test_an_address_is_read_in_all_its_forms(text: str, address: RedisAddress) -> None:
    """Host and port alone, or a URL with all that there is."""
    # covers REDIS-13
    assert RedisSettings(connection_string=text).address == address
    assert RedisAddress.parse(str(address)).host == address.host


@pytest.mark.parametrize(
    "text", ["", ":6379", "http://host", "redis://host/x", "host:70000", "host:port", "redis://host?db=1", "unix:///x"]
)
def test_what_is_no_address_is_refused_without_repeating_it(text: str) -> None:
    """There may be a password in it."""
    with pytest.raises(PeertaskError) as refused:
        RedisSettings(connection_string=text)
    assert refused.value.code is ErrorCode.INVALID_CONFIG
    assert "connection_string" in refused.value.message
    assert not text or text not in refused.value.message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("instance_name", "a\nb"),
        ("instance_name", "x" * 129),
        ("task_ttl_hours", 0),
        ("task_ttl_hours", float("nan")),
        ("task_ttl_hours", 1e9),
        ("connect_retry_count", -1),
        ("connect_timeout_ms", 0),
    ],
)
def test_a_setting_out_of_bounds_is_named(name: str, value: object) -> None:
    """A mistake of unit is found before the node runs."""
    with pytest.raises(PeertaskError, match=name) as refused:
        RedisSettings(**{name: value})  # type: ignore[arg-type]
    assert refused.value.code is ErrorCode.INVALID_CONFIG


def test_a_password_is_not_shown() -> None:
    """Neither the settings nor the address show it, whoever prints them."""
    settings = RedisSettings(connection_string="redis://me:s3cret@host:1/2")
    for shown in (repr(settings), str(settings), repr(settings.address), str(settings.address)):
        assert "s3cret" not in shown


def test_a_short_time_to_live_is_a_second_at_least() -> None:
    """Redis counts in seconds, and zero would mean gone at once."""
    # covers REDIS-15
    assert RedisSettings(task_ttl_hours=0.00001).ttl_s == 1
    assert RedisSettings(task_ttl_hours=0.5).ttl_s == 1_800
