"""Conversion of a server's description."""

from actvec.client.messages.records import record_of
from actvec.client.messages.vectors import MODE_NAMES
from actvec.client.records.model import Limits, ModeInfo, ModelInfo, Versions
from actvec.client.records.stamp import Pool
from actvec.v1 import model_pb2


def decode_info(info: model_pb2.GetModelInfoResponse) -> ModelInfo:
    """Decode what a server serves. Skips modes that this version does not know."""
    return record_of(
        ModelInfo,
        info.model,
        info,
        # A server of an earlier version offers only its defaults.
        layers_on_offer=tuple(info.layers or info.model.layers),
        hooks=tuple(info.hooks or [info.model.hook]),
        modes=tuple(
            record_of(
                ModeInfo,
                mode,
                mode=MODE_NAMES[mode.mode],
                pools=tuple(record_of(Pool, pool) for pool in mode.pools),
            )
            for mode in info.modes
            if mode.mode in MODE_NAMES
        ),
        limits=record_of(Limits, info.limits),
        versions=record_of(Versions, info.versions),
    )
