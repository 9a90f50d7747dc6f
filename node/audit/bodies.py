"""What an entry says of a fact: who, when and which, and of tasks and results their hashes.

The prompt and the result themselves are left out: they may be large or private, are kept by the store for as long as
the operator wants, and must be forgettable, which a chain is not. Their hashes are those of receipts, so whoever has a
task can show that it is the one in the log.

A busy node makes some hundred thousand facts a second, so the usual ones are written by hand.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

from node.audit.chain import to_json
from node.interfaces import Change
from protocol import (
    Claimed,
    Completed,
    Fact,
    Failed,
    Progressed,
    Released,
    Started,
    Submitted,
    result_hash,
    task_hash,
)

# Peers, kinds and projects are few, and come again and again.
_quote = lru_cache(1024)(to_json)


def fact_body(change: Change) -> str:
    """Return the body of the entry for a change: the name of the fact, the task, its number, and its fields."""
    record, fact = change
    kind = type(fact)
    fields = _FIELDS.get(kind)
    rest = "" if fields is None else fields(fact)
    return f'"fact":"{kind.__name__}","task_id":"{record.id}","seq":{record.seq}{rest}'


def _submitted(fact: Submitted) -> str:
    task = fact.task
    target = "null" if fact.target is None else _quote(fact.target)
    deadline = "null" if fact.deadline is None else fact.deadline
    return (
        f',"kind":{_quote(task.kind)},"project":{_quote(task.project)},"sender":{_quote(task.sender)}'
        f',"requester":{_quote(fact.requester)},"target":{target},"deadline":{deadline}'
        f',"task_hash":"{task_hash(task)}"'
    )


def _claimed(fact: Claimed) -> str:
    return f',"attempt":{fact.attempt},"holder":{_quote(fact.holder)},"lease_until":{fact.lease_until}'


def _started(fact: Started) -> str:
    return f',"attempt":{fact.attempt}'


def _progressed(fact: Progressed) -> str:
    message = to_json(fact.message)
    return f',"attempt":{fact.attempt},"fraction":{to_json(fact.fraction)},"message":{message}'


def _completed(fact: Completed) -> str:
    receipt = "" if fact.receipt is None else f',"receipt":{to_json(fact.receipt.to_dict())}'
    result = fact.result
    return (
        f',"attempt":{fact.attempt},"duration_ms":{result.duration_ms},"result_hash":"{result_hash(result)}"{receipt}'
    )


def _failed(fact: Failed) -> str:
    failure = fact.failure
    return f',"attempt":{fact.attempt},"code":"{failure.code.value}","message":{to_json(failure.message)}'


def _released(fact: Released) -> str:
    return f',"attempt":{fact.attempt},"reason":"{fact.reason.value}","message":{to_json(fact.message)}'


_FIELDS: Final[dict[type[Fact], Callable[[Any], str]]] = {
    Submitted: _submitted,
    Claimed: _claimed,
    Started: _started,
    Progressed: _progressed,
    Completed: _completed,
    Failed: _failed,
    Released: _released,
}
