"""Conversion of a server's description."""

from actvec.client.messages.vectors import MODE_NAMES
from actvec.client.records.model import Limits, ModeInfo, ModelInfo, Versions
from actvec.client.records.stamp import Pool
from actvec.v1 import model_pb2


def decode_info(info: model_pb2.GetModelInfoResponse) -> ModelInfo:
    """Decode what a server serves. Skips modes that this version does not know."""
    limits, versions = info.limits, info.versions
    return ModelInfo(
        model=info.model.model,
        revision=info.model.revision,
        tokenizer_sha256=info.model.tokenizer_sha256,
        dtype=info.model.dtype,
        layers=tuple(info.model.layers),
        hook=info.model.hook,
        architecture=info.architecture,
        n_layers=info.n_layers,
        n_layers_loaded=info.n_layers_loaded,
        d_model=info.d_model,
        device=info.device,
        engine=info.engine,
        engine_note=info.engine_note,
        batch_invariant=info.batch_invariant,
        # A server of an earlier version offers only its defaults.
        layers_on_offer=tuple(info.layers or info.model.layers),
        hooks=tuple(info.hooks or [info.model.hook]),
        has_chat_template=info.has_chat_template,
        modes=tuple(
            ModeInfo(
                MODE_NAMES[mode.mode],
                tuple(Pool(pool.name, pool.depth) for pool in mode.pools),
                mode.dimensions,
            )
            for mode in info.modes
            if mode.mode in MODE_NAMES
        ),
        limits=Limits(
            max_tokens=limits.max_tokens,
            max_text_bytes=limits.max_text_bytes,
            max_message_bytes=limits.max_message_bytes,
            max_stream_documents=limits.max_stream_documents,
            max_queued_tokens=limits.max_queued_tokens,
            step_tokens=limits.step_tokens,
            max_vector_numbers=limits.max_vector_numbers,
        ),
        versions=Versions(
            actvec=versions.actvec,
            torch=versions.torch,
            transformers=versions.transformers,
            transformer_lens=versions.transformer_lens,
            python=versions.python,
        ),
    )
