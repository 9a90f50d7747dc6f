"""Checks an audit log: whether anything in it was changed, moved, removed or put in, and where. Only reads.

The checker goes over the lines once, with what the next one must have: its number, and the hash of the line before.
After a fault it goes on from what it has found, so that each is told once.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple

from node.audit.chain import FIRST_PREV, GAP, PRUNED, SEALED, Head, SignedHead, digest_of, is_seal_signed
from node.audit.segments import HEAD_FILE, read_head, segment_files, segment_number
from protocol import PeerId, Verify

# Whoever sees so many has seen enough.
MAX_FAULTS: Final = 100

_RESTORE = "Compare with a backup of the file, and keep this one as evidence"


class Place(NamedTuple):
    """A line of a file; line 0 is the file as a whole."""

    file: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}" if self.line else self.file


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that shows that a log is not as its node wrote it.

    Attributes:
        place: where.
        problem: what is wrong there, in words.
        remedy: what to do.
    """

    place: Place
    problem: str
    remedy: str = _RESTORE


@dataclass(slots=True)
class Report:
    """What a log was found to be.

    Attributes:
        entries: how many it has.
        first: the number of its first entry; 0 when it has none.
        head: its last entry.
        nodes: who has signed in it.
        sealed: the number of the last entry that is signed for.
        faults: what is wrong.
        gaps: the entries by which the node says that it could not write others.
        torn: whether the last line has no end yet.
    """

    entries: int = 0
    first: int = 0
    head: Head = field(default_factory=Head)
    nodes: set[PeerId] = field(default_factory=set)
    sealed: int = 0
    faults: list[Fault] = field(default_factory=list)
    gaps: list[tuple[Place, dict[str, Any]]] = field(default_factory=list)
    torn: bool = False

    @property
    def valid(self) -> bool:
        """Whether nothing is wrong."""
        return not self.faults


class Line(NamedTuple):
    """A line of a log, without its end."""

    place: Place
    text: bytes


def read_lines(folder: Path) -> Iterator[Line]:
    """Yield the lines of a log in order; the last may be cut off when its node is writing, or was killed."""
    for file in segment_files(folder):
        # The node may have removed it for its age since; an entry further on says so.
        with suppress(FileNotFoundError), file.open("rb") as reader:
            for number, text in enumerate(reader, start=1):
                yield Line(Place(file.name, number), text)


def verify_log(folder: Path, verify: Verify, *, node: PeerId | None = None, known: Iterable[Head] = ()) -> Report:
    """Check the log in a folder; a node may be writing it meanwhile.

    Args:
        folder: the folder of its files.
        verify: checks a signature.
        node: who must have signed it; None for whoever did.
        known: entries that it must have, as noted elsewhere before.

    Raises:
        OSError: a file cannot be read.
    """
    signed = read_head(folder)  # first: what is written meanwhile is more than it says, and never less
    checker = _Checker(verify, node, [*known, *([signed.head] if signed else [])])
    checker.check_files(segment_files(folder))
    for line in read_lines(folder):
        checker.check(line)
    checker.conclude(signed)
    return checker.report


class _Checker:
    def __init__(self, verify: Verify, node: PeerId | None, known: list[Head]) -> None:
        self.report = Report()
        self._verify = verify
        self._node = node
        self._known = {head.number: head.digest for head in known}
        self._pruned: dict[int, str] = {}
        self._first_prev = FIRST_PREV
        self._place = Place(HEAD_FILE)

    def check_files(self, files: list[Path]) -> None:
        for before, after in pairwise(files):
            if segment_number(after) != segment_number(before) + 1:
                self._fault(Place(after.name), f"the files between {before.name} and this one are missing")

    def check(self, line: Line) -> None:
        self._place = line.place
        if not line.text.endswith(b"\n"):
            self.report.torn = True
            return
        text = line.text[:-1]
        try:
            entry = json.loads(text)
            number, prev, fact = int(entry["n"]), str(entry["prev"]), str(entry["fact"])
        except (ValueError, KeyError, TypeError):
            self._fault(line.place, "the line is no entry: it was changed")
            return
        self._check_order(number, prev)
        head = Head(number, digest_of(text))
        self._check_known(head)
        self._look_into(fact, entry, Head(number - 1, prev))
        self.report.entries += 1
        self.report.head = head

    def _check_order(self, number: int, prev: str) -> None:
        last = self.report.head
        if not self.report.entries:
            self.report.first, self._first_prev = number, prev
        elif number > last.number + 1:
            self._fault(self._place, f"entries {last.number + 1} to {number - 1} are missing before it")
        elif number <= last.number:
            self._fault(self._place, f"entry {number} comes after entry {last.number}: it was moved, or put in")
        elif prev != last.digest:
            self._fault(self._place, f"it does not follow from entry {last.number}: one of the two was changed")

    def _check_known(self, head: Head) -> None:
        digest = self._known.pop(head.number, head.digest)
        if digest != head.digest:
            self._fault(self._place, f"entry {head.number} is another one than was signed or noted: it was changed")

    def _look_into(self, fact: str, entry: dict[str, Any], before: Head) -> None:
        if fact == SEALED:
            self._check_seal(entry, before)
        elif fact == PRUNED:
            self._pruned[entry.get("up_to", 0)] = str(entry.get("digest"))
        elif fact == GAP:
            self.report.gaps.append((self._place, entry))

    def _check_seal(self, entry: dict[str, Any], before: Head) -> None:
        node = PeerId(str(entry.get("node")))
        if not is_seal_signed(self._verify, node, before, str(entry.get("signature"))):
            self._fault(self._place, f"node {node} has not signed this: it was changed, or put in")
            return
        self._check_node(node)
        self.report.sealed = before.number + 1

    def _check_node(self, node: PeerId) -> None:
        if self._node is not None and node != self._node:
            self._fault(self._place, f"it is signed by {node}, and not by {self._node}")
        self.report.nodes.add(node)

    def conclude(self, signed: SignedHead | None) -> None:
        report = self.report
        if report.entries and (report.first, self._first_prev) != (1, FIRST_PREV):
            before = report.first - 1
            if self._pruned.get(before) != self._first_prev:
                self._fault(Place(f"entry {report.first}"), f"entries 1 to {before} are missing, and no entry says why")
        self._place = Place(HEAD_FILE)
        if signed is None:
            self._fault(self._place, "it is missing or damaged, so nothing tells whether the end is whole", _NO_HEAD)
        elif not signed.is_signed(self._verify):
            self._fault(self._place, f"node {signed.node} has not signed it: it was changed")
        else:
            self._check_node(signed.node)
        for number in sorted(self._known):
            if number > report.head.number:
                self._fault(self._place, f"entries {report.head.number + 1} to {number} are missing at the end", _CUT)

    def _fault(self, place: Place, problem: str, remedy: str = _RESTORE) -> None:
        if len(self.report.faults) < MAX_FAULTS:
            self.report.faults.append(Fault(place, problem, remedy))


_NO_HEAD = "Compare the end with a backup; a node that starts here writes the file again"
_CUT = (
    "Compare with a backup. After the loss of power the last second may be missing; otherwise somebody has cut it off"
)
