"""Nodes and commands as real processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.processes import NodeProcess, Stage, open_stage


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """Processes of one test."""
    yield from open_stage(tmp_path)


@pytest.fixture(scope="module")
def shared_stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Processes that the tests of a module share."""
    yield from open_stage(tmp_path_factory.mktemp("stage"))


@pytest.fixture(scope="module")
def worker(shared_stage: Stage) -> NodeProcess:
    """A node that does tasks, for all tests of a module."""
    return shared_stage.start_node("worker")


@pytest.fixture(scope="module")
def local(shared_stage: Stage, worker: NodeProcess) -> NodeProcess:
    """A node through which commands ask, connected to the worker."""
    node = shared_stage.start_node("local", "--peer", worker.address)
    node.wait_for_peer(worker)
    return node
