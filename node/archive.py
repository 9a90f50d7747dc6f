"""Tasks as lines of JSON, to carry them from one store to another: a record and what is kept of its facts.

A line is ``{"peertask": 1, "record": {...}, "facts": [...]}``, with the shapes of `TaskRecord.to_dict` and
`fact_to_dict`. A task whose facts are all there comes back exactly as it was; of one whose store has dropped some, the
outcome does, with the shortest history that leads to it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from node.coordination.restoring import shortest_history
from node.history import retell
from node.interfaces import Change
from protocol import ErrorCode, Fact, PeertaskError, TaskRecord, fact_from_dict, fact_to_dict

VERSION: Final = 1
"""Of the format of a line."""


class ArchivedTask(NamedTuple):
    """What a line holds: a record, and the last facts of its task, without a gap."""

    record: TaskRecord
    facts: Sequence[Fact]

    def changes(self) -> list[Change]:
        """Return what has to be appended to an empty store to have the task there."""
        facts = self.facts if len(self.facts) == self.record.seq else shortest_history(self.record)
        return retell(facts)


def write_line(record: TaskRecord, facts: Sequence[Fact]) -> str:
    """Return the line of a task, without its end."""
    shape = {"peertask": VERSION, "record": record.to_dict(), "facts": [fact_to_dict(fact) for fact in facts]}
    return json.dumps(shape, ensure_ascii=False, separators=(",", ":"))


def read_line(text: str, place: str) -> ArchivedTask:
    """Check a line and return what it holds.

    Args:
        text: the line.
        place: where it stands, for the error.

    Raises:
        PeertaskError: code INVALID_TASK; says where, and what is wrong.
    """
    try:
        shape = json.loads(text)
        _check_version(shape)
        archived = ArchivedTask(TaskRecord.from_dict(shape["record"]), [fact_from_dict(one) for one in shape["facts"]])
        retold = archived.changes()[-1].record
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise _malformed(place, f"{type(error).__name__}: {error}") from error
    except PeertaskError as error:
        raise _malformed(place, str(error)) from error
    if len(archived.facts) == archived.record.seq and retold != archived.record:
        raise _malformed(place, "its facts do not lead to its record")
    return archived


def _check_version(shape: Any) -> None:
    if not isinstance(shape, dict) or shape.get("peertask") != VERSION:
        raise ValueError(f"it is not an archived task of version {VERSION}")


def _malformed(place: str, reason: str) -> PeertaskError:
    return PeertaskError(
        f"{place} is not a task of an export: {reason}",
        code=ErrorCode.INVALID_TASK,
        remedy="Use a file that `peertask store export` of this version wrote, or take the line out",
    )
