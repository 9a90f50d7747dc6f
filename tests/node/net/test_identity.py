"""The key file: private, whole, and never replaced."""

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from libp2p.crypto.rsa import create_new_key_pair as create_rsa_key_pair
from libp2p.peer.id import ID

from node.net.errors import UnusableIdentity
from node.net.identity import KEY_FILE, load_or_create_identity
from protocol import ErrorCode


def peer_id(folder: Path) -> ID:
    """Who the node of a folder is."""
    return ID.from_pubkey(load_or_create_identity(folder).public_key)


def mode(path: Path) -> int:
    """The permissions of a file or folder."""
    return stat.S_IMODE(path.stat().st_mode)


def test_an_identity_is_made_once_and_kept_private(tmp_path: Path) -> None:
    """A folder that only its owner enters, a file that only its owner reads, and nothing else in it."""
    folder = tmp_path / "new" / "data"
    first = peer_id(folder)
    assert mode(folder) == 0o700
    assert mode(folder / KEY_FILE) == 0o600
    assert [path.name for path in folder.iterdir()] == [KEY_FILE]
    assert peer_id(folder) == first


def test_an_open_folder_is_closed(tmp_path: Path) -> None:
    """A data folder holds what peers sent, so it is nobody else's business."""
    folder = tmp_path / "data"
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    load_or_create_identity(folder)
    assert mode(folder) == 0o700


def test_processes_that_start_at_once_get_the_same_identity(tmp_path: Path) -> None:
    """Whoever writes first, the key never changes afterwards."""
    with ThreadPoolExecutor(16) as pool:
        found = set(pool.map(peer_id, [tmp_path / "data"] * 64))
    assert len(found) == 1
    assert [path.name for path in (tmp_path / "data").iterdir()] == [KEY_FILE]


@pytest.mark.parametrize("permissions", [0o640, 0o604, 0o660, 0o601])
def test_a_key_file_that_others_can_reach_is_refused(tmp_path: Path, permissions: int) -> None:
    """The message names the file and both ways out, and the file stays as it is."""
    load_or_create_identity(tmp_path)
    path = tmp_path / KEY_FILE
    path.chmod(permissions)
    with pytest.raises(UnusableIdentity) as caught:
        load_or_create_identity(tmp_path)
    assert str(path) in str(caught.value)
    assert f"chmod 600 {path}" in caught.value.remedy
    assert caught.value.code is ErrorCode.INVALID_CONFIG
    assert mode(path) == permissions


@pytest.mark.parametrize("content", [b"", b"not a key", b"\x08\x01\x12\x20short", bytes(100_000)])
def test_a_corrupt_key_file_is_refused_and_kept(tmp_path: Path, content: bytes) -> None:
    """A node never replaces an identity by itself: other peers may trust it."""
    path = tmp_path / KEY_FILE
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(UnusableIdentity, match="does not hold an Ed25519 key") as caught:
        load_or_create_identity(tmp_path)
    assert str(path) in str(caught.value)
    assert "backup" in caught.value.remedy
    assert path.read_bytes() == content


def test_a_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    """An RSA key is a key, but not one that every peer accepts."""
    path = tmp_path / KEY_FILE
    path.write_bytes(create_rsa_key_pair().private_key.serialize())
    path.chmod(0o600)
    with pytest.raises(UnusableIdentity, match="does not hold an Ed25519 key"):
        load_or_create_identity(tmp_path)


def test_a_shared_folder_is_refused(tmp_path: Path) -> None:
    """In a folder such as /tmp anybody could put another key; it is not closed to the others either."""
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o1777)
    with pytest.raises(UnusableIdentity, match="is shared"):
        load_or_create_identity(folder)
    assert mode(folder) == 0o1777


def test_a_folder_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    """Here a file is in the way."""
    (tmp_path / "file").write_text("")
    with pytest.raises(UnusableIdentity, match="cannot be used"):
        load_or_create_identity(tmp_path / "file" / "data")
