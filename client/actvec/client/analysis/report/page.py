"""A report as one HTML file that needs nothing else."""

import base64
import hashlib
import json
from importlib.resources import files
from pathlib import Path
from string import Template

from actvec.client.analysis.report.content import page_content
from actvec.client.analysis.report.material import Material
from actvec.client.files import given_path, write_atomic


def write_report(path: str | Path, material: Material, *, umap: bool = False) -> None:
    """Write the page.

    Args:
        path: The HTML file.
        material: What it shows.
        umap: Whether there is a map by UMAP too, beside the one by PCA.

    Raises:
        MissingExtra: umap-learn is not installed.
        OSError: the page cannot be written.
    """
    assets = files(__package__) / "assets"
    plotly = (assets / "plotly" / "plotly-cartesian.min.js").read_text("utf-8")
    script = (assets / "report.js").read_text("utf-8")
    # In a script element, `<` alone could end it.
    content = json.dumps(page_content(material, umap=umap), allow_nan=False, separators=(",", ":"))
    page = Template((assets / "report.html").read_text("utf-8")).substitute(
        style=(assets / "report.css").read_text("utf-8"),
        content=content.replace("<", "\\u003c"),
        plotly=plotly,
        script=script,
        hashes=" ".join(map(_hash, (plotly, script))),
    )
    path = given_path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, page.encode())


def _hash(script: str) -> str:
    """By which a page allows this script and no other to run."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
