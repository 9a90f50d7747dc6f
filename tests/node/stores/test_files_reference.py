"""The reference of the format: its example is a file that a node reads, and would write."""

from __future__ import annotations

from node.stores.files.document import decode, encode
from tests.doc_examples import ROOT, blocks


def test_the_example_of_the_reference_is_what_a_node_writes() -> None:
    """Byte for byte, so the page cannot fall behind."""
    (example,) = blocks(ROOT / "docs" / "reference" / "checkpoint-files.md", "json")
    document = decode(example.text.encode())
    assert encode(document.record, document.facts()).decode() == example.text
