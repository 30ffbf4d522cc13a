"""report.html in headless Chromium: sorts, filters, switches, tips, keys, zoom, downloads, names."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from toy_results import HOSTILE, TRAINED, write_toy_results

from cmbench.report.leaderboard import as_csv, as_latex, as_markdown, tables
from cmbench.report.page import render_page
from cmbench.report.write import open_board

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
CHECK = """<script>
const errors = [], blobs = [], links = [];
addEventListener("error", e => errors.push(e.message));
addEventListener("securitypolicyviolation", e => errors.push("policy " + e.violatedDirective));
console.error = (...all) => errors.push(all.join(" "));
URL.createObjectURL = blob => { blobs.push(blob); return "#"; };
HTMLAnchorElement.prototype.click = function () { links.push(this.download); };
const one = s => document.querySelector(s), all = s => [...document.querySelectorAll(s)];
const rows = () => all("#table tbody tr").filter(r => !r.hidden);
const send = (node, type, more = {}) => node.dispatchEvent(new Event(type, {bubbles: true, ...more}));
const type = (id, text) => { one(id).value = text; send(one(id), "input"); };
const pick = (id, i) => { one(id).selectedIndex = i; send(one(id), "change"); };
const key = (node, name) => node.dispatchEvent(new KeyboardEvent("keydown", {key: name, bubbles: true}));
const dots = id => all(id + " [data-point]");
const at = (node, x, y) => node.dispatchEvent(new PointerEvent("pointermove", {clientX: x, clientY: y, bubbles: true}));
async function checks() {
  const out = {};
  const head = all("#table th")[2], order = () => rows().map(r => r.cells[2].dataset.value ?? null);
  head.querySelector("button").click(); out.up = order(); out.sort = head.getAttribute("aria-sort");
  head.querySelector("button").click(); out.down = order(); out.sorted_down = head.getAttribute("aria-sort");
  all("#table th")[0].querySelector("button").click(); out.names = rows().map(r => r.cells[0].textContent);
  type("#filter", "edm HEUN"); out.filtered = rows().length; out.status = one("#shown").textContent;
  type("#filter", ""); type("#least", "2"); type("#most", "10"); out.between = rows().length;
  type("#least", ""); type("#most", "");
  const box = one("#columns input"); box.click(); out.column_gone = all("#table tr").every(r => r.cells[2].hidden); box.click();

  out.dots = dots("#by-nfe").length; out.seconds_dots = dots("#by-seconds").length;
  out.bars = all("#by-nfe [aria-label=rule] line").length;
  one("#intervals").value = "band"; send(one("#intervals"), "change"); out.bands = all("#by-nfe [aria-label=area] path").length;
  one("#intervals").value = "off"; send(one("#intervals"), "change"); out.none = all("#by-nfe [aria-label=rule] line, #by-nfe [aria-label=area] path").length;
  one("#intervals").value = "bars"; send(one("#intervals"), "change");
  const xs = () => dots("#by-nfe").slice(1, 4).map(d => { const b = d.getBoundingClientRect(); return b.x + b.width / 2; });
  const log = xs(); one("#logx").click(); const linear = xs(); one("#logx").click();
  out.log_ratio = (log[2] - log[1]) / (log[1] - log[0]); out.linear_ratio = (linear[2] - linear[1]) / (linear[1] - linear[0]);

  const dot = dots("#by-nfe")[2]; dot.scrollIntoView(); const b = dot.getBoundingClientRect();
  at(dot, b.x + b.width / 2 + 3, b.y + b.height / 2); out.tip = one("#tip").textContent; out.tip_seen = !one("#tip").hidden;
  send(one("#by-nfe svg"), "pointerleave"); out.tip_gone = one("#tip").hidden;
  dots("#by-nfe")[1].focus(); key(document.activeElement, "ArrowRight");
  out.second = document.activeElement.getAttribute("aria-label"); out.focus_tip = one("#tip").textContent;
  key(document.activeElement, "ArrowUp"); out.above = document.activeElement.getAttribute("aria-label");
  key(document.activeElement, "End"); out.last = document.activeElement.dataset.point;
  out.stops = all("#by-nfe [tabindex='0']").length; key(document.body, "Escape"); out.escaped = one("#tip").hidden;

  const first = one("#models input"); first.click(); out.fewer = dots("#by-nfe").length;
  out.grid_rows = all("#grids tbody tr").filter(r => !r.hidden).length; first.click();
  const [every, nothing] = all("#models .button"); nothing.click(); out.nothing = one("#by-nfe").textContent; every.click(); out.again = dots("#by-nfe").length;
  out.legend = all("#models label span").map(s => s.textContent);
  pick("#score", 2); out.other_protocol = one("#protocol").textContent; out.other_dots = dots("#by-nfe").length; pick("#score", 0);
  pick("#scorex", 0); out.pair = one("#by-score svg").getAttribute("aria-label");
  out.curves = dots("#curves").length; out.trained = one("#trained label span").textContent;
  one("#trained input").click(); out.untrained = dots("#curves").length; one("#trained input").click();

  const tiles = all("#grids td button"); tiles[0].click(); out.open = one("#zoom").open;
  const title = one("#zoom p").textContent; key(one("#zoom"), "ArrowRight"); out.zoomed = [title, one("#zoom p").textContent];
  one("#zoom [data-move=ArrowDown]").click(); out.zoomed_below = one("#zoom p").textContent;
  one("#unzoom").click(); out.closed = !one("#zoom").open;
  type("#tile", "256"); out.tile = getComputedStyle(one("#grids .tile")).width;

  all("[data-save]").forEach(b => b.click()); type("#filter", "edm"); one("#save-shown").click(); one("[data-svg]").click();
  out.saved = await Promise.all(blobs.map(b => b.text())); out.links = links; type("#filter", "");
  one("#theme").click(); out.light = getComputedStyle(document.body).backgroundColor;
  one("#theme").click(); out.dark = getComputedStyle(document.body).backgroundColor;

  out.unnamed = all("button, select, input, svg[role], dialog, [role=region]").filter(n => !(n.textContent.trim() || n.getAttribute("aria-label") || n.labels?.length || n.querySelector?.("img[alt]"))).length;
  out.uncaptioned = all("table").filter(t => !t.caption).length; out.images = all("img:not([alt])").length;
  out.scopes = all("table th:not([scope])").length; out.broken = all("#grids img").filter(i => !i.complete || !i.naturalWidth).length;
  out.wide = document.documentElement.scrollWidth - innerWidth; out.width = innerWidth;
  out.intruders = all("img[src=x], b").length; out.title = document.title; out.heading = one("h1").textContent;
  out.suite = one("#suite").textContent;
  out.loaded = performance.getEntriesByType("resource").filter(e => !e.name.startsWith("data:")).length;
  return out;
}
addEventListener("load", () => checks().catch(e => ({thrown: String(e.stack)})).then(out => {
  document.body.innerHTML = ""; document.body.textContent = "RESULT" + JSON.stringify({...out, errors}) + "END";
}));
</script></body>"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_toy_results(tmp_path_factory.mktemp("page") / "toy")


def _dump(page: str, place: Path, *more: str) -> subprocess.CompletedProcess[str]:
    if BROWSER is None:
        pytest.skip("no Chromium on this machine")
    target = place / "page.html"
    target.write_text(page, "utf-8")
    return subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
         "--no-first-run", "--disable-background-networking", "--disable-component-update",
         "--disable-sync", f"--user-data-dir={place / 'profile'}", "--virtual-time-budget=8000",
         *more, "--dump-dom", target.as_uri()],
        capture_output=True, text=True, timeout=240, check=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def found(folder, tmp_path_factory):
    """What a phone-wide browser saw; the policy is opened for the checks' own script alone."""
    page = render_page(board := open_board(folder), folder, tables(board))
    opened = re.sub(r"script-src [^;]*;", "script-src 'unsafe-inline';", page, count=1)
    done = _dump(opened.replace("</body>", CHECK), tmp_path_factory.mktemp("phone"),
                 "--window-size=390,900")  # fmt: skip
    return json.loads(html.unescape(re.search(r"RESULT(.*)END", done.stdout, re.S).group(1)))


def test_no_error_no_request_and_hostile_text_stays_text(found, folder):
    assert "thrown" not in found, found["thrown"]
    assert found["errors"] == []
    assert found["loaded"] == 0
    assert found["intruders"] == 0
    assert found["legend"] == [HOSTILE, "EDM"]
    assert set(found["names"]) == {"EDM", HOSTILE}
    assert found["trained"] == TRAINED
    assert found["heading"] == "Toys </title><b>"
    assert found["suite"] == (folder / "suite.yaml").read_text()
    assert "</pre><b>x" in found["other_protocol"]


def test_the_table_sorts_and_filters(found):
    assert [float(v) for v in found["up"] if v] == [2.0, 2.1, 9.0, 90.0]
    assert found["up"][-1] is None
    assert [float(v) for v in found["down"] if v] == [90.0, 9.0, 2.1, 2.0]
    assert (found["sort"], found["sorted_down"]) == ("ascending", "descending")
    assert found["names"] in ([HOSTILE] * 2 + ["EDM"] * 3, ["EDM"] * 3 + [HOSTILE] * 2)
    assert (found["filtered"], found["status"]) == (3, "3 of 5 cells")
    assert found["between"] == 2
    assert found["column_gone"]


def test_plots_show_what_is_chosen(found):
    assert (found["dots"], found["seconds_dots"], found["bars"]) == (4, 4, 4)
    assert (found["bands"], found["none"]) == (2, 0)
    assert found["log_ratio"] == pytest.approx(2, rel=0.05)  # 1, 4, 64: 2 and 4 doublings
    assert found["linear_ratio"] == pytest.approx(20, rel=0.05)  # 3 and 60 evaluations
    assert (found["fewer"], found["again"], found["grid_rows"]) == (3, 4, 1)
    assert "choose a model" in found["nothing"]
    assert found["other_dots"] == 1
    assert found["other_protocol"].startswith("fingerprint " + "b" * 64)
    assert "against FD-toy" in found["pair"]
    assert (found["curves"], found["untrained"]) == (5, 0)


def test_a_point_tells_its_numbers_to_pointer_and_keys(found):
    assert found["tip_seen"]
    assert found["tip_gone"]
    assert found["escaped"]
    wanted = (
        "EDM, NFE 4\nFD-toy (aaaaaaaa): 9.00 ± 0.20, 95% interval 8.8 to 9.2\nbest of 3\nrank 3"
    )
    wanted += "\n0.02 s an image\nsampler heun"
    assert found["tip"] == wanted
    assert found["second"] == wanted.replace("\n", ", ")
    assert found["focus_tip"] == wanted
    assert found["above"].startswith(f"{HOSTILE}, NFE 1")
    assert (found["last"], found["stops"]) == ("3", 1)


def test_samples_are_enlarged_and_gone_through_by_keys(found):
    assert found["open"]
    assert found["closed"]
    assert found["zoomed"] in (
        ["EDM, 1 NFE", "EDM, 4 NFE"],
        [f"{HOSTILE}, 1 NFE", f"{HOSTILE}, 2 NFE"],
    )
    assert found["zoomed_below"] == "EDM, 4 NFE" or "NFE" in found["zoomed_below"]
    assert found["tile"] == "256px"
    assert found["broken"] == 0


def test_downloads_hold_the_tables(found, folder):
    board = open_board(folder)
    saved = dict(zip(found["links"], found["saved"], strict=True))
    assert saved["leaderboard.csv"] == as_csv(board)
    assert saved["leaderboard.tex"] == as_latex(board)
    assert saved["leaderboard.md"] == as_markdown(board)
    assert saved["toy.yaml"] == (folder / "suite.yaml").read_text()
    shown = saved["leaderboard_shown.csv"].splitlines()
    assert len(shown) == 4
    assert sorted(line.split(",")[1] for line in shown[1:]) == ["1", "4", "64"]
    assert "9.00 ± 0.20 (best of 3)" in saved["leaderboard_shown.csv"]
    assert "var(--" not in saved["by-nfe.svg"]


def test_light_dark_phone_and_names_for_those_who_cannot_see(found):
    assert (found["light"], found["dark"]) == ("rgb(255, 255, 255)", "rgb(20, 23, 27)")
    assert found["width"] <= 500
    assert found["wide"] <= 0
    told = {name: found[name] for name in ("unnamed", "uncaptioned", "images", "scopes")}
    assert told == dict.fromkeys(told, 0)


def test_the_page_as_it_is_sent_draws_under_its_own_policy(folder, tmp_path):
    page = render_page(board := open_board(folder), folder, tables(board))
    done = _dump(page, tmp_path, "--window-size=1280,900", "--enable-logging=stderr")
    assert "CONSOLE" not in done.stderr
    assert done.stdout.count("data-point=") >= 13
    intruder = "<script>document.documentElement.dataset.ran = 1</script></body>"
    done = _dump(page.replace("</body>", intruder), tmp_path)
    assert "data-ran" not in done.stdout
