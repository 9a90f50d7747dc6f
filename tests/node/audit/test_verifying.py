"""Whatever is done to an audit log is found, with the file and the line."""

# covers COORD-8

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from node.audit.chain import GAP, PRUNED, Head, SignedHead, body_of, seal_body
from node.audit.segments import HEAD_FILE, Segments, segment_files
from node.audit.verifying import MAX_FAULTS, Report, verify_log
from protocol import PeerId
from tests.node.audit.test_chain import NODE, sign, verify

LINES_A_FILE = 4


def write_log(folder: Path, facts: int = 10) -> Head:
    """Write a log over several files, sealed at its end, and return its head."""
    segments = Segments(folder, segment_bytes=1, keep_bytes=1_000_000)
    head, lines = segments.open().head, b""
    for number in range(1, facts + 1):
        sealed = number == facts
        body = seal_body(head, NODE, sign) if sealed else body_of("Happened", {"what": number})
        line, head = head.link(number, body)
        lines += line
        if sealed or not number % LINES_A_FILE:  # each append fills a file
            segments.append(lines, SignedHead.of(head, NODE, sign))
            lines = b""
    segments.close()
    return head


def check(folder: Path, **options: object) -> Report:
    """Verify a log that Ann must have signed."""
    return verify_log(folder, verify, node=NODE, **options)  # type: ignore[arg-type]


def test_a_log_as_it_was_written_is_valid(tmp_path: Path) -> None:
    """The report says what it has, and up to where it is signed for."""
    head = write_log(tmp_path)
    report = check(tmp_path, known=[head])
    assert (report.valid, report.faults) == (True, [])
    assert (report.entries, report.first, report.head, report.sealed) == (10, 1, head, 10)
    assert report.nodes == {NODE}
    assert [len(file.read_bytes().splitlines()) for file in segment_files(tmp_path)] == [4, 4, 2]


def edit(folder: Path, file: int, change: Callable[[list[bytes]], None]) -> None:
    """Change the lines of a file, numbered from 1."""
    path = segment_files(folder)[file - 1]
    lines = path.read_bytes().splitlines(keepends=True)
    change(lines)
    path.write_bytes(b"".join(lines))


def _swap(lines: list[bytes]) -> None:
    lines[1], lines[2] = lines[2], lines[1]


def _rewrite(lines: list[bytes]) -> None:
    lines[1] = lines[1].replace(b'"what":2', b'"what":9')


def _spoil(lines: list[bytes]) -> None:
    lines[1] = b"not an entry\n"


def _replace_last(lines: list[bytes]) -> None:
    lines[-1] = lines[-1].replace(b'"n":10', b'"n":10,"x":1')


def _forge_seal(lines: list[bytes]) -> None:
    lines[-1] = lines[-1].replace(b'"signature":"', b'"signature":"00')


def _delete(index: int) -> Callable[[list[bytes]], None]:
    def delete(lines: list[bytes]) -> None:
        del lines[index]

    return delete


def _repeat(lines: list[bytes]) -> None:
    lines.insert(2, lines[1])


CHANGES = {
    "changed": (1, _rewrite, "audit-000001.jsonl, line 3", "does not follow from entry 2"),
    "made unreadable": (1, _spoil, "audit-000001.jsonl, line 2", "no entry"),
    "moved": (1, _swap, "audit-000001.jsonl, line 2", "entries 2 to 2 are missing before it"),
    "removed": (1, _delete(1), "audit-000001.jsonl, line 2", "entries 2 to 2 are missing before it"),
    "removed at the start": (1, _delete(0), "entry 2", "entries 1 to 1 are missing, and no entry says why"),
    "removed at the end of a file": (1, _delete(3), "audit-000002.jsonl, line 1", "entries 4 to 4 are missing"),
    "removed at the end": (3, _delete(1), HEAD_FILE, "entries 10 to 10 are missing at the end"),
    "put in": (1, _repeat, "audit-000001.jsonl, line 3", "entry 2 comes after entry 2"),
    "the last one changed": (3, _replace_last, "audit-000003.jsonl, line 2", "another one than was signed"),
    "the seal changed": (3, _forge_seal, "audit-000003.jsonl, line 2", "has not signed this"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_an_entry_that_was_tampered_with_is_found(tmp_path: Path, name: str) -> None:
    """The first fault names the place, and says what to do."""
    file, change, place, words = CHANGES[name]
    write_log(tmp_path)
    edit(tmp_path, file, change)
    faults = check(tmp_path).faults
    told = [(str(fault.place), fault.problem) for fault in faults]
    assert any(where == place and words in problem for where, problem in told), told
    assert all(fault.remedy for fault in faults)


def test_a_file_that_is_gone_is_found(tmp_path: Path) -> None:
    """By its number, and by the entries that were in it."""
    write_log(tmp_path)
    segment_files(tmp_path)[1].unlink()
    problems = [fault.problem for fault in check(tmp_path).faults]
    assert problems[0] == "the files between audit-000001.jsonl and this one are missing"
    assert "entries 5 to 8 are missing before it" in problems


def test_a_log_that_was_written_anew_is_signed_by_somebody_else(tmp_path: Path) -> None:
    """Whoever has not the key of the node can only sign with another."""
    write_log(tmp_path)
    problems = [fault.problem for fault in verify_log(tmp_path, verify, node=PeerId("ben")).faults]
    assert problems == ["it is signed by ann, and not by ben"] * 2


@pytest.mark.parametrize(
    ("text", "words"), [(None, "missing or damaged"), (b"{}", "missing or damaged"), (b"[]", "missing or damaged")]
)
def test_a_head_that_is_gone_is_told(tmp_path: Path, text: bytes | None, words: str) -> None:
    """Without it nothing tells whether the end is whole."""
    write_log(tmp_path)
    (tmp_path / HEAD_FILE).unlink()
    if text is not None:
        (tmp_path / HEAD_FILE).write_bytes(text)
    (fault,) = check(tmp_path).faults
    assert words in fault.problem


def test_a_head_that_nobody_signed_is_told(tmp_path: Path) -> None:
    """An end that was cut off with its head to match is found by the signature."""
    write_log(tmp_path)
    edit(tmp_path, 3, _delete(1))
    last = json.loads(segment_files(tmp_path)[2].read_bytes().splitlines()[-1])
    shape = json.loads((tmp_path / HEAD_FILE).read_bytes())
    (tmp_path / HEAD_FILE).write_text(json.dumps({**shape, "n": last["n"]}))
    assert any("has not signed it" in fault.problem for fault in check(tmp_path).faults)


def test_an_entry_that_was_noted_elsewhere_must_be_there(tmp_path: Path) -> None:
    """So that a folder that was put back from an old copy is found out."""
    write_log(tmp_path)
    assert "another one" in check(tmp_path, known=[Head(2, "0" * 64)]).faults[0].problem
    assert "entries 11 to 12 are missing" in check(tmp_path, known=[Head(12, "0" * 64)]).faults[0].problem


def append(folder: Path, *bodies: str) -> None:
    """Add entries as the node does."""
    segments = Segments(folder, keep_bytes=1_000_000)
    head, lines = segments.open().head, b""
    for body in bodies:
        line, head = head.link(99, body)
        lines += line
    segments.append(lines, SignedHead.of(head, NODE, sign))
    segments.close()


def test_a_file_that_cannot_be_begun_is_begun_later(tmp_path: Path) -> None:
    """The entries wait, and stand in the next file once."""
    write_log(tmp_path)
    segments = Segments(tmp_path, segment_bytes=1, keep_bytes=1_000_000)
    line, head = segments.open().head.link(1, body_of("Late", {}))
    blocking = tmp_path / "audit-000004.jsonl"
    blocking.mkdir()
    for _ in range(2):
        with pytest.raises(IsADirectoryError):
            segments.append(line, SignedHead.of(head, NODE, sign))
    blocking.rmdir()
    for _ in range(2):
        segments.append(line, SignedHead.of(head, NODE, sign))
    segments.close()
    assert (check(tmp_path).faults, blocking.read_bytes()) == ([], line)


def test_what_was_removed_for_its_age_is_no_fault_when_the_log_says_so(tmp_path: Path) -> None:
    """The entry names the last one that is gone, and its hash."""
    write_log(tmp_path)
    files, last = Segments(tmp_path, keep_bytes=1_000).surplus()
    assert (len(files), last.number) == (1, 4)
    append(tmp_path, body_of(PRUNED, {"up_to": last.number, "digest": last.digest}))
    files[0].unlink()
    report = check(tmp_path)
    assert (report.faults, report.first) == ([], 5)
    files[0].write_bytes(b"")
    append(tmp_path, body_of(PRUNED, {"up_to": 4, "digest": "0" * 64}))
    assert "no entry says why" in check(tmp_path).faults[0].problem


def test_a_gap_that_the_node_tells_of_is_shown_and_no_fault(tmp_path: Path) -> None:
    """It could not write for a while, which nobody hides."""
    write_log(tmp_path)
    append(tmp_path, body_of(GAP, {"missed": 7, "since": 3}))
    report = check(tmp_path)
    ((place, entry),) = report.gaps
    assert (report.valid, place.line, entry["missed"]) == (True, 3, 7)


def test_a_line_that_is_being_written_is_no_fault(tmp_path: Path) -> None:
    """The node may be at it; when it was killed, it sets the line aside at its next start."""
    write_log(tmp_path)
    with segment_files(tmp_path)[-1].open("ab") as file:
        file.write(b'{"n":11,')
    report = check(tmp_path)
    assert (report.valid, report.torn, report.entries) == (True, True, 10)


def test_no_more_faults_are_told_than_anybody_reads(tmp_path: Path) -> None:
    """A file that is all wrong has one for each line."""
    write_log(tmp_path)
    segment_files(tmp_path)[0].write_bytes(b"x\n" * (MAX_FAULTS + 50))
    assert len(check(tmp_path).faults) == MAX_FAULTS


def test_an_empty_log_has_nothing_to_sign(tmp_path: Path) -> None:
    """Only its head is missing."""
    report = check(tmp_path)
    assert (report.entries, len(report.faults)) == (0, 1)
