"""``peertask simulate``: many nodes in one process, with everything going wrong that a seed decides."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from node.cli.exit_codes import ExitCode
from node.cli.help import DocumentedCommand
from node.cli.options import DEBUG, JSON

if TYPE_CHECKING:
    from node.testing.simulation import Scenario, SimulationReport


@click.command(
    cls=DocumentedCommand,
    json_output=(
        "One object for each seed: `seed`, `digest`, `seconds`, `executions`, `counts` of what else was done, and "
        "`violations` with `promise`, `what`, `at` and `task_id` each. With `--trace` also `events`, with `at`, `who`, "
        "`what`, `task_id` and `detail` each."
    ),
    examples=[
        ("peertask simulate --count 100", "seeds 0 to 99"),
        ("peertask simulate --seed 123 --trace", "everything that happens with one seed"),
        ("peertask simulate --nodes 20 --tasks 500", ""),
        ("peertask simulate --scenario my_tests:SCENARIO --seed 7", "a scenario of a module of this folder"),
    ],
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, metavar="N", help="The first seed.")
@click.option(
    "--count", type=click.IntRange(min=1), default=1, show_default=True, metavar="N", help="How many seeds to run."
)
@click.option("--nodes", type=click.IntRange(min=2), metavar="N", help="How many nodes, in place of the scenario's 5.")
@click.option("--tasks", type=click.IntRange(min=0), metavar="N", help="How many tasks, in place of the scenario's 50.")
@click.option(
    "--scenario", metavar="MODULE:NAME", help="A Scenario of a program; a MODULE of this folder is found too."
)
@click.option("--trace", is_flag=True, help="Tell everything that happens.")
@JSON
@DEBUG
def command(
    *,
    seed: int,
    count: int,
    nodes: int | None,
    tasks: int | None,
    scenario: str | None,
    trace: bool,
    as_json: bool,
    debug: bool,  # noqa: ARG001 - the entry reads --debug
) -> ExitCode:
    """Run many nodes in this process, on a clock that jumps, and let go wrong what a seed decides.

    The nodes are real but for their network, their disk and their clock. Links break, clocks are off, nodes are
    killed, stopped and cut off. Whatever happens, what `peertask` promises
    must hold: no task is lost, none is recorded twice, every one ends. The same seed always brings about the same run.

    The exit code is 1 when a promise was broken; the first such seed is explained.
    """
    from node.testing.simulation import simulate

    simulated = _scenario(scenario, nodes, tasks)
    broken = False
    for number in range(seed, seed + count):
        report = simulate(simulated, number)
        _tell(report, trace=trace, as_json=as_json, explain=not broken)
        broken = broken or bool(report.violations)
    return ExitCode.FAILED if broken else ExitCode.OK


def _scenario(name: str | None, nodes: int | None, tasks: int | None) -> Scenario:
    from node.testing.simulation import Scenario, load_scenario

    scenario = load_scenario(name) if name else Scenario()
    return replace(scenario, nodes=nodes or scenario.nodes, tasks=scenario.tasks if tasks is None else tasks)


def _tell(report: SimulationReport, *, trace: bool, as_json: bool, explain: bool) -> None:
    from node.cli.terminal import echo_json

    if as_json:
        echo_json(_to_dict(report, trace=trace))
        return
    if trace:
        for line in report.trace.lines():
            click.echo(line)
    if report.violations:
        click.echo(report.describe() if explain else f"seed {report.seed} breaks promises too: {report.command}")
    else:
        click.echo(f"seed {report.seed}: every promise kept, {report.done}, digest {report.digest}")


def _to_dict(report: SimulationReport, *, trace: bool) -> dict[str, Any]:
    shape: dict[str, Any] = {
        "seed": report.seed,
        "digest": report.digest,
        "seconds": report.seconds,
        "executions": report.executions,
        "counts": dict(report.counts),
        "violations": [violation._asdict() for violation in report.violations],
    }
    if trace:
        shape["events"] = [event._asdict() | {"detail": str(event.detail)} for event in report.trace.events]
    return shape
