"""``peertask bench``: measure this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from node.cli.exit_codes import ExitCode
from node.cli.help import DocumentedCommand
from node.cli.options import DEBUG, JSON

if TYPE_CHECKING:
    from collections.abc import Sequence

    from node.bench.figures import Figure


@click.command(
    cls=DocumentedCommand,
    json_output=(
        "One object for each figure: `section`, `name`, `value`, `unit`, `floor`, `ratio`, `bounds`, `reached`."
    ),
    examples=[
        ("peertask bench", ""),
        ("peertask bench latency --seconds 2", ""),
        ("peertask bench --json > figures.jsonl", ""),
    ],
)
@click.argument("sections", nargs=-1)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=5.0,
    show_default=True,
    metavar="S",
    help="How long each measurement of a rate takes.",
)
@JSON
@DEBUG
def command(*, sections: tuple[str, ...], seconds: float, as_json: bool, debug: bool) -> ExitCode:  # noqa: ARG001 - the entry reads --debug
    """Measure peertask, each figure beside the raw libp2p stream of the same run; all SECTIONS unless some are named.

    The exit code is 1 when a figure does not reach what it must.
    """
    from node.cli.running import run
    from node.telemetry import configure_logging

    configure_logging("warning", "json" if as_json else "console")

    async def work() -> ExitCode:
        return await _measure(sections, seconds, as_json=as_json)

    return run(work)


async def _measure(sections: Sequence[str], seconds: float, *, as_json: bool) -> ExitCode:
    from node.bench.run import figures
    from node.cli.terminal import echo_json

    missed = 0
    if not as_json:
        click.secho(_row("", "", "value", "", "floor", "ratio", "must be"), dim=True)
    async for figure in figures(sections, seconds):
        missed += not figure.reached
        if as_json:
            echo_json(figure.to_dict())
        else:
            click.echo(_line(figure))
    return ExitCode.FAILED if missed else ExitCode.OK


def _line(figure: Figure) -> str:
    bounds = ", ".join(map(str, figure.bounds))
    mark = click.style("ok    ", fg="green") if figure.reached else click.style("MISSED", fg="red", bold=True)
    return _row(
        figure.section,
        figure.name,
        _number(figure.value),
        figure.unit,
        _number(figure.floor),
        "" if figure.ratio is None else f"{figure.ratio:.2f}",
        f"{mark} {bounds}" if bounds else "",
    )


def _row(section: str, name: str, value: str, unit: str, floor: str, ratio: str, verdict: str) -> str:
    return f"{section:<10} {name:<44} {value:>8} {unit:<11} {floor:>8} {ratio:>6}  {verdict}".rstrip()


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.3g}" if value < 100 else f"{value:,.0f}"  # noqa: PLR2004 - three digits
