// The list of runs: filter it, choose two to four, compare.

import { exported, get } from "../lib/api.js";
import { spark } from "../lib/charts.js";
import { go, h, link, renamed, replace, say } from "../lib/dom.js";
import { ago, count, mean, moment, span, worldName } from "../lib/format.js";
import { field, input, opens, select, statusChip, world } from "../lib/parts.js";

const MOST_COMPARED = 4;
const SHOWN_AT_ONCE = 200;

export async function runs(box, { asked }) {
  const state = { text: asked.text || "", status: asked.status || "", chosen: new Set(), at: -1, most: SHOWN_AT_ONCE };
  let found = (await get(["runs"])).runs;
  const list = h("div");
  const compare = h("button.main", { type: "button", disabled: true, onclick: () => compareChosen() }, "Compare");
  const statuses = [...new Set(found.map((run) => run.status))].sort();
  const search = input(state.text, () => {}, { type: "search", placeholder: "name, world, engine…" });
  search.addEventListener("input", () => { state.text = search.value; state.most = SHOWN_AT_ONCE; draw(); keepAddress(); });

  function keepAddress() { renamed(link({ text: state.text, status: state.status })); }

  function compareChosen() {
    if (state.chosen.size >= 2) go(link("compare", { runs: [...state.chosen].join(",") }));
  }

  function chosenChanged(name, on) {
    if (on && state.chosen.size >= MOST_COMPARED) { say(`Up to ${MOST_COMPARED} runs are compared.`); draw(); return; }
    if (on) state.chosen.add(name); else state.chosen.delete(name);
    compare.disabled = state.chosen.size < 2;
    compare.textContent = state.chosen.size ? `Compare ${state.chosen.size}` : "Compare";
  }

  function matching() {
    const words = state.text.toLowerCase().split(/\s+/).filter(Boolean);
    return found.filter((run) => {
      const all = [run.name, run.status, run.engine, ...(run.worlds || [])].join(" ").toLowerCase();
      return (!state.status || run.status === state.status) && words.every((word) => all.includes(word));
    });
  }

  function draw() {
    const rows = matching();
    if (!found.length) { replace(list, nothing()); return; }
    replace(list, h("p.note", { role: "status" }, `${count(rows.length)} of ${count(found.length)} runs`),
      h("ul.runs", rows.slice(0, state.most).map((run, i) => row(run, i))),
      rows.length > state.most ? h("button", { type: "button", onclick: () => { state.most += 500; draw(); } }, `Show ${rows.length - state.most} more`) : null);
  }

  function row(run, i) {
    const tick = h("input", { type: "checkbox", checked: state.chosen.has(run.name), "aria-label": `choose ${run.name}`, onchange: (event) => chosenChanged(run.name, event.target.checked) });
    const address = link("run", run.name);
    const item = h("li.run", { "data-at": i, "aria-current": i === state.at ? "true" : undefined },
      exported ? null : h("label.tick", tick),
      h("div.who", h("a.name", { href: address }, run.name), h("div.sub", statusChip(run.status), run.why ? h("span.why", run.why.split("\n")[0]) : null)),
      h("div.worlds", (run.worlds || []).slice(0, 6).map((id) => curveOf(run, id))),
      h("div.amounts", h("span", { title: moment(run.started, true) }, ago(run.started)), h("span", span(run.seconds)),
        h("span", `${count(run.episodes)} episodes`), run.learns ? h("span", `version ${run.version ?? "–"}`) : h("span", "does not learn"), run.attempts > 1 ? h("span", `${run.attempts} attempts`) : null));
    return opens(item, address);
  }

  const filters = h("form.filters", { onsubmit: (event) => event.preventDefault() }, field("Search", search),
    field("Status", select(state.status, [["", "any"], ...statuses.map((name) => [name, name])], (value) => { state.status = value; draw(); keepAddress(); })),
    exported ? null : compare);
  replace(box, h("div.title", h("h1", "Runs"), filters), list);
  draw();

  const again = setInterval(async () => {
    if (document.hidden || exported || !found.some((run) => run.status === "running")) return;
    try { found = (await get(["runs"])).runs; draw(); } catch { /* the next look tells */ }
  }, 2000);
  const move = (by) => {
    const rows = box.querySelectorAll("li.run");
    state.at = Math.max(0, Math.min(rows.length - 1, state.at + by));
    rows.forEach((one, i) => (i === state.at ? one.setAttribute("aria-current", "true") : one.removeAttribute("aria-current")));
    rows[state.at]?.querySelector("a").focus();
  };
  return {
    stop: () => clearInterval(again),
    keys: {
      j: ["the next run", () => move(1)], k: ["the run before", () => move(-1)],
      x: ["choose the run", () => { box.querySelectorAll("li.run")[state.at]?.querySelector("input")?.click(); }],
      c: ["compare the chosen runs", compareChosen],
    },
  };
}

function curveOf(run, id) {
  const values = run.curves?.[id] || [];
  const last = run.last?.[id];
  return h("div.curve", world(id), values.length ? spark(values, `returns of ${worldName(id)} over the run`) : null, last ? h("span.value", mean(last)) : null);
}

function nothing() {
  return h("div.empty", h("h2", "No run is here yet"), h("p", "This makes one, in some minutes:"), h("pre", "./xp demo"));
}
