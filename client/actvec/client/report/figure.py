"""What a figure of a report is."""

from dataclasses import dataclass
from typing import Any

# Okabe and Ito's colours, which people with any kind of colour blindness tell apart.
RAW, CENTRED, DIFFERENCE, FOURTH = "#0072B2", "#E69F00", "#009E73", "#CC79A7"


@dataclass(frozen=True)
class Figure:
    """A drawing and what it shows.

    Attributes:
        name: Names its file and its place in the page.
        title: What it is.
        caption: How to read it.
        drawing: A `plotly.graph_objects.Figure`.
    """

    name: str
    title: str
    caption: str
    drawing: Any
