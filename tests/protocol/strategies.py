"""Hypothesis strategies for everything that crosses the wire, up to the limits of each field."""

from hypothesis import strategies as st

from protocol import (
    Accept,
    Artifact,
    Attach,
    Bye,
    Cancel,
    Chunk,
    Decline,
    Discover,
    ErrorCode,
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
    Receipt,
    Register,
    Registered,
    Reject,
    Result,
    RetryPolicy,
    Submit,
    Task,
    TaskId,
    TaskResult,
)

LARGEST_INTEGER = 2**63 - 1

texts = st.text(st.characters(codec="utf-8"), max_size=80)
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", fullmatch=True)
counts = st.integers(0, LARGEST_INTEGER)
codes = st.sampled_from(ErrorCode)
peer_ids = st.text("123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz", min_size=1, max_size=128).map(PeerId)
task_ids = st.uuids(version=4).map(lambda uuid: TaskId(str(uuid)))
json_scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)
json_values = st.recursive(
    json_scalars,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(texts, children, max_size=4),
    max_leaves=12,
)
json_objects = st.dictionaries(texts, json_values, max_size=4)

retry_policies = st.builds(
    RetryPolicy,
    attempts=st.integers(1, 100),
    backoff_ms=st.integers(0, 3_600_000),
    factor=st.floats(1, 10),
    max_backoff_ms=st.integers(0, 3_600_000),
    elsewhere=st.booleans(),
    retry_on=st.none() | st.lists(st.sampled_from(ErrorCode), max_size=3).map(tuple),
)
tasks = st.builds(
    Task,
    id=task_ids,
    prompt=texts,
    sender=peer_ids,
    timestamp=counts,
    kind=names,
    params=json_objects,
    priority=st.integers(0, 255),
    project=names,
    session_id=st.none() | names,
    persona=st.none() | names,
    depends_on=st.lists(task_ids, max_size=3).map(tuple),
    on_failed_dependency=st.sampled_from(["fail", "wait"]),
    parent_id=st.none() | task_ids,
    timeout_ms=st.none() | st.integers(1, 86_400_000),
    retry=retry_policies,
    metadata=json_objects,
)
artifacts = st.builds(
    Artifact,
    name=st.text(st.characters(codec="utf-8"), min_size=1, max_size=40),
    content=texts,
    media_type=texts,
    encoding=st.sampled_from(("utf-8", "base64")),
)
results = st.builds(
    TaskResult,
    task_id=task_ids,
    result=texts,
    duration_ms=counts,
    artifacts=st.lists(artifacts, max_size=3).map(tuple),
)
failures = st.builds(Failure, code=codes, message=texts, retryable=st.booleans(), maybe_ran=st.booleans())
_hex_digits = "0123456789abcdef"
_hashes = st.text(_hex_digits, min_size=64, max_size=64)
receipts = st.builds(
    Receipt,
    executor=peer_ids,
    task_id=task_ids,
    task_hash=_hashes,
    result_hash=_hashes,
    attempt=st.integers(1, LARGEST_INTEGER),
    started_at=counts,
    completed_at=counts,
    signature=st.binary(max_size=64).map(bytes.hex),
)
adverts = st.builds(
    PeerAdvert,
    kinds=st.lists(names, max_size=3).map(tuple),
    personas=st.lists(names, max_size=3).map(tuple),
    slots=st.integers(0, 1_000_000),
    load=counts,
)
limits = st.builds(
    Limits,
    frame=st.integers(1024, 2**26),
    chunk=st.integers(1024, 2**26),
    payload=st.integers(1024, LARGEST_INTEGER),
    in_flight=st.integers(1, LARGEST_INTEGER),
)
lives = st.integers(0, 43_200_000)
hints = st.builds(
    PeerHint,
    peer_id=peer_ids,
    addresses=st.lists(texts, max_size=3).map(tuple),
    advert=adverts,
    ttl_ms=st.integers(1, 43_200_000),
    hops=st.integers(1, 255),
)


def _result_frame(seq: int, outcome: TaskResult | Failure, task_id: TaskId, receipt: Receipt | None) -> Result:
    if isinstance(outcome, TaskResult):
        return Result(task_id=outcome.task_id, seq=seq, result=outcome, receipt=receipt)
    return Result(task_id=task_id, seq=seq, failure=outcome)


frames: st.SearchStrategy[Frame] = st.one_of(
    st.builds(
        Hello,
        versions=st.lists(names, min_size=1, max_size=3).map(tuple),
        agent=texts,
        advert=adverts,
        limits=limits,
        instance=st.text(st.characters(codec="utf-8"), max_size=64),
        addresses=st.lists(texts, max_size=3).map(tuple),
        peers=st.booleans(),
        rendezvous=st.booleans(),
        time=st.none() | counts,
    ),
    st.builds(Submit, task=tasks, remaining_ms=st.none() | counts, receipt=st.booleans()),
    st.builds(Accept, task_id=task_ids, seq=counts),
    st.builds(Reject, task_id=task_ids, code=codes, message=texts, retry_after_ms=st.none() | counts),
    st.builds(Progress, task_id=task_ids, seq=counts, fraction=st.floats(0, 1), message=texts),
    st.builds(_result_frame, seq=counts, outcome=results | failures, task_id=task_ids, receipt=st.none() | receipts),
    st.builds(Attach, task_id=task_ids, after_seq=counts, receipt=st.booleans()),
    st.builds(Cancel, task_id=task_ids),
    st.builds(
        Offer,
        slots=st.integers(0, 1_000_000),
        kinds=st.lists(names, max_size=3).map(tuple),
        personas=st.lists(names, max_size=3).map(tuple),
        pull=st.booleans(),
    ),
    st.builds(Decline, code=codes, message=texts),
    st.builds(Heartbeat, load=counts, ping=counts, pong=counts),
    st.builds(Peers, hints=st.lists(hints, max_size=3).map(tuple), registered=st.booleans()),
    st.builds(Register, ttl_ms=lives),
    st.builds(Registered, ttl_ms=lives, message=texts),
    st.builds(Discover, kind=st.none() | names),
    st.builds(Chunk, data=st.binary(min_size=1, max_size=80), last=st.booleans()),
    st.builds(Bye, code=codes, message=texts),
)
