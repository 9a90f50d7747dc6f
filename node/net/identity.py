"""The key pair that is this node's identity, kept in a file that only its owner can read."""

import os
import stat
from pathlib import Path
from typing import Final

from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.keys import KeyPair, KeyType
from libp2p.crypto.serialization import deserialize_private_key
from libp2p.peer.id import ID

from node.net.errors import UnusableIdentity
from protocol import PeerId

KEY_FILE: Final = "identity.key"
"""A libp2p private key in its standard protobuf form, so that other libp2p implementations can read it."""

_MAX_KEY_BYTES: Final = 1024  # an Ed25519 key takes 68; anything much longer is another file


def load_or_create_identity(folder: Path) -> KeyPair:
    """The identity of the node whose data is in `folder`; made when there is none yet.

    The folder is created, or closed to everybody else (0700); the key file is 0600 and appears whole or not at all,
    also when two processes start at once: both then get the same key.

    Raises:
        UnusableIdentity: others can read the key or replace it, or it is not a key of this kind.
    """
    path = folder / KEY_FILE
    try:
        _make_private(folder)
        if not path.exists():
            _write_once(path, create_new_key_pair().private_key.serialize())
        return _load(path)
    except OSError as error:
        raise UnusableIdentity(
            f"the identity in {path} cannot be used: {error.strerror or error}",
            remedy="Give this user its own, writable data folder",
        ) from error


def create_identity() -> KeyPair:
    """A fresh identity that is kept nowhere, for a node without a data folder."""
    return create_new_key_pair()


def peer_id_of(key_pair: KeyPair) -> PeerId:
    """The peer id that follows from a key pair."""
    return PeerId(str(ID.from_pubkey(key_pair.public_key)))


def _make_private(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    if status.st_uid != os.geteuid() or status.st_mode & stat.S_ISVTX:
        raise UnusableIdentity(
            f"the data folder {folder} belongs to another user or is shared, so the key in it would not be safe",
            remedy="Choose a folder of your own",
        )
    if stat.S_IMODE(status.st_mode) != 0o700:  # noqa: PLR2004 - the mode that the docstring promises
        folder.chmod(0o700)


def _write_once(path: Path, key: bytes) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    descriptor = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(key)
            file.flush()
            os.fsync(file.fileno())
        _publish(draft, path)
    finally:
        draft.unlink()


def _publish(draft: Path, path: Path) -> None:
    try:
        path.hardlink_to(draft)  # unlike a rename, it never replaces the key of a process that was quicker
    except FileExistsError:
        return
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _load(path: Path) -> KeyPair:
    status = path.stat()
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise UnusableIdentity(
            f"the key file {path} (mode {stat.S_IMODE(status.st_mode):04o}) is open to others, who may have copied it",
            remedy=f"If nobody has: chmod 600 {path}. Otherwise remove it, and the node makes a new identity",
        )
    with path.open("rb") as file:
        return _decode(file.read(_MAX_KEY_BYTES), path)


def _decode(data: bytes, path: Path) -> KeyPair:
    try:
        private_key = deserialize_private_key(data)
        key_pair = KeyPair(private_key, private_key.get_public_key())
    except Exception as error:  # a corrupt key can fail anywhere in protobuf, libp2p or its cryptography
        raise _corrupt(path) from error
    if private_key.get_type() is not KeyType.Ed25519:
        raise _corrupt(path)
    return key_pair


def _corrupt(path: Path) -> UnusableIdentity:
    return UnusableIdentity(
        f"the key file {path} does not hold an Ed25519 key of libp2p",
        remedy="Restore it from a backup, or remove it: the node then makes a new identity, and peers that allow the "
        "old peer id must be told the new one",
    )
