// What planning did: imagined turns beside the real ones, and the options with their records.

import { get } from "../lib/api.js";
import { lineChart } from "../lib/charts.js";
import { h, link, replace } from "../lib/dom.js";
import { count, number } from "../lib/format.js";
import { card, facts, pager, reward, table, world } from "../lib/parts.js";
import { episodeLink } from "./turn.js";

export async function imagined(box, { run, asked }) {
  const state = { page: asked.page || "" };
  const draw = async () => {
    const found = await get(["runs", run, "imagined"], state);
    const line = (key) => found.gate.filter((one) => one[key] !== null && one[key] !== undefined).map((one) => ({ x: one.version, y: one[key], n: one.n }));
    replace(box, h("div.title", h("h1", "World model against reality"), h("p.note", `${count(found.total)} imagined branches`)),
      found.gate.length ? card("How far it may be trusted", h("p.note", "Share of real transitions, never fitted to, that it predicts exactly; the gate lets only those pass of which the model is sure."),
        h("div.charts", lineChart({ title: "Predicted exactly", series: [{ name: "all", points: line("exact") }, { name: "those the gate keeps", points: line("exact_kept") }, { name: "copy baseline", points: line("copy"), dashed: true }], xName: "policy version", low: 0, high: 1, integers: true }),
          lineChart({ title: "Kept by the gate", series: [{ name: "share", points: line("kept") }], xName: "policy version", low: 0, high: 1, integers: true }))) : null,
      found.branches.length ? found.branches.map((one) => branch(run, one)) : h("p.note", "This run kept no imagined branch."),
      pager(found.page, found.pages, (page) => { state.page = page || ""; draw(); }));
  };
  await draw();
  return {};
}

function branch(run, one) {
  const rows = Math.max(one.imagined.length, one.real.length);
  // Only the turn before which both did the same has a real answer to be compared with.
  let together = true;
  const lines = [];
  for (let i = 0; i < rows; i += 1) {
    const dreamt = one.imagined[i], lived = one.real[i];
    const same = Boolean(dreamt && lived && dreamt.seen === lived.seen);
    const verdict = !together ? null : same ? h("span.chip.good", "✓ as it was") : lived && dreamt ? h("span.chip.bad", "✕ differs") : null;
    lines.push(h("tr", h("td.num", i), h("td", cell(dreamt)), h("td", cell(lived)), h("td", verdict)));
    if (!dreamt || !lived || dreamt.action !== lived.action) together = false;
  }
  return h("section.card", h("h2", world(one.env_id), h("span.task", one.task_id)), facts([
    ["branches from", one.from ? h("a", { href: episodeLink(run, one.from) }, `t = ${one.from_t} of a real episode`) : `t = ${one.from_t}, which is no longer kept`], ["model version", one.model_version], ["return", reward(one.reward)]]),
    h("div.wide", { tabindex: "0" }, h("table.beside", h("thead", h("tr", ["turn", "imagined", "real", "while they do the same"].map((name) => h("th", { scope: "col" }, name)))), h("tbody", lines))));
}

function cell(turn) {
  if (!turn) return h("span.soft", "–");
  return [h("pre.seen", turn.seen), turn.action === null ? h("span.soft", `the end: ${turn.ending}`) : h("pre", `→ ${turn.action}`), h("div.soft", ["reward ", reward(turn.reward), turn.uncertainty === null ? null : ` uncertainty ${number(turn.uncertainty, 3)}`])];
}

export async function options(box, { run }) {
  const found = await get(["runs", run, "options"]);
  const rows = found.options.map((one) => [h("b", one.name), one.kind || "–", h("span", Object.entries(one.record).map(([name, value]) => `${name.replaceAll("_", " ")} ${typeof value === "number" ? number(value) : value}`).join(", ") || "no record yet"), h("details", h("summary", "what it does"), h("pre", one.described))]);
  replace(box, h("div.title", h("h1", "Options and skills"), found.version === undefined || found.version === null ? null : h("p.note", `of the newest checkpoint; library version ${found.version}`)),
    card("Library", table(["option", "kind", "record", ""], rows, "This run has no options: planning.options.library and planning.options.skills bring them in.")),
    found.skills.length > 1 ? card("Skills over the run", lineChart({ series: [{ name: "skills", points: found.skills.map((one) => ({ x: one.version, y: one.skills })) }], xName: "policy version", low: 0, integers: true })) : null,
    card("Who acted", table(["who", "episodes"], found.acting.map(([name, n]) => [h("a", { href: link("run", run, "episodes", { by: name }) }, name || "nobody"), count(n)]))));
  return {};
}
