"""The files of an audit log: numbered segments of lines, and the signed head beside them. Blocks; run it in a thread.

The head is written after the lines that it names, so a process that is killed at any moment leaves a log that has at
least what the head says. A line that was cut off is set aside by the next process.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from node.audit.chain import SEALED, Head, SignedHead, digest_of

AUDIT_FOLDER: Final = "audit"
"""In the data folder."""
HEAD_FILE: Final = "head.json"
LOCK_FILE: Final = "lock"
# A segment is what retention removes at once, and what one reads with an editor: some 50,000 entries.
SEGMENT_BYTES: Final = 16 * 1024 * 1024
# Far more than the longest message of a fact with every character escaped; the tail of a file is looked for in twice
# as much.
MAX_LINE_BYTES: Final = 128 * 1024


class Opened(NamedTuple):
    """What a log was found to be.

    Attributes:
        head: where it goes on.
        clean: whether its last process ended in good order; also of a log that is new.
        torn: the file that a cut off line was set aside in; None when there was none.
        lost: how many entries the signed head knows and the files do not.
    """

    head: Head
    clean: bool
    torn: Path | None
    lost: int


class Segments:
    """Appends to the files of a log, for one process at a time.

    Args:
        folder: where they lie; made when it is not there.
        segment_bytes: the size at which a new one is begun.
        keep_bytes: what all may take together; see `surplus`.
    """

    def __init__(self, folder: Path, *, segment_bytes: int = SEGMENT_BYTES, keep_bytes: int) -> None:
        self.folder = folder
        self._segment_bytes = segment_bytes
        self._keep_bytes = keep_bytes
        self._file = -1
        self._lock_file = -1
        self._number = 0
        self._size = 0
        self._written = 0

    def open(self) -> Opened:
        """Find the end of the log, and set aside a line that was cut off there.

        Raises:
            OSError: the files cannot be used, or another process writes them.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock()
        files = segment_files(self.folder)
        torn = _set_torn_aside(files[-1]) if files else None
        line, signed = _last_line(files), read_head(self.folder)
        head, known = _head_of(line), signed.head if signed else Head()
        lost = max(0, known.number - head.number) if head else 0
        if head is None or lost:
            head = known
        self._number = segment_number(files[-1]) if files else 1
        self._written = head.number
        self._open_segment(self._number)
        return Opened(head, not line or f'"fact":"{SEALED}"'.encode() in line, torn, lost)

    def append(self, lines: bytes, head: SignedHead, *, sync: bool = False) -> bool:
        """Write lines, then the head that they lead to, and return True.

        When it has raised OSError it may be called again with the same.

        Args:
            lines: one or more, each with its end.
            head: the last of them, signed.
            sync: whether they shall outlive the loss of power.
        """
        if head.head.number > self._written:
            if self._size >= self._segment_bytes:
                self._begin_segment()
            self._write(lines)
            self._written = head.head.number
        if sync:
            os.fsync(self._file)
        _replace(self.folder / HEAD_FILE, head.to_json(), sync=sync)
        return True

    def close(self) -> None:
        """Close the files; without effect when they are closed."""
        self._close_segment()
        if self._lock_file >= 0:
            os.close(self._lock_file)
            self._lock_file = -1

    def surplus(self) -> tuple[Sequence[Path], Head]:
        """Return the oldest segments that take the log over its size, and the head at their end; never the last."""
        files = segment_files(self.folder)
        sizes = [file.stat().st_size for file in files]
        excess, count = sum(sizes) - self._keep_bytes, 0
        while excess > 0 and count < len(files) - 1:
            excess -= sizes[count]
            count += 1
        return files[:count], _head_of(_last_line(files[:count])) or Head()

    def remove(self, files: Sequence[Path]) -> None:
        """Remove segments."""
        for file in files:
            file.unlink(missing_ok=True)

    def _lock(self) -> None:
        if self._lock_file < 0:
            self._lock_file = os.open(self.folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OSError(error.errno, "another process writes it") from error

    def _close_segment(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _begin_segment(self) -> None:
        if self._file >= 0:
            os.fsync(self._file)
            self._close_segment()
        self._open_segment(self._number + 1)
        self._number += 1

    def _open_segment(self, number: int) -> None:
        path = self.folder / f"audit-{number:06}.jsonl"
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._size = os.fstat(self._file).st_size

    def _write(self, lines: bytes) -> None:
        rest = memoryview(lines)
        try:
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except OSError:
            os.ftruncate(self._file, self._size)  # a disk that is full takes a part of the last line
            raise
        self._size += len(lines)


def segment_files(folder: Path) -> list[Path]:
    """Return the segments of a log, the oldest first."""
    return sorted(folder.glob("audit-*.jsonl"), key=segment_number)


def segment_number(file: Path) -> int:
    """Return the number of a segment; 0 for a file that has another name."""
    number = file.stem.removeprefix("audit-")
    return int(number) if number.isdecimal() else 0


def read_head(folder: Path) -> SignedHead | None:
    """Return the signed head beside a log, not checked; None when there is none, or what is there is none."""
    try:
        return SignedHead.from_json((folder / HEAD_FILE).read_bytes())
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _head_of(line: bytes) -> Head | None:
    """Return the head that a last line makes; None when it was changed by hand, as verifying the log will tell."""
    if not line:
        return Head()
    try:
        return Head(int(json.loads(line)["n"]), digest_of(line))
    except (ValueError, KeyError, TypeError):
        return None


def _last_line(files: Sequence[Path]) -> bytes:
    """Return the last line of the last file that has any, without its end."""
    for file in reversed(files):
        tail = _tail(file).rstrip(b"\n")
        if tail:
            return tail[tail.rfind(b"\n") + 1 :]
    return b""


def _tail(file: Path) -> bytes:
    with file.open("rb") as reader:
        size = reader.seek(0, os.SEEK_END)
        reader.seek(max(0, size - 2 * MAX_LINE_BYTES))
        return reader.read()


def _set_torn_aside(file: Path) -> Path | None:
    tail = _tail(file)
    torn = tail[tail.rfind(b"\n") + 1 :]
    if not torn:
        return None
    aside = _free_name(file)
    aside.write_bytes(torn)
    os.truncate(file, file.stat().st_size - len(torn))
    return aside


def _free_name(file: Path) -> Path:
    number = 1
    while (aside := file.with_suffix(f".torn{number}")).exists():
        number += 1
    return aside


def _replace(path: Path, data: bytes, *, sync: bool) -> None:
    draft = path.with_name(f".{path.name}.new")
    with draft.open("wb") as file:
        file.write(data)
        if sync:
            file.flush()
            os.fsync(file.fileno())
    draft.replace(path)
