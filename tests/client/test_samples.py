"""The sample corpus: ten topics, a long text and a short one each."""

from actvec.client.samples import sample_corpus


def test_corpus_has_ten_long_and_ten_short_texts():
    corpus = sample_corpus()
    words = [len(document.text.split()) for document in corpus]
    assert len(corpus) == 20
    assert len([count for count in words if 700 <= count <= 1500]) == 10
    assert len([count for count in words if 40 <= count <= 60]) == 10


def test_documents_are_sorted_and_distinct():
    corpus = sample_corpus()
    ids = [document.id for document in corpus]
    assert ids == sorted(set(ids))
    assert len({document.text for document in corpus}) == len(corpus)
