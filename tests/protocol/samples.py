"""Frames, tasks and facts that stand for all others of their kind: the plainest, and one with every field set."""

from dataclasses import replace

from protocol import (
    FRAME_TYPES,
    Accept,
    Artifact,
    Attach,
    Bye,
    Cancel,
    Cancelled,
    CancelRequested,
    Chunk,
    Claimed,
    Completed,
    Decline,
    Discover,
    ErrorCode,
    Fact,
    Failed,
    Failure,
    Frame,
    Heartbeat,
    Hello,
    Limits,
    Offer,
    PeerAdvert,
    PeerHint,
    PeerId,
    Peers,
    Progress,
    Progressed,
    Receipt,
    Register,
    Registered,
    Reject,
    Released,
    Result,
    RetryPolicy,
    Started,
    Submit,
    Submitted,
    Task,
    TaskId,
    TaskRecord,
    TaskResult,
    Transition,
    begin,
)

TASK_ID = TaskId("3f1c9d2e-5b7a-4e60-8c1d-2a9b0f4e6d71")
OTHER_ID = TaskId("b0e4c7a1-92d3-4f58-a6b4-7c8d9e0f1a2b")
ALICE = PeerId("12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5")
BOB = PeerId("12D3KooWJWoaqZhDaoEFshF7Rh1bpY9ohihFhzcW6d69Lr2NASuq")
NOON = 1_763_121_600_000

PLAIN_TASK = Task(id=TASK_ID, prompt="Hello", sender=ALICE, timestamp=NOON)
FULL_TASK = Task(
    id=TASK_ID,
    prompt="Grüße an 世界 🌍",
    sender=ALICE,
    timestamp=NOON,
    kind="llm",
    params={"model": "small", "temperature": 0.5, "stop": ["\n", None], "deep": {"a": [1, -1, True, 2**64 - 1]}},
    priority=255,
    project="night-batch",
    session_id="conversation-7",
    persona="reviewer",
    depends_on=(OTHER_ID,),
    timeout_ms=60_000,
    retry=RetryPolicy(attempts=5, backoff_ms=250, factor=1.5, max_backoff_ms=10_000, elsewhere=True),
    metadata={"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"},
)
RESULT = TaskResult(TASK_ID, "Mock result for: Hello", 123)
FULL_RESULT = TaskResult(
    TASK_ID,
    "done",
    123,
    (
        Artifact(name="notes.txt", content="text"),
        Artifact(name="plot.png", content="iVBORw0KGgo=", media_type="image/png", encoding="base64"),
    ),
)
# Signed with the key whose seed is 32 times the byte 7.
RECEIPT = Receipt(
    executor=PeerId("12D3KooWRawPbxPtP1eZaJpumGnyWX2DcUyd3RQnydr3eAto4Az7"),
    task_id=TASK_ID,
    task_hash="ed135a48c09daf214c05129d856593162b32b7aa38e65ae334a417018ce94f6d",
    result_hash="47593cb424a29183100dcc1bd44a6a3d57907bbcd3c88cafe1253f3cec0aa32c",
    attempt=2,
    started_at=NOON + 877,
    completed_at=NOON + 1_000,
    signature=(
        "0f969a9b15bcfb227b056967ff600d258c84a78943b928c0599d404cdcdb6cff"
        "6461e0580e5058f9504e879de42ce74afb9ff6eabf342bb6c1b5189ee1d32801"
    ),
)
FAILURE = Failure(code=ErrorCode.TIMEOUT, message="took longer than 60 s", retryable=True, maybe_ran=False)
HINT = PeerHint(
    peer_id=BOB,
    addresses=(f"/ip4/192.0.2.9/tcp/4001/p2p/{BOB}",),
    advert=PeerAdvert(kinds=("echo",), personas=("reviewer",), slots=8, load=1),
    ttl_ms=900_000,
    hops=2,
)

HELLO_WITHOUT_PEERS = Hello(
    versions=("1.0", "1.1"),
    agent="peertask/0.1.0",
    advert=PeerAdvert(kinds=("echo", "mock"), personas=("reviewer",), slots=4, load=2),
    limits=Limits(frame=2_097_152, chunk=131_072, payload=33_554_432, in_flight=64),
    instance="0b5f6c1d2e3a4958",
    addresses=(f"/ip4/192.0.2.1/tcp/4001/p2p/{ALICE}", f"/dns4/node.example/tcp/4002/ws/p2p/{ALICE}"),
)

OFFER_IN_PLACE = Offer(slots=8, kinds=("echo",), personas=("reviewer",), pull=True)

PLAIN_FRAMES: dict[str, Frame] = {
    "hello": Hello(),
    "submit": Submit(PLAIN_TASK),
    "accept": Accept(TASK_ID),
    "reject": Reject(task_id=TASK_ID, code=ErrorCode.FORBIDDEN),
    "progress": Progress(task_id=TASK_ID, seq=4),
    "result": Result(task_id=TASK_ID, seq=4, result=RESULT),
    "attach": Attach(TASK_ID),
    "cancel": Cancel(TASK_ID),
    "offer": Offer(slots=0),
    "decline": Decline(ErrorCode.FORBIDDEN),
    "heartbeat": Heartbeat(),
    "peers": Peers(),
    "register": Register(ttl_ms=0),
    "registered": Registered(),
    "discover": Discover(),
    "chunk": Chunk(b"\x00"),
    "bye": Bye(ErrorCode.DRAINING),
}
"""One frame of each type with nothing set that has a default."""

FULL_FRAMES: dict[str, Frame] = {
    "hello": replace(HELLO_WITHOUT_PEERS, peers=True, rendezvous=True, time=NOON),
    "submit": Submit(FULL_TASK, remaining_ms=30_000),
    "accept": Accept(TASK_ID, seq=7),
    "reject": Reject(task_id=TASK_ID, code=ErrorCode.BUSY, message="256 tasks are queued", retry_after_ms=1_500),
    "progress": Progress(task_id=TASK_ID, seq=4, fraction=0.25, message="a quarter"),
    "result": Result(task_id=TASK_ID, seq=9, result=FULL_RESULT),
    "attach": Attach(TASK_ID, after_seq=3),
    "cancel": Cancel(TASK_ID),
    "offer": replace(OFFER_IN_PLACE, addresses=(f"/ip4/192.0.2.1/tcp/4001/p2p/{ALICE}",)),
    "decline": Decline(ErrorCode.FORBIDDEN, "only named peers get work here"),
    "heartbeat": Heartbeat(load=3, ping=123_456, pong=654_321),
    "peers": Peers((HINT,), registered=True),
    "register": Register(ttl_ms=3_600_000),
    "registered": Registered(ttl_ms=600_000, message="one of 1,024"),
    "discover": Discover(kind="summarise"),
    "chunk": Chunk(b"a piece of a large body", last=True),
    "bye": Bye(ErrorCode.PROTOCOL, "a frame is not valid msgpack"),
}
"""One frame of each type with every field set to something else than its default."""

FAILED_RESULT = Result(task_id=TASK_ID, seq=9, failure=FAILURE)

VECTOR_FRAMES: dict[str, dict[str, Frame]] = {
    kind: {"with defaults": PLAIN_FRAMES[kind], "with every field": FULL_FRAMES[kind]} for kind in FRAME_TYPES
}
VECTOR_FRAMES["result"]["with a failure"] = FAILED_RESULT
VECTOR_FRAMES["result"]["with a receipt"] = Result(task_id=TASK_ID, seq=9, result=RESULT, receipt=RECEIPT)
VECTOR_FRAMES["submit"]["asking for a receipt"] = Submit(PLAIN_TASK, receipt=True)
VECTOR_FRAMES["attach"]["asking for a receipt"] = Attach(TASK_ID, receipt=True)
VECTOR_FRAMES["hello"]["without word of peers"] = HELLO_WITHOUT_PEERS
VECTOR_FRAMES["offer"]["that asks for nothing"] = Offer(slots=8, kinds=("echo",), personas=("reviewer",))
VECTOR_FRAMES["offer"]["of a node that has not moved"] = OFFER_IN_PLACE
VECTOR_FRAMES["submit"]["with codes to retry on"] = Submit(
    Task(
        id=TASK_ID,
        prompt="Hello",
        sender=ALICE,
        timestamp=NOON,
        retry=RetryPolicy(retry_on=(ErrorCode.EXECUTION_FAILED, ErrorCode.TIMEOUT)),
    )
)
VECTOR_FRAMES["submit"]["of a part that waits"] = Submit(
    Task(
        id=TASK_ID,
        prompt="Hello",
        sender=ALICE,
        timestamp=NOON,
        depends_on=(OTHER_ID,),
        on_failed_dependency="wait",
        parent_id=TaskId("9c1f0a52-6d7e-4b38-8f21-3e4d5c6b7a80"),
    )
)
"""What the vectors hold: by type, then by name."""

CLAIMED = Claimed(TASK_ID, NOON + 1, 1, BOB, NOON + 30_000)
TRANSITIONS_BY_NAME: dict[str, Transition] = {
    "Claimed": CLAIMED,
    "Started": Started(TASK_ID, NOON + 2, 1),
    "Progressed": Progressed(TASK_ID, NOON + 3, 1, 0.5, "half", NOON + 40_000),
    "Completed": Completed(TASK_ID, NOON + 4, 1, FULL_RESULT),
    "Failed": Failed(TASK_ID, NOON + 4, 1, FAILURE),
    "Released": Released(TASK_ID, NOON + 4, 1, ErrorCode.LEASE_LOST, "no heartbeat", NOON + 5_000),
    "CancelRequested": CancelRequested(TASK_ID, NOON + 3),
    "Cancelled": Cancelled(TASK_ID, NOON + 4),
}
"""One transition of each type; those with an attempt belong to the first."""

SUBMITTED = Submitted(FULL_TASK, NOON, ALICE, target=BOB, deadline=NOON + 60_000)
FACTS: dict[str, Fact] = {"Submitted": SUBMITTED, **TRANSITIONS_BY_NAME}


def pending() -> TaskRecord:
    """Return the first record of a task."""
    return begin(SUBMITTED)
