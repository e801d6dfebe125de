"""Tables in CSV: a document for each row, or a reason why not."""

from dataclasses import replace

import pytest

from actvec.client import Document, InvalidArgument, SourceDamaged, UnsupportedInput
from actvec.client.documents import Columns, open_documents
from actvec.client.messages.documents import check_utf8
from tests.client.documents.compressing import COMPRESS

# What spreadsheets and pandas write: a mark first, CRLF, quotes, line breaks in a cell.
TABLE = '\ufeffid,text,label\r\n007,"one, ""1""\ntwo\r\n3",x\r\n\r\nb,€,\r\n'
ROWS = [
    Document("007", 'one, "1"\ntwo\r\n3', columns={"label": "x"}),
    Document("b", "€", columns={"label": ""}),
]


@pytest.mark.parametrize("ending", COMPRESS)
@pytest.mark.parametrize(("kind", "delimiter"), [(".csv", ","), (".TSV", "\t")])
def test_tables_are_read_by_row(tmp_path, kind, delimiter, ending):
    path = tmp_path / f"corpus{kind}{ending}"
    path.write_bytes(
        COMPRESS[ending](TABLE.replace("one,", "one;").replace(",", delimiter).encode())
    )
    source = open_documents(path, columns=Columns(keep=("label",)))
    expected = [replace(ROWS[0], text='one; "1"\ntwo\r\n3'), ROWS[1]]
    assert list(source) == list(source) == expected
    assert [one.document for one in source.scan(skip={0})] == expected[1:]
    assert source.identity()["kind"] == f"{kind.lower()[1:]}{ending}"


def test_columns_without_a_name_are_passed_over(tmp_path):
    """Spreadsheets leave them behind the others."""
    path = tmp_path / "corpus.csv"
    path.write_text("text,id,,\none,1,,\ntwo,2,,\n")
    assert list(open_documents(path)) == [Document("1", "one"), Document("2", "two")]


def test_long_cell_is_read(tmp_path):
    path = tmp_path / "corpus.csv"
    path.write_text("text\n" + "long " * 60_000)
    [document] = open_documents(path)
    assert len(document.text) == 300_000


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b'text\none\n"two\nthree\n', "row 2: .*unexpected end of data"),
        (b"text,text\none,1\n", "row 1: .*columns of one name in text, text"),
    ],
)
def test_damaged_table_breaks_where_it_is(tmp_path, content, told):
    path = tmp_path / "corpus.csv"
    path.write_bytes(content)
    with pytest.raises(SourceDamaged, match=told):
        list(open_documents(path))


def test_row_of_other_columns_costs_its_document(tmp_path):
    path = tmp_path / "corpus.csv"
    path.write_text("text,id\none,1\ntwo\nthree, and more,3\nfour,4\n")
    one, *failures, four = open_documents(path)
    assert (one, four) == (Document("1", "one"), Document("4", "four"))
    assert [(failure.id, failure.code) for failure in failures] == [
        ("2", "INVALID_ARGUMENT"),
        ("3", "INVALID_ARGUMENT"),
    ]
    assert "row 2: 1 cells, and 2 columns" in failures[0].message
    assert "row 3: 3 cells, and 2 columns; quote a cell with ','" in failures[1].message


def test_table_without_the_column_is_refused(tmp_path):
    path = tmp_path / "corpus.csv"
    path.write_text("body,id\none,1\n")
    with pytest.raises(UnsupportedInput, match=r"no column 'text'.*; there are: body, id"):
        open_documents(path)
    [document] = open_documents(path, columns=Columns(text="body"))
    assert document == Document("1", "one")


def test_byte_of_a_table_costs_its_document(tmp_path):
    path = tmp_path / "corpus.csv"
    path.write_bytes(b"text\ncaf\xe9\ntwo\n")
    broken, whole = open_documents(path)
    with pytest.raises(InvalidArgument):
        check_utf8(broken)
    assert whole == Document("2", "two")
