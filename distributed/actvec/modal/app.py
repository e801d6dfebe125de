"""The app on Modal, as `modal deploy` and `modal run` find it.

modal deploy -m actvec.modal.app
modal run -m actvec.modal.app::download
modal run -m actvec.modal.app --text "Your text here"
modal run --detach -m actvec.modal.app::corpus_mean --corpus c4.jsonl.gz --shards 8

The workers are in `extractor`, the jobs in `corpora`, and a deployment's choices in `resources`.
"""

import sys

from actvec.modal.corpora import corpus_mean, download, fetch_corpus, vectors
from actvec.modal.extractor import ActivationVectorServer, Pythia12BActivationExtractor, extractor
from actvec.modal.resources import app

__all__ = [
    "ActivationVectorServer",
    "Pythia12BActivationExtractor",
    "app",
    "corpus_mean",
    "download",
    "fetch_corpus",
    "vectors",
]

# The exit code of `actvec` for the same errors.
_UNUSABLE = 2


@app.local_entrypoint()
def main(text: str, pooling_strategy: str = "short", center: str = "", out: str = ".") -> None:
    """Save the vector of a text, and its metadata, as `actvec extract` does; print the numbers.

    Raises:
        SystemExit: the text or an option is unusable, or the worker cannot start.
    """
    from actvec.client import ActvecError  # noqa: PLC0415 - gRPC: not in containers
    from actvec.client.bulk.sinks.single_files import FileSink  # noqa: PLC0415 - as above
    from actvec.modal.received import received_vector  # noqa: PLC0415 - as above

    try:
        made = extractor().get_activation_vector.remote(
            text, pooling_strategy=pooling_strategy, center=center or None
        )
        vector = received_vector(text, made)
        saved = FileSink(out).save(vector)
    except (ValueError, RuntimeError, ActvecError) as error:
        # `modal run` would print a traceback.
        print(f"Error: {error}", file=sys.stderr)
        raise SystemExit(_UNUSABLE) from None
    print(vector.values)
    print(f"{saved.vector_path}: {made['shape']} of layers {made['layers_used']}")
    print(f"{saved.metadata_path}: {made['tokens']} tokens, and all that the vector depends on")
