"""report.html without a mouse, without sight and on a phone: real keys, the accessibility tree."""

import itertools
from pathlib import Path

import pytest
from devtools import BROWSER, browser
from toy_results import HOSTILE, write_toy_results

from cmbench.report.leaderboard import tables
from cmbench.report.page import render_page
from cmbench.report.write import open_board

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")

# Every control that is to be reached: a plot is one stop, its arrow keys go from point to point.
CONTROLS = """
window.stops = [...document.querySelectorAll(
  "a[href], button, input, select, summary, [tabindex='0']")]
  .filter(node => node.checkVisibility({visibilityProperty: true}) && !node.closest("dialog"));
stops.length
"""
FOCUSED = """(() => {
  const node = document.activeElement, look = getComputedStyle(node), box = node.getBoundingClientRect();
  return {index: stops.indexOf(node), body: node === document.body, outline: look.outlineStyle,
    width: parseFloat(look.outlineWidth), visible: node.matches(":focus-visible"),
    seen: box.right > 0 && box.bottom > 0 && box.left < innerWidth && box.top < innerHeight,
    text: (node.getAttribute("aria-label") || node.textContent).trim().slice(0, 60)};
})()"""
CONTRAST = """(() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgb = colour => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); return [...canvas.getImageData(0, 0, 1, 1).data]; };
  const light = c => { const [r, g, b] = c.slice(0, 3).map(v => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b; };
  const paper = node => { for (let n = node; n; n = n.parentElement) { const c = rgb(getComputedStyle(n).backgroundColor); if (c[3] === 255) return c; } return [255, 255, 255, 255]; };
  let worst = {ratio: 99};
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const node = walk.currentNode.parentElement;
    if (!walk.currentNode.textContent.trim() || !node.checkVisibility() || ["SCRIPT", "OPTION"].includes(node.tagName)) continue;
    let opacity = 1;
    for (let n = node; n; n = n.parentElement) opacity *= Number(getComputedStyle(n).opacity);
    const back = paper(node), style = getComputedStyle(node), ink = rgb(node instanceof SVGElement ? style.fill : style.color);
    if (ink[3] === 0) continue;
    const mixed = ink.map((v, i) => opacity * v + (1 - opacity) * back[i]);
    const [a, b] = [light(mixed), light(back)].sort((x, y) => y - x), ratio = (a + .05) / (b + .05);
    if (ratio < worst.ratio) worst = {ratio, text: walk.currentNode.textContent.trim().slice(0, 40), tag: node.tagName};
  }
  return worst;
})()"""


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    folder = write_toy_results(tmp_path_factory.mktemp("keys") / "toy")
    target = folder / "report.html"
    board = open_board(folder)
    target.write_text(render_page(board, folder, tables(board)), "utf-8")
    return target


@pytest.fixture(scope="module")
def desk(page_file, tmp_path_factory):
    """A browser at 1280 px that opens the page anew for each test."""
    with browser(tmp_path_factory.mktemp("desk")) as page:
        yield page


@pytest.fixture
def page(desk, page_file):
    desk.open(page_file, width=1280)
    yield desk
    assert desk.errors() == []
    assert desk.requests() == [page_file.as_uri()]


def _focus(page, selector: str) -> None:
    page.run(f"document.querySelector({selector!r}).focus({{focusVisible: true}})")


def test_tab_reaches_every_control_in_order_and_the_focus_is_seen(page):
    page.run("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    count = page.run(CONTROLS)
    assert count > 30
    order = []
    for _ in range(count + 1):
        page.press("Tab")
        now = page.run(FOCUSED)
        if now["body"] or now["index"] == -1:
            break
        assert now["visible"], now
        assert now["seen"], now
        assert now["outline"] != "none", now
        assert now["width"] >= 1, now
        order.append(now["index"])
    assert order == list(range(count))
    page.press("Tab", shift=True)
    page.press("Tab", shift=True)
    assert page.run(FOCUSED)["index"] in (count - 2, count - 1)


def test_the_first_stop_skips_to_the_leaderboard(page):
    page.run(CONTROLS)
    page.press("Tab")
    assert page.run("document.activeElement.className") == "skip"
    assert page.run("document.activeElement.getBoundingClientRect().left") >= 0
    page.press("Enter")
    page.press("Tab")
    assert page.run("document.activeElement.id") == "filter"


def test_no_stop_is_put_before_its_place(page):
    assert page.run("[...document.querySelectorAll('[tabindex]')].every(n => n.tabIndex <= 0)")


def test_enter_and_space_sort_and_the_order_is_told(page):
    _focus(page, "#table thead th:nth-child(3) button")
    page.press("Enter")
    assert page.run("document.querySelectorAll('#table thead th')[2].ariaSort") == "ascending"
    first = "document.querySelector('#table tbody tr').cells[2].dataset.value"
    assert page.run(first) == "2.0"
    page.press("Space")
    assert page.run("document.querySelectorAll('#table thead th')[2].ariaSort") == "descending"
    assert page.run(first) == "90.0"
    sorted_heads = "[...document.querySelectorAll('#table thead th')].map(t => t.ariaSort)"
    assert page.run(sorted_heads).count("none") == len(page.run(sorted_heads)) - 1


def test_a_model_is_switched_by_space_and_its_state_is_told(page):
    def box():
        named = [n for n in page.told() if n["role"] == "checkbox" and n["name"].startswith("EDM")]
        return named[0]["checked"]

    assert box() == "true"
    _focus(page, "#models label:nth-child(2) input")
    page.press("Space")
    assert box() == "false"
    assert page.run("document.querySelectorAll('#by-nfe [data-point]').length") == 1
    page.press("Space")
    assert box() == "true"


def test_points_are_gone_through_by_arrows_and_read_out(page):
    _focus(page, "#by-nfe [tabindex='0']")
    page.press("ArrowRight")
    told = page.run("document.activeElement.getAttribute('aria-label')")
    points = [n["name"] for n in page.told() if n["role"] == "image"]
    assert told in points
    assert any("NFE 4, FD-toy (aaaaaaaa): 9.00 ± 0.20, 95% interval" in p for p in points)
    assert any("best of 3" in p for p in points)


def test_a_sheet_opens_by_enter_keeps_the_focus_and_gives_it_back(page):
    _focus(page, "#grids td button")
    page.press("Enter")
    assert page.run("document.querySelector('#zoom').open")
    for _ in range(8):
        page.press("Tab")
        inside = "document.querySelector('#zoom').contains(document.activeElement) || document.activeElement === document.body"
        assert page.run(inside)
    page.press("Escape")
    assert not page.run("document.querySelector('#zoom').open")
    assert page.run("document.activeElement === document.querySelector('#grids td button')")


def test_a_filter_s_outcome_is_told(page):
    _focus(page, "#filter")
    page.send("Input.insertText", text="edm heun")
    assert page.run("document.querySelector('#shown').textContent") == "3 of 5 cells"
    assert page.run("document.querySelector('#shown').getAttribute('role')") == "status"


def test_headings_landmarks_and_names_for_a_screen_reader(page):
    told = page.told()
    levels = [n["level"] for n in told if n["role"] == "heading"]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    roles = {n["role"] for n in told}
    assert {"main", "banner", "navigation", "table", "columnheader", "rowheader"} <= roles
    needing = {"button", "link", "checkbox", "combobox", "searchbox", "spinbutton", "slider",
               "image", "region", "navigation", "table", "dialog"}  # fmt: skip
    unnamed = [n for n in told if n["role"] in needing and not n["name"].strip()]
    assert unnamed == []
    assert page.run(
        "[...document.querySelectorAll('fieldset')].every(f => f.querySelector('legend'))"
    )
    pictures = [n["name"] for n in told if n["role"] == "image"]
    assert "EDM, 4 NFE" in pictures
    assert any(name.startswith(HOSTILE[:40]) for name in pictures)
    assert page.run("document.documentElement.lang") == "en"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_text_stands_out_in_light_and_dark(desk, page_file, dark):
    desk.open(page_file, width=1280, dark=dark)
    paper = desk.run("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(20, 23, 27)" if dark else "rgb(255, 255, 255)")
    worst = desk.run(CONTRAST)
    assert worst["ratio"] >= 4.5, worst  # WCAG 2.2, success criterion 1.4.3


@pytest.mark.parametrize("width", [320, 390])
def test_a_phone_scrolls_no_page_sideways_and_its_buttons_can_be_hit(page_file, tmp_path, width):
    with browser(tmp_path) as page:
        page.open(page_file, width=width, height=800)
        assert page.run("innerWidth") == width
        assert page.run("document.documentElement.scrollWidth") <= width
        small = page.run("""[...document.querySelectorAll("button, select, input[type=search]")]
            .filter(n => n.checkVisibility() && n.getBoundingClientRect().height < 20)
            .map(n => n.outerHTML.slice(0, 90))""")
        assert small == []
        plot = page.run("document.querySelector('#by-nfe svg').getBoundingClientRect().right")
        assert plot <= width
        assert page.errors() == []


def test_the_pages_of_this_repository_s_results_stand_too(tmp_path):
    results = Path(__file__).parents[2] / "results"
    with browser(tmp_path) as page:
        for name in ("digits_all", "cifar10_nfe"):
            target = tmp_path / f"{name}.html"
            target.write_text(
                render_page(board := open_board(results / name), results / name, tables(board)),
                "utf-8",
            )
            page.open(target, width=390, height=800)
            assert page.run("document.documentElement.scrollWidth") <= 390
            assert page.run("document.querySelectorAll('[data-point]').length") > 50
            assert page.errors() == []
            assert page.requests() == [target.as_uri()]
