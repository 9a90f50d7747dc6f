"""Errors explain themselves, and every code says what it means."""

import inspect

import pytest

from protocol import (
    TRAITS,
    ErrorCode,
    Fault,
    InvalidTask,
    LocalProtocolError,
    PeertaskError,
    RemoteProtocolError,
    errors,
)
from protocol.errors import abbreviate


@pytest.mark.parametrize("code", ErrorCode)
def test_every_code_has_traits_and_a_meaning_in_a_sentence(code: ErrorCode) -> None:
    """The reference of errors is made from this table, so no cell is empty."""
    assert code.value == code.name
    assert TRAITS[code].meaning.endswith(".")
    assert isinstance(TRAITS[code].fault, Fault)


def test_what_cannot_have_run_is_never_called_maybe_run() -> None:
    """A refusal before recording promises that nothing ran."""
    refusals = {ErrorCode.INVALID_TASK, ErrorCode.NO_EXECUTOR, ErrorCode.FORBIDDEN, ErrorCode.BUSY, ErrorCode.DRAINING}
    assert not any(TRAITS[code].maybe_ran for code in refusals)


def test_an_error_is_its_message_and_what_to_do_next() -> None:
    """People read one text; programs read the code and its traits."""
    error = PeertaskError("the node is full", code=ErrorCode.BUSY, remedy="Ask again later", retry_after_ms=500)
    assert str(error) == "the node is full. Ask again later"
    assert (error.code, error.traits.retryable, error.retry_after_ms) == (ErrorCode.BUSY, True, 500)


def test_an_error_without_words_says_what_its_code_means() -> None:
    """No error of peertask is empty."""
    assert str(PeertaskError(code=ErrorCode.BUSY)) == "The node is full; ask again after retry_after_ms"
    assert str(PeertaskError()) == TRAITS[ErrorCode.INTERNAL].meaning.rstrip(".")


def test_every_error_has_one_root_and_a_docstring() -> None:
    """One `except PeertaskError` catches whatever peertask raises on purpose."""  # covers CORE-32
    classes = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, Exception)]
    assert all(issubclass(cls, PeertaskError) and cls.__doc__ for cls in classes)


def test_protocol_errors_say_whose_fault_it_is() -> None:
    """A defect of this program and a misbehaving peer are two errors."""
    assert LocalProtocolError("x").code is ErrorCode.INTERNAL
    assert RemoteProtocolError("x").code is ErrorCode.PROTOCOL
    assert InvalidTask("x").code is ErrorCode.INVALID_TASK


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (5, "5"),
        ("short", "'short'"),
        ("\x1b[31m\ud800", r"'\x1b[31m\ud800'"),
        ("x" * 81, "'" + "x" * 80 + "'…"),
        (b"\x00" * 81, "b'" + r"\x00" * 80 + "'…"),
        ([[[]]], "a list of 1"),
        ({"a": 1}, "a dict of 1"),
        (None, "None"),
    ],
)
def test_a_wrong_value_is_shown_short_and_escaped(value: object, shown: str) -> None:
    """What a peer sent cannot flood a log, nor colour a terminal."""
    assert abbreviate(value) == shown
