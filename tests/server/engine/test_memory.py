"""The memory of a step, and the server's limits from it."""

import numpy as np
import pytest

from actvec.server.config import ModelOptions
from actvec.server.engine.memory import (
    _container_free,
    _LiveBytes,
    step_budget,
    token_bytes,
)
from actvec.server.engine.packed import PackedEngine
from actvec.server.engine.step import StepDocument
from actvec.server.errors import StartupError
from actvec.server.model.loading import load_model
from tests.server.conftest import random_llama, random_neox, save_model

GIB = 1 << 30


def peak(engine, lengths):
    with _LiveBytes() as live:
        ids = [np.zeros(length, dtype=np.int64) for length in lengths]
        engine.run([StepDocument.of(one, "long") for one in ids])
    return live.peak


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "module",
    [
        pytest.param(random_neox, id="parallel"),
        pytest.param(lambda: random_neox(use_parallel_residual=False), id="sequential"),
        pytest.param(random_llama, id="llama"),
    ],
)
def test_step_memory_is_proportional_to_tokens(tmp_path, module, dtype):
    directory = save_model(tmp_path, module())
    engine = PackedEngine(load_model(ModelOptions(str(directory), dtype=dtype)))
    each = token_bytes(engine)
    for lengths in ([2048], [100] * 20, [128] * 16, [2000, 2000, 96]):
        assert peak(engine, lengths) == pytest.approx(each * sum(lengths), rel=0.02)


def test_documented_formula_holds_for_pythia(tmp_path):
    directory = save_model(tmp_path, random_neox())
    for dtype, size in (("float32", 4), ("bfloat16", 2)):
        engine = PackedEngine(load_model(ModelOptions(str(directory), dtype=dtype)))
        assert token_bytes(engine) == pytest.approx(12.14 * size * engine.card.d_model, rel=0.01)


def test_what_is_freed_is_not_counted():
    import torch  # noqa: PLC0415

    with _LiveBytes() as live:
        for _ in range(10):
            torch.zeros(1000, dtype=torch.float32)
        kept = [torch.zeros(1000, dtype=torch.float32) for _ in range(2)]
        views = [tensor.view(10, 100).t() for tensor in kept]
    assert len(views) == 2
    assert live.peak == 2 * 4000


def test_step_has_the_default_size(demo_engine):
    assert step_budget(demo_engine, None, 512, lambda _: 100 * GIB) == 2048


def test_short_memory_makes_smaller_steps(demo_engine):
    each = token_bytes(demo_engine)
    assert step_budget(demo_engine, None, 512, lambda _: int(1000 * each / 0.8) + 1) == 992
    assert step_budget(demo_engine, None, 512, lambda _: int(513 * each / 0.8)) == 512


def test_oversized_step_is_refused_with_advice(demo_engine):
    each = token_bytes(demo_engine)
    with pytest.raises(StartupError, match=r"of 4096 tokens needs .* free, enough for 2000"):
        step_budget(demo_engine, 4096, 512, lambda _: int(2000 * each / 0.8) + 1)


def test_oversized_document_is_refused_with_advice(demo_engine):
    each = token_bytes(demo_engine)
    with pytest.raises(StartupError, match=r"a document of 2048 tokens .* enough for 992"):
        step_budget(demo_engine, None, 2048, lambda _: int(1000 * each / 0.8) + 1)


def test_a_container_has_what_its_limit_leaves(tmp_path):
    assert _container_free(tmp_path) == float("inf")
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 500\ninactive_file 150\n")
    assert _container_free(tmp_path) == 450
    (tmp_path / "memory.max").write_text("max\n")
    assert _container_free(tmp_path) == float("inf")
