"""The page in headless Chromium."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from curation.report import build
from curation.report.gallery import one_by_one
from tests.curation.report import sample

playwright = pytest.importorskip("playwright.sync_api", reason="needs the playwright package")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser", "chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs Chromium or Chrome on the PATH")
SWITCHES = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)


@pytest.fixture(scope="module")
def page_file(talker: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report over 60 clips of one video and one name that is an attack."""

    def once(function, refs):
        known = {ref: one_by_one(function, [ref])[0] for ref in set(refs)}
        return [known[ref] for ref in refs]

    table = sample.scores(60, uris=[str(talker), str(talker), sample.HOSTILE])
    return build(sample.report(table), tmp_path_factory.mktemp("report"), run=once)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as engine:
        chromium = engine.chromium.launch(executable_path=BROWSER, args=list(SWITCHES))
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Any, page_file: Path) -> Iterator[Any]:
    """The loaded page; afterwards there must have been no error and no request but the file itself."""
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    tab = context.new_page()
    tab.set_default_timeout(90_000)
    errors, requests = [], []
    tab.on("console", lambda message: errors.append(message.text) if message.type in ("error", "warning") else None)
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.on("request", lambda request: requests.append(request.url))
    tab.goto(page_file.as_uri())
    yield tab
    assert errors == []
    assert [url for url in requests if not url.startswith("data:")] == [page_file.as_uri()]
    context.close()


def visible_reasons(page: Any) -> list[list[str]]:
    return page.evaluate(
        "[...document.querySelectorAll('.tile')].filter(t => t.offsetParent).map(t => JSON.parse(t.dataset.reasons))"
    )


def test_every_tile_has_a_moving_picture_or_says_why_not(page: Any) -> None:
    assert page.locator(".tile").count() == 60
    pictures, missing = page.locator(".film .strip"), page.locator(".film.none")
    assert pictures.count() == 40 and missing.count() == 20
    page.wait_for_function("document.querySelector('.strip').naturalWidth > 0")
    assert "No picture" in missing.first.text_content()
    assert page.locator("svg.wave path").first.get_attribute("d").count("M") > 50
    assert page.locator("svg.wave rect.speech").first.is_visible()


def test_a_reason_is_chosen_with_the_keyboard_alone(page: Any) -> None:
    everything = len(visible_reasons(page))
    page.locator("#filters button").first.focus()
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.dataset.name") == "unsynced":
            break
    page.keyboard.press("Space")
    chosen = visible_reasons(page)
    assert 0 < len(chosen) < everything and all("unsynced" in reasons for reasons in chosen)
    assert page.evaluate("document.activeElement.getAttribute('aria-pressed')") == "true"
    assert page.locator("#showing").inner_text() == f"{len(chosen)} shown"
    assert page.locator("#filters [data-filter=all]").get_attribute("aria-pressed") == "false"
    page.keyboard.press("Enter")
    assert len(visible_reasons(page)) == everything


def test_filters_add_up_and_all_clears_them(page: Any) -> None:
    page.locator("#filters [data-name=kept]").click()
    kept = len(visible_reasons(page))
    page.locator("#filters [data-name=undecided]").click()
    both = len(visible_reasons(page))
    assert both > kept > 0
    page.locator("#filters [data-filter=all]").click()
    assert len(visible_reasons(page)) == 60


def test_the_slider_tells_what_another_threshold_keeps(page: Any) -> None:
    card = page.locator(".rule", has=page.locator("h3", has_text="static"))
    slider = card.locator("input")
    before = {name: card.locator(f"[data-part={name}]").first.inner_text() for name in ("value", "alone", "overall")}
    line = card.locator("path.threshold").get_attribute("d")
    slider.focus()
    page.keyboard.press("End")
    assert card.locator("[data-part=alone]").inner_text() != before["alone"]
    assert int(card.locator("[data-part=overall]").inner_text()) < int(before["overall"])
    assert card.locator("[data-part=change]").inner_text().strip().startswith("(−")
    assert card.locator("path.threshold").get_attribute("d") != line
    assert slider.get_attribute("aria-valuetext") == card.locator("[data-part=value]").inner_text()
    page.keyboard.press("Tab")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    after = {name: card.locator(f"[data-part={name}]").first.inner_text() for name in before}
    assert after == before


def test_moving_one_bound_puts_the_other_back(page: Any) -> None:
    card = page.locator(".rule", has=page.locator("h3", has_text="noisy"))
    low, high = card.locator("input").nth(0), card.locator("input").nth(1)
    start = low.input_value()
    low.press("End")
    assert low.input_value() != start
    high.press("ArrowLeft")
    assert low.input_value() == start


def test_hostile_names_show_as_they_are_and_run_nothing(page: Any) -> None:
    assert page.evaluate("window.pwned") is None
    assert page.locator("img[src=x]").count() == 0 and page.locator("script").count() == 2
    literal = page.locator("#quarantine th.literal").first
    assert literal.text_content() == sample.HOSTILE
    assert "</script><script>" in page.locator("pre").text_content()
    names = page.evaluate("[...document.querySelectorAll('.name')].map(n => n.textContent)")
    assert sample.HOSTILE.rsplit("/", 1)[-1] in names


def test_the_top_names_fallbacks_in_red_and_rules_that_were_not_applied(page: Any) -> None:
    alert = page.locator(".fallback.alert")
    assert "SyncNet" in alert.inner_text() and "lip_sync" in alert.inner_text()
    red, green, blue = page.evaluate(
        "getComputedStyle(document.querySelector('.fallback')).backgroundColor.match(/\\d+/g).map(Number)"
    )
    assert red > 150 and green < 60 and blue < 60
    assert alert.bounding_box()["y"] < 450
    assert "aesthetics" in page.locator(".unapplied").inner_text()


def test_pictures_play_on_focus_and_all_together(page: Any) -> None:
    frames = page.locator(".film:has(.strip)").first
    moves = "getComputedStyle(document.querySelector('.strip')).animationName"
    assert page.evaluate(moves) == "none"
    frames.focus()
    assert page.evaluate(moves) == "film"
    page.locator("#play").press("Enter")
    assert page.evaluate(moves) == "film" and page.locator("#play").get_attribute("aria-pressed") == "true"
    page.locator("#play").press("Enter")
    assert page.evaluate(moves) == "none"


def test_who_wants_less_motion_gets_none_unasked(page: Any) -> None:
    page.emulate_media(reduced_motion="reduce")
    page.locator(".film:has(.strip)").first.focus()
    moves = "getComputedStyle(document.querySelector('.strip'))"
    assert page.evaluate(f"{moves}.animationName") == "none"
    page.locator("#play").press("Enter")
    assert float(page.evaluate(f"{moves}.animationDuration").removesuffix("s")) >= 10


def test_names_landmarks_and_labels(page: Any) -> None:
    for role in ("main", "navigation", "banner"):
        assert page.get_by_role(role).count() == 1
    assert page.get_by_role("heading", level=1).count() == 1
    unnamed = page.evaluate(
        """[...document.querySelectorAll('button, input, svg[role=img], [role=region], table, a')].filter(e => !(
            e.getAttribute('aria-label') || e.textContent.trim() || (e.labels && e.labels.length))).length"""
    )
    assert unnamed == 0
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(page: Any, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)
    ratios = page.evaluate(CONTRAST)
    assert ratios and min(ratio for ratio, _ in ratios) >= 4.5, sorted(ratios)[:5]


@pytest.mark.parametrize("width", [360, 800, 1600])
def test_nothing_runs_out_of_the_window(page: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.locator(".tile summary").first.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_it_can_be_read_without_scripts(browser: Any, page_file: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto(page_file.as_uri())
    assert tab.locator(".tile").first.is_visible() and tab.locator(".histogram").first.is_visible()
    context.close()


def test_names_that_are_not_unicode_do_not_stop_the_report(tmp_path: Path) -> None:
    report = sample.report(sample.scores(2))
    rows = [{**report.quarantine[0], "source_uri": "broken-\udcff.mp4"}]
    page = build(replace(report, quarantine=rows), tmp_path, run=lambda f, refs: [ValueError("none")] * len(refs))
    assert "broken-\\udcff.mp4" in page.read_text(encoding="utf-8")


# WCAG contrast of every visible piece of text against the nearest opaque background.
CONTRAST = """(() => {
  const numbers = (color) => (color.match(/[\\d.]+/g) || []).map(Number);
  const luminance = ([r, g, b]) => [r, g, b]
    .map((v) => v / 255).map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const color = numbers(getComputedStyle(e).backgroundColor);
      if (color.length === 3 || color[3] === 1) return color;
    }
    return [255, 255, 255];
  };
  return [...document.querySelectorAll('body *')]
    .filter((e) => e.checkVisibility() && [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()))
    .filter((e) => !['SCRIPT', 'STYLE'].includes(e.tagName))
    .map((e) => {
      const [a, b] = [luminance(numbers(getComputedStyle(e).color)), luminance(ground(e))].sort((x, y) => y - x);
      return [(a + 0.05) / (b + 0.05), e.className + ': ' + e.textContent.slice(0, 30)];
    });
})()"""
