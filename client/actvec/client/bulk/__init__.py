"""The vectors of a corpus on disk, however large it is and however often the job is interrupted.

    from actvec.client import Client
    from actvec.client.bulk import Layout, VectorJob
    from actvec.client.documents import open_documents

    corpus = open_documents("corpus.jsonl")
    layout = Layout("shards")
    job = VectorJob(corpus, "vectors", mode="short", layout=layout, resume=True)
    with Client("127.0.0.1:50051") as client:
        progress = job.run(client)

You can use the sinks without a job, for documents from elsewhere:

    with Client("127.0.0.1:50051") as client, ShardSink("vectors") as sink:
        for result in client.stream(texts, mode="short"):
            if isinstance(result, Vector):
                sink.write(result)
"""

from actvec.client.bulk.job import OnProgress, VectorJob
from actvec.client.bulk.layout import Format, Layout
from actvec.client.bulk.progress import JobProgress
from actvec.client.bulk.sinks.numbered_files import MAX_ROWS_PER_FILE, ROWS_PER_FILE
from actvec.client.bulk.sinks.parquet import ParquetSink
from actvec.client.bulk.sinks.shards import ShardSink
from actvec.client.bulk.sinks.single_files import FileSink
from actvec.client.bulk.sinks.sink import Row, Sink

__all__ = [
    "MAX_ROWS_PER_FILE",
    "ROWS_PER_FILE",
    "FileSink",
    "Format",
    "JobProgress",
    "Layout",
    "OnProgress",
    "ParquetSink",
    "Row",
    "ShardSink",
    "Sink",
    "VectorJob",
]
