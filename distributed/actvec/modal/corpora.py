"""Functions that fill the volumes: weights, corpora, and corpus jobs over many workers."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from actvec.modal.extractor import extractor, log_to_modal, site
from actvec.modal.resources import (
    COORDINATING,
    DATA,
    GPU,
    HOUR,
    MODEL,
    WEIGHTS,
    app,
    data,
    hub_secrets,
    image,
    weights,
)


@app.function(image=image, volumes={str(WEIGHTS): weights}, secrets=hub_secrets(), timeout=4 * HOUR)
def download(model: str = MODEL) -> None:
    """Fill the volume of weights, which workers only read.

    Raises:
        StartupError: the model cannot be downloaded from the hub.
    """
    from actvec.server.model.hub import hub_snapshot  # noqa: PLC0415 - in the container only

    snapshot = hub_snapshot(model)
    weights.commit()
    print(f"{model} is on the volume at commit {snapshot.commit}")


@app.function(image=image, volumes={str(DATA): data}, timeout=4 * HOUR)
def fetch_corpus(
    save_as: str,
    *,
    dataset: str = "allenai/c4",
    config: str = "en",
    min_words: int = 700,
    max_words: int = 1500,
    num_samples: int = 10_000,
    seed: int = 0,
) -> None:
    """Fetch a corpus, as `actvec corpus fetch` does, to `corpora/<save_as>` on the data volume.

    Raises:
        ValueError: `save_as` is not a plain file name, or the dataset has too few documents.
        ActvecError: it cannot be fetched; run this again to resume.
    """
    if Path(save_as).name != save_as:
        raise ValueError(f"--save-as names a file in corpora/, without a folder: not {save_as!r}")
    from actvec.client.corpora import (  # noqa: PLC0415 - in the container only
        HubDataset,
        Sample,
        WordLimits,
        fetch_corpus,
    )

    fetched = fetch_corpus(
        HubDataset(dataset, config),
        DATA / "corpora" / save_as,
        words=WordLimits(min_words, max_words),
        sample=Sample(num_samples, seed),
    )
    data.commit()
    print(f"{fetched.path}: {fetched.documents:,} documents of {fetched.counts.seen:,} texts seen")
    if fetched.documents < num_samples:
        raise ValueError(
            f"the dataset ended: {num_samples:,} documents were wanted, and it holds"
            f" {fetched.documents:,} that are accepted; those are in the file"
        )


@app.function(**COORDINATING)
def corpus_mean(
    corpus: str,
    *,
    shards: int = 4,
    name: str = "",
    truncation: str = "error",
    variance: bool = False,
    add_generation_prompt: bool = False,
    chat_template_kwargs: str = "{}",
    column: str = "text",
    id_column: str = "id",
    tokens_per_second: float | None = None,
    price_per_hour: float | None = None,
) -> None:
    """Compute the mean of `corpora/<corpus>` on the volume, with one worker per shard.

    Prints estimates of time and cost first. Run it again to resume it.

    Raises:
        ValueError: the template's arguments are not JSON.
    """
    coordinator = _coordinator(tokens_per_second, price_per_hour)
    options = {"truncation": truncation, "variance": variance}
    options |= _chat(add_generation_prompt, chat_template_kwargs)
    fields = _fields(column, id_column)
    coordinator.mean(corpus, name or _stem(corpus), shards, options | fields)


@app.function(**COORDINATING)
def vectors(
    corpus: str,
    *,
    mode: str = "short",
    pools: str = "",
    shards: int = 4,
    name: str = "",
    center: str = "",
    truncation: str = "error",
    add_generation_prompt: bool = False,
    chat_template_kwargs: str = "{}",
    file_format: str = "shards",
    column: str = "text",
    id_column: str = "id",
    keep: str = "",
    tokens_per_second: float | None = None,
    price_per_hour: float | None = None,
) -> None:
    """Compute the vectors of `corpora/<corpus>` on the volume, into `vectors/<name>` there.

    Pools take the place of the mode; name the folder then. Prints estimates of time and cost first.
    Run it again to compute only the missing shards.

    Raises:
        ValueError: pools are given without a name, or the template's arguments are not JSON.
    """
    if pools and not name:
        raise ValueError("--pools needs a --name for the folder of the vectors")
    coordinator = _coordinator(tokens_per_second, price_per_hour)
    options: dict[str, Any] = {"pools": _names(pools)} if pools else {"mode": mode}
    options |= {"truncation": truncation, "format": file_format}
    options |= _chat(add_generation_prompt, chat_template_kwargs)
    fields = _fields(column, id_column, keep)
    coordinator.vectors(corpus, name or f"{_stem(corpus)}-{mode}", shards, options | fields, center)


def _coordinator(tokens_per_second: float | None, price_per_hour: float | None) -> Any:
    # In the container only.
    from actvec.client.planning.estimate import Plan  # noqa: PLC0415
    from actvec.modal.batch import Coordinator  # noqa: PLC0415

    def compute(shards: Sequence[str], arguments: Mapping[str, Any]) -> Any:
        return extractor().compute_shard.map(shards, kwargs=arguments, return_exceptions=True)

    def mean_id(name: str) -> str:
        return str(extractor().find_corpus_mean.remote(name))

    log_to_modal()
    plan = Plan(GPU, MODEL, tokens_per_second=tokens_per_second, price_per_hour=price_per_hour)
    return Coordinator(site(), compute, mean_id, plan)


def _fields(column: str, id_column: str, keep: str = "") -> dict[str, Any]:
    """The fields of the corpus as options of a shard: those that are not the usual ones."""
    given = {"column": (column, "text"), "id_column": (id_column, "id"), "keep": (_names(keep), [])}
    return {name: value for name, (value, usual) in given.items() if value != usual}


def _chat(prompt: bool, kwargs: str) -> dict[str, Any]:
    """How chats are rendered, as options of a shard: those that are not the usual ones."""
    given = {"add_generation_prompt": prompt, "chat_template_kwargs": json.loads(kwargs)}
    return {name: value for name, value in given.items() if value}


def _names(given: str) -> list[str]:
    return [name.strip() for name in given.split(",") if name.strip()]


def _stem(corpus: str) -> str:
    return Path(corpus).name.partition(".")[0]
