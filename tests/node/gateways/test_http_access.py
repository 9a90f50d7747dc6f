"""Who may speak to a node, and where it answers."""

from __future__ import annotations

import json
import socket
import stat
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from node.gateways.http.folder import CONTROL_FILE, SOCKET_FILE, TOKEN_FILE, find_control, occupied
from node.gateways.http.server import MAX_CONNECTIONS
from protocol import ErrorCode, PeertaskError
from tests.node.gateways.http_node import connected, serving


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_only_the_owner_can_use_the_socket(tmp_path: Path) -> None:
    """The mode of the socket and of what says where it is keeps everybody else out."""
    async with serving(tmp_path) as served:
        assert served.address.socket == str(tmp_path / SOCKET_FILE)
        assert _mode(tmp_path / SOCKET_FILE) == 0o600
        assert _mode(tmp_path / CONTROL_FILE) == 0o600


def test_nobody_can_connect_before_the_mode_is_set(tmp_path: Path) -> None:
    """A bound socket refuses connections until it listens, and it listens with its final mode."""
    with occupied(tmp_path) as hold, hold.bind_socket() as bound, socket.socket(socket.AF_UNIX) as client:
        assert _mode(tmp_path / SOCKET_FILE) == 0o600
        with pytest.raises(ConnectionRefusedError):
            client.connect(bound.getsockname())


async def test_a_second_node_in_a_folder_is_refused_with_the_process_of_the_first(tmp_path: Path) -> None:
    """Two nodes would answer for each other's tasks; the first one goes on undisturbed."""
    async with serving(tmp_path) as served, connected(served) as client:
        with pytest.raises(PeertaskError, match=f"process {served.address.pid}") as refused, occupied(tmp_path):
            pass
        assert refused.value.code is ErrorCode.INVALID_CONFIG
        assert str(tmp_path) in refused.value.message
        assert (await client.get("/v1/node")).status_code == 200


async def test_what_a_dead_node_left_behind_is_replaced(tmp_path: Path) -> None:
    """The socket and the announcement of a node that was killed do not keep the next one from starting."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / SOCKET_FILE))
    (tmp_path / CONTROL_FILE).write_text(json.dumps({"socket": str(tmp_path / SOCKET_FILE), "url": None, "pid": 1}))
    (tmp_path / CONTROL_FILE).chmod(0o644)
    async with serving(tmp_path) as served, connected(served) as client:
        assert (await client.get("/v1/health")).json() == {"status": "ok", "problems": []}
        assert _mode(tmp_path / CONTROL_FILE) == 0o600


async def test_a_node_that_ended_leaves_no_socket(tmp_path: Path) -> None:
    """Clients are told at once that nobody is there."""
    async with serving(tmp_path):
        assert find_control(tmp_path).socket
    assert not (tmp_path / SOCKET_FILE).exists()
    with pytest.raises(PeertaskError, match="no node runs there") as refused:
        find_control(tmp_path)
    assert refused.value.code is ErrorCode.NODE_UNAVAILABLE


async def test_a_folder_with_a_long_path_has_its_socket_elsewhere(tmp_path: Path) -> None:
    """The limit of socket paths is no limit of data folders; the other place is private, and gone with the node."""
    folder = tmp_path / ("long" * 40)
    async with serving(folder) as served, connected(served) as client:
        elsewhere = Path(served.address.socket)
        assert elsewhere.parent.parent != folder
        assert _mode(elsewhere.parent) == 0o700
        assert find_control(folder) == served.address
        assert (await client.get("/v1/node")).status_code == 200
    assert not elsewhere.parent.exists()


async def test_the_short_place_of_a_killed_node_is_cleaned_up(tmp_path: Path) -> None:
    """A node that was killed could not remove its private folder; the next one in the data folder does."""
    left = tmp_path / "peertask-dead"
    left.mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(left / SOCKET_FILE))
    data = tmp_path / "data"
    data.mkdir()
    (data / CONTROL_FILE).write_text(json.dumps({"socket": str(left / SOCKET_FILE), "url": None, "pid": 1}))
    async with serving(data):
        assert not left.exists()


def test_no_short_place_is_an_error_in_words(tmp_path: Path) -> None:
    """A system without room for a socket's path gets a remedy instead of an OSError."""
    with occupied(tmp_path) as hold, pytest.raises(PeertaskError, match="short enough") as refused:
        hold.bind_socket(max_path_bytes=10)
    assert "TMPDIR" in refused.value.remedy


def test_a_socket_that_cannot_be_made_is_an_error_in_words(tmp_path: Path) -> None:
    """The error names the path and the reason."""
    with occupied(tmp_path) as hold:
        (tmp_path / SOCKET_FILE).touch()
        with pytest.raises(PeertaskError, match=r"control\.sock cannot be made: Address already in use"):
            hold.bind_socket()


def test_a_folder_that_cannot_be_used_is_an_error_in_words(tmp_path: Path) -> None:
    """The error names the folder and the reason."""
    (tmp_path / "file").touch()
    with pytest.raises(PeertaskError, match="cannot be used: Not a directory"), occupied(tmp_path / "file" / "data"):
        pass
    with pytest.raises(PeertaskError, match="cannot be read: Not a directory"):
        find_control(tmp_path / "file")


def _authorized(folder: Path) -> dict[str, str]:
    return {"Authorization": f"Bearer {(folder / TOKEN_FILE).read_text().strip()}"}


async def test_over_tcp_only_the_token_opens(tmp_path: Path) -> None:
    """The token is in a file that only the owner can read, and stays the same over restarts."""
    async with (
        serving(tmp_path, bind="127.0.0.1:0") as served,
        httpx.AsyncClient(base_url=str(served.address.url)) as client,
    ):
        assert _mode(tmp_path / TOKEN_FILE) == 0o600
        headers = _authorized(tmp_path)
        assert len(headers["Authorization"]) > 40
        assert (await client.get("/v1/node", headers=headers)).status_code == 200
        for bad in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": headers["Authorization"] + "x"}):
            refused = await client.get("/v1/node", headers=bad)
            assert (refused.status_code, refused.json()["error"]["code"]) == (401, "FORBIDDEN")
            assert refused.headers["www-authenticate"] == "Bearer"
        assert find_control(tmp_path).url == served.address.url
    async with serving(tmp_path, bind="localhost:0"):
        assert _authorized(tmp_path) == headers


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "192.0.2.1"])
async def test_over_tcp_a_foreign_host_is_refused(tmp_path: Path, host: str) -> None:
    """A page whose name was made to point here cannot use the browser's way to the node, even with the token."""
    async with (
        serving(tmp_path, bind="127.0.0.1:0") as served,
        httpx.AsyncClient(base_url=str(served.address.url)) as client,
    ):
        refused = await client.get("/v1/node", headers={**_authorized(tmp_path), "Host": host})
        assert (refused.status_code, refused.json()["error"]["code"]) == (421, "FORBIDDEN")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:1234", "[::1]", "[::1]:80"])
async def test_over_tcp_every_name_of_this_machine_is_fine(tmp_path: Path, host: str) -> None:
    """Loopback has several names, with and without a port."""
    async with (
        serving(tmp_path, bind="127.0.0.1:0") as served,
        httpx.AsyncClient(base_url=str(served.address.url)) as client,
    ):
        response = await client.get("/v1/node", headers={**_authorized(tmp_path), "Host": host})
        assert response.status_code == 200


async def test_ipv6_loopback_can_be_listened_on(tmp_path: Path) -> None:
    """The address that is announced is one that a client can use."""
    if not socket.has_ipv6 or not Path("/proc/net/if_inet6").exists():
        pytest.skip("no IPv6 here")
    async with (
        serving(tmp_path, bind="[::1]:0") as served,
        httpx.AsyncClient(base_url=str(served.address.url)) as client,
    ):
        assert (await client.get("/v1/node", headers=_authorized(tmp_path))).status_code == 200


async def test_a_port_that_is_taken_is_an_error_in_words(tmp_path: Path) -> None:
    """The error says which address, and the folder is free again."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ExceptionGroup) as raised:
            async with serving(tmp_path, bind=bind):
                pass
        assert raised.group_contains(PeertaskError, match=f"cannot listen on {bind}", depth=1)
    async with serving(tmp_path):
        pass


async def test_too_many_connections_are_turned_away(tmp_path: Path) -> None:
    """Clients that only hold connections cannot use up the files of the node; when they leave, others get in."""
    async with serving(tmp_path) as served:
        streams = [await trio.open_unix_socket(served.address.socket) for _ in range(MAX_CONNECTIONS)]
        await wait_all_tasks_blocked(0.05)
        async with await trio.open_unix_socket(served.address.socket) as one_more:
            assert await one_more.receive_some() == b""
        for stream in streams:
            await stream.aclose()
        await wait_all_tasks_blocked(0.05)
        async with connected(served) as client:
            assert (await client.get("/v1/node")).status_code == 200


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00\xff" * 100,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 100,
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 100_000,
        b"GET /v1/events HTTP/1.1\r\n\r\n",
        (
            b"GET /v1/node HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        ),
        b"POST /v1/tasks HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{",
    ],
    ids=["bytes", "http2", "endless header", "no host", "websocket", "half a body"],
)
async def test_garbage_ends_its_own_connection_and_nothing_else(tmp_path: Path, garbage: bytes) -> None:
    """A client with a defect, or a browser that guesses, does not disturb the node."""
    async with serving(tmp_path) as served, connected(served) as client:
        async with await trio.open_unix_socket(served.address.socket) as stream:
            with suppress(trio.BrokenResourceError):  # it may be closed before it has read everything
                await stream.send_all(garbage)
                await stream.send_eof()
                while await stream.receive_some():
                    pass
        assert (await client.get("/v1/node")).status_code == 200


async def test_cancelling_ends_everything_at_once(tmp_path: Path) -> None:
    """A node that is cancelled does not wait for its clients, and leaves no socket."""
    with trio.CancelScope() as scope:
        async with serving(tmp_path) as served:
            stream = await trio.open_unix_socket(served.address.socket)
            await wait_all_tasks_blocked()
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert not (tmp_path / SOCKET_FILE).exists()
    async with stream:
        assert await stream.receive_some() == b""
