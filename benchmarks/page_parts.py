"""Parts of HTML pages that need nothing else: no script, and nothing is fetched."""

from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any


@dataclass(frozen=True)
class Picture:
    """A PNG with what it shows in words."""

    png: bytes
    title: str
    caption: str
    wide: bool = False
    """Too wide for a telephone: it scrolls sideways there."""


def document(title: str, parts: Iterable[str]) -> str:
    """A page of parts in HTML; empty ones are left out."""
    return _PAGE.format(title=escape(title), style=_STYLE, body="\n".join(filter(None, parts)))


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose first column heads its rows; cells are text."""
    top = "".join(f'<th scope="col">{escape(head)}</th>' for head in heads)
    body = "".join(
        f'<tr><th scope="row">{escape(first)}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in rest)
        + "</tr>"
        for first, *rest in rows
    )
    return f'<div class="scroll"><table><tr>{top}</tr>{body}</table></div>'


def figure(picture: Picture) -> str:
    """A picture under its title."""
    data = b64encode(picture.png).decode("ascii")
    alt = escape(picture.caption, quote=True)
    kind = "wide" if picture.wide else "narrow"
    return (
        f'<h2>{escape(picture.title)}</h2><figure><div class="scroll paper {kind}">'
        f'<img alt="{alt}" src="data:image/png;base64,{data}"></div>'
        f"<figcaption>{escape(picture.caption)}</figcaption></figure>"
    )


def flat(name: str, value: Any) -> Iterable[tuple[str, str]]:
    """Nested settings as rows: ``outer.inner`` and its value."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from flat(f"{name}.{key}" if name else str(key), inner)
    elif isinstance(value, (list, tuple)):
        yield name, ", ".join(str(item) for item in value)
    else:
        yield name, f"{value:.6g}" if isinstance(value, float) else str(value)


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body><main>
{body}
</main></body>
</html>
"""
_STYLE = """
:root { color-scheme: light dark; --text: #1d2329; --soft: #56616c; --line: #d9dee3;
  --ground: #ffffff; --panel: #f4f6f8; --accent: #0b62a3; }
@media (prefers-color-scheme: dark) { :root { --text: #e4e8ec; --soft: #a0abb6; --line: #39424b;
  --ground: #14181c; --panel: #1e242a; --accent: #6db7f2; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--text);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.8rem; line-height: 1.2; margin: 0.5rem 0 0.75rem; }
h2 { font-size: 1.2rem; margin: 2.25rem 0 0.6rem; }
.lead { font-size: 1.1rem; max-width: 46rem; margin: 0; }
.note, figcaption { color: var(--soft); font-size: 0.92rem; max-width: 46rem; }
.note { border-left: 3px solid var(--accent); padding-left: 0.8rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 0.35rem 1.2rem 0.35rem 0; vertical-align: top;
  border-bottom: 1px solid var(--line); }
th[scope=col] { color: var(--soft); font-weight: 600; }
th[scope=row] { font-weight: 400; }
td { overflow-wrap: break-word; }
figure { margin: 0; }
.paper { background: #ffffff; border: 1px solid var(--line); border-radius: 8px; padding: 0.5rem; }
.narrow { max-width: 34rem; }
img { display: block; width: 100%; height: auto; }
.wide img { min-width: 56rem; }
figcaption { margin-top: 0.5rem; }
pre { background: var(--panel); border: 1px solid var(--line); border-radius: 6px;
  padding: 0.6rem 0.8rem; overflow-x: auto; font-size: 0.9rem; margin: 0 0 1rem; }
@media (max-width: 40rem) { body { font-size: 15px; } th, td { padding-right: 0.8rem; } }
@media print { .scroll { overflow: visible; } .wide img { min-width: 0; } }
"""
