"""The data folder as the meeting point of a node and its clients: who runs there, and where it answers.

The node that runs in a folder holds a lock on the file `control`, which says where its socket is. The lock dies with
the process, so a file without one is a leftover, and a second node is refused without guessing from sockets or pids.

A socket's path may have some hundred bytes. Where the folder's own is longer, the socket lies in a private folder of
the temporary directory; clients do not care, they read `control`.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, TextIO

from protocol import ErrorCode, PeertaskError

CONTROL_FILE: Final = "control"
SOCKET_FILE: Final = "control.sock"
TOKEN_FILE: Final = "http-token"  # noqa: S105 - the name of the file
# sockaddr_un has room for 104 bytes on macOS and 108 on Linux, with the NUL at the end.
MAX_SOCKET_PATH_BYTES: Final = 103
# 256 bits from the system's generator cannot be guessed.
_TOKEN_BYTES = 32
_PRIVATE = 0o600
_SHORT_FOLDER = "peertask-"
_SHORT_NAME_BYTES = len(f"/{_SHORT_FOLDER}12345678/{SOCKET_FILE}")


@dataclass(frozen=True, slots=True)
class ControlAddress:
    """Where a running node answers.

    Attributes:
        socket: the path of its Unix socket.
        url: of its TCP listener, such as ``http://127.0.0.1:8080``; None when it has none.
        pid: its process.
    """

    socket: str
    url: str | None
    pid: int


@contextmanager
def occupied(folder: Path) -> Iterator[FolderHold]:
    """Be the one node that runs in a folder for the length of the context; the folder is made when it is not there.

    Raises:
        PeertaskError: code INVALID_CONFIG, when another node runs there, or the folder cannot be written; names it.
    """
    with _open_control(folder) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise _occupied_already(folder) from error
        _remove_leftovers(folder)
        hold = FolderHold(folder, file)
        try:
            yield hold
        finally:
            hold.remove_files()


class FolderHold:
    """The right of one node to answer for a folder."""

    def __init__(self, folder: Path, file: TextIO) -> None:
        self._folder = folder
        self._file = file

    def bind_socket(self, max_path_bytes: int = MAX_SOCKET_PATH_BYTES) -> socket.socket:
        """Return a Unix socket that only this user may connect to, bound and not listening yet.

        Until it listens nobody can connect, so there is no moment at which its mode is another.

        Raises:
            PeertaskError: code INVALID_CONFIG, when it cannot be made, or no place for it has a path of at most
                `max_path_bytes`.
        """
        path = _socket_path(self._folder, max_path_bytes)
        bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            bound.bind(str(path))
            path.chmod(_PRIVATE)
        except OSError as error:
            bound.close()
            raise PeertaskError(
                f"the control socket {path} cannot be made: {error.strerror}",
                code=ErrorCode.INVALID_CONFIG,
                remedy="Give the node a folder of its own with --data",
            ) from error
        return bound

    def announce(self, address: ControlAddress) -> None:
        """Tell clients where the node answers."""
        self._file.seek(0)
        self._file.truncate()
        json.dump(asdict(address), self._file)
        self._file.flush()

    def token(self) -> str:
        """Return the secret that requests over TCP must show, made at the first time."""
        with _open_private(self._folder / TOKEN_FILE) as file:
            token = file.read().strip()
            if not token:
                token = secrets.token_urlsafe(_TOKEN_BYTES)
                file.write(token + "\n")
        return token

    def remove_files(self) -> None:
        """Remove the socket and what `announce` said."""
        _remove_leftovers(self._folder)
        self._file.truncate(0)


def find_control(folder: Path) -> ControlAddress:
    """Return where the node of a folder answers.

    Raises:
        PeertaskError: code NODE_UNAVAILABLE, when none has announced itself there.
    """
    try:
        address = _announced(folder)
    except OSError as error:
        raise node_unavailable(folder, f"{CONTROL_FILE} cannot be read: {error.strerror}") from error
    if address is None:
        raise node_unavailable(folder, "no node runs there")
    return address


def node_unavailable(folder: Path, reason: str) -> PeertaskError:
    """Return the error that says that no node answers at a folder, and why."""
    return PeertaskError(
        f"no node answers at the data folder {folder}: {reason}",
        code=ErrorCode.NODE_UNAVAILABLE,
        remedy=f"Start one with `peertask node --data {folder}`",
    )


def _open_control(folder: Path) -> TextIO:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return _open_private(folder / CONTROL_FILE)
    except OSError as error:
        raise PeertaskError(
            f"the data folder {folder} cannot be used: {error.strerror}",
            code=ErrorCode.INVALID_CONFIG,
            remedy="Give the node a folder that this user can write to with --data",
        ) from error


def _open_private(path: Path) -> TextIO:
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, _PRIVATE), "r+", encoding="utf-8")
    path.chmod(_PRIVATE)  # it may have been there with another mode
    return file


def _occupied_already(folder: Path) -> PeertaskError:
    address = _announced(folder)
    who = f"process {address.pid}" if address else "another process"
    return PeertaskError(
        f"a node runs in the data folder {folder} already: {who}",
        code=ErrorCode.INVALID_CONFIG,
        remedy="Stop it first, or give this node a folder of its own with --data",
    )


def _announced(folder: Path) -> ControlAddress | None:
    try:
        said = json.loads((folder / CONTROL_FILE).read_text(encoding="utf-8"))
        return ControlAddress(said["socket"], said["url"], said["pid"])
    except (FileNotFoundError, ValueError, KeyError):  # absent, empty since the node ended, or half written
        return None


def _socket_path(folder: Path, max_bytes: int) -> Path:
    for candidate in (folder.absolute() / SOCKET_FILE, *_short_paths()):
        if len(os.fsencode(candidate)) <= max_bytes:
            candidate.parent.mkdir(mode=0o700, exist_ok=True)
            return candidate
    raise PeertaskError(
        f"no path for the control socket is short enough: the data folder is {folder}",
        code=ErrorCode.INVALID_CONFIG,
        remedy=f"Set TMPDIR to a folder whose path has less than {max_bytes - _SHORT_NAME_BYTES} bytes",
    )


def _short_paths() -> Iterator[Path]:
    for base in (tempfile.gettempdir(), "/tmp"):  # noqa: S108 - a fresh folder of mode 0700 with a random name
        yield Path(base) / (_SHORT_FOLDER + secrets.token_hex(4)) / SOCKET_FILE


def _remove_leftovers(folder: Path) -> None:
    (folder / SOCKET_FILE).unlink(missing_ok=True)
    address = _announced(folder)
    elsewhere = Path(address.socket) if address else None
    if elsewhere and elsewhere.name == SOCKET_FILE and elsewhere.parent.name.startswith(_SHORT_FOLDER):
        with suppress(FileNotFoundError):
            elsewhere.unlink()
            elsewhere.parent.rmdir()
