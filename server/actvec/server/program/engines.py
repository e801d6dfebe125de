"""The engines of a server, each with its thread: one, or one for each of several devices."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar, TypeVarTuple

import torch

from actvec.server.config import ServerConfig
from actvec.server.engine.load import load_engine
from actvec.server.engine.memory import free_bytes, step_budget
from actvec.server.engine.packed import Engine
from actvec.server.errors import StartupError
from actvec.server.model.loading import LoadedModel
from actvec.server.program.processors import spread_out

Args = TypeVarTuple("Args")
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class DrivenEngine:
    """An engine, and the one thread that runs it: on a CPU the one that loaded it."""

    engine: Engine
    thread: Executor


def engine_thread() -> Executor:
    """Return a single thread, which loads a model and runs it.

    OpenMP keeps workers for every thread that calls it. If these outnumber the cores, as with a
    model that one thread loads and another runs, they sleep between products instead of spinning,
    and a CPU computes a tenth slower.
    """
    return ThreadPoolExecutor(1, thread_name_prefix="actvec-engine")


async def load_engines(config: ServerConfig) -> tuple[list[DrivenEngine], LoadedModel]:
    """Load a copy of the model on each device, and choose the engine that is right for it.

    Engines on the CPU share its cores.

    Raises:
        StartupError: the model or an option is not usable, or devices run the model differently.
    """
    copies = config.copies
    if (on_cpu := sum(copy.device == "cpu" for copy in copies)) > 1:
        torch.set_num_threads(max(1, torch.get_num_threads() // on_cpu))
    engines: list[DrivenEngine] = []
    models: list[LoadedModel] = []
    # In turn: while transformers loads a model, it changes settings of torch for all threads.
    for copy in copies:
        thread = engine_thread()
        engine, loaded = await _on(thread, load_engine, copy, config.limits.document_tokens)
        engines.append(DrivenEngine(engine, thread))
        # Of the others only the engine is needed.
        models = models or [loaded]
        first = engines[0].engine
        if (first.name, replace(first.card, device="")) != (
            engine.name,
            replace(engine.card, device=""),
        ):
            raise StartupError(
                f"{first.card.device} and {engine.card.device} do not run the model alike "
                f"({_description(first)}; {_description(engine)})",
                setting="devices",
            )
    on_its_own = [driven for driven in engines if driven.engine.card.device == "cpu"]
    if len(on_its_own) == 1:
        await _on(on_its_own[0].thread, spread_out)
    return engines, models[0]


async def common_step_budget(
    engines: Sequence[DrivenEngine], asked: int | None, longest: int
) -> int:
    """Tokens of a step that each device can hold; as `step_budget`.

    Raises:
        StartupError: as for it.
    """
    devices = [driven.engine.card.device for driven in engines]

    def share(device: str) -> int:
        return free_bytes(device) // devices.count(device)

    budgets = [
        await _on(driven.thread, step_budget, driven.engine, asked, longest, share)
        for driven in engines
    ]
    return min(budgets)


def _description(engine: Engine) -> str:
    card = engine.card
    return f"engine {engine.name}, {card.dtype}, {card.context} tokens"


async def _on(thread: Executor, work: Callable[[*Args], T], *args: *Args) -> T:
    return await asyncio.get_running_loop().run_in_executor(thread, work, *args)
