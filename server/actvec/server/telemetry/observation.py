"""Logs, metrics and traces of a server, by its options."""

import logging
from importlib.metadata import version

import torch
from prometheus_client import CollectorRegistry

from actvec.server.config import WatchOptions
from actvec.server.engine.packed import Engine
from actvec.server.engine.runner import StepReport
from actvec.server.extraction.extractor import Extractor
from actvec.server.rpc.call import CallListener
from actvec.server.telemetry.log import CallLog
from actvec.server.telemetry.metrics import Metrics
from actvec.server.telemetry.port import MetricsPort
from actvec.server.telemetry.traces import Traces
from actvec.server.telemetry.usage import Usage

log = logging.getLogger(__name__)


class Observation:
    """The log of calls; metrics if they have a port; traces if they have a collector.

    Attributes:
        listeners: Listeners to calls.
        usage: Records when the service was last called.
        interceptors: Interceptors that trace calls.
        metrics_port: The port for Prometheus; None without metrics.

    Raises:
        StartupError: an option needs something that is not installed.
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
        """Take note of a step; called on an engine's thread."""
        if self._metrics is not None:
            self._metrics.stepped(step)

    def start(self, engine: Engine, extractor: Extractor) -> None:
        """Report the model, the waiting work and the memory as metrics.

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
                "device": ",".join(extractor.devices),
                "engine": engine.name,
            }
        )
        self._metrics.watch_queue(
            {
                "interactive": lambda: extractor.waiting_tokens(interactive=True),
                "bulk": lambda: extractor.waiting_tokens(interactive=False),
            }
        )
        gpus = {device for device in extractor.devices if device.startswith("cuda")}
        self._metrics.watch_device_memory(lambda: sum(map(torch.cuda.memory_allocated, gpus)))
        host = self._options.metrics_host
        self._port = MetricsPort(host, self._options.metrics_port, self._registry)
        self.metrics_port = self._port.port
        log.info("metrics on http://%s:%d/metrics", host, self.metrics_port)

    def close(self) -> None:
        """Answer no more, and export the traces that are left."""
        if self._port is not None:
            self._port.close()
        self._traces.close()
