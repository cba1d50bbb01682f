"""The measurements and their ratios."""

from collections.abc import Callable
from statistics import median

import msgspec

from tests.benchmarks import cold
from tests.benchmarks.load import Figures


class Results(msgspec.Struct):
    """All measurements; lists have one value per round, None where a server failed."""

    cases: dict[str, dict[str, list[Figures | None]]] = {}
    """by case and server; the upstream's own figures are the tool's limit"""
    held_kb: dict[str, float] = {}
    """KB of memory per open stream, by server"""
    cold_ms: dict[str, list[float]] = {}
    failures: dict[str, list[str]] = {}
    """by server"""

    def fail(self, server: str, failure: Exception) -> None:
        """Record why `server` has no figures."""
        self.failures.setdefault(server, []).append(str(failure))

    def values(self, case: str, server: str, of: Callable[[Figures], float]) -> list[float | None]:
        """Return one figure from every round."""
        figures = self.cases.get(case, {}).get(server, [])
        return [of(each) if each else None for each in figures]

    def median(self, case: str, server: str, of: Callable[[Figures], float]) -> float | None:
        """Return the median of one figure, or None if it was never measured."""
        return middle(self.values(case, server, of))

    def ratio(self, case: str, server: str, to: str) -> float | None:
        """Return the CPU of `server` as a multiple of that of `to`, the median over the rounds."""
        return _ratio(self.values(case, server, cpu_us), self.values(case, to, cpu_us))

    def scatter(self, case: str, server: str, to: str) -> tuple[float, float] | None:
        """Return the least and the greatest of the ratios that `ratio` is the median of."""
        ratios = _ratios(self.values(case, server, cpu_us), self.values(case, to, cpu_us))
        return (min(ratios), max(ratios)) if ratios else None

    def added_ms(self, case: str, server: str) -> list[float | None]:
        """Return how much `server` adds to the upstream's time to first token, per round."""
        own = self.values(case, "upstream", first_ms)
        through = self.values(case, server, first_ms)
        return [
            None if a is None or b is None else a - b for a, b in zip(through, own, strict=False)
        ]

    def added_ratio(self, case: str, server: str, to: str) -> float | None:
        """Return what `server` adds as a multiple of what `to` adds, the median over the rounds."""
        return _ratio(self.added_ms(case, server), self.added_ms(case, to))

    def cold_ratio(self) -> float | None:
        """Return our function's first-answer time as a fraction of the eager stack's."""
        times = self.cold_ms
        return _ratio([*times.get(cold.OURS, ())], [*times.get(cold.EAGER, ())])


def cpu_us(figures: Figures) -> float:
    return figures.cpu_us


def per_s(figures: Figures) -> float:
    return figures.per_s


def first_ms(figures: Figures) -> float:
    return figures.first_ms


def middle(values: list[float | None]) -> float | None:
    """Return the median of the values present."""
    present = [value for value in values if value is not None]
    return median(present) if present else None


def _ratio(over: list[float | None], under: list[float | None]) -> float | None:
    return middle([*_ratios(over, under)])


def _ratios(over: list[float | None], under: list[float | None]) -> list[float]:
    return [a / b for a, b in zip(over, under, strict=False) if a is not None and b]
