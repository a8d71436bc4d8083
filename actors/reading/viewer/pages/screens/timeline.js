// Time: the episodes of one stream, or of all, from seconds to months. Drag or keys move it, the wheel zooms.

import { get } from "../lib/api.js";
import { ticks } from "../lib/charts.js";
import { go, h, link, renamed, replace, s } from "../lib/dom.js";
import { count, moment, number, span, worldName } from "../lib/format.js";
import { field, select } from "../lib/parts.js";
import { episodeLink } from "./turn.js";

const LANE = 20, LEFT = 80, TOP = 24;
const MOST_LANES = 40;

export async function timeline(box, { run, asked }) {
  const state = { stream: asked.stream || "", from: asked.from || "", to: asked.to || "" };
  let found = null, waiting = 0;
  const place = h("div.time", { tabindex: "0", "aria-label": "Timeline; arrows move, plus and minus zoom" });
  const told = h("p.note", { role: "status" });
  const head = h("div");
  replace(box, head, told, place, h("ul.legend", [["real", "training"], ["heldout", "held out"], ["demonstration", "demonstration"], ["failed", "failed or cancelled"]].map(([kind, name]) => h("li", h(`span.swatch.${kind}`, { "aria-hidden": "true" }), name))));

  async function load() {
    found = await get(["runs", run, "timeline"], state);
    renamed(link("run", run, "timeline", state));
    replace(head, h("div.title", h("h1", "Timeline")), h("form.filters.card", { onsubmit: (event) => event.preventDefault() },
      field("Stream", select(state.stream, [["", `all ${count(found.streams.length)}`], ...found.streams.map((one) => [one, one.slice(0, 12)])], (stream) => { Object.assign(state, { stream, from: "", to: "" }); load(); })),
      h("button", { type: "button", onclick: () => zoom(0.5) }, "Zoom in"), h("button", { type: "button", onclick: () => zoom(2) }, "Zoom out"), h("button", { type: "button", onclick: () => shift(-0.5) }, "Earlier"), h("button", { type: "button", onclick: () => shift(0.5) }, "Later"),
      h("button", { type: "button", onclick: () => { Object.assign(state, { from: "", to: "" }); load(); } }, "All")));
    draw();
  }

  // Nanoseconds since 1970 are too large for a double to hold exactly; a microsecond is enough here.
  function see(low, high) {
    state.from = whole(low); state.to = whole(high);
    clearTimeout(waiting);
    waiting = setTimeout(load, 120);
  }
  const whole = (value) => BigInt(Math.round(value)).toString();
  function zoom(by, at = 0.5) {
    if (!found?.from_ns) return;
    const span_of = (found.to_ns - found.from_ns) * by, middle = found.from_ns + (found.to_ns - found.from_ns) * at;
    see(Math.max(0, middle - span_of * at), middle + Math.max(span_of, 1e6) * (1 - at));
  }
  function shift(by) {
    if (!found?.from_ns) return;
    const span_of = found.to_ns - found.from_ns;
    see(Math.max(0, found.from_ns + span_of * by), found.to_ns + span_of * by);
  }

  function draw() {
    if (found.from_ns === null) { replace(told, "No episode of this run has a time."); replace(place); return; }
    told.textContent = `${count(found.n)} episodes from ${moment(found.from_ns / 1e9, true)} to ${moment(found.to_ns / 1e9, true)}, ${span((found.to_ns - found.from_ns) / 1e9)}`;
    const width = Math.max(320, place.clientWidth);
    const x = (ns) => LEFT + ((ns - found.from_ns) / (found.to_ns - found.from_ns)) * (width - LEFT - 8);
    const lanes = [...new Set(found.spans.map((one) => one.stream))].slice(0, MOST_LANES);
    const height = TOP + (found.bins.length ? 140 : lanes.length * LANE) + 14;
    const svg = s("svg", { width, height, role: "img", "aria-label": told.textContent });
    const begin = found.from_ns / 1e9, whole_span = (found.to_ns - found.from_ns) / 1e9;
    for (const at of ticks(0, whole_span, Math.max(2, Math.floor(width / 160)))) {
      svg.append(s("line.grid", { x1: x((begin + at) * 1e9), x2: x((begin + at) * 1e9), y1: TOP - 6, y2: height }), s("text.tick", { x: x((begin + at) * 1e9) + 3, y: 12 }, whole_span > 172800 ? moment(begin + at).slice(0, 10) : `+${span(at)}`));
    }
    if (found.bins.length) bins(svg, x, height);
    else found.spans.forEach((one) => bar(svg, one, lanes.indexOf(one.stream), x));
    lanes.forEach((one, i) => svg.append(s("text.tick", { x: 0, y: TOP + i * LANE + 14 }, one.slice(0, 8))));
    replace(place, svg);
  }

  function bar(svg, one, lane, x) {
    if (lane < 0) return;
    const kind = one.failed ? "failed" : one.source === "demonstration" ? "demonstration" : one.split === "heldout" ? "heldout" : "real";
    const left = Math.max(LEFT, x(one.started_ns)), wide = Math.max(1.5, x(one.ended_ns) - left - 0.5);
    const node = s(`rect.span.${kind}`, { x: left, y: TOP + lane * LANE + 3, width: wide, height: LANE - 6, rx: 2 }, s("title", `${worldName(one.env_id)} ${one.task_id}\nreturn ${number(one.reward)}, ${one.steps} turns, version ${one.version}, ${one.ending || "under way"}\n${moment(one.started_ns / 1e9, true)}`));
    node.addEventListener("click", () => { if (!dragged) go(episodeLink(run, one.key)); });
    svg.append(node);
  }

  function bins(svg, x, height) {
    const most = Math.max(...found.bins.map((one) => one.n));
    for (const one of found.bins) {
      const left = x(one.from_ns), wide = Math.max(1, x(one.to_ns) - left - 1), high = Math.max(2, (one.n / most) * 120);
      const node = s("g", s("rect.span.real", { x: left, y: height - 14 - high, width: wide, height: high }), one.failed ? s("rect.span.failed", { x: left, y: height - 14 - (one.failed / most) * 120, width: wide, height: (one.failed / most) * 120 }) : null,
        s("title", `${count(one.n)} episodes, mean return ${number(one.mean)}, ${count(one.failed)} failed\n${moment(one.from_ns / 1e9, true)}`));
      node.addEventListener("click", () => { if (!dragged) see(one.from_ns - (one.to_ns - one.from_ns) * 2, one.to_ns + (one.to_ns - one.from_ns) * 2); });
      svg.append(node);
    }
  }

  let grip = null, dragged = false;
  place.addEventListener("wheel", (event) => { if (!event.ctrlKey && Math.abs(event.deltaX) > Math.abs(event.deltaY)) return; event.preventDefault(); zoom(event.deltaY > 0 ? 1.3 : 0.77, (event.clientX - place.getBoundingClientRect().left - LEFT) / (place.clientWidth - LEFT)); }, { passive: false });
  place.addEventListener("pointerdown", (event) => { grip = { at: event.clientX, from: found.from_ns, to: found.to_ns }; dragged = false; });
  place.addEventListener("pointermove", (event) => {
    if (!grip || !(event.buttons & 1) || Math.abs(event.clientX - grip.at) < 4) return;
    dragged = true;
    const by = ((grip.at - event.clientX) / (place.clientWidth - LEFT)) * (grip.to - grip.from);
    see(Math.max(0, grip.from + by), grip.to + by);
  });
  place.addEventListener("pointerup", () => { grip = null; });
  const sized = new ResizeObserver(() => { if (found) draw(); });
  sized.observe(place);
  await load();
  return { stop: () => { clearTimeout(waiting); sized.disconnect(); }, keys: {
    ArrowLeft: ["earlier", () => shift(-0.3)], ArrowRight: ["later", () => shift(0.3)],
    "+": ["zoom in", () => zoom(0.5)], "-": ["zoom out", () => zoom(2)],
    0: ["all of it", () => { Object.assign(state, { from: "", to: "" }); load(); }],
  } };
}
