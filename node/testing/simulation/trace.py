"""What happened in a simulation, in words, and a digest that is the same for the same run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import blake2b
from typing import NamedTuple

from protocol import TaskId


class Event(NamedTuple):
    """One thing that happened.

    Attributes:
        at: when, in seconds since the beginning.
        who: the node it happened to.
        what: in words.
        task_id: the task that it is about, if any.
        detail: more words, or numbers.
    """

    at: float
    who: str
    what: str
    task_id: TaskId | None
    detail: object


class Trace:
    """Everything that happened, in order.

    Args:
        now: tells the seconds since the beginning.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self.events: list[Event] = []
        self._names: dict[TaskId, str] = {}

    def note(self, who: str, what: str, task_id: TaskId | None = None, detail: object = "") -> None:
        """Add what happens now."""
        if task_id is not None:
            self.name(task_id)
        self.events.append(Event(self.now(), who, what, task_id, detail))

    def name(self, task_id: TaskId) -> str:
        """Return a short name for a task: T1 for the first that was heard of."""
        return self._names.setdefault(task_id, f"T{len(self._names) + 1}")

    def lines(self, task_id: TaskId | None = None) -> Iterator[str]:
        """Yield a line for each event; with a task, only what is about it, or about nodes and links."""
        for event in self.events:
            name = self.name(event.task_id) if event.task_id is not None else ""
            if task_id is None or event.task_id in {None, task_id}:
                yield f"{event.at:10.3f}  {event.who:<8} {name:<5} {event.what} {event.detail}".rstrip()

    def digest(self) -> str:
        """Return 16 hexadecimal digits that two runs share when everything happened in the same way."""
        text = "\n".join(self.lines()) + "".join(self._names)
        return blake2b(text.encode(), digest_size=8).hexdigest()
