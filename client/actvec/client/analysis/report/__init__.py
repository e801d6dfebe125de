"""A page to look at: which documents are alike, raw and centered, and what their vectors are like.

    from actvec.client.analysis.paired import paired_vectors
    from actvec.client.analysis.report import gather, write_report

    with Client("127.0.0.1:50051") as client:
        pairs = paired_vectors(client, documents, mode="long", center="my-corpus")
        mean = client.download_mean("my-corpus")
        write_report("report.html", gather(pairs, documents, mean))

`pip install 'actvec[report]'` installs what `write_pictures` needs beside a Chromium.
"""

from actvec.client.analysis.report.material import (
    Material,
    gather,
    gather_stored,
    gather_tables,
)
from actvec.client.analysis.report.page import write_report
from actvec.client.analysis.report.pictures import write_pictures

__all__ = ["Material", "gather", "gather_stored", "gather_tables", "write_pictures", "write_report"]
