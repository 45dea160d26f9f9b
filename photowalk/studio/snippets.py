"""Pieces of HTML for the panels: a line of advice, a table of facts, links to files. Texts are escaped here."""

from __future__ import annotations

import html
from collections.abc import Sequence

_SMALL = "font-size:13px;line-height:1.45;margin:4px 8px"
_LINK = (
    "display:block;padding:7px 10px;margin:4px 0;border-radius:6px;"
    "background:#2b303b;color:#cfe0ff;text-decoration:none"
)


def hint(text: str) -> str:
    return f"<p style='{_SMALL};opacity:.72'>{html.escape(text)}</p>"


def facts(*pairs: tuple[str, str]) -> str:
    rows = "".join(
        f"<tr><td style='opacity:.72;padding:2px 10px 2px 0'>{html.escape(name)}</td>"
        f"<td style='font-weight:600;text-align:right'>{html.escape(value)}</td></tr>"
        for name, value in pairs
    )
    return f"<table style='{_SMALL};width:calc(100% - 16px)'>{rows}</table>"


def notes(texts: Sequence[str]) -> str:
    items = "".join(f"<li>{html.escape(text)}</li>" for text in texts)
    return f"<ul style='{_SMALL};padding-left:18px'>{items}</ul>" if texts else ""


def links(world: str, files: Sequence[str]) -> str:
    """To download the files of a world."""
    items = "".join(
        f"<a href='/api/worlds/{world}/files/{html.escape(name)}' download='{html.escape(name)}' style='{_LINK}'>"
        f"{html.escape(name)}</a>"
        for name in files
    )
    return f"<div style='padding:4px 8px'>{items}</div>"
