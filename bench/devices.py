"""`python -m bench.devices`: one engine on all cores against two engines that share them.

Each serves the same documents through one StreamVectors call, in turn.
"""

import statistics

import torch

from bench.arguments import add_rounds, add_shape, arguments
from bench.contenders import Served
from bench.serving import serving
from bench.timing import timed
from bench.workload import SHAPES, Workload


def main() -> None:
    """Measure and print a Markdown table."""
    parser = arguments("devices", __doc__)
    add_shape(parser, ["tiny", "70m", "160m"])
    parser.add_argument(
        "--dtype", choices=["float32", "bfloat16"], default="float32", help="of the weights"
    )
    parser.add_argument("--documents", type=int, default=48, help="documents per round")
    add_rounds(parser, 5)
    options = parser.parse_args()
    workload = Workload(SHAPES[options.shape], options.documents)
    tokens = sum(map(len, workload.documents))
    dtype = f"--dtype={options.dtype}"
    with (
        serving(workload.directory, dtype, "--devices=cpu") as one,
        serving(workload.directory, dtype, "--devices=cpu,cpu") as two,
    ):
        servers = {
            "one engine": Served(one, workload.texts),
            "two engines": Served(two, workload.texts),
        }
        seconds: dict[str, list[float]] = {name: [] for name in servers}
        for turn in range(options.rounds + 1):
            for name, server in servers.items():
                time = timed(lambda: server.run(workload.documents))  # noqa: B023
                # The first call of a server takes longer than the others.
                if turn:
                    seconds[name].append(time)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    print(
        f"{options.shape} shape, {options.dtype}, {options.documents} documents of {tokens} "
        f"tokens, {torch.get_num_threads()} threads in all, median of {options.rounds} rounds\n"
    )
    print("| | tokens/s | of one engine |")
    print("| --- | ---: | ---: |")
    for name, median in medians.items():
        print(f"| {name} | {tokens / median:.0f} | {medians['one engine'] / median:.2f} |")


if __name__ == "__main__":
    main()
