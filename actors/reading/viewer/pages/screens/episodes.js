// The episodes of a run: filters, a histogram of returns whose bars filter, pages.

import { exported, get, live } from "../lib/api.js";
import { histogram } from "../lib/charts.js";
import { go, h, link, renamed, replace } from "../lib/dom.js";
import { count, moment, span } from "../lib/format.js";
import { endingChip, field, input, opens, pager, reward, select, sourceChip, table, world } from "../lib/parts.js";

const FILTERS = ["world", "task", "split", "source", "version", "ending", "by", "group", "text", "low", "high", "reward", "sort", "page"];
const SORTS = [["-begun", "newest first"], ["begun", "oldest first"], ["-reward", "best first"], ["reward", "worst first"], ["-steps", "longest first"], ["steps", "shortest first"], ["-version", "newest version first"], ["-duration", "slowest first"]];

export async function episodes(box, { run, asked }) {
  const state = Object.fromEntries(FILTERS.map((name) => [name, asked[name] || ""]));
  let found = null, at = -1, latest = 0, stopped = false, waiting = null;
  const top = h("div"), list = h("div", { "aria-live": "off" });
  replace(box, top, list);

  async function load(redrawFilters = true) {
    latest += 1;
    const mine = latest;
    list.classList.add("waits");
    const answer = await get(["runs", run, "episodes"], state);
    if (mine !== latest || stopped) return;
    found = answer;
    list.classList.remove("waits");
    if (redrawFilters) drawFilters();
    drawList();
    renamed(link("run", run, "episodes", state));
  }

  // A changed filter begins at the first page: the old page may not be there.
  function set(changes) {
    Object.assign(state, { page: "" }, changes);
    load().catch((error) => replace(list, h("div.trouble", { role: "alert" }, error.message)));
  }

  function drawFilters() {
    const { choices } = found;
    const options = (name, all) => [["", all], ...choices[name].map(([word, n]) => [word, `${word} (${count(n)})`])];
    const endings = [...options("endings", "any"), ...(choices.failed ? [["failed", `any failure (${count(choices.failed)})`]] : []), ...(choices.under_way ? [["under way", `under way (${count(choices.under_way)})`]] : [])];
    const bars = found.histogram.bars;
    const taken = (bar) => state.low !== "" && state.high !== "" && Number(state.low) <= bar.low && bar.high <= Number(state.high);
    const active = FILTERS.filter((name) => !["sort", "page"].includes(name) && state[name]);
    replace(top, h("div.title", h("h1", "Episodes"), h("p.note", { role: "status" }, `${count(found.total)} of ${count(found.of)}${found.searched_all ? "" : "; the search for a text ran out of time before it had read all rows"}`)),
      exported ? h("p.note", "This file holds a choice of the run's episodes.") : h("div.card.controls",
        h("form.filters", { onsubmit: (event) => event.preventDefault() },
          field("Text", input(state.text, (text) => set({ text }), { type: "search", placeholder: "in what was seen, thought, done" })),
          field("World", select(state.world, options("worlds", "any"), (value) => set({ world: value }))),
          field("Task", input(state.task, (task) => set({ task }), { type: "search", placeholder: "part of its name" })),
          field("Version", input(state.version, (version) => set({ version }), { type: "number", min: 0, max: Math.max(0, choices.last_version), placeholder: choices.last_version >= 0 ? `0 to ${choices.last_version}` : "" })),
          field("Ending", select(state.ending, endings, (ending) => set({ ending }))),
          field("Split", select(state.split, options("splits", "any"), (split) => set({ split }))),
          field("Source", select(state.source, options("sources", "any"), (source) => set({ source }))),
          field("Who acted", select(state.by, options("behaviours", "anyone"), (by) => set({ by }))),
          field("Order", select(state.sort || "-begun", SORTS, (sort) => set({ sort }))),
          active.length ? h("button", { type: "button", onclick: () => set(Object.fromEntries(active.map((name) => [name, ""]))) }, "Clear filters") : null),
        bars.length || found.histogram.unknown ? h("div.returns", h("span.label", "Return"), histogram({
          bars, unknown: found.histogram.unknown, chosen: taken,
          press: (bar) => (taken(bar) ? set({ low: "", high: "", reward: "" }) : set({ low: bar.low, high: bar.high, reward: "" })),
          unknownChosen: state.reward === "unknown",
          pressUnknown: () => set({ reward: state.reward === "unknown" ? "" : "unknown", low: "", high: "" }),
        })) : null));
  }

  function drawList() {
    const turnTo = (page) => { state.page = page || ""; load(false).then(() => list.scrollIntoView({ block: "nearest" })); };
    const rows = found.rows.map((one) => opens(h("tr",
      h("td", h("a", { href: link("run", run, "episode", one.key) }, moment(one.started_ns / 1e9, true))), h("td", world(one.env_id)), h("td.task", one.task_id || "–"),
      h("td.num", reward(one.reward)), h("td", endingChip(one.ending)), h("td.num", count(one.steps)), h("td.num", one.first_version < 0 ? "–" : one.first_version === one.last_version ? one.first_version : `${one.first_version}–${one.last_version}`),
      h("td", h("span.chips", one.split === "train" ? null : h("span.chip", one.split), sourceChip(one.source), h("span.soft", one.behaviour_id))), h("td.num", one.ended_ns > 0 ? span((one.ended_ns - one.started_ns) / 1e9) : "–"),
      h("td", one.group_id ? h("a", { href: link("run", run, "group", { group: one.group_id }) }, one.group_id) : "")), link("run", run, "episode", one.key)));
    const pages = () => pager(found.page, found.pages, turnTo);
    replace(list, table(["begun", "world", "task", ["return"], "ending", ["turns"], ["version"], "who", ["time"], "group"], rows, "No episode passes these filters."), exported ? null : pages());
    at = -1;
  }

  const stop = live(run, (event) => {
    // Only where the newest stand on top is a page of new ones what a reader expects.
    if (event.changed.includes("episodes") && !state.page && !state.text && !document.hidden) waiting ??= setTimeout(() => { waiting = null; if (!top.contains(document.activeElement)) load(true).catch(() => {}); }, 600);
  });
  await load();
  const move = (by) => {
    const rows = list.querySelectorAll("tbody tr");
    at = Math.max(0, Math.min(rows.length - 1, at + by));
    rows[at]?.querySelector("a")?.focus();
  };
  const turn = (by) => { const to = found.page + by; if (to >= 0 && to < found.pages) { state.page = to || ""; load(false); } };
  return {
    stop: () => { stopped = true; clearTimeout(waiting); stop(); },
    keys: {
      j: ["the next episode", () => move(1)], k: ["the episode before", () => move(-1)],
      n: ["the next page", () => turn(1)], p: ["the page before", () => turn(-1)],
      b: ["best first", () => set({ sort: "-reward" })], w: ["worst first", () => set({ sort: "reward" })],
      x: ["clear the filters", () => go(link("run", run, "episodes"))],
    },
  };
}

