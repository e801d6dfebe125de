"""actvec on Ray: a step of a Ray Data pipeline that adds vectors, and means over many workers.

    import ray
    from actvec.ray import ActivationVectors

    ray.data.read_parquet("documents.parquet").map_batches(
        ActivationVectors,
        fn_constructor_kwargs={"model": "EleutherAI/pythia-12b", "mode": "short"},
        batch_size=64,
        num_gpus=1,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=8),
    ).write_parquet("vectors")

`write_vectors` does this for a corpus, in files that are whole or not there, so that a run that was
killed continues; `write_mean` makes the file of a corpus mean in the same way, and `corpus_mean`
makes it of any dataset.
"""

from actvec.ray.jobs import RayVectors, write_mean, write_vectors
from actvec.ray.means import PartialMeans, corpus_mean
from actvec.ray.vectors import ActivationVectors

__all__ = [
    "ActivationVectors",
    "PartialMeans",
    "RayVectors",
    "corpus_mean",
    "write_mean",
    "write_vectors",
]
