"""`python -m bench.memory`: does memory grow with the corpus, on either side?"""

import asyncio
import os
import statistics
from collections.abc import Iterator
from pathlib import Path

import grpc.aio

from actvec.client import Client, Document
from actvec.v1 import vectors_pb2
from actvec.v1.service_pb2_grpc import ActivationVectorServiceStub
from bench.arguments import arguments
from bench.serving import serving
from bench.workload import SHAPES, Workload

SAMPLES = 200


def resident(pid: int) -> float:
    """Resident memory of a process, MiB. Linux only."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def quarters(samples: list[float]) -> str:
    """Describe the mean of each quarter, and the last against the second."""
    size = len(samples) // 4
    means = [statistics.mean(samples[i * size : (i + 1) * size]) for i in range(4)]
    shown = " | ".join(f"{mean:.0f}" for mean in means)
    return f"{shown} | {means[3] / means[1]:.3f}"


def measure(client: Client, server: int, documents: int, verb: str) -> None:
    """Run one job over tiny documents and print the memory over time."""
    ours: list[float] = []
    theirs: list[float] = []

    def sample() -> None:
        ours.append(resident(os.getpid()))
        theirs.append(resident(server))

    def tiny() -> Iterator[Document]:
        for number in range(documents):
            if number % (documents // SAMPLES) == 0:
                sample()
            yield Document(str(number), f"document {number}")

    if verb == "mean":
        client.corpus_mean(tiny(), job="memory")
    else:
        for _ in client.stream(tiny(), mode="short"):
            pass
    for name, samples in (("client", ours), ("server", theirs)):
        print(f"| {verb}, {name} | {quarters(samples)} |", flush=True)


async def stalled(target: str, server: int, seconds: float) -> None:
    """Send as much as the server accepts, read nothing, and print its memory."""
    message = vectors_pb2.StreamVectorsRequest(
        documents=[vectors_pb2.Document(text="a tiny document") for _ in range(64)]
    )
    sent = 0
    async with grpc.aio.insecure_channel(target) as channel:
        call = ActivationVectorServiceStub(channel).StreamVectors()
        settings = vectors_pb2.VectorSettings(mode=vectors_pb2.MODE_LONG)
        await call.write(vectors_pb2.StreamVectorsRequest(settings=settings))

        async def send() -> None:
            nonlocal sent
            while True:
                await call.write(message)
                sent += 64

        sender = asyncio.create_task(send())
        for second in range(6):
            print(f"| after {second * seconds / 5:.0f} s | {sent} | {resident(server):.0f} |")
            await asyncio.sleep(seconds / 5)
        sender.cancel()
        call.cancel()


def main() -> None:
    """Measure and print Markdown tables."""
    parser = arguments("memory", __doc__)
    parser.add_argument(
        "--documents", type=int, default=200_000, help="documents of each job, a few tokens long"
    )
    options = parser.parse_args()
    workload = Workload(SHAPES["tiny"], 1)
    with serving(workload.directory) as server, Client(server.target) as client:
        print(f"{options.documents} documents of a few tokens; resident memory, MiB\n")
        print("| job, side | 1st quarter | 2nd | 3rd | 4th | 4th of 2nd |")
        print("| --- | ---: | ---: | ---: | ---: | ---: |")
        for verb in ("stream", "mean"):
            measure(client, server.pid, options.documents, verb)
        print("\nA client that sends and does not read:\n")
        print("| | documents it could send | server, MiB |")
        print("| --- | ---: | ---: |")
        asyncio.run(stalled(server.target, server.pid, seconds=10))


if __name__ == "__main__":
    main()
