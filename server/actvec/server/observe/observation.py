"""Everything that watches a server, as its options say."""

import logging
from importlib.metadata import version

import torch
from prometheus_client import CollectorRegistry

from actvec.server.calls.call import CallListener
from actvec.server.config import WatchOptions
from actvec.server.engine import Engine
from actvec.server.extractor import Extractor
from actvec.server.observe.log import CallLog
from actvec.server.observe.metrics import Metrics
from actvec.server.observe.port import MetricsPort
from actvec.server.observe.traces import Traces
from actvec.server.observe.usage import Usage
from actvec.server.runner import StepReport

log = logging.getLogger(__name__)


class Observation:
    """The log of calls, metrics where they have a port, traces where they have a collector.

    Attributes:
        listeners: Who is told of calls.
        usage: When the service was last called.
        interceptors: What calls pass to be traced.
        metrics_port: Where Prometheus asks; None without metrics.

    Raises:
        StartupError: something that the options need is not installed.
    """

    def __init__(self, options: WatchOptions, step_tokens: int, service: str) -> None:
        self.usage = Usage()
        self.listeners: list[CallListener] = [CallLog(), self.usage]
        self.metrics_port: int | None = None
        self._options = options
        self._traces = Traces(service)
        self.interceptors = self._traces.interceptors
        self._registry = CollectorRegistry()
        self._metrics: Metrics | None = None
        self._port: MetricsPort | None = None
        if self._options.metrics_port is not None:
            self._metrics = Metrics(step_tokens, self._registry)
            self.listeners.append(self._metrics)

    def stepped(self, step: StepReport) -> None:
        """Take note of a step; called on the engine's thread."""
        if self._metrics is not None:
            self._metrics.stepped(step)

    def start(self, engine: Engine, extractor: Extractor) -> None:
        """Show what is served, how much waits and how much memory it takes, to those who ask.

        Raises:
            StartupError: the port for metrics is taken.
        """
        if self._metrics is None or self._options.metrics_port is None:
            return
        card = engine.card
        self._metrics.describe(
            {
                "version": version("actvec"),
                "model": card.model,
                "revision": card.revision,
                "dtype": card.dtype,
                "device": card.device,
                "engine": engine.name,
            }
        )
        self._metrics.watch_queue(
            {
                "interactive": lambda: extractor.waiting_tokens(interactive=True),
                "bulk": lambda: extractor.waiting_tokens(interactive=False),
            }
        )
        on_gpu = card.device.startswith("cuda")
        self._metrics.watch_device_memory(
            lambda: torch.cuda.memory_allocated(card.device) if on_gpu else 0
        )
        host = self._options.metrics_host
        self._port = MetricsPort(host, self._options.metrics_port, self._registry)
        self.metrics_port = self._port.port
        log.info("metrics on http://%s:%d/metrics", host, self.metrics_port)

    def close(self) -> None:
        """Answer no more, and export the traces that are left."""
        if self._port is not None:
            self._port.close()
        self._traces.close()
