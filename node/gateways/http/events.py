"""Server-sent events: their text, both ways."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from pydantic import BaseModel

# Below the minute after which proxies and clients take a silent connection for dead.
KEEP_ALIVE_S: Final = 15.0
END: Final = "end"
"""The name of the last event of a task's stream."""
# Larger than any event that a node sends (a task with its result); what is longer is not a node.
MAX_EVENT_BYTES: Final = 128 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One event of a stream.

    Attributes:
        name: what kind of event it is.
        data: its JSON.
        id: what a client names to get what follows; empty when it has none.
    """

    name: str
    data: str
    id: str = ""


def encode_event(name: str, data: BaseModel | None = None, event_id: str = "") -> bytes:
    """Return the text of an event; JSON from pydantic has no line breaks."""
    number = f"id: {event_id}\n" if event_id else ""
    return f"{number}event: {name}\ndata: {data.model_dump_json() if data else '{}'}\n\n".encode()


@dataclass(slots=True)
class EventDecoder:
    """Turns bytes, in pieces of any size, into events; a comment is no event.

    Only what this gateway writes is understood: lines that end in a line feed, and one line of data.
    """

    _buffer: bytearray = field(default_factory=bytearray)

    def feed(self, data: bytes) -> Iterator[ServerEvent]:
        """Take bytes in, and return the events that are complete with them.

        Raises:
            ValueError: an event is longer than `MAX_EVENT_BYTES`, or not UTF-8.
        """
        searched = max(0, len(self._buffer) - 1)
        self._buffer += data
        while (end := self._buffer.find(b"\n\n", searched)) >= 0:
            block = self._buffer[:end].decode()
            del self._buffer[: end + 2]
            searched = 0
            fields = dict(line.split(": ", 1) for line in block.split("\n") if line and not line.startswith(":"))
            if "event" in fields:
                yield ServerEvent(fields["event"], fields.get("data", "{}"), fields.get("id", ""))
        if len(self._buffer) > MAX_EVENT_BYTES:
            raise ValueError(f"an event is longer than {MAX_EVENT_BYTES:,} bytes")
