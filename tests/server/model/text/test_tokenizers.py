"""Tokenizers of models: with BOS or without, with ids that the model lacks, or missing."""

import json
import logging

import grpc
import pytest
from numpy.testing import assert_array_equal
from tokenizers import Tokenizer as Backend
from transformers import AutoTokenizer

from actvec.modal.worker import Worker
from actvec.server.config import ModelOptions
from actvec.server.engine.packed import PackedEngine
from actvec.server.errors import InputError, StartupError
from actvec.server.model.loading import load_model
from actvec.server.model.text.tokenizer_loading import find_bos
from actvec.v1.vectors_pb2 import MODE_SHORT, Document, StreamVectorsRequest, VectorSettings
from tests.server.calling import collect, extract, floats
from tests.server.jobs.talking import documents, opening, run
from tests.words_model import (
    ADDS_BOS,
    BEYOND,
    HAS_NO_BOS,
    NAMES_BOS,
    SIZE,
    TIDES,
    TIDES_IDS,
    write_words_model,
)


@pytest.fixture
def model(tmp_path):
    """Writes a model of a few words, and returns its directory."""

    def write(tokenizer_config=HAS_NO_BOS, **options):
        return write_words_model(tmp_path / "model", tokenizer_config, **options)

    return write


@pytest.fixture
def serve_model(serve):
    """Serves a model directory in this process."""

    def start(directory):
        loaded = load_model(ModelOptions(str(directory)))
        return serve(PackedEngine(loaded), loaded)

    return start


@pytest.fixture
def ids_given(monkeypatch):
    """The ids of each document that an engine of this process received."""
    given, run_step = [], PackedEngine.run

    def noted(engine, step):
        given.extend(document.ids.tolist() for document in step)
        return run_step(engine, step)

    monkeypatch.setattr(PackedEngine, "run", noted)
    return given


async def refusal(call):
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    return error.value.details()


@pytest.mark.parametrize(
    ("tokenizer_config", "options", "front"),
    [
        (NAMES_BOS, {}, [1]),
        (NAMES_BOS, {"bos": 3}, [1]),
        ({}, {"bos": 3}, [3]),
        ({}, {"bos": 0}, [0]),
        (NAMES_BOS, {"processor": ADDS_BOS}, [1]),
        ({}, {"bos": 1, "processor": ADDS_BOS}, [1]),
        (HAS_NO_BOS, {}, []),
        # As Qwen's, whose config.json has an id that its tokenizer disowns.
        (HAS_NO_BOS, {"bos": 3}, []),
        ({}, {}, []),
    ],
    ids=[
        *("tokenizer", "both", "config", "config 0", "processor", "config and processor"),
        *("none", "disowned", "unnamed"),
    ],
)
async def test_bos_comes_once_or_not(  # noqa: PLR0917 - fixtures and cases
    model, serve_model, ids_given, tokenizer_config, options, front
):
    async with serve_model(model(tokenizer_config, **options)) as (_, stub):
        ids_given.clear()
        answer = await extract(stub, TIDES, mode=MODE_SHORT)
        stream_stamp, _ = await collect(
            stub, [StreamVectorsRequest(settings=VectorSettings(mode=MODE_SHORT))]
        )
    assert ids_given == [front + TIDES_IDS]
    assert answer.stamp.prepend_bos == stream_stamp.prepend_bos == bool(front)
    assert answer.vector.tokens == len(front + TIDES_IDS)


def test_bos_of_text_part_counts(model):
    directory = model({})
    config = {"model_type": "gemma3", "text_config": {"bos_token_id": 3}}
    (directory / "config.json").write_text(json.dumps(config))
    assert find_bos(AutoTokenizer.from_pretrained(directory), str(directory)) == 3


async def test_class_default_is_no_bos(model, serve_model):
    """GPTNeoXConfig's `bos_token_id` is 0 if config.json has none."""
    directory = model({})
    path = directory / "config.json"
    config = json.loads(path.read_text())
    del config["bos_token_id"]
    path.write_text(json.dumps(config))
    assert load_model(ModelOptions(str(directory))).module.config.bos_token_id == 0
    async with serve_model(directory) as (_, stub):
        assert not (await extract(stub, TIDES, mode=MODE_SHORT)).stamp.prepend_bos


async def test_bos_asked_for_must_exist(model, serve_model):
    settings = VectorSettings(mode=MODE_SHORT, prepend_bos=True)
    async with serve_model(model()) as (_, stub):
        for call, field in (
            (extract(stub, TIDES, mode=MODE_SHORT, prepend_bos=True), "settings.prepend_bos"),
            (collect(stub, [StreamVectorsRequest(settings=settings)]), "settings.prepend_bos"),
            (run(stub, opening(prepend_bos=True)), "open.prepend_bos"),
        ):
            assert "has no BOS token" in (details := await refusal(call))
            assert details.startswith(f"{field}: is true")
        answer = await extract(stub, TIDES, mode=MODE_SHORT, prepend_bos=False)
    assert answer.vector.tokens == len(TIDES_IDS)


@pytest.mark.parametrize("asked", [None, False])
async def test_mean_without_bos_centers_by_default(model, serve_model, asked):
    settings = {} if asked is None else {"prepend_bos": asked}
    async with serve_model(model()) as (_, stub):
        made = (await run(stub, opening(**settings), documents([TIDES, "tides"])))[-1].finished
        assert not made.prepend_bos
        answer = await extract(stub, TIDES, mode=MODE_SHORT, corpus_mean="latest")
    assert answer.stamp.corpus_mean_id == made.id


async def test_mean_job_reopens_with_what_default_meant(model, serve_model):
    async with serve_model(model(NAMES_BOS)) as (_, stub):
        first = (await run(stub, opening(), documents([TIDES])))[-1].finished
        again = (await run(stub, opening(prepend_bos=True)))[-1].finished
    assert first.prepend_bos
    assert again == first


async def test_unknown_id_fails_its_document_only(model, serve_model):
    text = f"tides {BEYOND}"
    async with serve_model(model(NAMES_BOS, beyond=True)) as (_, stub):
        alone = await extract(stub, TIDES, mode=MODE_SHORT)
        request = StreamVectorsRequest(
            settings=VectorSettings(mode=MODE_SHORT),
            documents=[
                Document(text=one, sequence=n)
                for n, one in enumerate([TIDES, text, "<pad>", TIDES])
            ],
        )
        _, results = await collect(stub, [request])
        details = await refusal(extract(stub, text, mode=MODE_SHORT))
        mean = (await run(stub, opening(), documents([TIDES, text])))[-1].finished
    for n in (0, 3):
        assert_array_equal(floats(results[n].vector.vector), floats(alone.vector.vector))
    # The last id of the embedding is valid.
    assert results[2].HasField("vector")
    error = results[1].error
    assert (error.code, error.field) == (grpc.StatusCode.INVALID_ARGUMENT.value[0], "text")
    assert error.message == details
    for part in (BEYOND, f"id {SIZE}", f"{SIZE} ids"):
        assert part in details
    assert (mean.documents, mean.skipped[0].reason) == (1, "INVALID_ARGUMENT")


async def test_unknown_id_cut_off_does_no_harm(model, serve_model):
    directory = model(beyond=True, max_position_embeddings=2)
    async with serve_model(directory) as (_, stub):
        answer = await extract(stub, f"tides rise {BEYOND}", mode=MODE_SHORT, truncation=2)
    assert (answer.vector.tokens, answer.vector.tokens_used) == (3, 2)


@pytest.mark.parametrize(
    ("tokenizer_config", "options"),
    [({"bos_token": BEYOND}, {"beyond": True}), ({}, {"bos": SIZE})],
    ids=["tokenizer", "config"],
)
async def test_unknown_bos_stops_start(model, serve_model, tokenizer_config, options):
    directory = model(tokenizer_config, **options)
    with pytest.raises(StartupError, match=rf"BOS token has id {SIZE}, .* {SIZE} ids") as error:
        async with serve_model(directory):
            pass
    assert "\n" not in str(error.value)


def test_worker_prepends_bos_if_there_is_one(model, tmp_path):
    loaded = load_model(ModelOptions(str(model())))
    worker = Worker(PackedEngine(loaded), loaded, tmp_path)
    made = worker.get_activation_vector(TIDES)
    assert (made["tokens"], made["stamp"].get("prepend_bos", False)) == (len(TIDES_IDS), False)
    assert len(worker.get_activation_matrix(TIDES)["matrix"]) == len(TIDES_IDS)
    for call in (worker.get_activation_vector, worker.get_activation_matrix):
        with pytest.raises(InputError, match=r"^prepend_bos: is true, .* no BOS"):
            call(TIDES, prepend_bos=True)


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_class_that_overrides_its_file_is_reported(model, caplog):
    """transformers uses its own splitting for Qwen2, whatever tokenizer.json holds."""
    directory = model({"tokenizer_class": "Qwen2Tokenizer"})
    loaded = load_model(ModelOptions(str(directory)))
    (warning,) = warnings(caplog)
    ours = loaded.tokenizer(" a leading space", add_special_tokens=False)["input_ids"]
    theirs = Backend.from_file(str(directory / "tokenizer.json")).encode(" a leading space").ids
    assert ours != theirs
    assert "\n" not in warning
    assert "tokenizer.json of model" in warning
    assert "Qwen2Tokenizer, which is used" in warning


@pytest.mark.parametrize("options", [{}, {"beyond": True}, {"processor": ADDS_BOS}])
def test_file_that_agrees_is_not_reported(model, caplog, options):
    load_model(ModelOptions(str(model(NAMES_BOS, **options))))
    assert not warnings(caplog)


def test_special_token_outside_the_file_is_reported(model, caplog):
    load_model(ModelOptions(str(model({**NAMES_BOS, "eos_token": "<end>"}))))
    (warning,) = warnings(caplog)
    assert "'before <end> after'" in warning


def test_tokenizer_without_file_is_not_compared(model, caplog):
    directory = model({"tokenizer_class": "GPT2Tokenizer"})
    (directory / "tokenizer.json").unlink()
    (directory / "vocab.json").write_text(json.dumps({"<|endoftext|>": 0, "a": 1}))
    (directory / "merges.txt").write_text("#version: 0.2\n")
    assert load_model(ModelOptions(str(directory))).bos == 0
    assert not warnings(caplog)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"tokenizer_config.json": '{"tokenizer_class": "ByT5Tokenizer"}'}, "no fast tokenizer"),
        ({"tokenizer_config.json": '{"tokenizer_class": "OwnTokenizer"}'}, "no tokenizer.json"),
        # For these, transformers silently makes a tokenizer, and one of unknown words only.
        ({}, "no tokenizer.json"),
        ({"tokenizer_config.json": '{"tokenizer_class": "GemmaTokenizer"}'}, "no tokenizer.json"),
        ({"tokenizer.json": "{}"}, "cannot read the tokenizer of model"),
        ({"tokenizer.json": "{"}, "cannot read the tokenizer of model"),
        ({"tokenizer.json": '{"added_tokens": []}'}, "cannot read the tokenizer of model"),
        ({"tokenizer.model": "not one"}, "cannot read the tokenizer of model"),
    ],
    ids=["slow", "custom", "none", "none, unknown words", "empty", "cut", "incomplete", "damaged"],
)
def test_unusable_tokenizer_is_one_line(model, files, message):
    directory = model()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (directory / name).unlink()
    for name, content in files.items():
        (directory / name).write_text(content)
    with pytest.raises(StartupError, match=message) as error:
        load_model(ModelOptions(str(directory)))
    assert "\n" not in str(error.value)
