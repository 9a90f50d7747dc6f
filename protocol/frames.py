"""The frames of a session: what two nodes say to each other, one msgpack map each.

A frame is a map with its type under ``type`` and its fields beside it; `protocol.codec` reads and writes them.
`docs/reference/protocol.md` is the specification; the vectors in `tests/protocol/vectors/` pin the bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Final

from pydantic import FailFast, Field

from protocol.advert import MAX_SLOTS, Names, PeerAdvert
from protocol.receipt import Receipt
from protocol.result import MAX_MESSAGE_CHARS, Code, Failure, TaskResult, shorten
from protocol.task import (
    MAX_INT64,
    MAX_PAYLOAD_BYTES,
    Count,
    Milliseconds,
    Name,
    PeerIdField,
    Task,
    TaskId,
    TaskIdField,
)

PROTOCOL_ID: Final = "/peertask/1.0.0"
"""What the two peers agree on when they open the stream."""

PROTOCOL_VERSION: Final = "1.0"
"""What Hello offers; versions with the same first number understand each other."""

# 1 MiB, as rust-libp2p's request-response takes for a request: a hostile peer can make a node hold that much a session.
MAX_FRAME_BYTES: Final = 1024 * 1024
# A frame is sent whole, so a small one waits behind at most this much: 7 ms at the 35 MB/s of an encrypted echo.
CHUNK_BYTES: Final = 256 * 1024
# What one peer may have at work at a node; DESIGN section 8.
MAX_IN_FLIGHT: Final = 256
# A host has a handful of interfaces and transports.
MAX_ADDRESSES: Final = 16
# A name of 253 characters, a transport and a peer id fit.
_MAX_ADDRESS_CHARS = 512
# What one frame may tell of other peers: some 20 KiB; a node that knows more sends another one later.
MAX_PEERS_TOLD: Final = 64
# How long word of a peer may be good for: half a day later its machine may be another's.
MAX_TTL_MS: Final = 12 * 60 * 60 * 1000
# No network of trusted peers is wider.
_MAX_HOPS = 255
# What a Hello says is kept for each peer: versions of a few years, a name that people read, and a UUID in any notation.
_MAX_VERSIONS = 16
_MAX_AGENT_CHARS = 256
_MAX_INSTANCE_CHARS = 64
# What a node may announce: less than 1 KiB would hold no task, and a frame above 64 MiB holds all others up for
# seconds.
MIN_LIMIT_BYTES = 1024
_MAX_FRAME_LIMIT_BYTES = 64 * 1024 * 1024

FrameBytes = Annotated[int, Field(ge=MIN_LIMIT_BYTES, le=_MAX_FRAME_LIMIT_BYTES, strict=True)]
Address = Annotated[str, Field(max_length=_MAX_ADDRESS_CHARS, strict=True)]
Addresses = Annotated[tuple[Address, ...], Field(max_length=MAX_ADDRESSES), FailFast()]
NewAddresses = Annotated[tuple[Address, ...] | None, Field(max_length=MAX_ADDRESSES), FailFast()]
Versions = Annotated[tuple[Name, ...], Field(min_length=1, max_length=_MAX_VERSIONS), FailFast()]
Message = Annotated[str, Field(max_length=MAX_MESSAGE_CHARS, strict=True)]
Flag = Annotated[bool, Field(strict=True)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a node takes from one peer; announced in Hello.

    Attributes:
        frame: bytes of one frame's body.
        chunk: bytes above which a frame is sent in chunks.
        payload: bytes of one task or one result, as msgpack.
        in_flight: tasks accepted from this peer and not finished.
    """

    frame: FrameBytes = MAX_FRAME_BYTES
    chunk: FrameBytes = CHUNK_BYTES
    payload: Annotated[int, Field(ge=MIN_LIMIT_BYTES, le=MAX_INT64, strict=True)] = MAX_PAYLOAD_BYTES
    in_flight: Annotated[int, Field(ge=1, le=MAX_INT64, strict=True)] = MAX_IN_FLIGHT


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """The first frame of a node; the other side answers with its own. A simple client leaves it out.

    Attributes:
        versions: what the sender speaks, as ``major.minor``.
        agent: the program and its version, for people.
        advert: what the sender offers this peer.
        limits: what the sender takes from this peer.
        instance: drawn at each start of the sender; tells a restart from a second dial.
        addresses: where the sender can be dialled.
        peers: whether the sender wants to be told of other peers.
        rendezvous: whether peers may register at the sender, and ask it who has.
        time: the sender's clock, in milliseconds since the epoch; None when it does not say.
    """

    versions: Versions = (PROTOCOL_VERSION,)
    agent: Annotated[str, Field(max_length=_MAX_AGENT_CHARS, strict=True)] = ""
    advert: PeerAdvert = field(default_factory=PeerAdvert)
    limits: Limits = DEFAULT_LIMITS
    instance: Annotated[str, Field(max_length=_MAX_INSTANCE_CHARS, strict=True)] = ""
    addresses: Addresses = ()
    peers: Annotated[bool, Field(strict=True)] = False
    rendezvous: Annotated[bool, Field(strict=True)] = False
    time: Milliseconds | None = None


@dataclass(frozen=True, slots=True)
class Submit:
    """Asks the peer to do a task; answered by Accept or Reject, or by its Result.

    Attributes:
        task: what to do.
        remaining_ms: how long the requester still cares; None for as long as it takes.
        receipt: whether the Result shall carry a receipt, however quick the task is.
    """

    task: Task
    remaining_ms: Milliseconds | None = None
    receipt: Flag = False

    @property
    def task_id(self) -> TaskId:
        """The id of the task, as in every other frame about one."""
        return self.task.id


@dataclass(frozen=True, slots=True)
class Accept:
    """The task is recorded, and its Result will follow on this session, or on a later one after Attach.

    Attributes:
        task_id: which task.
        seq: the number of the last fact that the worker recorded about it.
    """

    task_id: TaskIdField
    seq: Count = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject:
    """The task is not recorded, and nothing ran.

    Attributes:
        task_id: which task.
        code: why, for programs.
        message: why, for people.
        retry_after_ms: how long to wait before asking again; only with BUSY and DRAINING.
    """

    task_id: TaskIdField
    code: Code
    message: Message = ""
    retry_after_ms: Milliseconds | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", shorten(self.message))


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far the worker is.

    Attributes:
        task_id: which task.
        seq: the number of the fact.
        fraction: 0 to 1.
        message: for people.
    """

    task_id: TaskIdField
    seq: Count
    fraction: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False, strict=True)] = 0.0
    message: Message = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The end of the task: exactly one of `result` and `failure`. Without an Accept before, it says that too.

    Attributes:
        task_id: which task.
        seq: the number of its last fact.
        result: what came of it.
        failure: why nothing came of it.
        receipt: the worker's signed word for the result; only with a result.
    """

    task_id: TaskIdField
    seq: Count
    result: TaskResult | None = None
    failure: Failure | None = None
    receipt: Receipt | None = None

    def __post_init__(self) -> None:
        if (self.result is None) == (self.failure is None):
            raise ValueError("exactly one of result and failure must be given")
        if self.result is not None and self.result.task_id != self.task_id:
            raise ValueError(f"the result belongs to task {self.result.task_id}")
        if self.receipt is not None and self.result is None:
            raise ValueError("a failure has no receipt")


@dataclass(frozen=True, slots=True)
class Attach:
    """Asks for the outcome of a task that was submitted before; answered by Accept or Reject, or by its Result.

    Attributes:
        task_id: which task.
        after_seq: the last fact that the requester knows; 0 for none.
        receipt: as in Submit.
    """

    task_id: TaskIdField
    after_seq: Count = 0
    receipt: Flag = False


@dataclass(frozen=True, slots=True)
class Cancel:
    """Asks the worker to stop a task; Result follows all the same, with whatever came first.

    Attributes:
        task_id: which task.
    """

    task_id: TaskIdField


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """Tells what the sender can do from now on, and with `pull` asks the peer for work.

    So a node that nobody can dial still works. Each Offer replaces what the Hello and earlier ones said.

    Attributes:
        slots: how many tasks the sender takes at once, those that it has included; 0 for no new ones.
        kinds: what it can do.
        personas: who it can act as.
        pull: whether it asks for work: the peer gives it tasks with Submit, never more than `slots` at a time, or
            answers with Decline.
        addresses: where the sender can be dialled now; None when that has not changed.
    """

    slots: Annotated[int, Field(ge=0, le=MAX_SLOTS, strict=True)]
    kinds: Names = ()
    personas: Names = ()
    pull: Annotated[bool, Field(strict=True)] = False
    addresses: NewAddresses = None


@dataclass(frozen=True, slots=True)
class Decline:
    """Answers an Offer that asks for work: the sender gives none, and will not when it is asked again.

    Attributes:
        code: why, for programs.
        message: why, for people, and what can be done.
    """

    code: Code
    message: Message = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", shorten(self.message))


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Says that the sender is alive, and how busy; the only thing that finds a frozen peer.

    Attributes:
        load: tasks queued and executing at the sender.
        ping: a number that the other side answers at once, in the `pong` of a heartbeat without a ping; 0 asks nothing.
        pong: the `ping` that this answers; 0 for none.
    """

    load: Count = 0
    ping: Milliseconds = 0
    pong: Milliseconds = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerHint:
    """Word of another peer. A hint: whoever dials it finds out who really answers.

    Attributes:
        peer_id: who it is.
        addresses: where it says that it can be dialled.
        advert: what it offers whoever tells this, and perhaps not the receiver.
        ttl_ms: how long this is good for.
        hops: over how many peers it came; 1 from one that it is connected to, or registered with. What came further is
            not kept.
    """

    peer_id: PeerIdField
    addresses: Addresses
    advert: PeerAdvert = field(default_factory=PeerAdvert)
    ttl_ms: Annotated[int, Field(ge=1, le=MAX_TTL_MS, strict=True)]
    hops: Annotated[int, Field(ge=1, le=_MAX_HOPS, strict=True)] = 1


@dataclass(frozen=True, slots=True)
class Peers:
    """Tells of other peers: those that are connected, when they are new or have changed, or the answer to Discover.

    Only a peer whose Hello has `peers` set is told of those that are connected. Nobody passes on what it was told.

    Attributes:
        hints: who they are.
        registered: whether these are the peers that are registered at the sender.
    """

    hints: Annotated[tuple[PeerHint, ...], Field(max_length=MAX_PEERS_TOLD), FailFast()] = ()
    registered: Annotated[bool, Field(strict=True)] = False


@dataclass(frozen=True, slots=True)
class Register:
    """Asks to be told of to whoever asks with Discover, by what the sender last said of itself; answered by Registered.

    The registration outlives the session. Another one replaces it.

    Attributes:
        ttl_ms: for how long; 0 ends it.
    """

    ttl_ms: Annotated[int, Field(ge=0, le=MAX_TTL_MS, strict=True)]


@dataclass(frozen=True, slots=True)
class Registered:
    """Answers Register.

    Attributes:
        ttl_ms: how long the registration lasts, perhaps less than was asked for; 0 when there is none.
        message: why there is none, for people.
    """

    ttl_ms: Annotated[int, Field(ge=0, le=MAX_TTL_MS, strict=True)] = 0
    message: Message = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", shorten(self.message))


@dataclass(frozen=True, slots=True)
class Discover:
    """Asks who is registered; answered by Peers with `registered` set, with some of them when they are many.

    Attributes:
        kind: only those that offer this one; None for all.
    """

    kind: Name | None = None


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of the body of a frame that is too large to be sent whole.

    The pieces of one body come in order, and those of another only after its last; small frames may come in between.

    Attributes:
        data: the bytes, at least one.
        last: whether the body is complete with this piece.
    """

    data: Annotated[bytes, Field(min_length=1, strict=True)]
    last: Annotated[bool, Field(strict=True)] = False


@dataclass(frozen=True, slots=True)
class Bye:
    """The sender ends the session; nothing follows.

    Attributes:
        code: why, for programs; DRAINING for an orderly end.
        message: why, for people.
    """

    code: Code
    message: Message = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", shorten(self.message))


TaskFrame = Submit | Accept | Reject | Progress | Result | Attach | Cancel
PeerFrame = Peers | Register | Registered | Discover
SessionFrame = Hello | Offer | Decline | Heartbeat | Bye | Chunk
Frame = TaskFrame | PeerFrame | SessionFrame

FRAME_TYPES: dict[str, type[Frame]] = {
    cls.__name__.lower(): cls
    for cls in (
        *(Hello, Submit, Accept, Reject, Progress, Result, Attach, Cancel, Offer, Decline, Heartbeat),
        *(Peers, Register, Registered, Discover, Chunk, Bye),
    )
}
