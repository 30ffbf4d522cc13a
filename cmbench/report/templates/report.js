"use strict";
(() => {
const data = JSON.parse(document.querySelector("#data").textContent);
const one = selector => document.querySelector(selector);
const all = selector => [...document.querySelectorAll(selector)];
const SYMBOLS = ["circle", "square", "diamond", "triangle", "star", "cross", "wye"];
const DASHES = [null, "6 3", "2 3", "8 3 2 3", "4 2 1 2"];
const look = i => ({colour: `var(--c${i % 10})`, symbol: SYMBOLS[i % 7], dash: DASHES[i % 5]});
const plain = value => Math.abs(value) >= 1e6 || (value && Math.abs(value) < 1e-5) ? value.toExponential(1) : String(+value.toPrecision(4));

function make(name, properties, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

// ---- the tip: what a point says, under the pointer or at the focused point -------------------
const tip = one("#tip");
function say(text, x, y) {
  tip.textContent = text;
  tip.hidden = false;
  const {width, height} = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(4, Math.min(x + 14, innerWidth - width - 8))}px`;
  tip.style.top = `${y + 18 + height > innerHeight ? y - height - 12 : y + 14}px`;
}
function hush() { tip.hidden = true; all(".here").forEach(point => point.classList.remove("here")); }
addEventListener("keydown", event => { if (event.key === "Escape") hush(); });
addEventListener("scroll", hush, {passive: true});

function middle(point) {
  const box = point.getBoundingClientRect();
  return [box.x + box.width / 2, box.y + box.height / 2];
}

// ---- one plot: lines with symbols and intervals, each point focusable ------------------------
function draw(holder, {rows, x, y, name, intervals, height = 340, r = 4.5}) {
  const drawable = row => (!x.log || row.x > 0) && (!y.log || row.y > 0);
  const kept = rows.filter(drawable);
  const positive = y.log ? Math.min(...kept.map(row => row.y)) / 4 : -Infinity;
  const groups = new Map();
  for (const row of kept) {
    const key = row.line;
    if (!groups.has(key)) groups.set(key, []);
    const bounds = row.low == null ? {} : {low: Math.max(row.low, positive), high: Math.max(row.high, positive)};
    groups.get(key).push({...row, ...bounds});
  }
  const marks = [], points = [];
  for (const group of groups.values()) {
    const {colour, symbol, dash} = look(group[0].line);
    const known = group.filter(row => row.low != null);
    if (intervals === "band") marks.push(Plot.areaY(known, {x: "x", y1: "low", y2: "high", fill: colour, fillOpacity: .16}));
    if (intervals === "bars") marks.push(Plot.ruleX(known, {x: "x", y1: "low", y2: "high", stroke: colour, strokeWidth: 1.5}));
    marks.push(Plot.line(group, {x: "x", y: "y", stroke: colour, strokeWidth: 1.6, strokeDasharray: dash}));
    marks.push(Plot.dot(group, {x: "x", y: "y", fill: colour, symbol, r}));
    points.push(...group);
  }
  const axis = ({log, base, label, ticks}) => ({type: log ? "log" : "linear", base: log ? base : undefined, label, labelArrow: "none", tickFormat: plain, ticks, grid: true, nice: !log});
  const width = Math.max(260, holder.clientWidth);
  holder.replaceChildren();
  if (!points.length) { holder.append(make("p", {className: "note", textContent: rows.length ? "Nothing above 0 to draw on a log axis." : "Nothing to draw: choose a model."})); return; }
  const svg = Plot.plot({width, height, marginLeft: 62, marginBottom: 42, marginTop: 26, marginRight: 16, style: {fontSize: "12px", background: "none"}, x: axis({...x, ticks: Math.max(3, Math.round(width / 130))}), y: axis({...y, ticks: 6}), marks});
  holder.append(svg);
  if (kept.length < rows.length) holder.append(make("p", {className: "note", textContent: `${rows.length - kept.length} points at or below 0 can't stand on a log axis.`}));
  svg.setAttribute("role", "group");
  svg.dataset.lines = [...new Set(points.map(row => row.line))].join();
  svg.dataset.of = holder.id === "curves" ? "training" : "models";
  svg.setAttribute("aria-label", `${name}: ${points.length} points; arrow keys go from point to point`);
  const dots = [...svg.querySelectorAll("[aria-label=dot] > *")];
  dots.forEach((dot, i) => {
    dot.dataset.point = i;
    dot.setAttribute("role", "img");
    dot.setAttribute("aria-label", points[i].text.replaceAll("\n", ", "));
    dot.setAttribute("tabindex", i ? -1 : 0);
    dot.addEventListener("focus", () => { hush(); dot.classList.add("here"); say(points[i].text, ...middle(dot)); });
    dot.addEventListener("blur", hush);
  });
  svg.addEventListener("keydown", event => {
    const at = dots.indexOf(document.activeElement);
    const line = step => { const lines = [...new Set(points.map(row => row.line))], next = lines[lines.indexOf(points[at].line) + step]; return next === undefined ? at : points.findIndex(row => row.line === next); };
    const to = {ArrowRight: () => at + 1, ArrowLeft: () => at - 1, ArrowDown: () => line(1), ArrowUp: () => line(-1), Home: () => 0, End: () => dots.length - 1}[event.key];
    if (at < 0 || !to) return;
    event.preventDefault();
    const next = dots[Math.max(0, Math.min(dots.length - 1, to()))];
    dots[at].setAttribute("tabindex", -1); next.setAttribute("tabindex", 0); next.focus();
  });
  const near = event => {
    let best = null, least = 34 ** 2;
    dots.forEach((dot, i) => { const [a, b] = middle(dot), d = (a - event.clientX) ** 2 + (b - event.clientY) ** 2; if (d < least) { least = d; best = i; } });
    hush();
    if (best !== null) { dots[best].classList.add("here"); say(points[best].text, event.clientX, event.clientY); }
  };
  svg.addEventListener("pointermove", near); svg.addEventListener("pointerdown", near); svg.addEventListener("pointerleave", hush);
}

// ---- names with a switch each --------------------------------------------------------------
function swatch(i) {
  const {colour, symbol, dash} = look(i);
  const svg = Plot.plot({width: 26, height: 14, margin: 0, axis: null, x: {domain: [0, 1]}, y: {domain: [-1, 1]}, marks: [Plot.line([[0, 0], [1, 0]], {stroke: colour, strokeDasharray: dash, strokeWidth: 1.6}), Plot.dot([[.5, 0]], {fill: colour, symbol, r: 4})]});
  svg.setAttribute("aria-hidden", "true");
  return svg;
}
function switches(fieldset, names, changed, first = names.keys()) {
  const on = new Set(first), boxes = [];
  const list = make("div", {className: "names"});
  names.forEach((name, i) => {
    const box = make("input", {type: "checkbox", checked: on.has(i)});
    box.addEventListener("change", () => { on[box.checked ? "add" : "delete"](i); changed(); });
    boxes.push(box);
    list.append(make("label", {title: name}, box, swatch(i), make("span", {textContent: name})));
  });
  const set = value => () => { boxes.forEach((box, i) => { box.checked = value; on[value ? "add" : "delete"](i); }); changed(); };
  const button = (text, value) => { const made = make("button", {type: "button", className: "button", textContent: text}); made.addEventListener("click", set(value)); return made; };
  fieldset.append(list);
  if (names.length > 1) fieldset.append(make("div", {className: "bar"}, button("All", true), button("None", false)));
  return on;
}

// ---- quality against evaluations, seconds and another score ----------------------------------
const column = () => Number(one("#score").value);
const nfe = cell => cell.nfe == null ? "?" : plain(cell.nfe);
const arrow = i => data.columns[i].up ? "higher is better" : "lower is better";
function told(cell, ...scores) {
  const lines = [`${data.labels[cell.label]}, NFE ${nfe(cell)}`];
  for (const i of scores) {
    const score = cell.scores[i];
    lines.push(`${data.columns[i].title}: ${score.text}` + (score.low == null ? "" : `, 95% interval ${plain(score.low)} to ${plain(score.high)}`));
    if (score.chosen) lines.push(score.chosen);
    if (score.rank) lines.push(`rank ${score.rank[0]}` + (score.rank[1] > score.rank[0] ? ` to ${score.rank[1]}` : ""));
  }
  if (cell.seconds) lines.push(`${plain(+cell.seconds.toPrecision(2))} s an image`);
  if (cell.sampler) lines.push(`sampler ${cell.sampler}` + (cell.spread ? `; ${cell.spread}` : ""));
  return lines.join("\n");
}
function cost() {
  const i = column(), chosen = data.columns[i], intervals = one("#intervals").value;
  const y = {log: one("#logy").checked, base: 10, label: `${chosen.title} (${arrow(i)})`};
  const costs = {seconds: "seconds per image, on the machine of the run", flops: "GFLOPs per image", training: "forward passes of training, in millions, teacher apart"};
  const other = one("#cost-axis").value;
  for (const [id, key, label, base] of [["nfe", "nfe", "network evaluations per image (NFE)", 2], ["seconds", other, costs[other], 10]]) {
    const rows = data.cells.filter(cell => shown.has(cell.label) && cell.scores[i] && cell[key] != null)
      .map(cell => ({line: cell.label, x: cell[key], y: cell.scores[i].value, low: cell.scores[i].low, high: cell.scores[i].high, text: told(cell, i)}))
      .sort((a, b) => a.line - b.line || a.x - b.x);
    draw(one(`#by-${id}`), {rows, intervals, y, x: {log: one("#logx").checked, base, label}, name: `${chosen.title} against ${key === "nfe" ? "NFE" : key}`});
  }
  one("#protocol").textContent = chosen.protocol;
}
function pair() {
  const holder = one("#by-score");
  if (!holder) return;
  const [i, j] = [Number(one("#scorex").value), Number(one("#scorey").value)];
  const rows = data.cells.filter(cell => shown.has(cell.label) && cell.scores[i] && cell.scores[j])
    .map(cell => ({line: cell.label, x: cell.scores[i].value, y: cell.scores[j].value, low: cell.scores[j].low, high: cell.scores[j].high, text: told(cell, ...new Set([i, j]))}));
  const axis = k => ({log: false, label: `${data.columns[k].title} (${arrow(k)})`});
  draw(holder, {rows, intervals: one("#intervals").value, x: axis(i), y: axis(j), name: `${data.columns[j].title} against ${data.columns[i].title}`});
}
function suggest() {
  const i = column(), values = data.cells.flatMap(cell => cell.scores[i] ? [cell.scores[i].value] : []);
  const bounded = ["precision", "recall", "density", "coverage"].includes(data.columns[i].name);
  one("#logy").checked = !bounded && Math.min(...values) > 0 && Math.max(...values) / Math.min(...values) > 5;
}
const redraw = () => { cost(); pair(); grids(); };
const shown = switches(one("#models"), data.labels, redraw, data.drawn);
if (data.columns.length) {
  one("#score").addEventListener("change", () => { suggest(); cost(); });
  for (const id of ["logx", "logy", "cost-axis"]) one(`#${id}`).addEventListener("change", cost);
  one("#intervals").addEventListener("change", redraw);
  for (const id of ["scorex", "scorey"]) one(`#${id}`)?.addEventListener("change", pair);
  suggest();
}

// ---- training --------------------------------------------------------------------------------
let trained = new Set();
function training() {
  if (!data.training.length) return;
  const relative = one("#relative").checked;
  const rows = data.training.flatMap((log, i) => trained.has(i) ? log.points.map(([x, loss]) => {
    const y = relative ? loss / (log.points[0][1] || 1) : loss;
    return {line: i, x, y, text: `${log.label}\n${x.toLocaleString("en")} images: loss ${plain(loss)}` + (relative ? `, ${plain(y)} of the first` : "")};
  }) : []);
  draw(one("#curves"), {rows, x: {log: false, label: "images seen"}, y: {log: one("#logloss").checked, base: 10, label: relative ? "loss / first logged loss" : "loss"}, name: "Training losses", height: 300, r: 1.6});
}
if (data.training.length) {
  trained = switches(one("#trained"), data.training.map(log => log.label), training);
  for (const id of ["relative", "logloss"]) one(`#${id}`).addEventListener("change", training);
}

// ---- the leaderboard: sort, filter, columns ----------------------------------------------------
const body = one("#table tbody"), status = one("#shown");
const value = cell => cell.dataset.value === undefined ? null : Number(cell.dataset.value);
all("#table th button").forEach(button => button.addEventListener("click", () => {
  const head = button.parentElement, i = head.cellIndex, up = head.getAttribute("aria-sort") !== "ascending";
  all("#table thead th").forEach(th => th.setAttribute("aria-sort", "none"));
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  body.append(...[...body.rows].sort((a, b) => {
    if (button.dataset.key === "text") return (up ? 1 : -1) * a.cells[i].textContent.localeCompare(b.cells[i].textContent);
    const x = value(a.cells[i]), y = value(b.cells[i]);
    if (x === null || y === null) return (x === null) - (y === null);
    return (up ? 1 : -1) * (x - y);
  }));
}));
function filter() {
  const words = one("#filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const [least, most] = ["#least", "#most"].map(id => one(id).value === "" ? null : Number(one(id).value));
  let left = 0;
  for (const row of body.rows) {
    const text = row.dataset.text.toLowerCase(), count = value(row.cells[1]);
    row.hidden = !words.every(word => text.includes(word)) || (least !== null && !(count >= least)) || (most !== null && !(count !== null && count <= most));
    left += !row.hidden;
  }
  status.textContent = `${left} of ${body.rows.length} cells`;
}
// The score chosen for the table of the field orders the long table too, the best first.
one("#chosen")?.addEventListener("change", event => {
  const i = Number(event.target.value), head = all("#table thead th")[i + 2];
  all(".pivot").forEach((table, j) => { table.hidden = i !== j; });
  head.setAttribute("aria-sort", data.columns[i].up ? "ascending" : "descending");
  head.querySelector("button").click();
});
for (const id of ["#filter", "#least", "#most"]) one(id).addEventListener("input", filter);
all("#columns input").forEach(box => box.addEventListener("change", () => {
  for (const row of one("#table").rows) row.cells[Number(box.value)].hidden = !box.checked;
}));

// ---- samples: the same noise by model and evaluations -----------------------------------------
function grids() { all("#grids tbody tr").forEach(row => { row.hidden = !shown.has(Number(row.dataset.label)); }); }
const dialog = one("#zoom");
let tile = null;
function zoom(button) {
  tile = button;
  const image = button.querySelector("img");
  dialog.querySelector("img").src = image.src; dialog.querySelector("img").alt = image.alt;
  dialog.style.cssText = one("#grids").style.cssText.replace(/--tile:[^;]*;?/, "");
  dialog.className = one("#grids").className;
  dialog.querySelector("p").textContent = image.alt;
  if (!dialog.open) dialog.showModal();
}
function beside(down, right) {
  const rows = all("#grids tbody tr:not([hidden])"), cell = tile.closest("td");
  let i = rows.indexOf(cell.parentElement), j = cell.cellIndex;
  for (;;) {
    i += down; j += right;
    if (!rows[i]?.cells[j]) return;
    const next = rows[i].cells[j].querySelector("button");
    if (next) { zoom(next); return; }
  }
}
const moves = {ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0]};
if (dialog) {
  all("#grids td button").forEach(button => button.addEventListener("click", () => zoom(button)));
  dialog.addEventListener("keydown", event => { if (moves[event.key]) { event.preventDefault(); beside(...moves[event.key]); } });
  dialog.querySelectorAll("[data-move]").forEach(button => button.addEventListener("click", () => beside(...moves[button.dataset.move])));
  one("#unzoom").addEventListener("click", () => dialog.close());
  one("#tile").addEventListener("input", event => one("#grids").style.setProperty("--tile", `${event.target.value}px`));
  one("#place").addEventListener("change", event => {
    const sheet = one("#grids"), whole = event.target.value === "all", across = Number(sheet.style.getPropertyValue("--across"));
    sheet.classList.toggle("whole", whole);
    sheet.style.setProperty("--right", whole ? 0 : event.target.value % across);
    sheet.style.setProperty("--below", whole ? 0 : Math.floor(event.target.value / across));
  });
}

// ---- saving --------------------------------------------------------------------------------------
function save(name, text, type = "text/plain") {
  const link = make("a", {href: URL.createObjectURL(new Blob([text], {type})), download: name});
  link.click();
  URL.revokeObjectURL(link.href);
}
all("[data-save]").forEach(button => button.addEventListener("click", () => save(button.dataset.save, document.getElementById(button.dataset.from).content.textContent)));
const quoted = text => /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
function shownTable() {
  const rows = [...one("#table").rows].filter(row => !row.hidden);
  return rows.map(row => [...row.cells].filter(cell => !cell.hidden).map(cell => quoted(cell.dataset.plain ?? cell.textContent.trim())).join(",")).join("\n") + "\n";
}
one("#save-shown").addEventListener("click", () => save("leaderboard_shown.csv", shownTable(), "text/csv"));
all("[data-svg]").forEach(button => button.addEventListener("click", () => {
  const svg = one(`#${button.dataset.svg} svg`);
  if (!svg) return;
  const copy = withLegend(svg), probe = make("i", {});
  document.body.append(probe);
  let text = new XMLSerializer().serializeToString(copy).replace(/var\(--c\d\)/g, name => { probe.style.color = name; return getComputedStyle(probe).color; });
  probe.remove();
  const paper = getComputedStyle(document.body);
  text = text.replace("<svg", `<svg style="background:${paper.backgroundColor};color:${paper.color}"`);
  save(`${button.dataset.svg}.svg`, text, "image/svg+xml");
}));

// A saved plot names its lines: they stand below it, with their colour and symbol.
function withLegend(svg) {
  const copy = svg.cloneNode(true), lines = (svg.dataset.lines || "").split(",").filter(Boolean);
  const [width, height] = ["width", "height"].map(name => Number(svg.getAttribute(name)));
  const names = svg.dataset.of === "training" ? data.training.map(log => log.label) : data.labels;
  const columns = Math.max(1, Math.floor(width / 260)), rows = Math.ceil(lines.length / columns);
  copy.setAttribute("height", height + 22 * rows + 8);
  copy.setAttribute("viewBox", `0 0 ${width} ${height + 22 * rows + 8}`);
  lines.forEach((line, i) => {
    const mark = swatch(Number(line)), text = document.createElementNS("http://www.w3.org/2000/svg", "text");
    const [x, y] = [12 + i % columns * 260, height + 4 + Math.floor(i / columns) * 22];
    mark.setAttribute("x", x); mark.setAttribute("y", y);
    text.setAttribute("x", x + 34); text.setAttribute("y", y + 11); text.setAttribute("font-size", 12); text.setAttribute("fill", "currentColor");
    text.textContent = names[line];
    copy.append(mark, text);
  });
  return copy;
}

// ---- light and dark, width ---------------------------------------------------------------------
const themes = ["system", "light", "dark"];
one("#theme").addEventListener("click", event => {
  const next = themes[(themes.indexOf(event.target.dataset.theme) + 1) % 3];
  event.target.dataset.theme = next;
  event.target.textContent = `Colours: ${next}`;
  document.documentElement.style.colorScheme = next === "system" ? "" : next;
});
const everything = () => { if (data.columns.length) { cost(); pair(); } training(); };
let width = 0, waiting = 0;
new ResizeObserver(() => {
  if (innerWidth === width) return;
  width = innerWidth;
  cancelAnimationFrame(waiting);
  waiting = requestAnimationFrame(everything);
}).observe(document.body);
width = innerWidth;
everything();
grids();
})();
