// The same tasks by two versions of the policy: what got worse stands first.

import { get } from "../lib/api.js";
import { h, link, renamed, replace } from "../lib/dom.js";
import { count, number, signed, worldName } from "../lib/format.js";
import { card, field, opens, reward, select, table, world } from "../lib/parts.js";

export async function versions(box, { run, asked }) {
  const state = { a: asked.a || "", b: asked.b || "", split: asked.split || "", world: asked.world || "" };
  const draw = async () => {
    const found = await get(["runs", run, "versions"], { a: state.a, b: state.b, split: state.split });
    renamed(link("run", run, "versions", state));
    const set = (changes) => { Object.assign(state, changes); draw(); };
    const numbers = found.versions.map((one) => [one, `version ${one}`]);
    const shown = found.tasks.filter((one) => !state.world || one.env_id === state.world);
    const rows = shown.map((one) => opens(h("tr", h("td", world(one.env_id)), h("td.task", h("a", { href: link("run", run, "group", { keys: one.keys.join(",") }) }, one.task_id || "the task")), h("td.num", reward(one.before)), h("td.num", reward(one.after)),
      h("td", gainBar(one.gain, Math.max(...found.tasks.map((task) => Math.abs(task.gain)), 1e-9))), h("td.num", `${number(one.steps[0], 1)} → ${number(one.steps[1], 1)}`), h("td.num", `${one.n[0]}, ${one.n[1]}`)), link("run", run, "group", { keys: one.keys.join(",") })));
    replace(box, h("div.title", h("h1", "Two versions, the same tasks")),
      h("form.filters.card", field("Before", select(found.a, numbers, (a) => set({ a }))), field("After", select(found.b, numbers, (b) => set({ b }))),
        field("Split", select(found.split, found.splits.map((one) => [one, one]), (split) => set({ split, a: "", b: "" }))),
        field("World", select(state.world, [["", "any"], ...found.worlds.map((one) => [one.env_id, one.env_id])], (id) => set({ world: id })))),
      found.worlds.length ? h("div.tiles", found.worlds.map((one) => h("div.tile", h("span.name", worldName(one.env_id)), h("b", `${signed(one.mean)}${one.half === null ? "" : ` ± ${number(one.half)}`}`), h("span.more", `${one.better} better, ${one.worse} worse, of ${one.n} tasks`)))) : null,
      card("Task by task, what got worse first", table(["world", "task", [`version ${found.a ?? "–"}`], [`version ${found.b ?? "–"}`], "difference", ["turns"], ["episodes"]], rows,
        found.versions.length < 2 ? "Only one version lived episodes of this split." : "No task was lived by both versions.")), h("p.note", `${count(shown.length)} tasks. A row opens both attempts side by side.`));
  };
  await draw();
  return {};
}

function gainBar(gain, most) {
  return h("span.gain", h("span.meter.two", h(`span.${gain < 0 ? "minus" : "plus"}`, { style: { width: `${(Math.abs(gain) / most) * 50}%` } })), h("span.value", signed(gain)));
}
