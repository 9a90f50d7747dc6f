"""The audit log of a node that runs: everything is in it, also after a crash and a full disk."""

# covers COORD-5, COORD-8, COORD-32, COORD-56

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from node.app import open_node
from node.audit import log as log_module
from node.audit.log import AuditLog
from node.audit.segments import AUDIT_FOLDER, HEAD_FILE, Segments, segment_files
from node.audit.verifying import verify_log
from node.config import NodeConfig
from node.interfaces import Change
from node.net.signing import verify as verify_peer
from node.testing import TrioClock
from protocol import PeerId, begin
from tests.node.audit.test_chain import NODE, sign, verify
from tests.protocol.samples import SUBMITTED

# On a clock that jumps; bounds a wait in which the test looks again and again.
PATIENCE_S = 600.0


def entries(folder: Path) -> list[dict[str, Any]]:
    """Return what stands in a log."""
    return [json.loads(line) for file in segment_files(folder) for line in file.read_bytes().splitlines()]


def names(folder: Path) -> list[str]:
    """Return the facts of a log."""
    return [entry["fact"] for entry in entries(folder)]


def audit_log(folder: Path, **sizes: int) -> AuditLog:
    """Return the log of Ann in a folder."""
    segments = Segments(folder, **{"keep_bytes": 1_000_000, **sizes})
    return AuditLog(segments, TrioClock(), NODE, sign)


async def until_written(audit: AuditLog, count: int) -> None:
    """Wait until so many entries are in the files."""
    with trio.fail_after(PATIENCE_S):
        while audit.entries < count:
            await trio.sleep(0.01)


async def until_failing(audit: AuditLog) -> str:
    """Wait until nothing can be written, and return why."""
    with trio.fail_after(PATIENCE_S):
        while audit.failure is None:
            await trio.sleep(0.01)
    return str(audit.failure)


async def test_what_is_noted_is_in_the_files_when_the_log_ends(tmp_path: Path) -> None:
    """In order, between the start and the stop of the node, and sealed."""
    async with audit_log(tmp_path).running():
        pass
    audit = audit_log(tmp_path)
    async with audit.running():
        audit.note("AgentRegistered", agent_id="worker-1", slots=4)
        audit.observe(Change(begin(SUBMITTED), SUBMITTED))
    assert names(tmp_path)[3:] == ["NodeStarted", "AgentRegistered", "Submitted", "NodeStopped", "Sealed"]
    assert entries(tmp_path)[4]["agent_id"] == "worker-1"
    assert verify_log(tmp_path, verify, node=NODE).faults == []


async def test_entries_are_written_while_the_node_runs(autojump_clock: MockClock, tmp_path: Path) -> None:
    """Whoever looks on sees them after a moment, with a head that is signed."""
    audit = audit_log(tmp_path)
    async with audit.running():
        audit.note("One")
        await until_written(audit, 2)
        assert names(tmp_path) == ["NodeStarted", "One"]
        assert verify_log(tmp_path, verify, node=NODE).valid


async def test_a_process_that_was_killed_is_told_of_by_the_next(tmp_path: Path) -> None:
    """A line that was cut off is set aside; what was whole is gone on from."""
    async with audit_log(tmp_path).running():
        pass
    lines = segment_files(tmp_path)[0].read_bytes().splitlines(keepends=True)
    segment_files(tmp_path)[0].write_bytes(b"".join(lines[:2]) + lines[2][:40])
    (tmp_path / HEAD_FILE).unlink()  # of the moment before
    async with audit_log(tmp_path).running():
        pass
    assert names(tmp_path)[2:] == ["TornLineSetAside", "NodeStarted", "NodeStopped", "Sealed"]
    assert entries(tmp_path)[3]["after_crash"] is True
    assert (tmp_path / entries(tmp_path)[2]["file"]).read_bytes() == lines[2][:40]
    assert verify_log(tmp_path, verify, node=NODE).faults == []


async def test_an_end_that_was_cut_off_stays_a_fault(tmp_path: Path) -> None:
    """The node goes on from what it has signed, so the hole is there for good."""
    async with audit_log(tmp_path).running():
        pass
    lines = segment_files(tmp_path)[0].read_bytes().splitlines(keepends=True)
    segment_files(tmp_path)[0].write_bytes(b"".join(lines[:1]))
    async with audit_log(tmp_path).running():
        pass
    assert names(tmp_path)[1:3] == ["EntriesLost", "NodeStarted"]
    assert "entries 2 to 3 are missing before it" in verify_log(tmp_path, verify, node=NODE).faults[0].problem


async def test_a_log_whose_end_was_spoiled_is_gone_on_with(tmp_path: Path) -> None:
    """A node starts whatever somebody has done to the file; the damage stays visible."""
    async with audit_log(tmp_path).running():
        pass
    segment_files(tmp_path)[0].write_bytes(b"spoiled\n")
    async with audit_log(tmp_path).running():
        pass
    report = verify_log(tmp_path, verify, node=NODE)
    assert ["no entry" in report.faults[0].problem, report.entries] == [True, 3]


async def test_old_files_are_removed_and_the_log_says_so(autojump_clock: MockClock, tmp_path: Path) -> None:
    """What is kept has a bound, and what is left is still whole."""
    audit = audit_log(tmp_path, segment_bytes=400, keep_bytes=1_500)
    async with audit.running():
        for number in range(30):
            audit.note("Happened", number=number)
            await until_written(audit, number + 2)
    report = verify_log(tmp_path, verify, node=NODE)
    assert (report.faults, report.first > 1) == ([], True)
    assert "Pruned" in names(tmp_path)
    assert sum(file.stat().st_size for file in segment_files(tmp_path)) < 4_000


async def test_two_processes_do_not_write_one_log(autojump_clock: MockClock, tmp_path: Path) -> None:
    """The second says why it cannot, and goes on when the first has ended."""
    first, second = audit_log(tmp_path), audit_log(tmp_path)
    async with first.running(), second.running():
        assert "another process writes it" in str(second.failure)
    assert verify_log(tmp_path, verify, node=NODE).entries == 3


@asynccontextmanager
async def full_disk(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """Let the disk take a part of each write, and then no more."""
    write = os.write

    def part(descriptor: int, data: bytes) -> int:
        if len(data) < 20:
            raise OSError(28, "No space left on device")
        return write(descriptor, bytes(data[:20]))

    with monkeypatch.context() as patch:
        patch.setattr("node.audit.segments.os.write", part)
        yield


async def test_a_full_disk_loses_nothing_that_there_is_room_for(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits is written once when there is room again, and no line is left half."""
    audit = audit_log(tmp_path)
    async with audit.running():
        async with full_disk(monkeypatch):
            audit.note("One")
            assert "No space left" in await until_failing(audit)
            audit.note("Two")
            await trio.sleep(5)
        await until_written(audit, 3)
        assert audit.failure is None
    assert names(tmp_path)[:3] == ["NodeStarted", "One", "Two"]
    assert verify_log(tmp_path, verify, node=NODE).faults == []


async def test_what_a_full_disk_loses_is_counted_in_the_log(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory is bounded, so what does not fit is a gap, and the gap an entry."""
    monkeypatch.setattr(log_module, "MAX_UNWRITTEN_BYTES", 500)
    audit = audit_log(tmp_path)
    async with audit.running():
        async with full_disk(monkeypatch):
            for number in range(20):
                audit.note("Happened", number=number)
            await until_failing(audit)
            await trio.sleep(5)
        await until_written(audit, 2)
    report = verify_log(tmp_path, verify, node=NODE)
    ((_, gap),) = report.gaps
    assert (report.valid, gap["missed"]) == (True, audit.missed)
    assert names(tmp_path).count("Happened") == 20 - audit.missed


async def test_a_folder_that_cannot_be_used_stops_nothing(autojump_clock: MockClock, tmp_path: Path) -> None:
    """What happens until it can is counted."""
    (tmp_path / "audit").write_text("a file")
    audit = audit_log(tmp_path / "audit")
    async with audit.running():
        audit.note("One")
        await trio.sleep(3)
        assert "cannot be written" in str(audit.failure)
        (tmp_path / "audit").unlink()
        await until_written(audit, 2)
    assert names(tmp_path / "audit")[:2] == ["NodeStarted", "Gap"]


async def test_a_disk_that_stays_full_does_not_hold_the_end_up(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that stops says what it could not write."""
    with monkeypatch.context() as patch:
        audit = audit_log(tmp_path)
        async with audit.running():
            patch.setattr("node.audit.segments.os.write", _refuse)
            audit.note("One")
    assert names(tmp_path) == ["NodeStarted"]


def _refuse(_descriptor: int, _data: bytes) -> int:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("count", [log_module.SEAL_AFTER_ENTRIES // 100])
async def test_a_busy_log_is_sealed_now_and_then(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """So that a file of its own can be checked without what follows it."""
    monkeypatch.setattr(log_module, "SEAL_AFTER_ENTRIES", count)
    audit = audit_log(tmp_path)
    async with audit.running():
        for _ in range(count):
            audit.note("Happened")
        await until_written(audit, count)
        assert names(tmp_path)[-1] == "Sealed"
        await trio.sleep(log_module.SEAL_AFTER_MS / 1000)
        audit.note("Late")
        await until_written(audit, count + 4)
        assert names(tmp_path)[-2:] == ["Late", "Sealed"]


async def test_an_entry_is_no_place_for_data(tmp_path: Path) -> None:
    """The error comes to whoever notes it, and not to the log."""
    with pytest.raises(ValueError, match="too large"):
        audit_log(tmp_path).note("Uploaded", data="x" * 100_000)


async def test_a_node_keeps_the_log_of_its_tasks_and_peers(tmp_path: Path) -> None:
    """Who came, what was asked of whom, how it ended; metrics and health tell how the log is."""
    config = NodeConfig(data=tmp_path / "a", audit=True)
    async with open_node(NodeConfig(receipts="asked")) as peer, open_node(config) as node:
        await node.connect(peer.addresses[0])
        task_id = await node.enqueue("hello", to=peer.peer_id, kind="echo")
        await node.result(task_id)
        receipt = await node.receipt(task_id)
        node.note("AgentRegistered", agent_id="worker-1")
        assert node.health().status == "ok"
        assert "peertask_audit_entries_total" in node.metrics()
        peer.note("Nothing")  # it keeps no log
    folder = tmp_path / "a" / AUDIT_FOLDER
    told = [entry for entry in entries(folder) if entry["fact"] not in {"NodeStopped", "Sealed"}]
    assert [entry["fact"] for entry in told] == [
        *("NodeStarted", "PeerConnected", "Submitted", "Claimed", "Started", "Completed"),
        *("ReceiptTaken", "AgentRegistered", "PeerDisconnected"),
    ]
    assert {entry["task_id"] for entry in told[2:7]} == {task_id}
    assert told[5]["result_hash"] == receipt.result_hash
    report = verify_log(folder, verify_peer, node=PeerId(node.peer_id))
    assert (report.faults, report.sealed) == ([], len(told) + 2)
    assert (folder / HEAD_FILE).exists()


async def test_a_node_whose_log_cannot_be_written_says_so(tmp_path: Path) -> None:
    """Tasks go on; whoever looks at its health sees why it is not well."""
    (tmp_path / AUDIT_FOLDER).write_text("a file")
    async with open_node(NodeConfig(data=tmp_path, audit=True), control=False) as node:
        await node.submit("hello", kind="echo")
        health = node.health()
        assert (health.status, len(health.problems)) == ("failing", 1)
        assert "audit log" in health.problems[0]
