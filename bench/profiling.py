"""The time of a step, operator by operator."""

from collections.abc import Sequence

from torch.profiler import profile

from actvec.server.engine.packed import PackedEngine
from actvec.server.engine.step import StepDocument
from bench.workload import Ids

_STEPS = 5
_LEAST = 0.005


def print_profile(engine: PackedEngine, documents: Sequence[Ids], step_tokens: int) -> None:
    """Print a Markdown table of the operators that take half a percent of a full step or more.

    On a CPU; the step holds the first documents that fit into it.
    """
    step: list[StepDocument] = []
    for ids in documents:
        if sum(document.tokens for document in step) + len(ids) <= step_tokens:
            step.append(StepDocument.of(ids, "long"))
    engine.run(step)
    with profile() as profiled:
        for _ in range(_STEPS):
            engine.run(step)
    # Each operator's own time, without that of the operators it calls.
    times = {event.key: event.self_cpu_time_total for event in profiled.key_averages()}
    total = sum(times.values())
    print(
        f"{_STEPS} steps of {len(step)} documents, {sum(document.tokens for document in step)}"
        " tokens\n\n| operator | of the time |\n| --- | ---: |"
    )
    for name, time in sorted(times.items(), key=lambda item: -item[1]):
        if time >= _LEAST * total:
            print(f"| `{name}` | {time / total:.1%} |")
