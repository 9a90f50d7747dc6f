"""Whether a peer may have one more task at this node: what it may use, and how much of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from protocol import MAX_ADVERTISED, ErrorCode, PeerId, Task, TaskRejected

# As many bytes as eight of the largest tasks; a peer cannot make a node hold more for it at a time.
MAX_BYTES_PER_PEER = 128 * 1024 * 1024
# A full window of quick tasks is over in less; a peer that asks again sooner only costs both sides frames.
RETRY_AFTER_MS = 100

EVERY_KIND = "*"
# A number, a key or an empty list of JSON takes this and more in memory.
_JSON_VALUE_BYTES = 8


@dataclass(slots=True)
class Usage:
    """What one requester has open at a node: tasks accepted and not ended.

    Attributes:
        tasks: how many.
        payload_bytes: the size of what was asked, in bytes.
    """

    tasks: int = 0
    payload_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Who may use what.

    Attributes:
        allow: peers by kind; the kind ``*`` stands for every kind.
        max_in_flight: tasks of one peer that may be open at once.
        max_bytes: the size of the tasks of one peer that may be open at once, in bytes.
        works_for: the only peer that may use anything, and may use everything; None when `allow` decides.
    """

    allow: Mapping[str, Collection[PeerId]]
    max_in_flight: int
    max_bytes: int = MAX_BYTES_PER_PEER
    works_for: PeerId | None = None

    def permits(self, peer_id: PeerId, kind: str, *, safe: bool) -> bool:
        """Whether a peer may use a kind; safe kinds are open to every authenticated peer."""
        if self.works_for is not None:
            return peer_id == self.works_for
        return safe or peer_id in self.allow.get(kind, ()) or peer_id in self.allow.get(EVERY_KIND, ())

    def kinds_for(self, peer_id: PeerId, kinds: Mapping[str, bool]) -> tuple[str, ...]:
        """Return the kinds, given with whether they are safe, that a peer may use, sorted.

        Of more than an advert holds the first ones are returned.
        """
        permitted = (kind for kind, safe in kinds.items() if self.permits(peer_id, kind, safe=safe))
        return tuple(sorted(islice(permitted, MAX_ADVERTISED)))

    def check_kind(self, peer_id: PeerId, kind: str, kinds: Mapping[str, bool]) -> None:
        """Refuse a kind that is not there or not open to the peer.

        Args:
            peer_id: the authenticated peer that asks.
            kind: what it asks for.
            kinds: the kinds that the node has, with whether they are safe.

        Raises:
            TaskRejected: code NO_EXECUTOR naming the kinds that the peer may use, or FORBIDDEN.
        """
        if self.works_for not in {None, peer_id}:
            raise TaskRejected(
                f"this node works for peer {self.works_for} alone, and peer {peer_id} asked",
                code=ErrorCode.FORBIDDEN,
                remedy="Ask that peer, or another node",
            )
        if kind not in kinds:
            usable = ", ".join(self.kinds_for(peer_id, kinds)) or "none"
            raise TaskRejected(
                f"this node has no executor for kind {kind!r}",
                code=ErrorCode.NO_EXECUTOR,
                remedy=f"The kinds that you may use here are: {usable}",
            )
        if not self.permits(peer_id, kind, safe=kinds[kind]):
            raise TaskRejected(
                f"peer {peer_id} may not use kind {kind!r} here",
                code=ErrorCode.FORBIDDEN,
                remedy=f"The operator of the node can allow it: peertask node --allow {peer_id}",
            )

    def check_usage(self, peer_id: PeerId, usage: Usage, size: int) -> None:
        """Refuse a task for which the peer has no room left.

        Raises:
            TaskRejected: code BUSY with `retry_after_ms`.
        """
        if usage.tasks >= self.max_in_flight:
            raise _busy(f"peer {peer_id} has {usage.tasks} tasks open here, and {self.max_in_flight} is the limit")
        if usage.payload_bytes + size > self.max_bytes and usage.tasks:
            raise _busy(
                f"the open tasks of peer {peer_id} hold {usage.payload_bytes:,} of {self.max_bytes:,} bytes here"
            )


def task_size(task: Task) -> int:
    """Return about how many bytes a task holds, cheaply: its texts, and a guess for its JSON objects."""
    size = len(task.prompt)
    if task.params:
        size += _json_size(task.params)
    if task.metadata:
        size += _json_size(task.metadata)
    return size


def _json_size(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return _JSON_VALUE_BYTES + sum(len(key) + _json_size(item) for key, item in value.items())
    if isinstance(value, list):
        return _JSON_VALUE_BYTES + sum(map(_json_size, value))
    return _JSON_VALUE_BYTES


def _busy(message: str) -> TaskRejected:
    return TaskRejected(
        message, code=ErrorCode.BUSY, remedy="Wait for some of them to end", retry_after_ms=RETRY_AFTER_MS
    )
