"""A report as one HTML file that needs nothing else."""

from html import escape

from ...export.drawing import picture
from ..page_parts import Picture, document, figure, flat, table
from .cells import caption, tables
from .plots import plots
from .results import Report

TITLE = "What spotting costs"


def page(report: Report) -> str:
    """The page."""
    parts = [f"<h1>{TITLE}</h1>", f'<p class="lead">{escape(report.command)}</p>']
    parts += [f'<p class="note">{escape(line)}</p>' for line in caption(report)]
    for each in tables(report):
        parts += [
            f"<h2>{escape(each.title)}</h2>",
            table(each.heads, each.rows),
            f'<p class="note">{escape(each.note)}</p>',
        ]
    for name, (text, drawn) in plots(report).items():
        parts.append(figure(Picture(picture(drawn), name.capitalize(), text, wide=True)))
    parts += ["<h2>Settings</h2>", table(["Setting", "Value"], flat("", report.settings))]
    return document(TITLE, parts)
