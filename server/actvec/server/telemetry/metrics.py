"""Metrics for Prometheus: of calls as they are answered, of steps as they are computed.

Every name begins with `actvec_`; beside them stand prometheus_client's own `process_*`.
"""

from collections.abc import Callable, Mapping

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
)

from actvec.server.engine.runner import StepReport
from actvec.server.rpc.answers import Answers
from actvec.server.rpc.call import Call, CallListener

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
_SHARES = (0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 1)


class Metrics(CallListener):
    """Counts calls and steps. Costs some microseconds a message and a step.

    Args:
        step_tokens: Tokens that a step takes.
        registry: Where the metrics are registered; each server has its own.
    """

    def __init__(self, step_tokens: int, registry: CollectorRegistry) -> None:
        self._step_tokens = step_tokens
        self._registry = registry
        ProcessCollector(registry=registry)
        self._calls = self._counter("calls", "Finished calls.", "method", "code")
        self._in_flight = Gauge(
            "actvec_calls_in_flight", "Running calls.", ["method"], registry=registry
        )
        self._call_seconds = self._histogram("call_seconds", "Duration of calls.", "method")
        self._documents = self._counter("documents", "Answered documents.", "method", "code")
        self._tokens = self._counter("tokens", "Tokens of documents answered with OK.", "method")
        self._commits = self._counter("commits", "Commits of means that were reported to clients.")
        self._steps = self._counter("steps", "Forward passes.")
        self._step_splits = self._counter(
            "step_splits", "Forward passes halved because memory could not hold them."
        )
        self._step_documents = self._counter("step_documents", "Documents in forward passes.")
        self._step_total = self._counter("step_tokens", "Tokens in forward passes.")
        self._step_seconds = self._histogram("step_seconds", "Duration of forward passes.")
        self._step_fill = self._histogram(
            "step_fill_ratio", "Tokens of a step as a fraction of the limit.", buckets=_SHARES
        )
        self._queue_seconds = self._histogram("queue_seconds", "Waiting time of documents.")

    def describe(self, facts: dict[str, str]) -> None:
        """Show the model and engine as the labels of `actvec_server_info`."""
        Info(
            "actvec_server", "The model and engine that the server runs.", registry=self._registry
        ).info(facts)

    def watch_queue(self, waiting: Mapping[str, Callable[[], float]]) -> None:
        """Show how many tokens wait in each lane; read when it is asked for."""
        gauge = Gauge("actvec_queue_tokens", "Waiting tokens.", ["lane"], registry=self._registry)
        for lane, read in waiting.items():
            gauge.labels(lane).set_function(read)

    def watch_device_memory(self, read: Callable[[], float]) -> None:
        """Show how much memory of the device is taken; read when it is asked for."""
        gauge = Gauge(
            "actvec_device_memory_bytes",
            "Device memory that tensors take; 0 on a CPU.",
            registry=self._registry,
        )
        gauge.set_function(read)

    def began(self, call: Call) -> None:
        """Count a call in."""
        self._in_flight.labels(call.name).inc()

    def answered(self, call: Call, answers: Answers) -> None:
        """Count the answers of a call."""
        for code, documents in answers.documents.items():
            self._documents.labels(call.name, code).inc(documents)
        self._tokens.labels(call.name).inc(answers.tokens)
        self._commits.inc(answers.commits)

    def ended(self, call: Call) -> None:
        """Count a call out."""
        self._in_flight.labels(call.name).dec()
        self._calls.labels(call.name, call.code.name if call.code else "").inc()
        self._call_seconds.labels(call.name).observe(call.seconds)

    def stepped(self, step: StepReport) -> None:
        """Count a step. Called on an engine's thread."""
        self._steps.inc()
        self._step_splits.inc(step.splits)
        self._step_documents.inc(len(step.waits))
        self._step_total.inc(step.tokens)
        self._step_seconds.observe(step.seconds)
        self._step_fill.observe(step.tokens / self._step_tokens)
        for wait in step.waits:
            self._queue_seconds.observe(wait)

    def _counter(self, name: str, description: str, *labels: str) -> Counter:
        return Counter(f"actvec_{name}", description, labels, registry=self._registry)

    def _histogram(
        self, name: str, description: str, *labels: str, buckets: tuple[float, ...] = _SECONDS
    ) -> Histogram:
        return Histogram(
            f"actvec_{name}", description, labels, registry=self._registry, buckets=buckets
        )
