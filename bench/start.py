"""`python -m bench.start`: how long programs take until they are usable."""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.arguments import add_rounds, arguments
from bench.serving import READY, serving
from bench.timing import timed


def ready(data: Path) -> float:
    """Seconds until `actvec-server --model demo` is ready."""
    command = [sys.executable, "-m", "actvec.server.program.main", "--port=0", f"--data-dir={data}"]
    start = time.perf_counter()
    with subprocess.Popen(  # noqa: S603
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        assert server.stdout is not None
        line = server.stdout.readline()
        seconds = time.perf_counter() - start
        server.kill()
    if not line.startswith(READY):
        raise SystemExit("actvec-server did not start")
    return seconds


def program(*code: str) -> float:
    """Seconds of a Python program."""
    command = [sys.executable, *code]
    return timed(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL))  # noqa: S603


def main() -> None:
    """Measure and print a Markdown table."""
    parser = arguments("start", __doc__)
    add_rounds(parser, 5)
    options = parser.parse_args()
    actvec = "from actvec.client.cli import main; main()"
    with tempfile.TemporaryDirectory() as directory, serving(None) as server:
        contenders: dict[str, Callable[[], float]] = {
            "actvec-server --model demo, ready": lambda: ready(Path(directory)),
            # What any program that loads a model imports.
            "python -c 'from transformers import GPTNeoXForCausalLM'": lambda: program(
                "-c", "from transformers import GPTNeoXForCausalLM"
            ),
            "actvec info": lambda: program("-c", actvec, "info", "--target", server.target),
            "python -c 'import grpc, numpy'": lambda: program("-c", "import grpc, numpy"),
        }
        seconds: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(options.rounds):
            for name, measure in contenders.items():
                seconds[name].append(measure())
    medians = [statistics.median(times) for times in seconds.values()]
    print("| | seconds | of the line below |")
    print("| --- | ---: | ---: |")
    for index, name in enumerate(contenders):
        ratio = f"{medians[index] / medians[index + 1]:.1f}" if index % 2 == 0 else ""
        print(f"| `{name}` | {medians[index]:.2f} | {ratio} |")


if __name__ == "__main__":
    main()
