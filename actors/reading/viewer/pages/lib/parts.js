// Small parts that many screens use: chips, tables, pagers, tabs, what to show for nothing or for an error.

import { h, link } from "./dom.js";
import { count, number, worldName } from "./format.js";

const STATUS = { running: "run", succeeded: "good", imported: "plain", failed: "bad", interrupted: "warn", unreadable: "bad" };
const ENDINGS = { terminated: "plain", truncated: "warn", env_error: "bad", engine_error: "bad", timeout: "bad", cancelled: "warn", none: "plain" };
const SIGNS = { good: "✓", bad: "✕", warn: "!", run: "●", plain: "" };

// A sign and a word beside the colour: no state is told by colour alone.
export function chip(word, kind = "plain", title = undefined) {
  return h(`span.chip.${kind}`, { title }, SIGNS[kind] ? h("span", { "aria-hidden": "true" }, SIGNS[kind]) : null, word);
}

export const statusChip = (status) => chip(status, STATUS[status] || "warn");

export function endingChip(ending) {
  return ending === null || ending === undefined ? chip("under way", "run") : chip(ending.replace("_", " "), ENDINGS[ending] || "plain");
}

export function sourceChip(source) {
  return source === "real" || !source ? null : chip(source, source === "imagined" ? "dream" : "plain");
}

export function world(id) {
  return h("span.world", { title: id }, worldName(id));
}

export function reward(value) {
  const kind = value === null || value === undefined ? "unknown" : value > 0 ? "up" : value < 0 ? "down" : "zero";
  return h(`span.reward.${kind}`, { title: value === null || value === undefined ? "unknown" : String(value) }, number(value));
}

export function card(title, ...children) {
  return h("section.card", title ? h("h2", title) : null, children);
}

// A head of [name] stands over numbers, which are aligned at their right.
export function table(heads, rows, empty = "There is nothing here.") {
  if (!rows.length) return h("p.note", empty);
  const names = heads.map((head) => (Array.isArray(head) ? head[0] : head));
  const made = rows.map((row) => (row instanceof Node ? row : h("tr", row.map((cell) => h("td", cell)))));
  // Where a row is too wide for a phone it becomes a small card, and each cell says its own name.
  for (const row of made) [...row.children].forEach((cell, i) => { if (typeof names[i] === "string") cell.dataset.head = names[i]; });
  return h("div.wide", { tabindex: "0" }, h("table.cards",
    h("thead", h("tr", heads.map((head) => (Array.isArray(head) ? h("th.num", { scope: "col" }, head[0]) : h("th", { scope: "col" }, head))))),
    h("tbody", made)));
}

export function facts(pairs) {
  const known = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return h("dl.facts", known.map(([name, value]) => [h("dt", name), h("dd", value)]));
}

export function trouble(error) {
  return h("div.trouble", { role: "alert" }, h("b", error.message || String(error)), error.hint ? h("p", error.hint) : null);
}

export function pager(page, pages, turnTo, what = "page") {
  if (pages <= 1) return null;
  const step = (to, name, word) => h("button", { type: "button", disabled: to < 0 || to >= pages || to === page, "aria-label": `${word} ${what}`, onclick: () => turnTo(to) }, name);
  return h("nav.pager", { "aria-label": `${what}s` }, step(0, "⇤", "first"), step(page - 1, "←", "previous"),
    h("span", `${what} ${count(page + 1)} of ${count(pages)}`), step(page + 1, "→", "next"), step(pages - 1, "⇥", "last"));
}

const TABS = [
  ["", "Run"], ["episodes", "Episodes"], ["groups", "Groups"], ["timeline", "Timeline"], ["imagined", "World model"],
  ["options", "Options"], ["versions", "Versions"], ["store", "Store"],
];
const EXPORTED_TABS = ["", "episodes"];

export function tabs(run, current, few) {
  const shown = few ? TABS.filter(([name]) => EXPORTED_TABS.includes(name)) : TABS;
  return h("nav.tabs", { "aria-label": "Parts of the run" }, shown.map(([name, word]) => h("a", {
    href: name ? link("run", run, name) : link("run", run), "aria-current": name === current ? "page" : undefined,
  }, word)));
}

export function field(name, control) {
  return h("label.field", h("span", name), control);
}

export function select(value, choices, changed) {
  const control = h("select", { onchange: () => changed(control.value) },
    choices.map(([key, word]) => h("option", { value: key, selected: String(key) === String(value) }, word)));
  return control;
}

export function input(value, changed, attributes = {}) {
  const control = h("input", { value: value ?? "", ...attributes, onchange: () => changed(control.value) });
  return control;
}

// A row of a list that opens a screen: by a click anywhere, or by its link for the keyboard.
export function opens(row, address) {
  row.addEventListener("click", (event) => {
    if (!event.target.closest("a, button, input, label") && !getSelection().toString()) location.hash = address;
  });
  row.classList.add("opens");
  return row;
}
