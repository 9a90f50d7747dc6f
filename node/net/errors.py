"""What can go wrong between this node and the network, in words."""

from protocol import ErrorCode, PeertaskError


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


class WrongPeer(PeertaskError):
    """Another peer than the expected one answers at the address; nothing was sent to it."""

    default_code = ErrorCode.WRONG_PEER


class HostStopped(PeertaskError):
    """The libp2p host ended by itself; every connection of this node is gone."""

    default_code = ErrorCode.INTERNAL
