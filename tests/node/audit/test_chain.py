"""The chain of an audit log: what an entry is, and what a signature of its node covers."""

# covers COORD-8

from __future__ import annotations

import hashlib
import json

import pytest

from node.audit.bodies import fact_body
from node.audit.chain import FIRST_PREV, Head, SignedHead, body_of, is_seal_signed, seal_body
from node.interfaces import Change
from protocol import Fact, PeerId, begin, result_hash, task_hash
from tests.protocol.samples import FACTS, FULL_RESULT, FULL_TASK, RECEIPT, SUBMITTED, TASK_ID

NODE = PeerId("ann")


def sign(message: bytes) -> bytes:
    """Stand for the key of a node."""
    return hashlib.sha256(message).digest()


def verify(peer_id: PeerId, message: bytes, signature: bytes) -> bool:
    """Check what `sign` made for Ann."""
    return peer_id == NODE and signature == sign(message)


def test_an_entry_holds_the_hash_of_the_line_before() -> None:
    """Anybody can check it with a program for SHA-256."""
    first, head = Head().link(5, body_of("NodeStarted", {"node": NODE}))
    second, after = head.link(6, body_of("NodeStopped", {}))
    assert first == f'{{"n":1,"at":5,"prev":"{FIRST_PREV}","fact":"NodeStarted","node":"ann"}}\n'.encode()
    assert json.loads(second)["prev"] == hashlib.sha256(first[:-1]).hexdigest()
    assert after == Head(2, hashlib.sha256(second[:-1]).hexdigest())


@pytest.mark.parametrize("name", FACTS)
def test_a_fact_of_any_kind_has_an_entry_with_its_fields(name: str) -> None:
    """What the fact says is in it, except what is large or private, of which the hash is."""
    fact: Fact = FACTS[name]
    line, _ = Head().link(fact.at, fact_body(Change(begin(SUBMITTED), fact)))
    entry = json.loads(line)
    assert (entry["fact"], entry["task_id"], entry["seq"], entry["at"]) == (name, TASK_ID, 1, fact.at)
    for field, value in fact._asdict().items():
        if isinstance(value, int | str | float) and field in entry:
            assert entry[field] == value
    assert FULL_TASK.prompt not in line.decode()


def test_tasks_and_results_stand_in_the_log_by_the_hashes_of_receipts() -> None:
    """So a receipt and an entry show each other."""
    submitted = json.loads(f"{{{fact_body(Change(begin(SUBMITTED), SUBMITTED))}}}")
    completed = FACTS["Completed"]._replace(receipt=RECEIPT)  # type: ignore[call-arg]
    ended = json.loads(f"{{{fact_body(Change(begin(SUBMITTED), completed))}}}")
    assert submitted["task_hash"] == task_hash(FULL_TASK)
    assert (ended["result_hash"], ended["receipt"]) == (result_hash(FULL_RESULT), RECEIPT.to_dict())


def test_words_that_utf8_cannot_carry_are_escaped() -> None:
    """An executor may report anything."""
    progressed = FACTS["Progressed"]._replace(message='\ud800"\n')  # type: ignore[call-arg]
    line, _ = Head().link(1, fact_body(Change(begin(SUBMITTED), progressed)))
    assert (line.count(b"\n"), json.loads(line)["message"]) == (1, '\ud800"\n')


def test_a_seal_covers_all_that_is_before_it() -> None:
    """It is for one head, of one node."""
    head = Head(7, "ab" * 32)
    signature = json.loads(f"{{{seal_body(head, NODE, sign)}}}")["signature"]
    assert is_seal_signed(verify, NODE, head, signature)
    assert not is_seal_signed(verify, NODE, head._replace(number=8), signature)
    assert not is_seal_signed(verify, PeerId("ben"), head, signature)
    assert not is_seal_signed(verify, NODE, head, "no digits")


def test_a_signed_head_is_read_back_and_is_no_seal() -> None:
    """Whoever cuts the end off cannot make a head of a seal that stands there."""
    head = Head(7, "ab" * 32)
    signed = SignedHead.of(head, NODE, sign)
    assert SignedHead.from_json(signed.to_json()) == signed
    assert signed.is_signed(verify)
    seal = json.loads(f"{{{seal_body(head, NODE, sign)}}}")["signature"]
    assert not SignedHead(head, NODE, seal).is_signed(verify)


@pytest.mark.parametrize("fields", [{"n": 1}, {"fact": "other"}, {"value": float("nan")}])
def test_an_entry_that_cannot_be_one_is_refused(fields: dict[str, object]) -> None:
    """Names that every entry has, and what is no JSON."""
    with pytest.raises(ValueError, match=r"fields|JSON"):
        body_of("AgentRegistered", fields)
