"""What a benchmark gives: a figure, the floor that it is measured against, and what it must reach."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Bound:
    """What a figure must reach.

    Attributes:
        limit: in the unit of the figure, or as a ratio to its floor.
        of_floor: whether `limit` is a ratio.
        at_least: whether more is better.
    """

    limit: float
    of_floor: bool = False
    at_least: bool = False

    def holds(self, figure: Figure) -> bool:
        """Whether the figure reaches it."""
        value = figure.ratio if self.of_floor else figure.value
        if value is None:
            return False
        return value >= self.limit if self.at_least else value <= self.limit

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.limit:g}{' × floor' if self.of_floor else ''}"


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value.

    Attributes:
        section: which benchmark it belongs to.
        name: what was measured.
        value: how much.
        unit: of what.
        floor: the raw floor in the same unit, from the same run; None where there is none.
        bounds: what must be reached.
    """

    section: str
    name: str
    value: float
    unit: str
    floor: float | None = None
    bounds: tuple[Bound, ...] = ()

    @property
    def ratio(self) -> float | None:
        """The value as a multiple of its floor."""
        return None if not self.floor else self.value / self.floor

    @property
    def reached(self) -> bool:
        """Whether every bound holds."""
        return all(bound.holds(self) for bound in self.bounds)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON shape of `peertask bench --json`."""
        shape = asdict(self)
        shape["bounds"] = [str(bound) for bound in self.bounds]
        return {**shape, "ratio": self.ratio, "reached": self.reached}


def percentile(samples: Sequence[float], share: float) -> float:
    """Return the value below which the given share of the samples lies."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def at_most(limit: float) -> Bound:
    """Bound the value from above."""
    return Bound(limit)


def at_least(limit: float) -> Bound:
    """Bound the value from below."""
    return Bound(limit, at_least=True)


def at_most_of_floor(ratio: float) -> Bound:
    """Bound the ratio to the floor from above."""
    return Bound(ratio, of_floor=True)


def at_least_of_floor(ratio: float) -> Bound:
    """Bound the ratio to the floor from below."""
    return Bound(ratio, of_floor=True, at_least=True)
