"""What can go wrong between this node and the network, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from protocol import ErrorCode, PeertaskError

if TYPE_CHECKING:
    from node.coordination.diagnosis import Symptom


class UnsupportedLibp2p(PeertaskError):
    """The installed libp2p is not the pinned one: an error of the installation."""

    default_code = ErrorCode.INVALID_CONFIG


class UnusableIdentity(PeertaskError):
    """The key file of this node, or its folder, cannot be used; nothing was changed."""

    default_code = ErrorCode.INVALID_CONFIG


class InvalidAddress(PeertaskError):
    """A text is not an address, or not one that a node can dial or listen on."""

    default_code = ErrorCode.INVALID_ADDRESS


class SelfDial(InvalidAddress):
    """The address leads back to this node."""


class CannotListen(PeertaskError):
    """The operating system refused to listen on an address."""

    default_code = ErrorCode.INVALID_CONFIG


class PeerUnreachable(PeertaskError):
    """No address of the peer led to a connection; the message has the reason for each."""

    default_code = ErrorCode.PEER_UNREACHABLE


class CircuitFailed(PeerUnreachable):
    """A relay cannot be used, or did not connect this node with a peer, or make the reservation that it asked for.

    Attributes:
        symptom: why, for programs.
        detail: which relay it is, and what it did.
    """

    def __init__(self, message: str, symptom: Symptom, detail: str, **options: Any) -> None:
        super().__init__(f"{message} ({detail})", **options)
        self.symptom = symptom
        self.detail = detail


class WrongPeer(PeertaskError):
    """Another peer than the expected one answers at the address; nothing was sent to it."""

    default_code = ErrorCode.WRONG_PEER


class HostStopped(PeertaskError):
    """The libp2p host ended by itself; every connection of this node is gone."""

    default_code = ErrorCode.INTERNAL
