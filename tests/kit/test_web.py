"""Pages hold their own parts, load nothing, and show hostile text as text."""

from __future__ import annotations

import base64
import hashlib
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import jinja2
import pytest

from kit.web.numbers import duration, moment, number, percent, size
from kit.web.page import environment, render, write_page

HOSTILE = (
    '</script></style></title><script>alert(1)</script><img src=x onerror=alert(1)>\'" onclick="alert(1) & {{ 7 * 7 }}'
)
PAGE = """{% extends "kit/base.html" %}
{% set title, kicker, sections, skip = text, text, {text: text}, text %}
{% block byline %}<p>{{ text }}</p>{% endblock %}
{% block main %}<section id="one" title="{{ text }}">{{ text }}</section>{% endblock %}
{% block footer %}<footer>{{ text }}</footer>{% endblock %}
{% block data %}<script type="application/json" id="rows">{{ [text] | tojson }}</script>{% endblock %}
"""
BARE = """{% extends "kit/base.html" %}{% set title = "Bare" %}{% block main %}<p>All.</p>{% endblock %}"""


class Page(HTMLParser):
    """What a browser would make of a page: start tags with attributes, and the text inside each kind of element."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.texts.append((tag, ""))

    def handle_endtag(self, tag: str) -> None:
        self.texts.append((f"/{tag}", ""))

    def handle_data(self, data: str) -> None:
        if self.texts:
            tag, before = self.texts[-1]
            self.texts[-1] = (tag, before + data)

    def text_of(self, tag: str) -> list[str]:
        return [text for name, text in self.texts if name == tag]

    def policy(self) -> dict[str, str]:
        (content,) = (each["content"] for tag, each in self.tags if "http-equiv" in each)
        return dict(directive.split(" ", 1) for directive in content.split("; "))


@pytest.fixture
def pages(tmp_path: Path) -> jinja2.Environment:
    (tmp_path / "page.html").write_text(PAGE)
    (tmp_path / "bare.html").write_text(BARE)
    (tmp_path / "own.css").write_text(".own { color: red }\n")
    (tmp_path / "own.js").write_text('kit.part(document, "own");\n')
    return environment(tmp_path)


def digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def test_hostile_text_stays_text_in_every_slot(pages: jinja2.Environment) -> None:
    html = render(pages, "page.html", text=HOSTILE)
    hostile, harmless = Page(html), Page(render(pages, "page.html", text="harmless"))
    assert [tag for tag, _ in hostile.tags] == [tag for tag, _ in harmless.tags]
    assert [set(each) for _, each in hostile.tags] == [set(each) for _, each in harmless.tags]
    for tag in ("title", "a", "h1", "section", "footer"):
        assert HOSTILE in hostile.text_of(tag)[-1]
    assert ("section", {"id": "one", "title": HOSTILE}) in hostile.tags
    (data, _) = hostile.text_of("script")
    assert "<" not in data and "alert(1)" in data


def test_the_policy_admits_the_pages_own_parts_and_nothing_else(pages: jinja2.Environment) -> None:
    page = Page(render(pages, "page.html", styles=["own.css"], scripts=["own.js"], text="x"))
    policy, (style,), (_, script) = page.policy(), page.text_of("style"), page.text_of("script")
    assert style.endswith(".own { color: red }\n") and script.endswith('kit.part(document, "own");\n')
    assert policy["script-src"] == digest(script) and policy["style-src-elem"] == digest(style)
    assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert policy["img-src"] == "data:"


def test_a_served_page_may_ask_its_server(pages: jinja2.Environment) -> None:
    page = Page(render(pages, "bare.html", allow={"connect-src": "'self'", "img-src": "'self' data:"}))
    assert page.policy()["connect-src"] == "'self'" and page.policy()["img-src"] == "'self' data:"
    assert page.policy()["default-src"] == "'none'"


def test_a_page_names_no_address_outside_itself(pages: jinja2.Environment) -> None:
    html = render(pages, "page.html", text="x")
    links = [value for _, each in Page(html).tags for name, value in each.items() if name in ("href", "src", "action")]
    assert links == ["data:,", "#main", "#x"]
    assert not re.search(r"https?:|@import|url\(\s*[^#\s]", html)


def test_a_page_needs_a_title_and_a_main_block_alone(pages: jinja2.Environment, tmp_path: Path) -> None:
    tags = [tag for tag, _ in Page(render(pages, "bare.html")).tags]
    assert "nav" not in tags and "footer" not in tags and tags.count("p") == 1
    (tmp_path / "untitled.html").write_text(BARE.replace('{% set title = "Bare" %}', ""))
    with pytest.raises(jinja2.UndefinedError, match="title"):
        render(pages, "untitled.html")
    (tmp_path / "empty.html").write_text('{% extends "kit/base.html" %}{% set title = "Empty" %}')
    with pytest.raises(jinja2.TemplateRuntimeError, match="main"):
        render(pages, "empty.html")


def test_the_landmarks_are_there(pages: jinja2.Environment) -> None:
    html = render(pages, "page.html", text="x")
    assert html.startswith("<!doctype html>")
    page = Page(html)
    tags = [tag for tag, _ in page.tags]
    assert all(tags.count(tag) == 1 for tag in ("title", "header", "nav", "main", "h1", "style"))
    skip, *_ = (each for tag, each in page.tags if tag == "a")
    assert skip["href"] == "#main" and ("main", {"id": "main", "class": "page", "tabindex": "-1"}) in page.tags


def test_unknown_names_and_files_are_errors(pages: jinja2.Environment) -> None:
    with pytest.raises(jinja2.UndefinedError, match="text"):
        render(pages, "page.html")
    with pytest.raises(jinja2.TemplateNotFound, match=r"none\.css"):
        render(pages, "bare.html", styles=["none.css"])


@pytest.mark.parametrize("text", ["</script>", "a = '</STYLE'", "<!-- x"])
def test_a_static_file_cannot_end_its_element(pages: jinja2.Environment, tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.js").write_text(text)
    with pytest.raises(ValueError, match=r"bad\.js holds"):
        render(pages, "bare.html", scripts=["bad.js"])


def test_a_page_appears_whole_with_names_that_are_not_unicode(tmp_path: Path) -> None:
    write_page(tmp_path / "new" / "index.html", "<p>ä \udcff</p>")
    assert (tmp_path / "new" / "index.html").read_text(encoding="utf-8") == "<p>ä \\udcff</p>"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["index.html"]


def test_numbers_read_well() -> None:
    assert [number(x) for x in (None, True, 1234567, -0.25, 0.123456, float("nan"), -0.0, 3.0)] == [
        *("–", "yes", "1,234,567", "−0.25", "0.1235", "–", "0", "3")
    ]


def test_shares_are_never_rounded_to_none_or_to_all() -> None:
    assert [percent(part, 100_000) for part in (0, 1, 12_345, 99_999, 100_000)] == [
        *("0.0 %", "<0.1 %", "12.3 %", ">99.9 %", "100.0 %")
    ]
    assert percent(1, 0) == "–" and percent(0.5) == "50.0 %"


def test_times_and_sizes_have_the_unit_that_fits() -> None:
    assert [duration(x) for x in (None, 0.0123, 1.5, 119.9, 120, 7199, 7200, 9e6)] == [
        *("–", "12.3 ms", "1.5 s", "119.9 s", "2.0 min", "120.0 min", "2.0 h", "2,500.0 h")
    ]
    assert [size(x) for x in (None, 0, 1023, 1024, 5 * 2**20, math.ldexp(1.5, 40))] == [
        *("–", "0 B", "1023 B", "1 KiB", "5 MiB", "1536.0 GiB")
    ]
    assert moment("2026-11-22T21:31:07+00:00") == "2026-11-22 21:31:07 UTC"
