"""Nodes and commands as real processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.fork_server import ForkServer, ForkStage
from tests.acceptance.processes import NodeProcess, Stage, closing_stage


@pytest.fixture(scope="session")
def program_server() -> Iterator[ForkServer]:
    """Where the processes of most tests are forked from."""
    server = ForkServer(measured=True)
    yield server
    server.close()


@pytest.fixture
def stage(tmp_path: Path, program_server: ForkServer) -> Iterator[Stage]:
    """Processes of one test."""
    yield from closing_stage(ForkStage(tmp_path, program_server))


@pytest.fixture
def program_stage(tmp_path: Path) -> Iterator[Stage]:
    """Processes of one test, each started by the program that is installed."""
    yield from closing_stage(Stage(tmp_path))


@pytest.fixture(scope="module")
def shared_stage(tmp_path_factory: pytest.TempPathFactory, program_server: ForkServer) -> Iterator[Stage]:
    """Processes that the tests of a module share."""
    yield from closing_stage(ForkStage(tmp_path_factory.mktemp("stage"), program_server))


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
