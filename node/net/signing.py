"""Signs with the key of this node, and checks what others have signed. Needs no host, and asks nobody."""

from __future__ import annotations

from libp2p.crypto.keys import KeyPair
from libp2p.peer.id import ID

from protocol import PeerId, Sign


def signer(key_pair: KeyPair) -> Sign:
    """Return what signs with a key pair."""
    return key_pair.private_key.sign


def verify(peer_id: PeerId, message: bytes, signature: bytes) -> bool:
    """Whether a message has the signature of a peer; false too when the peer id holds no Ed25519 key."""
    try:
        public_key = ID.from_string(peer_id).extract_public_key()
        return public_key is not None and public_key.verify(message, signature)
    except Exception:  # noqa: BLE001 - libp2p and its libraries raise their own for text that is no id, and for no key
        return False
