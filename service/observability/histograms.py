"""Histograms for the hot path: observed by one thread, so without the locks that make prometheus_client's dear."""

import time
from bisect import bisect_left
from collections.abc import Iterable, Sequence

from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry
from prometheus_client.samples import Exemplar
from prometheus_client.utils import floatToGoString

_LONGEST = 100
"""Characters of an id: all labels of an exemplar have 128 in OpenMetrics, or the whole page fails."""


class Observed:
    """The observations under one set of label values."""

    __slots__ = ("_bounds", "counts", "exemplars", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.exemplars: dict[int, Exemplar] = {}
        """The last example of each bucket that has one."""
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count a value in the first bucket that it does not exceed."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.total += value

    def exemplify(self, value: float, trace_id: str) -> None:
        """Have the trace of that id be the example of a value that was observed."""
        labels = {"trace_id": trace_id[:_LONGEST]}
        self.exemplars[bisect_left(self._bounds, value)] = Exemplar(labels, value, time.time())

    def observe_all(self, values: Sequence[float]) -> None:
        """Count each value, as `observe` does."""
        counts, bounds = self.counts, self._bounds
        for value in values:
            counts[bisect_left(bounds, value)] += 1
        self.total += sum(values)


class Histogram(Collector):
    """A family of histograms with the same buckets; `observe` is for one that has no labels."""

    def __init__(
        self, name: str, meaning: str, labels: Sequence[str], *, buckets: Sequence[float], registry: CollectorRegistry
    ) -> None:
        self._name = name
        self._meaning = meaning
        self._labels = labels
        self._bounds = tuple(buckets)
        self._children: dict[tuple[str, ...], Observed] = {}
        registry.register(self)
        if not labels:
            self.observe = self.labels().observe

    def labels(self, *values: str) -> Observed:
        """The histogram with these label values."""
        if len(values) != len(self._labels):
            raise ValueError(f"{self._name} has the labels {self._labels}, not {len(values)} values")
        return self._children.setdefault(values, Observed(self._bounds))

    def describe(self) -> Iterable[Metric]:
        """The family without its samples."""
        return [HistogramMetricFamily(self._name, self._meaning, labels=self._labels)]

    def collect(self) -> Iterable[Metric]:
        """The family as it stands."""
        family = HistogramMetricFamily(self._name, self._meaning, labels=self._labels)
        for values, child in self._children.items():
            buckets, count = list[tuple[str, float] | tuple[str, float, Exemplar]](), 0
            for i, (bound, counted) in enumerate(zip((*self._bounds, float("inf")), child.counts, strict=True)):
                count += counted
                name = str(floatToGoString(bound))  # type: ignore[no-untyped-call]
                exemplar = child.exemplars.get(i)
                buckets.append((name, float(count)) if exemplar is None else (name, float(count), exemplar))
            family.add_metric(values, buckets, child.total)
        return [family]
