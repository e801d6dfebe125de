"""`python docs/curves.py`: draws `docs/images/curves.svg` from `actvec.pooling` itself."""

from pathlib import Path

import numpy as np

from actvec.pooling import pooling_matrix, pools

FILE = Path(__file__).resolve().parent / "images" / "curves.svg"
# Okabe and Ito's colors, which people with any kind of color blindness tell apart.
COLOURS = ("#CC79A7", "#0072B2", "#E69F00", "#009E73")
TOKENS = 200
LEFT, TOP, WIDTH, HEIGHT = 60, 20, 640, 240


def draw() -> str:
    """The weights of the four pools over the tokens of a document, as SVG."""
    weights = pooling_matrix("long", TOKENS)
    names = [pool.name for pool in pools("long")]
    # The last token's pool has one weight, 1, far above the others: it is drawn to the top.
    highest = float(weights[1:].max())
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + 20} '
        f'{TOP + HEIGHT + 60}" font-family="sans-serif" font-size="13" fill="#333">',
        f'<rect width="{LEFT + WIDTH + 20}" height="{TOP + HEIGHT + 60}" fill="#fff"/>',
    ]
    for share in (0, 0.25, 0.5, 0.75, 1):
        x = LEFT + share * WIDTH
        parts.append(
            f'<text x="{x:.0f}" y="{TOP + HEIGHT + 20}" text-anchor="middle">'
            f"{share * TOKENS:.0f}</text>"
        )
    for share in (0, 0.5, 1):
        y = TOP + HEIGHT * (1 - share)
        parts.append(
            f'<line x1="{LEFT}" x2="{LEFT + WIDTH}" y1="{y:.0f}" y2="{y:.0f}" stroke="#ddd"/>'
            f'<text x="{LEFT - 8}" y="{y + 4:.0f}" text-anchor="end">{share * highest:.3f}</text>'
        )
    parts.append(
        f'<text x="{LEFT + WIDTH / 2}" y="{TOP + HEIGHT + 45}" text-anchor="middle">'
        f"token of a document of {TOKENS}</text>"
    )
    for number, (name, row, color) in enumerate(zip(names, weights, COLOURS, strict=True)):
        points = " ".join(
            f"{LEFT + WIDTH * (token + 0.5) / TOKENS:.1f},"
            f"{TOP + HEIGHT * (1 - min(weight / highest, 1)):.1f}"
            for token, weight in enumerate(row.astype(np.float64))
        )
        parts.append(f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="2"/>')
        y = TOP + 24 + 22 * number
        parts.append(
            f'<line x1="{LEFT + 24}" x2="{LEFT + 54}" y1="{y}" y2="{y}" stroke="{color}" '
            f'stroke-width="3"/><text x="{LEFT + 62}" y="{y + 4}">{name}</text>'
        )
    return "\n".join([*parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    FILE.write_text(draw())
