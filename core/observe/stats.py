"""Response times by model: the specification's table, live."""

from collections import deque
from math import ceil

from core.context import Record
from core.contract.reports import ModelStats

REMEMBERED = 1000
"""How many of a model's latest answers its figures cover."""


class _Samples:
    def __init__(self) -> None:
        self.count = 0
        self.durations_s = deque[float](maxlen=REMEMBERED)
        self.first_tokens_s = deque[float](maxlen=REMEMBERED)
        self.rates = deque[float](maxlen=REMEMBERED)


class Stats:
    """Keeps response times by model; only complete answers count."""

    def __init__(self) -> None:
        self._models: dict[str, _Samples] = {}
        self._figures: list[ModelStats] | None = None

    def observe(self, *records: Record) -> None:
        """Count finished requests."""
        for record in records:
            self._observe(record)

    def _observe(self, record: Record) -> None:
        if not record.model or not record.answered:
            return
        self._figures = None
        model = record.model.lower()
        if (samples := self._models.get(model)) is None:
            samples = self._models[model] = _Samples()
        samples.count += 1
        samples.durations_s.append(record.duration_s)
        if record.first_token_s is not None:
            samples.first_tokens_s.append(record.first_token_s)
        if record.tokens and record.duration_s > record.queued_s:
            samples.rates.append(record.tokens / (record.duration_s - record.queued_s))

    def by_model(self) -> list[ModelStats]:
        """Return the figures of each model, in the order of their first answers.

        They are computed at most once per answer, however many pages poll them.
        """
        if self._figures is None:
            self._figures = self._compute()
        return self._figures

    def _compute(self) -> list[ModelStats]:
        return [
            ModelStats(
                model=model,
                count=samples.count,
                mean_s=_mean(samples.durations_s),
                p50_s=_percentile(samples.durations_s, 0.5),
                p95_s=_percentile(samples.durations_s, 0.95),
                first_token_mean_s=_mean(samples.first_tokens_s),
                first_token_p50_s=_percentile(samples.first_tokens_s, 0.5),
                first_token_p95_s=_percentile(samples.first_tokens_s, 0.95),
                tokens_per_s=_mean(samples.rates),
            )
            for model, samples in self._models.items()
        ]


def _mean(values: deque[float]) -> float | None:
    return round(sum(values) / len(values), 3) if values else None


def _percentile(values: deque[float], share: float) -> float | None:
    """Return the smallest value that at least `share` of all values do not exceed."""
    ordered = sorted(values)
    return round(ordered[ceil(share * len(ordered)) - 1], 3) if ordered else None
