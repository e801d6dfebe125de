"""The real GPT-NeoX tokenizer and real C4 documents, through the server."""

import gzip
import json
import shutil

import numpy as np
import pytest
from tokenizers import Tokenizer as Backend

from actvec.server.config import ModelOptions
from actvec.server.engine.packed import PackedEngine
from actvec.server.model.loading import load_model
from actvec.v1.vectors_pb2 import (
    MODE_LONG,
    TRUNCATION_KEEP_END,
    Document,
    StreamVectorsRequest,
    VectorSettings,
)
from tests.server.conftest import random_neox, save_model
from tests.server.reference import reference_pools, reference_states, relative_error


@pytest.fixture(scope="module")
def c4_texts(shared_data):
    texts = []
    for path in sorted((shared_data / "c4-sample").glob("*.json.gz")):
        with gzip.open(path, "rt") as lines:
            texts += [json.loads(line)["text"] for line in lines]
    assert len(texts) == 30
    return texts


async def test_c4_through_the_server(serve, shared_data, c4_texts, tmp_path):
    tokenizer_file = shared_data / "gpt-neox-20b-tokenizer.json"
    module = random_neox(vocab_size=50_304)
    directory = save_model(tmp_path, module)
    shutil.copyfile(tokenizer_file, directory / "tokenizer.json")
    loaded = load_model(ModelOptions(str(directory)))
    request = StreamVectorsRequest(
        settings=VectorSettings(mode=MODE_LONG, truncation=TRUNCATION_KEEP_END),
        documents=[Document(text=text, sequence=n) for n, text in enumerate(c4_texts)],
    )
    async with serve(PackedEngine(loaded), loaded) as (_, stub):
        responses = [response async for response in stub.StreamVectors(iter([request]))]
    results = {result.sequence: result for response in responses for result in response.results}
    backend = Backend.from_file(str(tokenizer_file))
    for n, text in enumerate(c4_texts):
        ids = backend.encode(text).ids
        vector = results[n].vector
        assert vector.tokens == len(ids) + 1
        assert vector.tokens_used == len(ids) + 1
        states = reference_states(module, np.array([0, *ids]), loaded.card.layers)
        values = np.frombuffer(vector.vector.data, "<f4").reshape(4, -1)
        assert relative_error(values, reference_pools(states)) <= 1e-5
