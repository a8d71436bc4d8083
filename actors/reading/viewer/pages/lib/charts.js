// Charts as SVG, drawn anew at each width, each with its numbers as a table for who cannot see it.

import { h, replace, s } from "./dom.js";
import { number } from "./format.js";

export const COLOURS = ["var(--c1)", "var(--c2)", "var(--c3)", "var(--c4)", "var(--c5)", "var(--c6)"];
export const colour = (i) => COLOURS[i % COLOURS.length];
const EDGE = { left: 46, right: 14, top: 12, bottom: 30 };

// Round steps of 1, 2 or 5.
export function ticks(low, high, wanted) {
  const span = high - low || Math.abs(high) || 1;
  const power = 10 ** Math.floor(Math.log10(span / wanted));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => span / n <= wanted) || power * 10;
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i += 1) found.push(i * step);
  return found;
}

// As many digits as the steps between them need.
function labels(values) {
  const step = values.length > 1 ? Math.abs(values[1] - values[0]) : Math.abs(values[0] || 1);
  if (step >= 1e6 || step < 1e-4) return values.map((value) => number(value));
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  return values.map((value) => (Object.is(value, -0) ? 0 : value).toFixed(digits).replace("-", "\u2212"));
}

function extent(values) {
  const known = values.filter((v) => v !== null && v !== undefined && Number.isFinite(v));
  if (!known.length) return [0, 1];
  let low = Infinity, high = -Infinity;
  for (const v of known) { low = Math.min(low, v); high = Math.max(high, v); }
  return low === high ? [low - 0.5, high + 0.5] : [low, high];
}

// Draws into a box that is as wide as its place, and again whenever that changes.
export function drawn(height, label, draw) {
  const box = h("div.chart", { style: { height: `${height}px` } });
  let width = 0;
  const again = () => {
    if (box.clientWidth === width || !box.clientWidth) return;
    width = box.clientWidth;
    replace(box, draw(width));
    const svg = box.querySelector("svg");
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", label);
  };
  new ResizeObserver(again).observe(box);
  return box;
}

const SHAPES = [
  (x, y, c) => s("circle", { cx: x, cy: y, r: 3, fill: c }),
  (x, y, c) => s("rect", { x: x - 2.8, y: y - 2.8, width: 5.6, height: 5.6, fill: c }),
  (x, y, c) => s("path", { d: `M${x} ${y - 4}L${x + 3.8} ${y + 3}H${x - 3.8}Z`, fill: c }),
  (x, y, c) => s("path", { d: `M${x} ${y - 4}L${x + 4} ${y}L${x} ${y + 4}L${x - 4} ${y}Z`, fill: c }),
];

// series: [{name, points: [{x, y, half, n, href}], colour, dashed}]; lines: [{name, y}].
export function lineChart({ title, series, lines = [], xName = "", yName = "", height = 220, low, high, integers = false }) {
  const shown = series.filter((one) => one.points.length);
  if (!shown.length) return h("p.note", "Nothing was measured yet.");
  const points = shown.flatMap((one) => one.points);
  const [x0, x1] = extent(points.map((p) => p.x));
  let [y0, y1] = extent([
    ...points.flatMap((p) => [p.y - (p.half || 0), p.y + (p.half || 0)]),
    ...lines.map((line) => line.y),
  ]);
  if (low !== undefined) y0 = Math.min(low, y0);
  if (high !== undefined) y1 = Math.max(high, y1);
  const pad = (y1 - y0) * 0.06;
  const draw = (width) => axes({ width, height, x0, x1, y0: y0 - pad, y1: y1 + pad, xName, yName, integers }, (svg, px, py) => {
    for (const line of lines) {
      svg.append(s("line.baseline", { x1: px(x0), x2: px(x1), y1: py(line.y), y2: py(line.y) }));
      svg.append(s("text.on-line", { x: px(x1) - 2, y: py(line.y) - 4, "text-anchor": "end" }, line.name));
    }
    shown.forEach((one, i) => svg.append(curve(one, one.colour || colour(i), i, px, py)));
    hover(svg, shown, px, py, width, height, xName);
  });
  return h("figure.plot",
    title ? h("figcaption", title) : null,
    drawn(height, `${title || yName}: ${shown.map((one) => one.name).join(", ")}`, draw),
    shown.length > 1 ? legend(shown) : null,
    numbers(shown, xName, yName));
}

function axes({ width, height, x0, x1, y0, y1, xName, yName, integers }, paint) {
  const inner = { w: width - EDGE.left - EDGE.right, h: height - EDGE.top - EDGE.bottom };
  const px = (x) => EDGE.left + ((x - x0) / (x1 - x0 || 1)) * inner.w;
  const py = (y) => EDGE.top + (1 - (y - y0) / (y1 - y0 || 1)) * inner.h;
  const svg = s("svg", { width, height, viewBox: `0 0 ${width} ${height}` });
  const levels = ticks(y0, y1, 6), told = labels(levels);
  for (const [i, y] of levels.entries()) {
    svg.append(s("line.grid", { x1: EDGE.left, x2: width - EDGE.right, y1: py(y), y2: py(y) }));
    svg.append(s("text.tick", { x: EDGE.left - 6, y: py(y) + 4, "text-anchor": "end" }, told[i]));
  }
  const steps = ticks(x0, x1, Math.max(2, Math.floor(inner.w / 80))).filter((x) => !integers || Number.isInteger(x));
  const names = labels(steps);
  steps.forEach((x, i) => svg.append(s("text.tick", { x: px(x), y: height - EDGE.bottom + 15, "text-anchor": "middle" }, names[i])));
  svg.append(s("text.axis", { x: width - EDGE.right, y: height - 2, "text-anchor": "end" }, xName));
  if (yName) svg.append(s("text.axis", { x: 2, y: 9 }, yName));
  paint(svg, px, py);
  return svg;
}

function curve(one, ink, i, px, py) {
  const group = s("g");
  const points = one.points.filter((p) => p.y !== null && p.y !== undefined);
  const banded = points.filter((p) => p.half !== null && p.half !== undefined);
  if (banded.length > 1) {
    const up = banded.map((p) => `${px(p.x)},${py(p.y + p.half)}`);
    const down = banded.map((p) => `${px(p.x)},${py(p.y - p.half)}`).reverse();
    group.append(s("polygon.band", { points: [...up, ...down].join(" "), fill: ink }));
  } else {
    for (const p of banded) group.append(s("line", { x1: px(p.x), x2: px(p.x), y1: py(p.y - p.half), y2: py(p.y + p.half), stroke: ink }));
  }
  const path = points.map((p, k) => `${k ? "L" : "M"}${px(p.x).toFixed(1)} ${py(p.y).toFixed(1)}`).join("");
  group.append(s("path.line", { d: path, stroke: ink, "stroke-dasharray": one.dashed ? "5 4" : null }));
  if (points.length <= 60) for (const p of points) group.append(SHAPES[i % SHAPES.length](px(p.x), py(p.y), ink));
  return group;
}

function hover(svg, shown, px, py, width, height, xName) {
  const rule = s("line.rule", { y1: EDGE.top, y2: height - EDGE.bottom, visibility: "hidden" });
  const told = s("g", { visibility: "hidden" });
  svg.append(rule, told);
  const xs = [...new Set(shown.flatMap((one) => one.points.map((p) => p.x)))].sort((a, b) => a - b);
  svg.addEventListener("pointermove", (event) => {
    const at = event.clientX - svg.getBoundingClientRect().left;
    const x = xs.reduce((best, one) => (Math.abs(px(one) - at) < Math.abs(px(best) - at) ? one : best), xs[0]);
    const rows = shown.flatMap((one, i) => one.points.filter((p) => p.x === x).map((p) => ({ one, p, i })));
    rule.setAttribute("x1", px(x)); rule.setAttribute("x2", px(x));
    const texts = [`${xName} ${number(x)}`, ...rows.map(({ one, p }) => `${one.name}: ${number(p.y)}${p.half ? ` ± ${number(p.half)}` : ""}${p.n ? `  (n = ${p.n})` : ""}`)];
    const wide = Math.max(...texts.map((t) => t.length)) * 6.4 + 16;
    const left = px(x) + wide + 14 > width ? px(x) - wide - 8 : px(x) + 8;
    told.replaceChildren(s("rect.tip", { x: left, y: EDGE.top, width: wide, height: texts.length * 17 + 8, rx: 5 }));
    texts.forEach((text, k) => told.append(s("text.tip-text", { x: left + 8, y: EDGE.top + 17 + k * 17 }, text)));
    for (const node of [rule, told]) node.setAttribute("visibility", "visible");
  });
  svg.addEventListener("pointerleave", () => { for (const node of [rule, told]) node.setAttribute("visibility", "hidden"); });
}

export function legend(shown) {
  return h("ul.legend", shown.map((one, i) => {
    const ink = one.colour || colour(i);
    return h("li", s("svg", { width: 22, height: 10, "aria-hidden": "true" },
      s("line", { x1: 0, x2: 22, y1: 5, y2: 5, stroke: ink, "stroke-width": 2, "stroke-dasharray": one.dashed ? "5 4" : null }),
      SHAPES[i % SHAPES.length](11, 5, ink)), one.name);
  }));
}

function numbers(shown, xName, yName) {
  const rows = shown.flatMap((one) => one.points.map((p) => [one.name, number(p.x), number(p.y, 3), p.half === null || p.half === undefined ? "" : `± ${number(p.half, 3)}`, p.n ?? ""]));
  const details = h("details.numbers", h("summary", "Numbers"));
  // Made when it is opened: a long history would be thousands of cells that nobody looks at.
  details.addEventListener("toggle", () => {
    if (details.open && details.children.length === 1) {
      const head = ["series", xName, yName || "value", "95 % interval", "n"];
      details.append(h("div.wide", h("table", h("thead", h("tr", head.map((name) => h("th", { scope: "col" }, name)))), h("tbody", rows.map((row) => h("tr", row.map((cell) => h("td", cell))))))));
    }
  });
  return details;
}

export function spark(values, label) {
  const known = values.filter((v) => v !== null);
  const [low, high] = extent(known);
  const width = 92, height = 24;
  const x = (i) => 3 + (known.length > 1 ? (i / (known.length - 1)) * (width - 6) : (width - 6) / 2);
  const y = (v) => 3 + (1 - (v - low) / (high - low || 1)) * (height - 6);
  const path = known.map((v, i) => `${i ? "L" : "M"}${x(i).toFixed(1)} ${y(v).toFixed(1)}`).join("");
  return s("svg.spark", { width, height, role: "img", "aria-label": label },
    s("path.line", { d: path, stroke: "var(--c1)" }),
    known.length ? s("circle", { cx: x(known.length - 1), cy: y(known[known.length - 1]), r: 2.6, fill: "var(--c1)" }) : null);
}

// Bars that can be pressed: bars: [{low, high, n}], chosen(bar) says whether one is taken.
export function histogram({ bars, unknown, chosen, press, pressUnknown, unknownChosen }) {
  const most = Math.max(1, unknown, ...bars.map((bar) => bar.n));
  const one = (bar, label, value, taken, act) => h("button.bar", {
    type: "button", "aria-pressed": taken ? "true" : "false", title: label, "aria-label": label, onclick: act,
  }, h("span.count", bar.n || ""), h("span.column", { style: { height: `${Math.max(bar.n ? 3 : 0, (bar.n / most) * 68)}px` } }), h("span.value", value));
  const every = Math.ceil(bars.length / 8);
  return h("div.histogram", { role: "group", "aria-label": "Episodes by return" },
    bars.map((bar, i) => {
      const width = bar.low === bar.high ? number(bar.low) : `${number(bar.low)} to ${number(bar.high)}`;
      return one(bar, `return ${width}: ${bar.n} episodes`, i % every === 0 ? number(bar.low) : "", chosen(bar), () => press(bar));
    }),
    unknown ? one({ n: unknown }, `return unknown: ${unknown} episodes`, "?", unknownChosen, pressUnknown) : null);
}
