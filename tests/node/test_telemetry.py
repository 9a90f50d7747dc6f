"""What a node tells about itself while it runs: log records, trace context and metrics."""

# covers CORE-8, COORD-32, COORD-56

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap

import pytest
from opentelemetry import trace
from prometheus_client.parser import text_string_to_metric_families

from node.interfaces import Change
from node.telemetry import NodeMetrics, execution_span, inject_traceparent
from node.telemetry.metrics import MAX_KIND_LABELS
from protocol import (
    Claimed,
    Completed,
    ErrorCode,
    Fact,
    Failed,
    Failure,
    PeerId,
    Released,
    Started,
    Submitted,
    Task,
    TaskResult,
    Transition,
    advance,
    begin,
)

PEER = PeerId("12D3KooWPeer")
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def _run(program: str, **environment: str) -> tuple[str, str]:
    """Run a program in a process of its own, because logging and tracing belong to the whole process."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={**os.environ, **environment},
    )
    return done.stdout, done.stderr


def _records(stderr: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in stderr.splitlines()]


# --- logs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["configure_logging('info', 'json')", "import libp2p"])
def test_the_records_of_structlog_of_the_library_and_of_libp2p_join(first: str) -> None:
    """One JSON object a line on standard error, whichever comes first: the configuration or libp2p's import."""
    stdout, stderr = _run(f"""
        import logging, structlog, warnings
        from node.telemetry import bind_task, configure_logging
        {first}
        import libp2p
        configure_logging("info", "json") if {first == "import libp2p"} else None
        logging.basicConfig()
        with bind_task("T", peer_id="P", attempt=2):
            structlog.get_logger("node.dispatcher").info("own", size=3)
            logging.getLogger("some.library").warning("theirs %d", 4)
            logging.getLogger("libp2p.network.swarm").error("of libp2p")
        logging.getLogger("libp2p.network.swarm").info("too chatty")
        logging.getLogger("httpx").info("HTTP Request: GET")
        structlog.get_logger("node").debug("too fine")
        warnings.warn("careful")
        """)
    assert stdout == ""
    own, theirs, of_libp2p, careful = _records(stderr)
    assert {key: own[key] for key in own if key != "timestamp"} == {
        "message": "own",
        "level": "info",
        "logger": "node.dispatcher",
        "size": 3,
        "task_id": "T",
        "peer_id": "P",
        "attempt": 2,
    }
    assert str(own["timestamp"]).endswith("Z")
    assert (theirs["message"], theirs["level"], theirs["task_id"]) == ("theirs 4", "warning", "T")
    assert (of_libp2p["logger"], of_libp2p["level"], of_libp2p["attempt"]) == ("libp2p.network.swarm", "error", 2)
    assert careful["logger"] == "py.warnings"
    assert "task_id" not in careful


def test_what_libp2p_chats_about_is_not_written_when_its_package_waits_either() -> None:
    """A node imports single modules of it, so that what its package does to its logger is never done."""
    _, stderr = _run("""
        import logging
        import node.net
        from libp2p.network.stream import net_stream
        from node.telemetry import configure_logging
        configure_logging("info", "json")
        logging.getLogger("libp2p.network.stream.net_stream").info("too chatty")
        """)
    assert stderr == ""


@pytest.mark.parametrize(("level", "levels"), [("warning", ["error"]), ("debug", ["debug", "error"])])
def test_what_libp2p_only_takes_for_an_error_is_lowered(level: str, levels: list[str]) -> None:
    """A stranger that knocks cannot fill the log; who debugs sees it."""
    _, stderr = _run(f"""
        import logging
        from node.telemetry import configure_logging
        configure_logging("{level}", "json")
        logging.getLogger("libp2p.network.swarm").error("failed to upgrade security for peer %s: %s", "P", "EOF")
        logging.getLogger("libp2p.network.swarm").error("something else")
        """)
    assert [record["level"] for record in _records(stderr)] == levels


@pytest.mark.parametrize("fmt", ["json", "console"])
def test_a_traceback_does_not_show_local_variables(fmt: str) -> None:
    """There are keys and tokens among them."""
    _, stderr = _run(f"""
        import structlog
        from node.telemetry import configure_logging
        configure_logging("info", "{fmt}")
        def fail():
            token = "s3cr" + "et"
            raise ValueError("no")
        try:
            fail()
        except ValueError:
            structlog.get_logger("node").exception("failed")
        """)
    assert "ValueError" in stderr
    assert "s3cret" not in stderr


def test_a_console_is_for_people() -> None:
    """Without a terminal there are no colours; the fields stand beside the message."""
    stdout, stderr = _run("""
        import structlog
        from node.telemetry import configure_logging
        configure_logging()
        structlog.get_logger("node").warning("careful", peers=3)
        """)
    assert stdout == ""
    assert "careful" in stderr
    assert "peers=3" in stderr
    assert "\x1b[" not in stderr


def test_someone_who_debugs_libp2p_is_left_alone() -> None:
    """With its own variable libp2p installs handlers of its own; every record would come twice."""
    stdout, _ = _run(
        """
        import logging
        from node.telemetry import configure_logging
        configure_logging()
        logging.getLogger("libp2p").propagate = False
        print(logging.getLogger("libp2p").propagate)
        """,
        LIBP2P_DEBUG="INFO",
    )
    assert stdout == "False\n"


def test_an_embedded_node_does_not_write_to_standard_output() -> None:
    """A program that has configured nothing gets warnings on standard error, as from any library."""
    stdout, stderr = _run("""
        import structlog
        from node.telemetry import default_to_stdlib_logging
        default_to_stdlib_logging()
        structlog.get_logger("node").info("quiet")
        structlog.get_logger("node").warning("careful, or not quite so", name="x")
        """)
    assert (stdout, stderr) == ("", "careful, or not quite so name=x\n")


def test_a_program_that_has_configured_structlog_keeps_its_way() -> None:
    """An embedded node does not take over the program's logs."""
    stdout, _ = _run("""
        import structlog
        structlog.configure(processors=[structlog.processors.JSONRenderer()])
        from node.telemetry import default_to_stdlib_logging
        default_to_stdlib_logging()
        structlog.get_logger("node").info("mine")
        """)
    assert stdout == '{"event": "mine"}\n'


def test_records_of_a_trace_have_its_ids() -> None:
    """Logs and traces can be joined."""
    _, stderr = _run(f"""
        import structlog
        from node.telemetry import configure_logging, execution_span
        from protocol import Task
        configure_logging("info", "json")
        task = Task.new("p", "peer", timestamp=1, metadata={{"traceparent": "{TRACE}"}})
        with execution_span(task, 1):
            structlog.get_logger("node").info("within")
        """)
    [record] = _records(stderr)
    assert (record["trace_id"], record["span_id"]) == (TRACE[3:35], TRACE[36:52])


# --- traces -----------------------------------------------------------------------------------------------------------


def _task(**metadata: object) -> Task:
    return Task.new("p", PEER, timestamp=1, metadata=metadata)


def test_without_a_span_nothing_is_added_to_a_task() -> None:
    """Who does not trace pays nothing, and a given trace context stays as it is."""
    empty: dict[str, object] = {}
    given = {"traceparent": TRACE, "page": 3}
    assert inject_traceparent(empty) is empty
    assert inject_traceparent(given) is given
    with execution_span(_task(), 1) as nothing:
        assert nothing is None
        assert inject_traceparent(empty) is empty


def test_a_trace_context_goes_on_to_the_tasks_that_an_execution_asks_for() -> None:
    """Also without the SDK: nodes in the middle of a chain do not cut it."""
    with execution_span(_task(traceparent=TRACE, tracestate="vendor=1"), 1):
        assert inject_traceparent({"page": 3}) == {"page": 3, "traceparent": TRACE, "tracestate": "vendor=1"}
        assert inject_traceparent({"traceparent": "other"}) == {"traceparent": "other"}
    assert not trace.get_current_span().get_span_context().is_valid


@pytest.mark.parametrize("nonsense", ["", "00-zz", 7, None, ["00"]])
def test_nonsense_in_place_of_a_trace_context_is_no_trace(nonsense: object) -> None:
    """Anybody may have written the metadata of a task."""
    with execution_span(_task(traceparent=nonsense), 1):
        assert inject_traceparent({}) == {}


def test_with_a_tracer_provider_what_is_done_in_a_store_is_a_span() -> None:
    """It is current meanwhile, knows the task, and its state when there is one; without a provider there is none."""
    # covers REDIS-24, REDIS-25
    program = """
        from opentelemetry import trace

        class Span(trace.NonRecordingSpan):
            def set_attribute(self, key, value): print(key, value)
            def end(self, end_time=None): print("end")

        class Tracer(trace.NoOpTracer):
            def start_as_current_span(self, name, context=None, kind=None, attributes=None, *args, **kwargs):
                print(name, kind.name, attributes)
                return trace.use_span(Span(trace.INVALID_SPAN_CONTEXT), end_on_exit=True)

        class Provider(trace.TracerProvider):
            def get_tracer(self, *args, **kwargs): return Tracer()

        import sys
        if sys.argv[1:] != ["without"]:
            trace.set_tracer_provider(Provider())
        from node.telemetry import LOAD_SPAN, SAVE_SPAN, store_span
        with store_span(SAVE_SPAN, "t") as tell:
            tell("InProgress")
        with store_span(LOAD_SPAN, "t"):
            pass
        """
    stdout, _ = _run(program)
    assert stdout.splitlines() == [
        "TaskManager.SaveTask CLIENT {'task.id': 't'}",
        "task.state InProgress",
        "end",
        "TaskManager.LoadTask CLIENT {'task.id': 't'}",
        "end",
    ]
    stdout, _ = _run(program.replace('["without"]', "[]"))
    assert stdout == ""


def test_with_a_tracer_provider_an_execution_is_a_span() -> None:
    """The span is a child of the task's trace context, and knows the task, the attempt and the failure."""
    stdout, _ = _run(f"""
        from contextlib import suppress
        from opentelemetry import trace

        class Span(trace.NonRecordingSpan):
            def is_recording(self): return True
            def record_exception(self, exception, *args, **kwargs): print("exception", exception)
            def end(self, end_time=None): print("end")

        class Tracer(trace.NoOpTracer):
            def start_span(self, name, context=None, kind=None, attributes=None, *args, **kwargs):
                parent = trace.get_current_span(context).get_span_context()
                print(name, kind.name, trace.format_span_id(parent.span_id), *attributes.values())
                return Span(parent)

            def start_as_current_span(self, name, context=None, kind=None, attributes=None, *args, **kwargs):
                return trace.use_span(self.start_span(name, context, kind, attributes), end_on_exit=True)

        class Provider(trace.TracerProvider):
            def get_tracer(self, *args, **kwargs): return Tracer()

        trace.set_tracer_provider(Provider())
        from node.telemetry import execution_span
        from protocol import Task
        task = Task.new("p", "peer", timestamp=1, id="00000000-0000-4000-8000-000000000000",
                        metadata={{"traceparent": "{TRACE}"}})
        with suppress(ValueError), execution_span(task, 2):
            raise ValueError("no")
        with execution_span(Task.new("p", "peer", timestamp=1, id=task.id), 1):
            pass
        """)
    assert stdout.splitlines() == [
        "execute mock CONSUMER b7ad6b7169203331 00000000-0000-4000-8000-000000000000 mock default 2",
        "exception no",
        "end",
        "execute mock CONSUMER 0000000000000000 00000000-0000-4000-8000-000000000000 mock default 1",
        "end",
    ]


# --- metrics ----------------------------------------------------------------------------------------------------------


def _live(kind: str, *facts: Transition) -> list[Change]:
    """Return the changes of a task from its birth on."""
    task = Task.new("p", PEER, timestamp=1, kind=kind)
    birth = Submitted(task, 1, PEER)
    changes = [Change(begin(birth), birth)]
    for fact in facts:
        own: Fact = fact._replace(task_id=task.id)
        changes.append(Change(advance(changes[-1].record, own), own))  # type: ignore[arg-type]
    return changes


_CLAIMED, _STARTED = Claimed("", 2, 1, PEER, 9), Started("", 2, 1)  # type: ignore[arg-type]


def _completed(duration_ms: int) -> Completed:
    task_id = Task.new("p", PEER, timestamp=1).id
    return Completed(task_id, 3, 1, TaskResult(task_id, "r", duration_ms))


def _samples(metrics: NodeMetrics) -> dict[tuple[str, str], float]:
    return {
        (sample.name, ",".join(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(metrics.text())
        for sample in family.samples
    }


def test_facts_are_counted_with_their_reasons_and_durations() -> None:
    """Everything that a dashboard of tasks needs comes from the feed."""
    metrics = NodeMetrics()
    released = Released("", 2, 1, ErrorCode.LEASE_LOST, "", 0)  # type: ignore[arg-type]
    failed = Failed("", 3, 1, Failure.of(ErrorCode.TIMEOUT, "late"))  # type: ignore[arg-type]
    for change in (
        *_live("echo", _CLAIMED, _STARTED, _completed(4)),
        *_live("echo", _CLAIMED, _STARTED, _completed(700)),
        *_live("echo", _CLAIMED, _STARTED, failed),
        *_live("echo", _CLAIMED, released),
    ):
        metrics.observe(change)
    seen = _samples(metrics)
    counted = {
        fact: seen["peertask_task_facts_total", fact] for fact in ("submitted", "claimed", "started", "completed")
    }
    assert counted == {"submitted": 4, "claimed": 4, "started": 3, "completed": 2}
    assert seen["peertask_task_facts_total", "progressed"] == 0
    assert seen["peertask_task_failures_total", "TIMEOUT"] == 1
    assert seen["peertask_task_releases_total", "LEASE_LOST"] == 1
    buckets = {
        bound: seen["peertask_execution_seconds_bucket", f"echo,{bound}"] for bound in ("0.001", "0.005", "1.0", "+Inf")
    }
    assert buckets == {"0.001": 0, "0.005": 1, "1.0": 2, "+Inf": 2}
    assert seen["peertask_execution_seconds_count", "echo"] == 2
    assert seen["peertask_execution_seconds_sum", "echo"] == pytest.approx(0.704)
    assert seen["process_resident_memory_bytes", ""] > 0


def test_values_that_others_count_are_read_when_asked_for() -> None:
    """A queue's length is not pushed at every change."""
    metrics = NodeMetrics()
    queue: list[int] = []
    metrics.gauge("queued_tasks", "Tasks that wait.", lambda: len(queue))
    metrics.gauge("peers", "Peers by state.", lambda: {"connected": 2, "away": len(queue)}, label="state")
    metrics.counter("frames", "Frames by direction.", lambda: {"sent": 5}, label="direction")
    queue.append(1)
    seen = _samples(metrics)
    assert seen["peertask_queued_tasks", ""] == 1
    assert (seen["peertask_peers", "connected"], seen["peertask_peers", "away"]) == (2, 1)
    assert seen["peertask_frames_total", "sent"] == 5


def test_strangers_cannot_make_time_series_without_end() -> None:
    """Requesters choose the kinds of their tasks; past a limit they are counted together."""
    metrics = NodeMetrics()
    for number in range(MAX_KIND_LABELS + 10):
        for change in _live(f"kind{number}", _CLAIMED, _STARTED, _completed(1)):
            metrics.observe(change)
    seen = _samples(metrics)
    kinds = [labels for name, labels in seen if name == "peertask_execution_seconds_count"]
    assert len(kinds) == MAX_KIND_LABELS + 1
    assert seen["peertask_execution_seconds_count", "other"] == 10


def test_two_nodes_in_a_program_count_for_themselves() -> None:
    """The registry is the node's own, not that of the process."""
    one, other = NodeMetrics(), NodeMetrics()
    one.observe(_live("echo")[0])
    assert _samples(one)["peertask_task_facts_total", "submitted"] == 1
    assert _samples(other)["peertask_task_facts_total", "submitted"] == 0
