// Which screen is shown for an address, the head of the page, its keys and its two themes.

import { exported, keepToken } from "./lib/api.js";
import { h, link, replace } from "./lib/dom.js";
import { tabs, trouble } from "./lib/parts.js";
import { comparison } from "./screens/compare.js";
import { episode } from "./screens/episode.js";
import { episodes } from "./screens/episodes.js";
import { group, groups } from "./screens/groups.js";
import { imagined, options } from "./screens/planning.js";
import { overview } from "./screens/run.js";
import { runs } from "./screens/runs.js";
import { store } from "./screens/store.js";
import { timeline } from "./screens/timeline.js";
import { versions } from "./screens/versions.js";

// A screen is shown(content, {run, key, asked}) and may give {stop, keys}: keys maps a key to [what it does, act].
const SCREENS = { "": overview, episodes, groups, group, timeline, imagined, options, versions, store };
const PARENT = { group: "groups", episode: "episodes" };
const content = document.getElementById("content");
let shown = { stop() {}, keys: {} };
let turn = 0;

function place() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  let parts;
  try { parts = path.split("/").map(decodeURIComponent); } catch { parts = [""]; }
  return { parts, asked: Object.fromEntries(new URLSearchParams(query || "")) };
}

async function show() {
  keepToken();
  turn += 1;
  const mine = turn;
  const { parts, asked } = place();
  shown.stop?.();
  shown = { stop() {}, keys: {} };
  closeHelp();
  const [first, run, part, key] = parts;
  head(first === "run" ? run : null, part || "");
  const box = h("div.page");
  replace(content, h("p.loading", { role: "status" }, "Loading…"));
  try {
    let screen = first === "compare" ? comparison : runs;
    if (first === "run") screen = part === "episode" ? episode : SCREENS[part || ""];
    if (!screen) throw new Error(`There is no screen at ${location.hash}.`);
    const made = (await screen(box, { run, key, asked })) || {};
    if (mine !== turn) { made.stop?.(); return; }
    shown = { stop: made.stop, keys: made.keys || {} };
    replace(content, box);
  } catch (error) {
    if (mine !== turn) return;
    replace(content, trouble(error));
    if (!error.status) console.error(error);
  }
  document.title = [part || (run ? "run" : first || "runs"), run, "xp"].filter(Boolean).join(" · ");
}

function head(run, part) {
  const bar = h("div.bar",
    h("a.brand", { href: link() }, h("span.logo", { "aria-hidden": "true" }), "xp"),
    h("nav.crumbs", { "aria-label": "Place" }, h("a", { href: link() }, "Runs"), run ? [h("span", { "aria-hidden": "true" }, "/"), h("a", { href: link("run", run), title: run }, run)] : null),
    h("span.room"),
    h("button.quiet", { type: "button", onclick: nextTheme, title: "light, dark, or as the system (t)" }, h("span", { "aria-hidden": "true" }, "◐"), h("span.word", `Theme: ${theme()}`)),
    h("button.quiet", { type: "button", onclick: help, title: "all keys (?)" }, "?", h("span.word", " Keys")));
  replace(document.getElementById("head"), bar, run ? tabs(run, PARENT[part] || part, exported) : null);
}

const theme = () => { try { return localStorage.getItem("xp-theme") || "system"; } catch { return "system"; } };

function dress() {
  const chosen = theme();
  if (chosen === "system") document.documentElement.removeAttribute("data-theme");
  else document.documentElement.setAttribute("data-theme", chosen);
  const word = document.querySelector("#head .quiet .word");
  if (word) word.textContent = `Theme: ${chosen}`;
}

function nextTheme() {
  const order = ["system", "light", "dark"];
  localStorage.setItem("xp-theme", order[(order.indexOf(theme()) + 1) % order.length]);
  dress();
}

const EVERYWHERE = {
  "?": ["this help", () => help()],
  t: ["the next theme", nextTheme],
  g: ["the list of runs", () => { location.hash = "#/"; }],
  "/": ["the first field to search in", () => { content.querySelector("input")?.focus(); }],
};

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape") { closeHelp(); document.activeElement?.blur(); return; }
  if (event.target.closest?.("input, textarea, select, [contenteditable]")) return;
  // A button or link takes space and enter itself.
  if ((event.key === " " || event.key === "Enter") && event.target.closest?.("button, a, summary")) return;
  const found = shown.keys[event.key] || EVERYWHERE[event.key];
  if (!found) return;
  event.preventDefault();
  found[1]();
}

let dialog = null;

function help() {
  if (dialog) { closeHelp(); return; }
  const named = (keys) => Object.entries(keys).map(([key, [what]]) => h("tr", h("td", h("kbd", key === " " ? "space" : key)), h("td", what)));
  dialog = h("dialog.help", { "aria-label": "Keys" }, h("h2", "Keys"),
    h("table", h("tbody", named(shown.keys), named(EVERYWHERE), h("tr", h("td", h("kbd", "Esc")), h("td", "close this, leave a field")))),
    h("button", { type: "button", onclick: closeHelp }, "Close"));
  dialog.addEventListener("close", () => { dialog?.remove(); dialog = null; });
  document.body.append(dialog);
  dialog.showModal();
}

function closeHelp() {
  dialog?.close();
}

window.addEventListener("hashchange", show);
window.addEventListener("keydown", pressed);
dress();
show();
