"""`python -m bench.service`: the overhead of the service over the engine, and how it shares it."""

import asyncio
import statistics
import threading
import time
from collections.abc import Sequence

import numpy as np
import torch

from actvec.client import AsyncClient, Client
from actvec.server.engine.memory import DEFAULT_STEP_TOKENS
from actvec.server.engine.packed import PackedEngine
from actvec.server.engine.step import StepDocument
from actvec.server.heap import keep_freed_memory
from bench.arguments import add_shape, arguments
from bench.serving import ServerProcess, serving
from bench.timing import timed
from bench.workload import SHAPES, Workload

SHORT = "a short text, of the length of a question that somebody asks while the server is idle"


def idle(server: ServerProcess, engine: PackedEngine, tokens: int, calls: int) -> None:
    """Time one short document on an idle server, against its forward pass alone; interleaved."""
    document = [StepDocument.of(np.ones(tokens, dtype=np.int64), "long")]
    forward, call = [], []
    with Client(server.target) as client:
        for _ in range(calls):
            forward.append(timed(lambda: engine.run(document)))
            call.append(timed(lambda: client.extract(SHORT, mode="short")))
    ours, theirs = (1000 * statistics.median(times) for times in (call, forward))
    print(
        f"ExtractVector of {tokens} tokens on an idle server, median of {calls}: {ours:.1f} ms; "
        f"the forward pass alone {theirs:.1f} ms; the service adds {ours - theirs:.1f} ms\n"
    )


def beside_bulk(server: ServerProcess, texts: Sequence[str], step: float, calls: int) -> None:
    """Time one short document after the other while a stream keeps the engine busy."""
    over = threading.Event()

    def endless() -> None:
        with Client(server.target) as bulk:
            for _ in bulk.stream(
                (text for _ in iter(over.is_set, True) for text in texts), mode="long"
            ):
                if over.is_set():
                    return

    streaming = threading.Thread(target=endless)
    streaming.start()
    with Client(server.target) as client:
        client.extract(SHORT, mode="short")
        seconds = [timed(lambda: client.extract(SHORT, mode="short")) for _ in range(calls)]
    over.set()
    streaming.join()
    shown = ", ".join(
        f"{name} {value:.2f}"
        for name, value in (
            ("median", statistics.median(seconds) / step),
            ("95%", statistics.quantiles(seconds, n=20)[-1] / step),
            ("longest", max(seconds) / step),
        )
    )
    print(
        f"the same beside a bulk stream, {calls} calls, in steps (of {1000 * step:.0f} ms each: at "
        f"most one that runs, and then the call's own): {shown}\n"
    )


async def shared(server: ServerProcess, streams: int, documents: int) -> None:
    """Run many streams at once, with equally many documents each."""

    async def one(client: AsyncClient, number: int) -> float:
        texts = [f"stream {number} and its document {index}" for index in range(documents)]
        async for _ in client.stream(texts, mode="short"):
            pass
        return time.perf_counter() - start

    async with AsyncClient(server.target) as client:
        await client.info()
        start = time.perf_counter()
        ends = await asyncio.gather(*(one(client, number) for number in range(streams)))
    median = statistics.median(ends)
    print(
        f"{streams} streams of {documents} documents at once: the first is done after "
        f"{min(ends):.1f} s, the median after {median:.1f} s, the last after {max(ends):.1f} s, "
        f"{max(ends) / median:.2f} times the median"
    )


def main() -> None:
    """Measure and print."""
    parser = arguments("service", __doc__)
    add_shape(parser, SHAPES)
    parser.add_argument("--calls", type=int, default=200, help="calls of ExtractVector")
    parser.add_argument("--streams", type=int, default=500, help="streams at once")
    parser.add_argument("--device", default="cpu", help="the device to measure")
    parser.add_argument("--dtype", default="float32", help="of the weights")
    options = parser.parse_args()
    keep_freed_memory()
    device, dtype = options.device, options.dtype
    workload = Workload(SHAPES[options.shape], 200, dtype=dtype, device=device)
    engine = PackedEngine(workload.load(dtype, device=device))
    step_tokens = DEFAULT_STEP_TOKENS[torch.device(device).type]
    full = [StepDocument.of(np.ones(256, dtype=np.int64), "long")] * (step_tokens // 256)
    engine.run(full)
    step = statistics.median(timed(lambda: engine.run(full)) for _ in range(5))
    with serving(workload.directory, f"--dtype={dtype}", f"--device={device}") as server:
        with Client(server.target) as client:
            tokens = client.extract(SHORT, mode="short").tokens
        idle(server, engine, tokens, options.calls)
        beside_bulk(server, workload.texts, step, max(20, options.calls // 5))
        asyncio.run(shared(server, options.streams, documents=20))


if __name__ == "__main__":
    main()
