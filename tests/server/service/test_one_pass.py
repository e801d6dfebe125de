"""Any layers, hooks and pools in one pass, against transformers with forward hooks in float64."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from transformers import AutoModelForCausalLM

from actvec.pooling import PRESETS, PoolTokens, parse_pools
from actvec.server.config import ModelOptions
from actvec.server.engine import runner
from actvec.server.engine.load import load_engine
from actvec.server.engine.memory import check_sums
from actvec.server.engine.runner import StepRunner
from actvec.server.engine.step import StepDocument
from actvec.server.engine.weighing import weights_of
from actvec.server.jobs import registry
from actvec.server.model.demo import write_demo_model
from actvec.server.model.target import HOOKS, Target
from actvec.server.service import vector_stream
from actvec.v1 import model_pb2
from actvec.v1.vectors_pb2 import (
    TRUNCATION_ERROR,
    TRUNCATION_KEEP_END,
    TRUNCATION_KEEP_START,
    ChatMessage,
    ChatMessages,
    Document,
    Span,
    StreamVectorsRequest,
    TokenIds,
    VectorSettings,
)
from tests.server.calling import collect, error_of, extract, floats
from tests.server.chats import overlapping, save_chat_model
from tests.server.conftest import random_llama, save_model
from tests.server.jobs.talking import documents as mean_documents
from tests.server.jobs.talking import opening
from tests.server.jobs.talking import run as run_mean
from tests.server.pairs import pairwise_cases
from tests.server.reference import cosine, reference_layers, reference_row
from tests.waiting import eventually

CONTEXT = 40
TEXTS = [
    "The tide turns twice a day, and nobody asks it why.",
    "A bridge of stone.",
    "Ärger über café, naïve œuvre, 3.14159 times!",
    "One two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen twenty twenty-one twenty-two twenty-three twenty-four.",
]
FACTORS = {
    "model": ["neox", "llama"],
    "source": ["text", "spans", "ids", "messages"],
    "layers": [(), (2,), (0, 3, 4)],
    "separate": [False, True],
    "hook": list(HOOKS),
    "pools": [
        ("exp_933",),
        ("last", "mean", "exp:0.3"),
        ("mean_no_bos", "exp_tokens:2.5", "position:1", "position:-2"),
        tuple(f"exp:0.{number}" for number in range(1, 10)),
    ],
    "centered": [None, "averaged", "separate"],
    "truncation": [TRUNCATION_ERROR, TRUNCATION_KEEP_START, TRUNCATION_KEEP_END],
}


def possible(case):
    """An averaged mean centers averaged vectors only, and GPT-NeoX has no chat template."""
    return not (case["centered"] == "averaged" and case["separate"]) and not (
        case["model"] == "neox" and case["source"] == "messages"
    )


CASES = pairwise_cases(FACTORS, possible)


@dataclass
class Served:
    """A model: our engine of it, and transformers' own."""

    engine: object
    loaded: object
    module: object


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    neox = tmp_path_factory.mktemp("demo")
    write_demo_model(neox)
    llama = save_chat_model(tmp_path_factory.mktemp("llama"))
    found = {}
    for name, directory in (("neox", neox), ("llama", llama)):
        engine, loaded = load_engine(ModelOptions(model=str(directory), max_layer=-1))
        assert engine.name == "packed"
        module = AutoModelForCausalLM.from_pretrained(directory, attn_implementation="eager")
        found[name] = Served(engine, loaded, module.eval())
    return found


def ids_of(served, text):
    return [0, *served.loaded.tokenizer(text, add_special_tokens=False)["input_ids"]]


def asked(served, source, text):
    """A document of this text, its ids, and its spans in tokens."""
    tokenizer, ids = served.loaded.tokenizer, ids_of(served, text)
    if source == "ids":
        return Document(token_ids=TokenIds(ids=ids)), ids, {}
    if source == "messages":
        chat = [{"role": "user", "content": "Well?"}, {"role": "assistant", "content": text}]
        rendered = tokenizer.apply_chat_template(chat, tokenize=False)
        encoded = tokenizer(rendered, add_special_tokens=False, return_offsets_mapping=True)
        part = rendered.index(text), rendered.index(text) + len(text)
        response = overlapping(rendered, encoded["offset_mapping"], [part])
        sent = ChatMessages(messages=[ChatMessage(**message) for message in chat])
        return Document(messages=sent), encoded["input_ids"], {"response": response}
    if source == "text":
        return Document(text=text), ids, {}
    offsets = tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
    part = [1 + token for token in overlapping(text, offsets, [(4, 12)])]
    span = Span(name="part", start=4, end=12)
    return Document(text=text, spans=[span]), ids, {"part": part}


def cut(ids, truncation):
    if truncation == TRUNCATION_KEEP_START:
        return ids[:CONTEXT]
    return ids if len(ids) <= CONTEXT else [ids[0], *ids[1 - CONTEXT :]]


def reference_mean(served, hook, layers, corpus):
    """The mean `[L, N, D]` by distance from the end."""
    every = [reference_layers(served.module, ids, hook, layers)[:, ::-1] for ids in corpus]
    longest = max(states.shape[1] for states in every)
    return np.stack(
        [
            np.mean([states[:, j] for states in every if states.shape[1] > j], axis=0)
            for j in range(longest)
        ],
        axis=1,
    )


def reference_vector(served, case, ids, mean, spans):
    """The vector `[L, K, D]` of a document, and the number of its used tokens."""
    layers = case["layers"] or served.engine.card.layers
    states = reference_layers(served.module, ids, case["hook"], layers)
    used = len(ids) if mean is None else min(len(ids), mean.shape[1])
    dropped = len(ids) - used
    states = states[:, dropped:]
    if mean is not None:
        states = states - mean[:, :used][:, ::-1]
    if not case["separate"]:
        states = states.mean(0, keepdims=True)
    rows = [
        reference_row(pool, used, bos=ids[0] == 0, dropped=dropped, spans=spans)
        for pool in case["pools"]
    ]
    return np.stack(rows) @ states, used


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case.values())))
async def test_pairs_of_choices_agree_with_the_reference(case, models, serve):
    served = models[case["model"]]
    truncated = case["truncation"] != TRUNCATION_ERROR
    texts = TEXTS if truncated else TEXTS[:3]
    documents = [asked(served, case["source"], text) for text in texts]
    if not truncated:
        # Another test covers the rest of a span that is cut.
        case = case | {"pools": (*case["pools"], *(f"span:{name}" for name in documents[0][2]))}
    wanted = VectorSettings(
        pools=case["pools"],
        layers=case["layers"],
        separate_layers=case["separate"],
        hook=case["hook"],
        truncation=case["truncation"],
    )
    corpus, mean = TEXTS[1:3], None
    layers = case["layers"] or served.engine.card.layers
    async with serve(served.engine, served.loaded, document_tokens=CONTEXT) as (_, stub):
        if case["centered"]:
            await run_mean(
                stub,
                opening(
                    layers=layers,
                    separate_layers=case["centered"] == "separate",
                    hook=case["hook"],
                ),
                mean_documents(corpus),
            )
            mean = reference_mean(
                served, case["hook"], layers, [ids_of(served, text) for text in corpus]
            )
            wanted.corpus_mean = "job"
        sent = [document for document, _, _ in documents]
        for number, document in enumerate(sent):
            document.sequence = number
        stamp, results = await collect(
            stub, [StreamVectorsRequest(settings=wanted, documents=sent)]
        )
    assert tuple(stamp.model.layers) == tuple(layers)
    assert (stamp.model.hook, stamp.model.separate_layers) == (case["hook"], case["separate"])
    assert tuple(pool.name for pool in stamp.pools) == case["pools"]
    for number, (_, whole, spans) in enumerate(documents):
        if len(whole) > CONTEXT and not truncated:
            assert f"{CONTEXT} fit" in results[number].error.message
            continue
        ids = cut(whole, case["truncation"])
        dropped = len(ids) - (min(len(ids), mean.shape[1]) if mean is not None else len(ids))
        if any(max(tokens) < dropped for tokens in spans.values()) and not truncated:
            assert "covers no token of the document" in results[number].error.message
            continue
        if mean is not None and "position:1" in case["pools"] and len(ids) > mean.shape[1]:
            assert "token 1 of the document is not pooled" in results[number].error.message
            continue
        answer = results[number].vector
        expected, used = reference_vector(served, case, ids, mean, spans)
        assert tuple(answer.vector.shape) == expected.shape
        assert (answer.tokens, answer.tokens_used) == (len(whole), used)
        assert (answer.truncated, answer.bos) == (len(ids) < len(whole), True)
        values = floats(answer.vector).reshape(expected.shape)
        # A centered vector may be the small difference of large ones.
        scale = np.linalg.norm(expected)
        if mean is not None and used == len(ids):
            raw, _ = reference_vector(served, case, ids, None, spans)
            scale = max(scale, np.linalg.norm(raw) * 0.01)
        assert np.linalg.norm(values - expected) / scale <= 1e-5


def step_document(ids, pools, target):
    weights = weights_of(parse_pools(pools), PoolTokens(len(ids), bos=True))
    return StepDocument(np.array(ids), weights, target)


LENGTHS = [1, 2, 15, 16, 17, 31, 33, 64, 200, 700]
TARGETS = [
    Target((4, 5, 6)),
    Target((5,)),
    Target((0, 2, 7), separate=True),
    Target((2, 3), "resid_pre"),
    Target((2, 6), "attn_out", separate=True),
    Target((6,), "mlp_out"),
]
POOLS = ["last", "mean", "mean_no_bos", "exp_933", "exp:0.3", "exp_tokens:4", "position:-1"]
WISH = st.tuples(
    st.sampled_from(LENGTHS),
    st.sampled_from(TARGETS),
    st.lists(st.sampled_from(POOLS), min_size=1, unique=True),
)


def test_vectors_are_bitwise_the_same_in_any_mix(models):
    """Alone, one pool and one layer at a time, against any content of a step."""
    engine = models["neox"].engine
    rng = np.random.default_rng(3)
    documents = {length: rng.integers(1, 2048, length) for length in LENGTHS}
    known = {}

    def alone(length, layer, hook, pool):
        key = length, layer, hook, pool
        if key not in known:
            document = step_document(documents[length], [pool], Target((layer,), hook))
            known[key] = engine.run([document])[0][0, 0]
        return known[key]

    @settings(max_examples=40)
    @given(st.lists(WISH, min_size=1, max_size=12))
    def in_any_mix(wishes):
        wishes = [wish for wish in wishes if wish[0] > 1 or "mean_no_bos" not in wish[2]]
        step = [step_document(documents[length], pools, target) for length, target, pools in wishes]
        if not step:
            return
        for (length, target, pools), vector in zip(wishes, engine.run(step), strict=True):
            for row, pool in enumerate(pools):
                each = [alone(length, layer, target.hook, pool) for layer in target.layers]
                if target.separate:
                    assert_array_equal(vector[:, row], each)
                else:
                    total = each[0]
                    for one in each[1:]:
                        total = total + one
                    assert_array_equal(vector[0, row], total / np.float32(len(each)))

    in_any_mix()


async def test_preset_is_bit_for_bit_its_pools(serve):
    async with serve() as (_, stub):
        for mode, preset in enumerate(PRESETS.values(), 1):
            written = [pool.name.replace("exp_933", "exp:0.067") for pool in preset]
            named = await extract(stub, TEXTS[0], mode=mode)
            listed = await extract(stub, TEXTS[0], pools=written)
            assert named.vector == listed.vector
            assert named.stamp == listed.stamp
            assert listed.stamp.mode == mode


async def test_info_lists_what_can_be_asked_for(models, serve):
    served = models["llama"]
    async with serve(served.engine, served.loaded) as (_, stub):
        info = await stub.GetModelInfo(model_pb2.GetModelInfoRequest())
    assert list(info.layers) == [0, 1, 2, 3, 4]
    assert (info.n_layers, info.n_layers_loaded) == (5, 5)
    assert list(info.hooks) == list(HOOKS)
    assert list(info.model.layers) == [1, 2, 3]
    assert info.limits.max_vector_numbers == 4 << 20


@pytest.mark.parametrize(
    ("asked", "field", "message"),
    [
        ({"mode": 1, "pools": ["last"]}, "pools", "named together with a mode"),
        ({}, "mode", "use MODE_SHORT or MODE_LONG, or name pools"),
        ({"mode": 3}, "mode", "is 3; use MODE_SHORT"),
        ({"pools": ["median"]}, "pools", "no pool 'median'"),
        ({"pools": ["exp:0"]}, "pools", "needs a half-life"),
        ({"pools": ["exp:0.067", "exp_933"]}, "pools", "the same pool"),
        ({"pools": [f"position:{n}" for n in range(65)]}, "pools", "at most 64"),
        ({"mode": 1, "layers": [3, 2]}, "layers", "must be ascending"),
        ({"mode": 1, "layers": [2, 2]}, "layers", "must be ascending"),
        ({"mode": 1, "layers": [2, 7]}, "layers", "layers 0 to 6 are loaded; the model has more"),
        ({"mode": 1, "layers": [8]}, "layers", "the model has 8 blocks"),
        ({"mode": 1, "hook": "hook_q"}, "hook", "this server has resid_post, resid_pre"),
        ({"pools": ["position:9"]}, "pools", "has no token 9: it has 4"),
        ({"pools": ["span:answer"]}, "pools", "has no span 'answer'"),
    ],
)
async def test_settings_that_cannot_be_say_why(asked, field, message, serve):
    async with serve() as (_, stub):
        error = await error_of(extract(stub, "a text", **asked))
        await extract(stub, "a text", mode=1)
    assert error.code().name == "INVALID_ARGUMENT"
    assert message in error.details()
    assert error.details().startswith(f"settings.{field}: ") or field == "pools"


async def test_vector_of_too_many_numbers_is_refused(serve):
    three = {"layers": [1, 2, 3], "separate_layers": True}
    async with serve(vector_numbers=128 * 6) as (_, stub):
        await extract(stub, "a text", pools=["last", "mean"], **three)
        await extract(stub, "a text", mode=2, layers=[1, 2, 3])
        error = await error_of(extract(stub, "a text", mode=2, **three))
    assert error.code().name == "RESOURCE_EXHAUSTED"
    assert "3 x 4 x 128 = 1536 numbers" in error.details()


async def test_document_without_a_pool_fails_alone(serve):
    texts = [TEXTS[0], "short", TEXTS[3]]
    request = StreamVectorsRequest(
        settings=VectorSettings(pools=["position:5"]),
        documents=[Document(text=text, sequence=n) for n, text in enumerate(texts)],
    )
    async with serve() as (_, stub):
        _, results = await collect(stub, [request])
    assert "has no token 5" in results[1].error.message
    assert results[1].error.field == "settings.pools"
    assert results[0].vector.tokens
    assert results[2].vector.tokens


def test_infinite_state_names_its_layer(tmp_path):
    module = random_llama()
    with torch.no_grad():
        module.model.layers[3].mlp.down_proj.weight[0, 0] = float("nan")
    engine, _ = load_engine(ModelOptions(str(save_model(tmp_path, module)), max_layer=-1))
    ids = np.arange(5, 40)
    targets = [Target((0, 2, 3, 4), separate=True), Target((0, 2)), Target((3,), "resid_pre")]
    bad, good, before = engine.run([step_document(ids, ["last"], target) for target in targets])
    assert bad.layer == 3
    assert "layer 3" in str(bad)
    assert np.isfinite(good).all()
    assert np.isfinite(before).all()


def test_planted_direction_comes_back(tmp_path):
    """Tokens of one class have a feature, which the MLP of one block turns into the direction."""
    module, layer = random_llama(), 2
    direction = torch.from_numpy(np.random.default_rng(0).normal(size=64)).float()
    with torch.no_grad():
        module.model.embed_tokens.weight[:, 0] = 0
        module.model.embed_tokens.weight[1000:, 0] = 5
        mlp = module.model.layers[layer].mlp
        for linear in (mlp.gate_proj, mlp.up_proj):
            linear.weight.zero_()
            linear.weight[:, 0] = 1
        mlp.down_proj.weight[:] = direction[:, None]
    engine, _ = load_engine(ModelOptions(str(save_model(tmp_path, module)), max_layer=-1))
    rng = np.random.default_rng(1)
    target = Target(tuple(range(5)), separate=True)
    means = []
    for low, high in ((1, 1000), (1000, 2048)):
        documents = [rng.integers(low, high, length) for length in rng.integers(5, 60, 20)]
        vectors = engine.run([step_document(ids, ["mean"], target) for ids in documents])
        means.append(np.mean([vector[:, 0] for vector in vectors], axis=0))
    found = [cosine(difference, direction.numpy()) for difference in means[1] - means[0]]
    assert found[layer] > 0.99
    assert max(map(abs, found[:layer])) < 0.5


def test_large_vectors_are_computed_in_parts(models, monkeypatch):
    """A step holds its vectors until its end; their bytes bound it, and do not change them."""
    engine = models["neox"].engine
    target = Target(tuple(range(8)), separate=True)
    documents = [step_document(np.arange(1, 30 + n), ["last", "mean"], target) for n in range(9)]
    steps = []
    run = engine.run
    monkeypatch.setattr(engine, "run", lambda step: steps.append(len(step)) or run(step))
    whole = StepRunner(engine)(documents)
    monkeypatch.setattr(runner, "_HELD_BYTES", 4 * documents[0].held_bytes(engine.card))
    for one, other in zip(StepRunner(engine)(documents), whole, strict=True):
        assert_array_equal(one, other)
    assert steps == [9, 4, 4, 1]


async def test_stream_of_large_vectors_holds_few_documents(serve, held_engine, monkeypatch):
    wanted = VectorSettings(mode=2, layers=range(7), separate_layers=True)
    monkeypatch.setattr(vector_stream, "_RESULT_BYTES", 3 * 7 * 4 * 128 * 4)
    documents = [Document(text=f"text {n}", sequence=n) for n in range(20)]
    async with serve(held_engine) as (server, stub):
        call = stub.StreamVectors(
            iter([StreamVectorsRequest(settings=wanted, documents=documents)])
        )
        await held_engine.entered()
        (stream,) = server._service._streams
        await eventually(lambda: stream._inside == 3)
        held_engine.release()
        results = [result async for answer in call for result in answer.results]
    assert len(results) == 20


async def test_mean_beyond_memory_is_refused(serve, monkeypatch):
    async with serve() as (_, stub):
        # 7 layers, 4096 positions, 128 numbers of 8 bytes: 28 MiB, four times, of four fifths
        fits = partial(check_sums, free=lambda _: 141 << 20)
        monkeypatch.setattr(registry, "check_sums", fits)
        seven = {"layers": range(7), "separate_layers": True}
        await run_mean(stub, opening("fits", **seven), mean_documents(TEXTS[:1]))
        monkeypatch.setattr(registry, "check_sums", partial(check_sums, free=lambda _: 139 << 20))
        error = await error_of(stub.StreamCorpusMean(iter([opening("large", **seven)])))
        assert error.code().name == "RESOURCE_EXHAUSTED"
        assert "would take up to 0.11 GiB of memory on cpu" in error.details()
        # The job is free again, and averaged layers accept the documents.
        await run_mean(stub, opening("large"), mean_documents(TEXTS[:1]))
