"""The settings of a node: their sources, their limits, and their errors in words."""

from __future__ import annotations

import ast
import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from node import config as config_module
from node.config import DEFAULT_LISTEN, NodeConfig, default_file, is_loopback, variable_of
from protocol import DEFAULT_LIMITS, ErrorCode, Limits, PeertaskError

PEER = "/ip4/192.0.2.7/tcp/4001/p2p/12D3KooWPeer"


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for the user's own file in an empty folder."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "no-config"))
    monkeypatch.setenv("HOME", str(tmp_path / "no-home"))


def _refused(**values: object) -> str:
    with pytest.raises(PeertaskError) as raised:
        NodeConfig(**values)  # type: ignore[arg-type]
    assert raised.value.code is ErrorCode.INVALID_CONFIG
    return str(raised.value)


def test_the_defaults_are_those_of_the_design() -> None:
    """Someone who sets nothing gets what the documents promise."""
    config = NodeConfig()
    assert (config.data, config.store, config.listen) == (None, "memory", DEFAULT_LISTEN)
    assert (config.lease_ms, config.heartbeat_ms, config.silence_ms) == (30_000, 5_000, 15_000)
    assert (config.max_in_flight, config.max_queued, config.drain_s) == (256, 10_000, 10)
    assert (config.retention_ms, config.retention_records) == (24 * 3_600_000, 100_000)
    assert config.limits == DEFAULT_LIMITS == Limits(frame=2**20, chunk=2**18, payload=2**24, in_flight=256)


def test_a_config_takes_only_what_it_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that embeds a node is not changed by the environment, nor by a file of the user."""
    monkeypatch.setenv("PEERTASK_MAX_QUEUED", "7")
    file = tmp_path / "config.toml"
    file.write_text("max_queued = 8")
    monkeypatch.setenv("PEERTASK_CONFIG", str(file))
    assert NodeConfig().max_queued == 10_000
    assert NodeConfig.load().max_queued == 7


def test_a_config_cannot_be_changed() -> None:
    """Parts of a node read it at different times and must see the same."""
    with pytest.raises(ValidationError, match="frozen"):
        NodeConfig().max_queued = 1  # type: ignore[misc]


def test_stronger_sources_win(tmp_path: Path) -> None:
    """The command line wins over variables, they over the file, and it over the caller's defaults."""
    file = tmp_path / "mine.toml"
    file.write_text('max_queued = 1\nmax_in_flight = 1\nlog_level = "debug"\nlisten = ["/ip4/127.0.0.1/tcp/1"]')
    environment = {"PEERTASK_MAX_QUEUED": "2", "PEERTASK_MAX_IN_FLIGHT": "2", "OTHER": "x", "PEERTASK_DRAIN_S": ""}
    defaults = {"log_level": "error", "log_format": "json"}
    config = NodeConfig.load(file, environment=environment, defaults=defaults, max_queued=3, drain_s=None)
    assert (config.max_queued, config.max_in_flight) == (3, 2)
    assert (config.log_level, config.log_format, config.drain_s) == ("debug", "json", 10)
    assert config.listen == ("/ip4/127.0.0.1/tcp/1",)


def test_the_file_of_the_user_is_read_when_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It lies where the system keeps configuration; a named file is read in its place."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert NodeConfig.load(environment={}) == NodeConfig()
    default_file().parent.mkdir(parents=True)
    default_file().write_text("drain_s = 3")
    assert NodeConfig.load(environment={}).drain_s == 3
    (tmp_path / "other.toml").write_text("drain_s = 4")
    assert NodeConfig.load(environment={"PEERTASK_CONFIG": str(tmp_path / "other.toml")}).drain_s == 4


def test_variables_hold_lists_and_tables() -> None:
    """Commas are enough for a list; JSON says everything."""
    config = NodeConfig.load(environment={"PEERTASK_PEERS": f"{PEER}, {PEER}2", "PEERTASK_ALLOW": "12D3A,12D3B"})
    assert config.peers == (PEER, PEER + "2")
    assert config.allow == {"*": ("12D3A", "12D3B")}
    config = NodeConfig.load(environment={"PEERTASK_PEERS": f'["{PEER}"]', "PEERTASK_ALLOW": '{"shell": ["12D3A"]}'})
    assert (config.peers, config.allow) == ((PEER,), {"shell": ("12D3A",)})
    with pytest.raises(PeertaskError, match="PEERTASK_PEERS is not JSON"):
        NodeConfig.load(environment={"PEERTASK_PEERS": "[unclosed"})


def test_peers_are_allowed_by_kind_or_for_every_kind(tmp_path: Path) -> None:
    """A plain list means every kind."""
    assert NodeConfig(allow=["12D3A"]).allow == {"*": ("12D3A",)}  # type: ignore[arg-type]
    assert NodeConfig(allow={"shell": ("12D3A",)}).allow == {"shell": ("12D3A",)}  # type: ignore[dict-item]
    file = tmp_path / "c.toml"
    file.write_text('[allow]\n"*" = ["12D3A"]\nllm = ["12D3B"]')
    assert NodeConfig.load(file, environment={}).allow == {"*": ("12D3A",), "llm": ("12D3B",)}


@pytest.mark.parametrize(
    ("settings", "in_flight"),
    [({}, os.cpu_count()), ({"work_slots": 3}, 3), ({"work_slots": 300}, 256), ({"max_in_flight": 1}, 1)],
)
def test_a_node_that_works_for_another_takes_as_many_tasks_as_it_offers(
    settings: dict[str, int], in_flight: int
) -> None:
    """As many as there are processors by default, never more than one peer may have; its Hello says the same."""
    config = NodeConfig(work_for=PEER, **settings)  # type: ignore[arg-type]
    assert (config.works_for, config.in_flight, config.limits.in_flight) == ("12D3KooWPeer", in_flight, in_flight)
    assert NodeConfig().works_for is None
    assert NodeConfig().in_flight == 256


def test_a_data_folder_may_begin_with_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file and a variable have no shell that would expand it."""
    monkeypatch.setenv("HOME", "/home/somebody")
    assert NodeConfig(data=Path("~/peertask")).data == Path("/home/somebody/peertask")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            {"max_queued": 0},
            "the setting max_queued is 0 (from the arguments): input should be greater than or equal to 1",
        ),
        ({"lease_ms": "soon"}, "the setting lease_ms is 'soon' (from the arguments): input should be a valid integer"),
        (
            {"log_level": "loud"},
            "the setting log_level is 'loud' (from the arguments): input should be 'debug', 'info'",
        ),
        ({"store": "tape"}, "the setting store is 'tape' (from the arguments): input should be 'memory', 'sqlite'"),
        ({"store": "sqlite"}, "store is sqlite, but there is no data folder to keep tasks in; set data"),
        ({"listen": ["localhost:1"]}, "the setting listen.0 is 'localhost:1' (from the arguments): not a multiaddress"),
        ({"listen": ["localhost:1"]}, "An address to listen on looks like /ip4/0.0.0.0/tcp/4001"),
        (
            {"peers": ["/ip4/127.0.0.1/tcp/1"]},
            "a peer's address ends with /p2p/ and its peer id. An address",
        ),
        ({"work_for": "x"}, "not a multiaddress. An address looks like /ip4/192.0.2.7/tcp/4001/p2p/12D3KooW…"),
        ({"payload_bytes": 2**24 + 1}, "less than or equal to 16777216"),
        ({"frame_bytes": 10}, "greater than or equal to 1024"),
        ({"heartbeat_ms": 8_000}, "silence_ms is 15000, but must be at least 3 times heartbeat_ms, 8000"),
        ({"lease_ms": 9_999}, "lease_ms is 9999, but must be at least 3 times heartbeat_ms, 5000"),
        ({"drain_s": float("nan")}, "the setting drain_s is nan"),
        ({"data": "x", "http": "0.0.0.0:80"}, "only loopback is allowed: 127.0.0.1, [::1] or localhost"),
        ({"data": "x", "http": "example.org:80"}, "only loopback is allowed"),
        ({"data": "x", "http": "127.0.0.1"}, "not HOST:PORT, such as 127.0.0.1:8080"),
        ({"data": "x", "http": "127.0.0.1:99999"}, "not HOST:PORT"),
        ({"relay_for": ("12D3KooWPeer",)}, "relay_for names peers, but this node is no relay; set relay_service"),
        ({"relays": ("/ip4/192.0.2.7/tcp/1",)}, "the setting relays.0 is '/ip4/192.0.2.7/tcp/1'"),
        ({"http": "127.0.0.1:80"}, "http is 127.0.0.1:80, but there is no data folder to keep the token in"),
        ({"mock_seed": "x" * 200}, "x" * 78 + "… (from"),
    ],
)
def test_a_wrong_value_is_refused_in_words(values: dict[str, object], words: str) -> None:
    """The error names the setting, the value, what is allowed and where it came from."""
    assert words in _refused(**values)


@pytest.mark.parametrize("http", ["127.0.0.1:0", "[::1]:8080", "localhost:65535", "127.8.0.1:1"])
def test_http_listens_on_loopback(http: str) -> None:
    """Every spelling of this machine is fine."""
    assert NodeConfig(data=Path("x"), http=http).http == http


def test_an_unknown_setting_is_refused_with_the_nearest(tmp_path: Path) -> None:
    """A typo is found wherever it was made, also in a variable, which nothing else would notice."""
    assert "there is no setting max_quued (from the arguments); the nearest is max_queued" in _refused(max_quued=1)
    with pytest.raises(PeertaskError, match=r"no setting PEERTASK_LISTN .*the nearest is PEERTASK_LISTEN"):
        NodeConfig.load(environment={"PEERTASK_LISTN": "x"})
    file = tmp_path / "c.toml"
    file.write_text("drain = 1")
    with pytest.raises(PeertaskError) as raised:
        NodeConfig.load(file, environment={})
    assert f"there is no setting drain (from {file}); the nearest is drain_s" in raised.value.message
    assert "heartbeat_ms" in raised.value.remedy


def test_the_place_of_a_wrong_value_is_named(tmp_path: Path) -> None:
    """Of several sources, the error names the one whose value counts."""
    file = tmp_path / "c.toml"
    file.write_text("max_queued = 0")
    with pytest.raises(PeertaskError, match=f"max_queued is 0 .from {file}."):
        NodeConfig.load(file, environment={})
    with pytest.raises(PeertaskError, match=r"max_queued is '-1' .from the environment, PEERTASK_MAX_QUEUED."):
        NodeConfig.load(file, environment={"PEERTASK_MAX_QUEUED": "-1"})
    with pytest.raises(PeertaskError, match=r"max_queued is -2 .from the command line."):
        NodeConfig.load(file, environment={"PEERTASK_MAX_QUEUED": "-1"}, max_queued=-2)


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"a = ", "is not TOML"), (b"\xff = 1", "is not TOML"), (None, "is not there")],
)
def test_a_file_that_cannot_be_read_is_an_error_in_words(tmp_path: Path, content: bytes | None, words: str) -> None:
    """The error names the file and what to do."""
    file = tmp_path / "c.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(PeertaskError, match=words) as raised:
        NodeConfig.load(file, environment={})
    assert (raised.value.code, str(file) in raised.value.message) == (ErrorCode.INVALID_CONFIG, True)
    with pytest.raises(PeertaskError, match="cannot be read: Is a directory"):
        NodeConfig.load(tmp_path, environment={})


def test_a_chunk_is_never_larger_than_a_frame() -> None:
    """Someone who only makes frames smaller need not think of chunks."""
    assert NodeConfig(frame_bytes=4096).limits.chunk == 4096


def test_only_this_machine_is_loopback() -> None:
    """The check that keeps strangers out knows names, addresses and brackets."""
    assert all(map(is_loopback, ["127.0.0.1", "localhost", "::1", "[::1]", "127.1.2.3"]))
    assert not any(map(is_loopback, ["0.0.0.0", "192.0.2.1", "localhost.example.org", "", "::"]))  # noqa: S104


def test_every_setting_has_a_variable_and_an_explanation() -> None:
    """The generated reference has no gaps."""
    source = ast.parse(Path(config_module.__file__).read_text())
    settings = next(node for node in source.body if isinstance(node, ast.ClassDef) and node.name == "_Settings")
    explained = {
        field.target.id
        for field, text in zip(settings.body, settings.body[1:], strict=False)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr)
    }
    assert explained == set(NodeConfig.model_fields)
    assert variable_of("max_queued") == "PEERTASK_MAX_QUEUED"
