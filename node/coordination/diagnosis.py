"""What a dial that was tried tells about the network, in words: what it usually means, and what to do. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from node.coordination.reach import Reach
from protocol import DEFAULT_LIMITS, PROTOCOL_VERSION, Limits, PeerId

# Clocks that are set by NTP differ by milliseconds; below this a person sees nothing wrong in a list of tasks.
CLOCK_TOLERANCE_MS: Final = 5_000


class Symptom(StrEnum):
    """What happened when an address was dialled."""

    REACHED = "reached"
    MALFORMED = "malformed"
    NAME_UNKNOWN = "name unknown"
    NO_ROUTE = "no route"
    REFUSED = "refused"
    TIMED_OUT = "timed out"
    CLOSED = "closed"
    NOT_LIBP2P = "not libp2p"
    WRONG_PEER = "wrong peer"
    ITSELF = "itself"
    INCOMPATIBLE = "incompatible"
    NO_SESSION = "no session"
    RELAY_UNREACHABLE = "relay unreachable"
    NO_RELAY = "no relay"
    NO_RESERVATION = "no reservation"
    RELAY_REFUSES = "relay refuses"
    RELAY_FULL = "relay full"
    PEER_SILENT = "peer silent"
    RELAY_BROKEN = "relay broken"


class Level(StrEnum):
    """How bad a finding is: a problem keeps peers apart, a warning may surprise."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found out.

    Attributes:
        level: how bad it is.
        about: the address, peer or setting that it is about.
        text: what it is, and what it usually means.
        remedy: what to do next; empty when nothing is to be done.
    """

    level: Level
    about: str
    text: str
    remedy: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Introduction:
    """What a peer said about itself when it was reached.

    Attributes:
        agent: its program and version.
        versions: of the protocol.
        kinds: what it offers whoever asked.
        limits: what it takes.
        reaches: from how far its own addresses can be reached.
        clock_offset_ms: how far its clock is ahead; None when it did not say.
    """

    agent: str = ""
    versions: tuple[str, ...] = (PROTOCOL_VERSION,)
    kinds: tuple[str, ...] = ()
    limits: Limits = DEFAULT_LIMITS
    reaches: tuple[Reach, ...] = ()
    clock_offset_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What came of dialling an address.

    Attributes:
        address: which.
        symptom: what happened.
        reach: from how far the address can be reached; None when it is malformed or no machine's.
        elapsed_ms: how long it took.
        detail: the error, in words; empty when there is none.
        introduction: what the peer said; None when it was not reached.
    """

    address: str
    symptom: Symptom
    reach: Reach | None = None
    elapsed_ms: float = 0.0
    detail: str = ""
    introduction: Introduction | None = None


class Need(NamedTuple):
    """What is wanted of a peer.

    Attributes:
        own_id: who asks for it.
        kind: of task; None for nothing special.
        payload_bytes: the largest task that may be sent.
        known: whether the peer was asked as `own_id`, and not as a stranger.
    """

    own_id: PeerId
    kind: str | None = None
    payload_bytes: int = DEFAULT_LIMITS.payload
    known: bool = True


class _Words(NamedTuple):
    text: str
    remedy: str


_MEANINGS: Final[Mapping[Symptom, _Words]] = {
    Symptom.MALFORMED: _Words(
        "this is not an address that a node can dial",
        "Copy the address that `peertask node` or `peertask id` prints on that machine, with /p2p/ and the peer id",
    ),
    Symptom.NAME_UNKNOWN: _Words(
        "the name has no address: it is misspelt, its DNS entry is missing, or this machine has no DNS",
        "Look the name up here (`getent hosts NAME`), or use the IP address of that machine",
    ),
    Symptom.NO_ROUTE: _Words(
        "this machine has no way to that network: it is offline, a VPN is down, the address belongs to another private "
        "network, or a firewall rejects with an ICMP message",
        "Check the network and the VPN on this machine; use an address that both machines share",
    ),
    Symptom.REFUSED: _Words(
        "the machine answers, and nothing listens on that port: no node runs there, it listens on another port or only "
        "on 127.0.0.1, or a firewall refuses on its behalf",
        "On that machine: see that `peertask node` runs and which addresses `peertask id` prints; start it with "
        "--listen /ip4/0.0.0.0/tcp/PORT and a fixed port",
    ),
    Symptom.TIMED_OUT: _Words(
        "nothing comes back: a firewall or a router drops the packets, the machine is off, or the address is not its "
        "own any more",
        "Open the TCP port on that machine and its router (a port forward when it is behind NAT), or let that node "
        "connect to this one: one side that can dial is enough",
    ),
    Symptom.CLOSED: _Words(
        "something accepts the connection and closes it at once: a port forward or proxy with nothing behind it, or a "
        "node that is full or limits connections from here",
        "See that the forward leads to the machine and port of the node; look for `a visitor was refused` in its log",
    ),
    Symptom.NOT_LIBP2P: _Words(
        "something answers, but not with libp2p, Noise and Yamux: another program has the port, the address lacks /ws "
        "or has one too many, or something in between changes the traffic",
        "Check the port, and whether the node prints that address with /ws",
    ),
    Symptom.WRONG_PEER: _Words(
        "another peer answers there: the node has a new key (its data folder is new), or another node has the address",
        "Ask its operator what `peertask id` prints. If it is a stranger, do not use the address",
    ),
    Symptom.ITSELF: _Words(
        "the address leads back to the node that asked",
        "Use the address of the other machine; 127.0.0.1 always means the machine where it is used",
    ),
    Symptom.INCOMPATIBLE: _Words(
        "a libp2p node answers, but it does not speak this version of the peertask protocol",
        "Update the older of the two; see that the node there is a peertask node",
    ),
    Symptom.NO_SESSION: _Words(
        "the node answers, but no session came about",
        "The message says why; see the log of that node, and try again",
    ),
    Symptom.RELAY_UNREACHABLE: _Words(
        "the relay cannot be reached, so nobody behind it can",
        "Let `peertask doctor` dial the relay itself, at what stands before /p2p-circuit; or use another relay",
    ),
    Symptom.NO_RELAY: _Words(
        "the node there does not serve as a relay",
        "Start that node with `peertask node --relay-service`, or use another relay",
    ),
    Symptom.NO_RESERVATION: _Words(
        "that node has no reservation at this relay: is it running with --relay?",
        "On that machine: start it with --relay and the address of this relay, and see what its log says about it",
    ),
    Symptom.RELAY_REFUSES: _Words(
        "the relay refuses: it serves certain peers only, or none that come through a relay themselves",
        "Ask its operator to add the peer that is to be reached with --relay-for, or use another relay",
    ),
    Symptom.RELAY_FULL: _Words(
        "the relay has no room for more: neither reservations nor circuits, in all or from one peer or address",
        "Try again later, or use another relay; any node can be one, with --relay-service",
    ),
    Symptom.PEER_SILENT: _Words(
        "the relay has a reservation of that node, but does not get through to it",
        "See that the node runs and that its network works; it is back at the relay within a minute when they do",
    ),
    Symptom.RELAY_BROKEN: _Words(
        "the relay ended the conversation, or does not keep to its protocol",
        "Try again, or use another relay",
    ),
}


_AT_A_RELAY: Final = frozenset(
    {
        *(Symptom.RELAY_UNREACHABLE, Symptom.NO_RELAY, Symptom.NO_RESERVATION, Symptom.RELAY_REFUSES),
        *(Symptom.RELAY_FULL, Symptom.PEER_SILENT, Symptom.RELAY_BROKEN),
    }
)
"""Those that say nothing about the peer's own network."""


def meaning_of(symptom: Symptom) -> tuple[str, str]:
    """Return what a symptom other than `REACHED` usually means, and what to do about it."""
    return _MEANINGS[symptom]


def explain_probe(probe: Probe, need: Need) -> list[Finding]:
    """Say what came of dialling an address; the first finding is about the dial itself."""
    if probe.introduction is None:
        words = _MEANINGS[probe.symptom]
        text = f"{probe.symptom}: {words.text}"
        return [
            Finding(Level.PROBLEM, probe.address, f"{text} ({probe.detail})" if probe.detail else text, words.remedy)
        ]
    peer = probe.introduction
    reached = f"reached in {probe.elapsed_ms:.0f} ms: {peer.agent or 'a node'}, protocol {', '.join(peer.versions)}"
    kinds = f", offers {', '.join(peer.kinds) or 'nothing'}{'' if need.known else ' to strangers'}"
    findings = [Finding(Level.OK, probe.address, reached + kinds)]
    return findings + [
        one for one in (_clock(probe, peer), _kind(probe, peer, need), _limits(probe, peer, need)) if one
    ]


def explain_unreachable(peer: str, probes: Iterable[Probe]) -> list[Finding]:
    """Say what the addresses of one peer have in common when none of them works."""
    probes = tuple(probes)
    if not probes:
        return [
            Finding(
                Level.PROBLEM,
                peer,
                "no address of it is known: it dials, and cannot be dialled, or has never been met",
                "Ask its operator for an address, or let it connect to this node; a node that both reach, with "
                "--rendezvous, brings them together",
            )
        ]
    if any(probe.introduction for probe in probes):
        return []
    probes = tuple(probe for probe in probes if probe.symptom not in _AT_A_RELAY)
    if not probes:
        return []
    if all(probe.reach is Reach.LOCAL for probe in probes):
        return [
            Finding(
                Level.PROBLEM,
                peer,
                "all its addresses are of this machine or its link: if it runs elsewhere, it listens for its own "
                "machine only",
                "There, start it with --listen /ip4/0.0.0.0/tcp/4001 and use the address of that machine; if it was "
                "here, start it again",
            )
        ]
    if {probe.symptom for probe in probes if probe.reach is not Reach.LOCAL} == {Symptom.TIMED_OUT}:
        return [
            Finding(
                Level.PROBLEM,
                peer,
                "none of its addresses answers, and none refuses: it is off, or behind a firewall or NAT",
                "Let that node connect to this one with --peer, or be reached through a node that both reach: that one "
                "with --relay-service, it with --relay",
            )
        ]
    return []


def explain_listening(reaches: Iterable[Reach], relays: int = 0) -> list[Finding]:
    """Say who can dial a node that listens at addresses of these reaches, and is reached through so many relays."""
    reaches = set(reaches)
    about = "this node"
    if relays and Reach.PUBLIC not in reaches:
        where = (
            "nowhere"
            if not reaches
            else "for this machine only"
            if reaches == {Reach.LOCAL}
            else "in a private network"
        )
        return [Finding(Level.OK, about, f"it listens {where}, and is reached from elsewhere through {_count(relays)}")]
    if not reaches:
        return [
            Finding(
                Level.WARNING,
                about,
                "it listens nowhere: nobody can dial it, and it sees only the peers that it dials itself",
                "Start it with --listen /ip4/0.0.0.0/tcp/4001",
            )
        ]
    if reaches == {Reach.LOCAL}:
        return [
            Finding(
                Level.WARNING,
                about,
                "it listens for this machine only: peers on other machines cannot dial it",
                "Start it with --listen /ip4/0.0.0.0/tcp/4001, or let it dial them",
            )
        ]
    if Reach.PUBLIC not in reaches:
        return [Finding(Level.OK, about, "peers in the same private network can dial it; those on the internet cannot")]
    return [Finding(Level.OK, about, "it has a public address; whether a firewall lets others in only they can tell")]


def explain_relay(relay_id: PeerId, *, reserved: bool, error: str) -> Finding:
    """Say whether a running node is reached through a relay that it was told to use."""
    about = f"relay {relay_id}"
    if reserved:
        return Finding(Level.OK, about, "this node has a reservation there: others reach it through that relay")
    why = f": {error}" if error else " yet"
    return Finding(
        Level.PROBLEM,
        about,
        f"this node has no reservation there, so nobody reaches it through that relay{why}",
        "It tries again within half a minute; let `peertask doctor` dial the address of the relay meanwhile",
    )


def explain_state(peer: str, *, connected: bool, reached: bool, last_error: str) -> list[Finding]:
    """Say what it means that a running node has a session with a peer or not, and that the dial now worked or not."""
    if connected and not reached:
        text = "a session is open all the same, which the peer opened: tasks go over it both ways"
        return [Finding(Level.OK, peer, text)]
    if not connected and reached:
        why = f"; its last error: {last_error}" if last_error else ""
        return [
            Finding(
                Level.WARNING,
                peer,
                f"it can be reached, but the running node has no session with it{why}",
                f"Wait half a minute for its next try, or `peertask peers --connect {peer}`",
            )
        ]
    return []


def _count(relays: int) -> str:
    return "a relay" if relays == 1 else f"{relays} relays"


def _clock(probe: Probe, peer: Introduction) -> Finding | None:
    offset = peer.clock_offset_ms
    if offset is None or abs(offset) <= CLOCK_TOLERANCE_MS:
        return None
    side = "ahead of" if offset > 0 else "behind"
    return Finding(
        Level.WARNING,
        probe.address,
        f"its clock is {abs(offset) / 1000:,.0f} s {side} this machine's: tasks run all the same, because deadlines "
        "travel as durations, but times in lists and logs do not fit together",
        "Set both clocks by NTP",
    )


def _kind(probe: Probe, peer: Introduction, need: Need) -> Finding | None:
    if need.kind is None or need.kind in peer.kinds:
        return None
    if not need.known:
        return Finding(
            Level.WARNING,
            probe.address,
            f"it does not offer {need.kind} to strangers; whether it does to this node is seen once they are connected",
        )
    return Finding(
        Level.PROBLEM,
        probe.address,
        f"it does not offer {need.kind} to {need.own_id}: it has no executor for it, or does not allow this node",
        f"Ask its operator for `peertask node --allow {need.kind}={need.own_id}`",
    )


def _limits(probe: Probe, peer: Introduction, need: Need) -> Finding | None:
    if peer.limits.payload >= need.payload_bytes:
        return None
    return Finding(
        Level.WARNING,
        probe.address,
        f"it takes tasks of {peer.limits.payload:,} bytes at most, and this node up to {need.payload_bytes:,}: larger "
        "ones are refused with TOO_LARGE",
        "Raise payload_bytes there, or send less",
    )
