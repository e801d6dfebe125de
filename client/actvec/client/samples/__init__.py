"""A small corpus to try things on: ten topics, a long text and a short one each."""

from importlib.resources import files

from actvec.client.vectors import Document


def sample_corpus() -> list[Document]:
    """The packaged texts, sorted by id: the names of their files without `.txt`."""
    texts = [entry for entry in files(__name__).iterdir() if entry.name.endswith(".txt")]
    return [
        Document(entry.name.removesuffix(".txt"), entry.read_text("utf-8"))
        for entry in sorted(texts, key=lambda entry: entry.name)
    ]
