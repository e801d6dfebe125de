"""A page to look at: what vectors of a few or many documents are like, raw and centred.

    from actvec.client.paired import paired_vectors
    from actvec.client.report import gather, write_report

    with Client("127.0.0.1:50051") as client:
        pairs = paired_vectors(client, documents, mode="long", center="latest")
        write_report("report.html", gather(pairs, documents[0], client.download_mean("latest")))

Needs `pip install 'actvec[report]'`.
"""

from actvec.client.report.figure import Figure
from actvec.client.report.figures import make_figures
from actvec.client.report.gather import Material, gather, gather_tables
from actvec.client.report.page import write_pictures, write_report

__all__ = [
    "Figure",
    "Material",
    "gather",
    "gather_tables",
    "make_figures",
    "write_pictures",
    "write_report",
]
