// The store of a run: what lies on disk, what was said later, and whether every byte is as it was written.

import { get } from "../lib/api.js";
import { h, link, replace } from "../lib/dom.js";
import { bytes, count, moment, number } from "../lib/format.js";
import { card, chip, facts, table } from "../lib/parts.js";

export async function store(box, { run }) {
  const found = await get(["runs", run, "store"]);
  const verdict = h("div", { role: "status" });
  const check = async (deep) => {
    replace(verdict, h("p.note", "Checking every row…"));
    try { replace(verdict, checked(await get(["runs", run, "verified"], { deep: deep ? 1 : "" }))); } catch (error) { replace(verdict, h("div.trouble", error.message)); }
  };
  const parts = (rows) => table(["folder", "files", "size"], rows.map((one) => [h("code", one.name), count(one.files), bytes(one.bytes)]));
  const said = found.amendments;
  replace(box, h("div.title", h("h1", "Store")),
    h("div.columns", h("div",
      card("Integrity", facts([["steps in the index", count(found.steps)], ["rows acknowledged", found.acknowledged === null ? "unknown: the run did not end by itself" : count(found.acknowledged)], ["episodes", count(found.episodes)]]),
        h("div.filters", h("button.main", { type: "button", onclick: () => check(false) }, "Verify"), h("button", { type: "button", onclick: () => check(true) }, "Verify deeply")), h("p.note", "As ./xp verify: manifests, checksums, gaps, doubled rows; deeply also every value and picture."), verdict),
      card("On disk", parts(found.parts))),
    h("div", card("Writers", parts(found.writers)),
      card("Said later", facts([["signals", count(said.signals)], ["rewards", count(said.rewards)]]),
        table(["when", "signal", "value", "source", "evidence"], said.newest.map((one) => [moment(one.t_ns / 1e9), h("a", { href: link("run", run, "timeline", { stream: one.stream }) }, one.name), `${number(one.value)} ${one.unit}`, one.source.replace("_", " "), h("span.evidence", one.evidence)]), "Nothing was amended: no feedback, no late signal, no new reward.")))));
  return { keys: { v: ["verify", () => check(false)] } };
}

function checked(found) {
  const clean = found.all_problems === 0;
  return h("div", h("p", chip(clean ? "nothing is wrong" : `${found.all_problems} problems`, clean ? "good" : "bad"), ` ${count(found.rows)} rows in ${count(found.segments)} segments, ${bytes(found.bytes)}${found.deep ? `, ${count(found.blobs)} pictures` : ""}`),
    found.problems.map((one) => h("div.trouble", h("b", one.what), h("p", one.where), h("p", one.repairable ? `It can be mended: ${one.remedy}` : one.remedy))));
}
