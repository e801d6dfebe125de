"""Vectors as a dataset of the hub, with their stamp as its card."""

import json
import tempfile
from pathlib import Path

import numpy as np

from actvec.client.extras import import_extra
from actvec.client.stored import frames
from actvec.client.stored.vectors import StoredVectors


def push_to_hub(
    vectors: StoredVectors, repo_id: str, *, private: bool = False, token: str | None = None
) -> str:
    """Upload vectors as a dataset of the Hugging Face hub, and return the commit's id.

    The dataset has Parquet files, which `load` and `datasets.load_dataset` read, and a card that
    shows the stamp. If the dataset exists, a new commit replaces the vectors that an earlier call
    pushed. Variables such as `HF_TOKEN` and `HF_ENDPOINT` apply.

    Examples:
        >>> commit = push_to_hub(load("vectors"), "me/my-vectors", private=True)

    Args:
        vectors: From `load`.
        repo_id: `OWNER/NAME`.
        private: Whether a new dataset is private.
        token: A token that may write. Default: the one of this machine.

    Raises:
        MissingExtra: huggingface_hub or pyarrow is not installed.
        huggingface_hub.errors.HfHubHTTPError: the hub refused.
        OSError: the temporary files cannot be written.
    """
    hub = import_extra("huggingface_hub", "data")
    api = hub.HfApi(token=token)
    with tempfile.TemporaryDirectory() as folder:
        _write(vectors, Path(folder))
        api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
        commit: str = api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            repo_type="dataset",
            # Of an earlier push with more parts: its vectors would be among these.
            delete_patterns="data/part-*.parquet",
            commit_message=f"Activation vectors of {vectors.stamp.model}",
        ).oid
        return commit


def dataset_card(vectors: StoredVectors) -> str:
    """The card of a dataset: what the vectors are of, and how to read them."""
    rows = "".join(
        f"| {name} | `{json.dumps(value).replace('|', '&#124;')}` |\n"
        for name, value in vectors.stamp.to_dict().items()
    )
    return f"""---
tags: [actvec, activations]
configs:
- config_name: default
  data_files: data/*.parquet
---
# Activation vectors

{len(vectors):,} documents, a vector `[L, K, D]` = {list(vectors.shape)} each, flat in the column
`vector`: {len(vectors.layers)} layers ({", ".join(vectors.layers)}), {len(vectors.pools)} pools
({", ".join(vectors.pools)}).

```python
import actvec.client
from huggingface_hub import snapshot_download

vectors = actvec.client.load(snapshot_download("OWNER/NAME", repo_type="dataset") + "/data")
print(vectors.array.shape, vectors.stamp)
```

## Stamp

| field | value |
| --- | --- |
{rows}"""


def _write(vectors: StoredVectors, folder: Path) -> None:
    parquet = import_extra("pyarrow.parquet", "data")
    (folder / "README.md").write_text(dataset_card(vectors), encoding="utf-8")
    (folder / "data").mkdir()
    # Of all documents: a column has one type in all files.
    columns = frames.columns_table(vectors.ids, {**vectors.facts, **vectors.columns})
    first = 0
    for number, part in enumerate(vectors.parts):
        table = columns.slice(first, len(part))
        first += len(part)
        parquet.write_table(
            frames.with_vectors(table, vectors.stamp, [part.astype(np.float32)]),
            folder / "data" / f"part-{number:05d}.parquet",
            use_dictionary=False,
            compression="none",
        )
