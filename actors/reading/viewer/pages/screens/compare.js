// Two to four runs: their curves laid over each other, their settings where they differ.

import { get } from "../lib/api.js";
import { colour, lineChart } from "../lib/charts.js";
import { h, link, replace } from "../lib/dom.js";
import { count, mean, span, worldName } from "../lib/format.js";
import { card, statusChip, table } from "../lib/parts.js";

export async function comparison(box, { asked }) {
  const names = (asked.runs || "").split(",").filter(Boolean).slice(0, 4);
  const found = await Promise.all(names.map((name) => get(["runs", name])));
  if (found.length < 2) { replace(box, h("div.empty", h("h2", "Choose two to four runs"), h("p", h("a", { href: link() }, "in the list of runs")))); return {}; }
  const worlds = [...new Set(found.flatMap((run) => [...Object.keys(run.held_out), ...Object.keys(run.training)]))];
  replace(box, h("h1", "Compare runs"),
    card("Beside each other", table(["", ...found.map((run, i) => h("a", { href: link("run", run.name) }, h("span.dot", { style: { background: colour(i) }, "aria-hidden": "true" }), run.name))], [
      ["status", ...found.map((run) => statusChip(run.status))],
      ["time", ...found.map((run) => span(run.seconds))],
      ["episodes", ...found.map((run) => count(run.lived))],
      ["last version", ...found.map((run) => (run.learns ? run.version : "does not learn"))],
      ...worlds.map((id) => [`${worldName(id)}, held out`, ...found.map((run) => mean(last(run.held_out[id])))]),
    ])),
    worlds.map((id) => h("section.card", h("h2", worldName(id)), h("div.charts",
      overlaid("Held-out return", found, (run) => run.held_out[id]),
      overlaid("Return while training", found, (run) => run.training[id])))),
    card("Settings that differ", differing(found)));
  return {};
}

const last = (points) => (points || [])[(points || []).length - 1];

function overlaid(title, found, pick) {
  const series = found.map((run, i) => ({
    name: run.name, colour: colour(i), dashed: i % 2 === 1,
    points: (pick(run) || []).map((p) => ({ x: p.version, y: p.mean, half: p.half, n: p.n })),
  }));
  if (!series.some((one) => one.points.length)) return null;
  return lineChart({ title, series, xName: "policy version", yName: "return", integers: true });
}

// Each line of a configuration under the names of its parents: "policy.width: 96".
export function settings(text) {
  const found = new Map();
  const above = [];
  for (const line of (text || "").split("\n")) {
    const match = /^(\s*)(- )?([\w.]+):\s?(.*)$/.exec(line);
    if (!match) continue;
    const depth = match[1].length + (match[2] ? 2 : 0);
    while (above.length && above[above.length - 1].depth >= depth) above.pop();
    let name = [...above.map((one) => one.name), match[3]].join(".");
    if (match[4]) { while (found.has(name)) name += "′"; found.set(name, match[4]); } else above.push({ depth, name: match[3] });
  }
  return found;
}

function differing(found) {
  const all = found.map((run) => settings(run.config));
  const names = [...new Set(all.flatMap((one) => [...one.keys()]))];
  const rows = names.filter((name) => new Set(all.map((one) => one.get(name))).size > 1 && name !== "name");
  return table(["key", ...found.map((run) => run.name)], rows.map((name) => [h("code", name), ...all.map((one) => h("code", one.get(name) ?? "–"))]), "All settings are the same.");
}
