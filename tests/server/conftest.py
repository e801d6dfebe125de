"""Models that the tests make themselves, and servers of them in this process."""

import functools
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
import torch
from transformers import (
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

from actvec.server.config import AccessOptions, Limits, ModelOptions, ServerConfig, WatchOptions
from actvec.server.engine import memory
from actvec.server.engine.packed import Engine, PackedEngine
from actvec.server.model.demo import TOKENIZER_CONFIG, VOCABULARY, write_demo_model
from actvec.server.model.loading import LoadedModel, load_model
from actvec.server.model.text.tokenizer import Tokenizer
from actvec.server.program.engines import DrivenEngine, engine_thread
from actvec.server.program.server import Server
from actvec.server.rpc.interceptor import CallInterceptor
from actvec.v1.service_pb2_grpc import ActivationVectorServiceStub
from tests.clock import Clock
from tests.server.engines import HeldEngine


def random_neox(*, seed: int = 0, **overrides: object) -> PreTrainedModel:
    """A GPT-NeoX of random weights, large enough that every block changes its input."""
    torch.manual_seed(seed)
    config = GPTNeoXConfig(
        **{
            "vocab_size": VOCABULARY,
            "hidden_size": 64,
            "intermediate_size": 256,
            "num_hidden_layers": 6,
            "num_attention_heads": 4,
            "max_position_embeddings": 2048,
            "initializer_range": 0.1,
            "bos_token_id": 0,
            "eos_token_id": 0,
        }
        | overrides
    )
    return GPTNeoXForCausalLM(config).eval()


def random_llama(*, seed: int = 0) -> PreTrainedModel:
    """A Llama of random weights with grouped keys and values."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=172,
        num_hidden_layers=5,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        initializer_range=0.1,
        bos_token_id=0,
        eos_token_id=0,
    )
    return LlamaForCausalLM(config).eval()


def save_model(directory: Path, module: PreTrainedModel) -> Path:
    """Write a model directory in the hub's layout, with the demo model's tokenizer."""
    with_tokenizer = directory / "with-tokenizer"
    with_tokenizer.mkdir(parents=True)
    write_demo_model(with_tokenizer)
    model = directory / "model"
    module.save_pretrained(model)
    (with_tokenizer / "tokenizer.json").rename(model / "tokenizer.json")
    (model / "tokenizer_config.json").write_text(json.dumps(TOKENIZER_CONFIG))
    return model


@pytest.fixture(scope="session")
def neox_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random GPT-NeoX of six blocks on disk."""
    return save_model(tmp_path_factory.mktemp("neox"), random_neox())


@pytest.fixture(scope="session")
def demo_model() -> LoadedModel:
    return load_model(ModelOptions())


@pytest.fixture(scope="session")
def demo_engine(demo_model: LoadedModel) -> PackedEngine:
    return PackedEngine(demo_model)


@pytest.fixture
def held_engine(demo_engine: PackedEngine) -> Iterator[HeldEngine]:
    engine = HeldEngine(demo_engine)
    yield engine
    engine.release()


# Once for each engine: it takes ten times as long as the rest of a server's start.
measured_bytes = functools.cache(memory.token_bytes)


@pytest.fixture
def serve(
    demo_model: LoadedModel,
    demo_engine: PackedEngine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    """Serve an engine in this process on a free port; yield the server and a raw stub."""
    monkeypatch.setattr(memory, "token_bytes", measured_bytes)

    @asynccontextmanager
    async def start(
        engine: Engine = demo_engine,
        loaded: LoadedModel = demo_model,
        *,
        access: AccessOptions = ServerConfig.access,
        watch: WatchOptions = ServerConfig.watch,
        data_dir: Path = tmp_path,
        others: Sequence[Engine] = (),
        **limits: int,
    ) -> AsyncIterator[tuple[Server, ActivationVectorServiceStub]]:
        config = ServerConfig(
            limits=Limits(**limits), access=access, watch=watch, port=0, data_dir=data_dir
        )
        engines = [DrivenEngine(one, engine_thread()) for one in (engine, *others)]
        server = await Server.start(config, engines, loaded)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            try:
                yield server, ActivationVectorServiceStub(channel)
            finally:
                await server.stop(grace=5)

    return start


@pytest.fixture
def idle_clock(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock, which stops while an answer is on its way: it may take no longer than idleness."""
    writing = []
    write = CallInterceptor._write

    async def noted(self: CallInterceptor, response: object, context: object) -> None:
        writing.append(response)
        try:
            await write(self, response, context)
        finally:
            writing.pop()

    monkeypatch.setattr(CallInterceptor, "_write", noted)
    monkeypatch.setattr(clock, "stopped", lambda: bool(writing))
    return clock


@pytest.fixture
def tokenized_texts(monkeypatch):
    """The texts that this process has tokenized, in order."""
    texts = []
    tokenize = Tokenizer.__call__

    def noted(self, text, *args, **settings):
        texts.append(text)
        return tokenize(self, text, *args, **settings)

    monkeypatch.setattr(Tokenizer, "__call__", noted)
    return texts
