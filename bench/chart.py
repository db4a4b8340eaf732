"""A bar chart as SVG: a picture that needs no library."""

from html import escape

_LABEL, _BAR, _ROW = 240, 460, 28


def bars(title: str, values: dict[str, float]) -> str:
    """One bar a value, the smallest first."""
    rows = sorted(values.items(), key=lambda item: item[1])
    most = max(values.values())
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_LABEL + _BAR + 90}" height="{_ROW * (len(rows) + 2)}"'
        ' font-family="sans-serif" font-size="14">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="12" y="{_ROW - 6}" font-size="16">{escape(title)}</text>',
    ]
    for index, (name, value) in enumerate(rows):
        y = _ROW * (index + 1) + 8
        width = max(_BAR * value / most, 2)
        lines += [
            f'<text x="{_LABEL - 8}" y="{y + 15}" text-anchor="end">{escape(name)}</text>',
            f'<rect x="{_LABEL}" y="{y}" width="{width:.0f}" height="20" fill="#3b82a0"/>',
            f'<text x="{_LABEL + width + 6:.0f}" y="{y + 15}">{value:.2f}</text>',
        ]
    return "\n".join([*lines, "</svg>", ""])
