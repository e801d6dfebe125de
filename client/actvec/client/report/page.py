"""A report as one HTML file that needs nothing else, and as pictures."""

import html
from pathlib import Path
from string import Template

from actvec.client.errors import MissingExtra
from actvec.client.extras import import_extra
from actvec.client.report.figure import Figure
from actvec.client.report.figures import make_figures
from actvec.client.report.gather import Material
from actvec.client.whole import write_whole
from actvec.pooling import pooling_matrix

# The pool by whose weights the text is shaded: the one that mode short is.
_SHADED = "exp_933"
# A text beyond this is cut at its start, where the weights are smallest.
_SHOWN_CHARACTERS = 6000

_PAGE = Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; color: #1b1b1b; background: #fff;
  max-width: 1080px; margin: 0 auto; padding: 1.5rem; }
h1 { font-size: 1.6rem; margin: 0 0 .25rem; } h2 { font-size: 1.15rem; margin: 2.2rem 0 0; }
p { margin: .3rem 0 .6rem; color: #555; max-width: 75ch; }
table { border-collapse: collapse; font-size: .9rem; margin-top: .6rem; }
th, td { text-align: left; padding: .2rem .9rem .2rem 0; vertical-align: top;
  overflow-wrap: anywhere; }
th { font-weight: 600; white-space: nowrap; }
.text { white-space: pre-wrap; overflow-wrap: anywhere; line-height: 1.7; }
</style>
<script>$plotly</script></head><body>
<h1>$title</h1><p>$summary</p>
$body
</body></html>
""")


def write_report(path: str | Path, material: Material) -> None:
    """Write the page.

    Raises:
        MissingExtra: plotly is not installed.
        OSError: it cannot be written.
    """
    plotly = import_extra("plotly.offline", "report")
    figures = make_figures(material)
    body = [_section(figure) for figure in figures]
    if material.text is not None and material.tokens is not None:
        body.append(_shaded(material))
    body.append(_missing(material))
    body.append(_stamp(material))
    count = len(material.labels)
    page = _PAGE.substitute(
        title="Activation vectors",
        plotly=plotly.get_plotlyjs(),
        summary=f"{count:,} document{'s' * (count != 1)}, mode {material.mode}:"
        f" {len(material.pools)} x {material.raw.shape[2]:,} numbers each",
        body="\n".join(part for part in body if part),
    )
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, page.encode())


def write_pictures(folder: str | Path, material: Material) -> list[Path]:
    """Write each figure as `<name>.png`.

    Raises:
        MissingExtra: plotly or kaleido is not installed, or there is no Chromium, which draws.
        OSError: they cannot be written.
    """
    import_extra("kaleido", "report")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for figure in make_figures(material):
        _dress(figure)
        figure.drawing.update_layout(title=figure.title, updatemenus=[])
        try:
            content = figure.drawing.to_image(format="png", width=1000, height=600, scale=2)
        except Exception as error:  # whatever kaleido raises where it cannot start its browser
            raise MissingExtra(
                f"pictures are drawn by Chromium, which did not start; install it ({error})"
            ) from error
        paths.append(folder / f"{figure.name}.png")
        write_whole(paths[-1], content)
    return paths


def _dress(figure: Figure) -> None:
    layout = figure.drawing.layout
    figure.drawing.update_layout(
        template="plotly_white",
        height=layout.height or 420,
        margin={"l": 70, "r": 20, "t": layout.margin.t or 30, "b": 60},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"},
    )


def _section(figure: Figure) -> str:
    _dress(figure)
    drawing = figure.drawing.to_html(
        full_html=False,
        include_plotlyjs=False,
        div_id=figure.name,
        config={"displaylogo": False, "responsive": True},
    )
    return (
        f"<h2>{html.escape(figure.title)}</h2><p>{html.escape(html.unescape(figure.caption))}</p>"
        f"{drawing}"
    )


def _shaded(material: Material) -> str:
    """The first document's text, each word as dark as its tokens weigh."""
    assert material.text is not None  # noqa: S101 - by the caller
    assert material.tokens is not None  # noqa: S101 - by the caller
    text, tokens = material.text.text, material.tokens[0]
    weights = pooling_matrix("short", tokens)[0]
    start = max(0, len(text) - _SHOWN_CHARACTERS)
    spans = []
    position = start
    for word in text[start:].split(" "):
        token = min(int(position / max(len(text), 1) * tokens), tokens - 1)
        shade = float(weights[token] / weights.max())
        spans.append(
            f'<span style="background:rgba(230,159,0,{shade:.2f})">{html.escape(word)}</span>'
        )
        position += len(word) + 1
    cut = f"the last {_SHOWN_CHARACTERS:,} characters of " if start else ""
    return (
        f"<h2>The text, by weight</h2><p>Shown: {cut}{html.escape(material.labels[0])}, as dark as"
        f" its tokens weigh in {_SHADED}. Where a token begins is reckoned from its place among the"
        ' characters: the tokenizer is on the server.</p><div class="text">'
        + " ".join(spans)
        + "</div>"
    )


def _missing(material: Material) -> str:
    gaps = []
    if material.centred is None:
        gaps.append("There are no centred vectors (--center), so nothing is compared with them.")
    elif material.predicted is None:
        gaps.append("The mean is not at hand, so the vectors were not held to it.")
    if len(material.labels) == 1:
        gaps.append("Of one document there are no cosines.")
    return f"<h2>Not in this report</h2><p>{' '.join(gaps)}</p>" if gaps else ""


def _stamp(material: Material) -> str:
    if material.stamp is None:
        return ""
    rows = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(str(value))}</td></tr>"
        for name, value in material.stamp.to_dict().items()
    )
    return f"<h2>Stamp</h2><p>What the vectors depend on beside the text.</p><table>{rows}</table>"
