"""One self-contained HTML file from a page's own template, styles and scripts and the shared ones.

    pages = environment(Path(__file__).parent)
    html = render(pages, "report.html", styles=["report.css"], scripts=["report.js"], rows=rows)
    write_page("report/index.html", html)

``report.html`` starts with ``{% extends "kit/base.html" %}``; ``base.html`` lists what a page sets and fills.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jinja2
from markupsafe import Markup

from kit.web.numbers import FILTERS
from unitalking_data.storage import Store

_HERE = Path(__file__).parent
_NOTHING_MORE: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Assets:
    """The style sheet and the script that stand in a page, and the Content-Security-Policy that admits these two."""

    style: Markup
    script: Markup
    policy: str


def environment(folder: str | Path) -> jinja2.Environment:
    """Jinja2 over the templates of ``folder`` and, under the names ``kit/…``, the shared ones.

    Every value is escaped, an unknown name is an error, and the filters of :mod:`kit.web.numbers` are there.
    """
    shared = jinja2.PrefixLoader({"kit": jinja2.FileSystemLoader(_HERE)})
    pages = jinja2.Environment(
        loader=jinja2.ChoiceLoader([shared, jinja2.FileSystemLoader(folder)]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters |= FILTERS
    return pages


def render(
    pages: jinja2.Environment,
    template: str,
    *,
    styles: Sequence[str] = (),
    scripts: Sequence[str] = (),
    allow: Mapping[str, str] = _NOTHING_MORE,
    **content: Any,
) -> str:
    """The HTML of a template that extends ``kit/base.html``.

    Args:
        styles, scripts: files beside the template, put into the page after the shared ones, in this order.
        allow: directives of the Content-Security-Policy to add or replace, such as ``{"connect-src": "'self'"}`` for a
            page that a server answers. Without them the page can load nothing and send nothing.
        content: the template's variables; the name ``assets`` is taken.

    Raises:
        jinja2.TemplateNotFound: no such template, style or script.
        jinja2.UndefinedError: the template uses a variable that was not given.
        ValueError: a style or script would end its own element.
    """
    style = _inline(pages, ["kit/style.css", *styles])
    script = _inline(pages, ["kit/script.js", *scripts])
    assets = Assets(Markup(style), Markup(script), _policy(style, script, allow))
    return pages.get_template(template).render(content, assets=assets)


def write_page(path: str | Path, html: str) -> None:
    """Write a page as UTF-8; it appears whole or not at all. What is not Unicode is written as ``\\udc80``."""
    path = Path(path)
    Store(path.parent).write_bytes(path.name, html.encode("utf-8", "backslashreplace"))


def _inline(pages: jinja2.Environment, names: Sequence[str]) -> str:
    """The files one after another, for one ``<style>`` or ``<script>``, in which nothing is escaped."""
    texts = []
    for name in names:
        text, *_ = pages.loader.get_source(pages, name)
        if found := re.search(r"</(script|style)|<!--", text, re.IGNORECASE):
            raise ValueError(f"{name} holds {found[0]!r}, which would end the element that it is put into")
        texts.append(text)
    return "\n" + "".join(texts)


def _policy(style: str, script: str, allow: Mapping[str, str]) -> str:
    directives = {
        "default-src": "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "img-src": "data:",
        "style-src-elem": _digest(style),
        "style-src-attr": "'unsafe-inline'",  # widths and places of bars; a style cannot run anything
        "script-src": _digest(script),
    }
    return "; ".join(f"{name} {sources}" for name, sources in (directives | allow).items())


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
