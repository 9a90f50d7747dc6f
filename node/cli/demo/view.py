"""The picture of a demo: a table of its nodes, how far the tasks are, and what happened last."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import trio
from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from node.cli.demo.chaos import Disturbance
from node.cli.demo.fleet import Fleet, Member, MemberState
from node.cli.demo.tally import Census, Summary, latencies, percentile
from node.cli.demo.traffic import Traffic
from node.cli.demo.workload import Job, JobState, Workload
from node.cli.terminal import short_peer, short_time

_BAR_WIDTH: Final = 24
_WIDE_BAR: Final = 60
# A screen has no room for more rows; the others are summed up in one.
MAX_ROWS: Final = 16

_MEMBER_STYLES: Final = {
    MemberState.STARTING: ("◌ starting", "yellow"),
    MemberState.RUNNING: ("● running", "green"),
    MemberState.PAUSED: ("‖ paused", "yellow"),
    MemberState.CUT_OFF: ("⊘ cut off", "magenta"),
    MemberState.KILLED: ("✗ killed", "bold red"),
    MemberState.ENDED: ("○ ended", "dim"),
}
_HAPPENS_TO: Final = {
    MemberState.PAUSED: ("is frozen (SIGSTOP); what it does waits, or goes on elsewhere", "yellow"),
    MemberState.CUT_OFF: ("is cut off from the others", "magenta"),
    MemberState.KILLED: ("was killed (SIGKILL); its tasks go on elsewhere", "red"),
}
_JOB_STYLES: Final = {
    JobState.WAITING: "dim",
    JobState.PENDING: "yellow",
    JobState.EXECUTING: "cyan",
    JobState.COMPLETE: "green",
    JobState.FAILED: "red",
}


@dataclass(frozen=True, slots=True)
class Picture:
    """Draws a demo as it is at the moment.

    Attributes:
        fleet: its nodes.
        workload: its tasks.
        begun_at: when it began, in seconds of trio's clock.
    """

    fleet: Fleet
    workload: Workload
    begun_at: float

    def draw(self, phase: str, traffic: Traffic | None) -> RenderableType:
        """Return the picture.

        Args:
            phase: what the demo does at the moment.
            traffic: the tasks on their way; None before there are any.
        """
        census = Census(self.workload.jobs)
        parts: list[RenderableType] = [self._title(phase), Text(), self._nodes(census), Text(), _progress(census)]
        if traffic is not None:
            parts += [self._figures(traffic), Text(), *self._recent(traffic)]
        return Group(*parts)

    def _title(self, phase: str) -> Text:
        elapsed = short_time((trio.current_time() - self.begun_at) * 1000)
        return Text.assemble(("peertask demo", "bold"), f"  {phase}", (f"  {elapsed}", "dim"))

    def _nodes(self, census: Census) -> Table:
        table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
        for heading in ("NODE", "PEER", "STATE"):
            table.add_column(heading)
        for heading in ("DOING", "DONE"):
            table.add_column(heading, justify="right")
        table.add_column("ITS OWN TASKS", min_width=_BAR_WIDTH)
        for member in self.fleet.members[:MAX_ROWS]:
            table.add_row(*_row(member, census))
        if len(self.fleet.members) > MAX_ROWS:
            table.add_row(Text(f"and {len(self.fleet.members) - MAX_ROWS} more", style="dim"))
        return table

    def _figures(self, traffic: Traffic) -> Text:
        took = latencies(self.workload.jobs)
        figures = f"{traffic.rate.per_second(trio.current_time()):.0f} tasks/s"
        if took:
            figures += f"   p50 {percentile(took, 0.5):.0f} ms   p99 {percentile(took, 0.99):.0f} ms"
        return Text(figures)

    def _recent(self, traffic: Traffic) -> Iterator[Text]:
        for member in self.fleet.members:
            if member.state in _HAPPENS_TO:
                what, style = _HAPPENS_TO[member.state]
                yield Text(f"{member.name} {what}", style=style)
        by_id = {member.peer_id: member.name for member in self.fleet.members}
        for job in traffic.recent:
            yield self._line(job, by_id)

    def _line(self, job: Job, names: dict[str, str]) -> Text:
        route = f"{self.fleet.members[job.requester].name} → {names.get(job.holder or '', '?')}"
        took = f"{job.latency_ms:.0f} ms" if job.latency_ms is not None else job.state.value
        return Text(f"{route:<20} task {job.number:<6} {took:>8}{'   moved' if job.moved else ''}", style="dim")


def _row(member: Member, census: Census) -> Iterator[RenderableType]:
    yield Text(member.name, style="bold" if member.state is MemberState.RUNNING else "dim")
    yield Text(short_peer(member.peer_id or None), style="dim")
    yield Text(*_MEMBER_STYLES[member.state])
    yield Text(str(census.held_by(member.peer_id, JobState.EXECUTING)), style="cyan")
    yield Text(str(census.held_by(member.peer_id, JobState.COMPLETE)), style="green")
    yield _bar(census.asked[member.index], census.ended[member.index], _BAR_WIDTH)


def _progress(census: Census) -> RenderableType:
    total, ended = census.states.total(), census.ended.total()
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_row(_bar(total, ended, _WIDE_BAR), Text(f"{ended}/{total}", style="bold"))
    counts = (Text(f"{census.states[state]} {state}", style=_JOB_STYLES[state]) for state in JobState)
    return Group(grid, Text("   ").join(counts))


def summary_lines(summary: Summary, fleet: Fleet, jobs: Sequence[Job], orphans: int) -> Iterator[Text]:
    """Yield how the demo ended, for people.

    Args:
        summary: the figures.
        fleet: the nodes.
        jobs: the tasks.
        orphans: how many tasks a killed node had asked for, and others asked for again.
    """
    good = summary.nothing_lost
    mark = ("✓ ", "bold green") if good else ("✗ ", "bold red")
    verdict = f"{summary.complete} of {summary.tasks} tasks complete"
    rest = f", {summary.failed} failed, {summary.lost} lost, {summary.duplicates} recorded twice"
    yield Text.assemble(mark, (verdict, "bold"), rest)
    if summary.p50_ms is not None:
        yield Text(
            f"  {summary.wall_s:.1f} s, {summary.tasks_per_s:.0f} tasks/s, "
            f"p50 {summary.p50_ms:.0f} ms, p99 {summary.p99_ms:.0f} ms (each waits 100 to 500 ms by design)"
        )
    killed = [member.name for member in fleet.members if member.state is MemberState.KILLED]
    if killed:
        yield Text(f"  {' and '.join(killed)} {'was' if len(killed) == 1 else 'were'} killed mid-way:")
        moved = sum(job.moved and job.asked == 1 for job in jobs)
        yield Text(f"    {moved} tasks that went on elsewhere were done by others")
        yield Text(f"    {orphans} tasks that had been asked for there were asked for again by others")


def chaos_line(counts: Mapping[Disturbance, int]) -> Text:
    """Return what happened to the nodes, for people."""
    times = ", ".join(f"{kind.value} {counts[kind]}×" for kind in Disturbance)
    return Text(f"  nodes were disturbed meanwhile: {times}")


def _bar(total: int, done: int, width: int) -> ProgressBar:
    return ProgressBar(total=max(1, total), completed=done, width=width, complete_style="green", finished_style="green")
