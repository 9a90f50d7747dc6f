"""Who may use what, and how much of it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.coordination.quotas import EVERY_KIND, RETRY_AFTER_MS, Access, Usage, task_size
from node.testing import make_task
from protocol import ErrorCode, PeerId, TaskRejected, encode_frame
from protocol.frames import Submit
from tests.protocol.strategies import json_objects

ANN, BEN = PeerId("ann"), PeerId("ben")
KINDS = {"echo": True, "mock": True, "command": False, "llm": False}


def access(max_in_flight: int = 4, max_bytes: int = 1_000, **allow: tuple[PeerId, ...]) -> Access:
    """Rules that are quick to reach the end of; the kind ``every`` stands for every kind."""
    by_kind = {EVERY_KIND if kind == "every" else kind: peers for kind, peers in allow.items()}
    return Access(allow=by_kind, max_in_flight=max_in_flight, max_bytes=max_bytes)


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (access(), ("echo", "mock")),
        (access(llm=(ANN,)), ("echo", "llm", "mock")),
        (access(llm=(BEN,)), ("echo", "mock")),
        (access(every=(ANN,)), ("command", "echo", "llm", "mock")),
        (access(every=(BEN,), command=(ANN, BEN)), ("command", "echo", "mock")),
        (access(gone=(ANN,)), ("echo", "mock")),
    ],
)
def test_safe_kinds_are_open_and_every_other_is_closed_until_the_peer_is_listed(
    rules: Access, expected: tuple[str, ...]
) -> None:
    """What a peer is told that it may use is exactly what it may use."""
    assert rules.kinds_for(ANN, KINDS) == expected
    for kind, safe in KINDS.items():
        assert rules.permits(ANN, kind, safe=safe) == (kind in expected)
        if kind in expected:
            rules.check_kind(ANN, kind, KINDS)
        else:
            with pytest.raises(TaskRejected, match=kind) as refused:
                rules.check_kind(ANN, kind, KINDS)
            assert refused.value.code is ErrorCode.FORBIDDEN
            assert ANN in refused.value.remedy


def test_a_node_that_works_for_a_peer_works_for_it_alone_and_with_everything() -> None:
    """Whoever else asks is told so, and not what there is."""
    rules = Access(allow={EVERY_KIND: (ANN,)}, max_in_flight=4, works_for=BEN)
    assert rules.kinds_for(BEN, KINDS) == tuple(sorted(KINDS))
    assert rules.kinds_for(ANN, KINDS) == ()
    rules.check_kind(BEN, "command", KINDS)
    for kind in ("echo", "dance"):
        with pytest.raises(TaskRejected, match=f"works for peer {BEN} alone") as refused:
            rules.check_kind(ANN, kind, KINDS)
        assert refused.value.code is ErrorCode.FORBIDDEN
    with pytest.raises(TaskRejected) as refused:
        rules.check_kind(BEN, "dance", KINDS)
    assert refused.value.code is ErrorCode.NO_EXECUTOR


def test_an_unknown_kind_is_refused_naming_those_that_the_peer_may_use() -> None:
    """A peer is not told of kinds that are closed to it."""
    with pytest.raises(TaskRejected, match=r"no executor for kind 'dance'.*: echo, mock") as refused:
        access().check_kind(ANN, "dance", KINDS)
    assert refused.value.code is ErrorCode.NO_EXECUTOR
    assert "command" not in str(refused.value)
    with pytest.raises(TaskRejected, match="none"):
        access().check_kind(ANN, "dance", {"command": False})


@pytest.mark.parametrize(
    ("usage", "size", "admitted"),
    [
        (Usage(), 0, True),
        (Usage(3, 0), 100, True),
        (Usage(4, 0), 0, False),
        (Usage(5, 0), 0, False),
        (Usage(1, 900), 100, True),
        (Usage(1, 900), 101, False),
        (Usage(), 5_000, True),
        (Usage(1, 5_000), 0, False),
    ],
)
def test_a_peer_has_so_many_tasks_and_bytes_open(usage: Usage, size: int, *, admitted: bool) -> None:
    """BUSY with a time to ask again beyond that; a single task is never too large for an idle peer's share."""
    if admitted:
        access().check_usage(ANN, usage, size)
        return
    with pytest.raises(TaskRejected, match=ANN) as refused:
        access().check_usage(ANN, usage, size)
    assert refused.value.code is ErrorCode.BUSY
    assert refused.value.retry_after_ms == RETRY_AFTER_MS
    assert refused.value.remedy


@given(json_objects, json_objects, st.text(st.characters(codec="ascii"), max_size=2_000))
def test_the_size_of_a_task_is_near_what_it_takes_on_the_wire(
    params: dict[str, Any], metadata: dict[str, Any], prompt: str
) -> None:
    """Whatever a peer fills counts, wherever it puts it: not less than a quarter of the bytes that it sends."""
    task = make_task(prompt, params=params, metadata=metadata)
    empty = make_task("")
    on_the_wire = sum(map(len, encode_frame(Submit(task)))) - sum(map(len, encode_frame(Submit(empty))))
    assert task_size(task) >= on_the_wire / 4


def test_structure_counts_as_well_as_text() -> None:
    """Lists without anything in them take memory too."""
    assert task_size(make_task("", params={"x": [[]] * 10_000})) > 10_000
    assert task_size(make_task("", metadata={"x": "y" * 10_000})) > 10_000
