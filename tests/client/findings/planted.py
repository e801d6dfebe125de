"""Vectors with a direction planted in them, as folders that a sink wrote."""

import json
from dataclasses import replace

import numpy as np
from safetensors.numpy import save

from actvec.client import Pool, Stamp, StoredVectors

LAYERS, POOLS, WIDTH = (3, 4, 5), ("last", "mean"), 24

STAMP = Stamp(
    model="demo",
    revision="r",
    tokenizer_sha256="t",
    dtype="float32",
    layers=LAYERS,
    hook="resid_post",
    prepend_bos=True,
    mode=None,
    pools=tuple(Pool(name, 0.0) for name in POOLS),
    truncation="error",
    corpus_mean_id="",
    corpus_mean_sha256="",
    actvec_version="0",
    separate_layers=True,
)


def planted(count=400, strength=4.0, seed=0, labels=("curt", "warm")):
    """Vectors `[N, L, K, D]`, their labels, and the unit directions `[L, K, D]` in them.

    The strength is in standard deviations of the noise, and lies in layer 4 alone; the other
    layers have a tenth of it. One dimension is a thousand times as large as the others.
    """
    draw = np.random.default_rng(seed)
    shape = (len(LAYERS), len(POOLS), WIDTH)
    direction = draw.normal(size=shape)
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    array = draw.normal(size=(count, *shape))
    sign = draw.permutation(np.arange(count) % 2)
    by_layer = strength * np.array([0.1, 1.0, 0.1])[:, None, None]
    array += (sign - 0.5)[:, None, None, None] * by_layer * direction
    array += draw.normal(size=shape) * np.where(np.arange(WIDTH) == 3, 1000, 5)
    return array.astype(np.float32), np.array(labels)[sign], direction


def stored(array, labels, name="label", stamp=STAMP):
    """An array as `load` would give it."""
    ids = [f"doc-{number}" for number in range(len(array))]
    return StoredVectors([array], ids, {name: np.asarray(labels)}, stamp)


def write_shards(folder, array, columns, rows=150, stamp=STAMP):
    """A folder of shards in float32, with kept columns."""
    folder.mkdir(exist_ok=True)
    kept = {name: values.tolist() for name, values in columns.items()}
    for number, start in enumerate(range(0, len(array), rows)):
        part = array[start : start + rows]
        content = save(
            {"vec": part.reshape(len(part), -1)}, metadata={"stamp": json.dumps(stamp.to_dict())}
        )
        path = folder / f"vectors-{number:05d}.safetensors"
        path.write_bytes(content)
        lines = [
            {
                "row": row,
                "shape": part.shape[1:],
                "index": start + row,
                "id": f"doc-{start + row}",
                "tokens": 9,
                "columns": {name: values[start + row] for name, values in kept.items()},
            }
            for row in range(len(part))
        ]
        path.with_suffix(".jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def other(**changes):
    """The stamp of other vectors."""
    return replace(STAMP, **changes)
