"""The report of a sweep as one page of HTML that needs nothing beside it."""

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

_STYLE = """
body { font: 15px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; color: #262b36;
  max-width: 1120px; margin: 2.5rem auto; padding: 0 1.5rem; background: #fff }
h1 { font-size: 1.7rem; margin: 0 }
h2 { font-size: 1.2rem; margin: 2.6rem 0 .3rem } p { margin: .3rem 0; max-width: 56rem }
nav { margin: 1rem 0; padding: .5rem 0; border: solid #e2e5ea; border-width: 1px 0 } nav a { margin-right: 1.1rem }
a { color: #0072b2; text-decoration: none } .what { color: #5b6675 } img { width: 100%; margin-top: .6rem }
.wide { overflow-x: auto } table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin-top: .6rem }
td, th { padding: .15rem .8rem; text-align: right; white-space: nowrap; font-weight: normal }
th:first-child { text-align: left; color: #5b6675; padding-left: 0 } tr:first-child > * { font-weight: 600 }
tr { border-bottom: 1px solid #eceef2 } .missing { color: #5b6675; font-style: italic; margin: .8rem 0 }
"""


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Args:
        name: by which links, files and tags know it.
        title: of the section.
        what: how to read it.
        body: HTML.
    """

    name: str
    title: str
    what: str
    body: str


def picture(png: bytes, title: str) -> str:
    """A PNG within the page."""
    return f'<img alt="{escape(title)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def missing(reason: str) -> str:
    """What stands where a figure can't be."""
    return f'<p class="missing">Not yet: {escape(reason)}.</p>'


def table(rows: Iterable[Sequence[str]]) -> str:
    """A table whose first row and first column are names."""
    lines = (
        "".join(f"<{tag}>{escape(cell)}</{tag}>" for tag, cell in zip(_tags(row), row, strict=True)) for row in rows
    )
    return f'<div class="wide"><table>{"".join(f"<tr>{line}</tr>" for line in lines)}</table></div>'


def _tags(row: Sequence[str]) -> list[str]:
    return ["th", *["td"] * (len(row) - 1)]


def render(title: str, words: Sequence[str], sections: Sequence[Section]) -> str:
    """The whole page."""
    links = "".join(f'<a href="#{section.name}">{escape(section.title)}</a>' for section in sections)
    parts = "".join(
        f'<section id="{section.name}"><h2>{escape(section.title)}</h2>'
        f'<p class="what">{escape(section.what)}</p>{section.body}</section>\n'
        for section in sections
    )
    lead = "".join(f"<p>{escape(word)}</p>" for word in words)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body>\n<h1>{escape(title)}</h1>\n{lead}\n<nav>{links}</nav>\n{parts}</body></html>\n"
    )
