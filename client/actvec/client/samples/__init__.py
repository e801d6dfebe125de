"""A small corpus to try things on: ten topics, a long text and a short one each."""

from importlib.resources import files

from actvec.client.records.vectors import Document


def sample_corpus() -> list[Document]:
    """The packaged texts, sorted by id, with columns: `bees_long` has the topic `bees`."""
    texts = [entry for entry in files(__name__).iterdir() if entry.name.endswith(".txt")]
    documents = []
    for entry in sorted(texts, key=lambda entry: entry.name):
        name = entry.name.removesuffix(".txt")
        topic, _, length = name.partition("_")
        columns = {"topic": topic, "length": length}
        documents.append(Document(name, entry.read_text("utf-8"), columns=columns))
    return documents
