"""The stamp of vectors that sinks write."""

from actvec.client import Pool, Stamp

STAMP = Stamp(
    model="demo",
    revision="sha256:00",
    tokenizer_sha256="11",
    dtype="float32",
    layers=(1, 2, 3),
    hook="resid_post",
    prepend_bos=True,
    mode="long",
    pools=(Pool("last", 0.0), Pool("exp_933", 0.067)),
    truncation="error",
    corpus_mean_id="",
    corpus_mean_sha256="",
    actvec_version="0.1.0",
)
