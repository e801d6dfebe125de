"""Names jobs of corpus means by their content."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, replace

from actvec.client.documents import DocumentSource
from actvec.client.messages.means import EMPTY_CORPUS, name_corpus
from actvec.client.records.inputs import as_document
from actvec.client.records.model import ModelInfo
from actvec.client.records.settings import MeanSettings
from actvec.client.streams.in_flight import Documents


def named_by_content(settings: MeanSettings, documents: Documents, info: ModelInfo) -> MeanSettings:
    """Name a job by everything that its mean depends on; and the mean too, if it has no name.

    Args:
        settings: Of the job, without its name.
        documents: Are read to their end.
        info: What the server serves.

    Raises:
        ValueError: the documents can be read only once.
        TypeError: something among them is no document.
        Exception: whatever `documents` raised.
    """
    # What can be read only once is its own iterator.
    if (
        not isinstance(documents, Iterable)
        or iter(documents) is documents
        or (isinstance(documents, DocumentSource) and documents.size is None)
    ):
        raise ValueError(
            f"a job is named by its documents, and {type(documents).__name__} can be read only"
            " once; name the job, or give the documents as a list or a source that can be read"
            " again"
        )
    corpus = EMPTY_CORPUS
    for number, item in enumerate(documents):
        corpus = name_corpus(corpus, as_document(item, number))
    asked = asdict(replace(settings, layers=settings.layers or info.layers, take_over=False))
    asked["hook"] = settings.hook or info.hook
    model = [info.model, info.revision, info.tokenizer_sha256, info.dtype]
    of = json.dumps([model, asked, corpus.hex()], sort_keys=True)
    name = f"corpus-{hashlib.sha256(of.encode()).hexdigest()[:16]}"
    return replace(settings, job=name, name=settings.name or name)
