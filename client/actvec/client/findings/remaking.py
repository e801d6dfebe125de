"""Asking a server for vectors like those of a folder."""

import json

from actvec.client.api.client import Client
from actvec.client.findings.stamps import check_stamps
from actvec.client.records.settings import VectorSettings
from actvec.client.records.stamp import Stamp
from actvec.client.records.vectors import Document, Vector


def settings_of(stamp: Stamp) -> VectorSettings:
    """What to ask a server for, to get vectors of a stamp."""
    return VectorSettings(
        pools=tuple(pool.name for pool in stamp.pools),
        layers=stamp.layers,
        separate=stamp.separate_layers,
        hook=stamp.hook,
        truncation=stamp.truncation,
        prepend_bos=stamp.prepend_bos,
        center=stamp.corpus_mean_id or None,
        add_generation_prompt=stamp.add_generation_prompt,
        chat_template_kwargs=json.loads(stamp.chat_template_kwargs or "{}"),
    )


def extract_like(client: Client, document: Document, stamp: Stamp) -> Vector:
    """The vector of a document, of the same kind as those of a stamp.

    Raises:
        FailedPrecondition: the server makes other vectors; the message names the fields.
        ActvecError: the server refused, or none answers.
    """
    vector = client.extract(document, settings_of(stamp))
    check_stamps(stamp, vector.stamp, "the folder")
    return vector
