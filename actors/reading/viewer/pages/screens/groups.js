// Groups, and one group side by side: the same task from the same start, and what differed.

import { get, mayWrite, picture } from "../lib/api.js";
import { go, h, link, renamed, replace, say } from "../lib/dom.js";
import { count, number } from "../lib/format.js";
import { endingChip, field, opens, pager, reward, select, table, world } from "../lib/parts.js";
import { preferred } from "./feedback.js";
import { episodeLink } from "./turn.js";

export async function groups(box, { run, asked }) {
  const state = { world: asked.world || "", sort: asked.sort || "", page: asked.page || "" };
  const draw = async () => {
    const found = await get(["runs", run, "groups"], state);
    renamed(link("run", run, "groups", state));
    const set = (changes) => { Object.assign(state, { page: "" }, changes); draw(); };
    const rows = found.groups.map((one) => opens(h("tr", h("td", h("a", { href: link("run", run, "group", { group: one.group }) }, one.group)), h("td", world(one.env_id)), h("td.task", one.task_id), h("td.num", one.version < 0 ? "–" : one.version),
      h("td.num", one.n), h("td", dots(one)), h("td.num", number(one.spread))), link("run", run, "group", { group: one.group })));
    replace(box, h("div.title", h("h1", "Groups"), h("p.note", { role: "status" }, `${count(found.total)} groups; in ${count(found.flat)} all attempts earned the same, which teaches nothing`)),
      h("form.filters.card", field("World", select(state.world, [["", "any"], ...found.worlds.map((id) => [id, id])], (id) => set({ world: id }))), field("Order", select(state.sort, [["", "newest first"], ["spread", "largest difference first"]], (sort) => set({ sort })))),
      table(["group", "world", "task", ["version"], ["attempts"], "returns", ["difference"]], rows, "No episode of this run belongs to a group."),
      pager(found.page, found.pages, (page) => { state.page = page || ""; draw(); }));
  };
  await draw();
  return { keys: { e: ["its episodes", () => go(link("run", run, "episodes"))] } };
}

function dots(one) {
  const sorted = one.rewards.map((value, i) => [value, one.endings[i]]).sort((a, b) => (b[0] ?? -Infinity) - (a[0] ?? -Infinity));
  return h("span.dots", sorted.map(([value, ending]) => h("span", { title: ending || "under way" }, reward(value))));
}

export async function group(box, { run, asked }) {
  const found = await get(["runs", run, "group"], { group: asked.group, keys: asked.keys });
  const state = { turn: Number.parseInt(asked.turn || "0", 10) || 0, only: asked.all ? "" : "1" };
  const longest = Math.max(...found.attempts.map((one) => one.turns.length));
  const choice = preferred(run, found.attempts.map((one) => one.key));
  const parted = found.parted;
  const lanes = h("div.lanes", { tabindex: "0", "aria-label": "Attempts side by side" });
  replace(box, h("div.title", h("h1", world(found.env_id), h("span.task", found.task_id)), h("span.soft", found.group ? `group ${found.group}` : "chosen episodes"), h("span.soft", `seed ${found.seed}`)),
    h("p.lead", parted === null ? "All attempts did the same in every turn." : `The attempts part at turn ${parted}${parted ? `; before it all did the same` : ""}.`),
    found.begins ? h("details", h("summary", "How the task begins"), h("pre.seen", found.begins)) : null, lanes, choice.place);

  const draw = () => {
    replace(lanes, found.attempts.map((one, i) => h("section.lane", { "aria-label": `attempt ${i + 1}` },
      h("header", h("a", { href: episodeLink(run, one.key) }, `Attempt ${i + 1}`), h("span.total", reward(one.reward)), endingChip(one.ending),
        h("span.soft", `${count(one.steps)} ${one.steps === 1 ? "turn" : "turns"}, version ${one.first_version}`), mayWrite() && found.attempts.length > 1 ? h("button", { type: "button", onclick: choice.choose(one.key) }, "Prefer") : null),
      h("ol", one.turns.map((turn, k) => line(turn, k, one))), one.turns.length < one.all_turns ? h("p.note", `the first ${count(one.turns.length)} of ${count(one.all_turns)} turns`) : null)));
    mark();
  };
  const line = (turn, k, one) => {
    const same = found.attempts.every((other) => other.turns[k]?.action === turn.action);
    return h(`li.at.${same ? "same" : "other"}`, { "data-turn": k, onclick: () => { state.turn = k; mark(); } },
      h("span.number", k), turn.picture && turn.picture !== one.turns[k - 1]?.picture ? h("img", { src: picture(run, turn.picture), alt: `screen at turn ${k}`, loading: "lazy" }) : null,
      h("div.what", turn.answered ? h("a", { href: episodeLink(run, one.key, { turn: k || "" }) }, turn.action || "(empty)") : h("span.soft", `the end: ${turn.ending}`),
        turn.seen ? h("details", h("summary", "seen"), h("pre", turn.seen)) : null,
        Object.keys(turn.signals).length ? h("div.soft", Object.entries(turn.signals).map(([name, value]) => `${name} ${number(value)}`).join(", ")) : null),
      turn.answered ? reward(turn.reward) : null);
  };
  const mark = () => {
    for (const item of lanes.querySelectorAll("li.at")) item.classList.toggle("now", Number(item.dataset.turn) === state.turn);
    renamed(link("run", run, "group", { group: asked.group, keys: asked.keys, turn: state.turn || "" }));
  };
  const walk = (to) => { state.turn = Math.max(0, Math.min(longest - 1, to)); mark(); lanes.querySelector("li.now")?.scrollIntoView({ block: "nearest", inline: "nearest" }); };
  draw();
  return { keys: {
    j: ["the next turn of all", () => walk(state.turn + 1)], k: ["the turn before", () => walk(state.turn - 1)],
    d: ["where the attempts part", () => (parted === null ? say("They never part.") : walk(parted))],
    a: ["all groups", () => go(link("run", run, "groups"))],
  } };
}
