// A run, live: what happened, whether it learned, where its time went, what failed.

import { exported, get, live } from "../lib/api.js";
import { lineChart } from "../lib/charts.js";
import { go, h, link, replace } from "../lib/dom.js";
import { count, mean, moment, number, percent, span, worldName } from "../lib/format.js";
import { card, chip, facts, statusChip, table, world } from "../lib/parts.js";

const REDRAW_MS = 250;
const SOURCES = { demonstration: "var(--c3)", real: "var(--c1)", imagined: "var(--c2)", human: "var(--c4)" };

export async function overview(box, { run }) {
  let stopped = false, waiting = null;
  const beat = h("span.beat", { hidden: true }, h("span.pulse", { "aria-hidden": "true" }), "live");
  draw(box, await get(["runs", run]), beat);

  async function again() {
    waiting = null;
    const found = await get(["runs", run]);
    if (stopped) return;
    const at = scrollY;
    const open = [...box.querySelectorAll("details[open]")].map((one) => one.dataset.name);
    draw(box, found, beat);
    for (const one of box.querySelectorAll("details")) if (one.dataset.name && open.includes(one.dataset.name)) one.open = true;
    scrollTo(0, at);
  }
  const stop = live(run, (event) => {
    beat.hidden = !event.runs;
    // Many commits a second are drawn once.
    if (!event.changed.includes("hello")) waiting ??= setTimeout(() => again().catch(() => {}), REDRAW_MS);
  });
  return {
    stop: () => { stopped = true; clearTimeout(waiting); stop(); },
    keys: { e: ["its episodes", () => go(link("run", run, "episodes"))], ...(exported ? {} : { o: ["its groups", () => go(link("run", run, "groups"))] }) },
  };
}

function draw(box, run, beat) {
  replace(box,
    h("div.title", h("h1", run.name), h("div.chips", statusChip(run.status), beat, run.tier ? chip(`tier ${run.tier}`) : null, run.engine ? chip(`engine ${run.engine}`) : null)),
    run.damage ? h("div.trouble", { role: "alert" }, h("b", "The store cannot be read"), h("p", run.damage)) : null,
    run.why && run.status !== "succeeded" ? h("div.trouble", h("b", `This run was ${run.status}`), h("p", run.why)) : null,
    run.warnings.map((one) => h("div.warning", h("b", `Monitor ${one.monitor}: `), one.finding)),
    h("p.lead", sentence(run)),
    tiles(run),
    learned(run),
    h("div.columns", h("div", training(run), planning(run), inside(run)), h("div", phases(run), data(run), streams(run), endings(run), failures(run))),
    card("About", facts([
      ["begun", moment(run.started, true)], ["attempts", run.attempts], ["seed", run.seed], ["source", run.revision],
      ["Python", run.python], ["machine", run.machine], ["command", (run.argv || []).length ? h("code", `./xp ${run.argv.join(" ")}`) : null],
      ...run.resumed.map((one) => ["resumed", `${moment(one.at, true)} from version ${one.version ?? 0}`]),
    ]), run.config ? h("details", { "data-name": "config" }, h("summary", "Configuration"), h("pre", run.config)) : null));
}

// What happened, and whether it learned: the first thing that a reader wants to know.
function sentence(run) {
  const gains = Object.entries(run.gain).filter(([, gain]) => gain.n);
  const told = gains.map(([id, gain]) => {
    const sure = gain.half !== null && gain.half !== undefined && Math.abs(gain.mean) > gain.half;
    const how = sure ? (gain.mean > 0 ? "got better" : "got worse") : "shows no sure change";
    return `${worldName(id)} ${how} (${gain.mean > 0 ? "+" : ""}${mean(gain)} over ${gain.n} held-out tasks)`;
  });
  const lived = `${count(run.lived)} episodes in ${span(run.seconds)}`;
  if (!run.learns) return `${lived}, by a policy that does not learn.`;
  return `${lived}, ${run.version} policy versions. ${told.length ? `${told.join("; ")}.` : "Nothing was compared task by task yet."}`;
}

function tiles(run) {
  const steps = Object.entries(run.sources).filter(([, n]) => n);
  const last = run.history[run.history.length - 1] || {};
  const tile = (name, value, more) => h("div.tile", h("span.name", name), h("b", value), more ? h("span.more", more) : null);
  return h("div.tiles",
    tile("policy version", run.learns ? run.version : "–", run.first_version || "does not learn"),
    tile("episodes", count(run.lived), null),
    tile("steps", count(steps.reduce((sum, [, n]) => sum + n, 0)), steps.map(([name, n]) => `${count(n)} ${name}`).join(", ")),
    tile("time", span(run.seconds), run.attempts > 1 ? `${run.attempts} attempts` : null),
    tile("lag", number(last.lag, 1), "policy versions"),
    tile("failures", count(run.failures.reduce((sum, one) => sum + one.count, 0)), run.failures.length ? `${run.failures.length} kinds` : "none"));
}

const points = (found) => (found || []).map((p) => ({ x: p.version, y: p.mean, half: p.half, n: p.n }));

function learned(run) {
  const ids = Object.keys(run.held_out).filter((id) => run.held_out[id].length);
  if (!ids.length) return null;
  const chart = (id) => {
    const random = run.random[id];
    return lineChart({
      title: worldName(id), series: [{ name: "held-out return", points: points(run.held_out[id]) }],
      lines: random ? [{ name: `random ${number(random.mean)}`, y: random.mean }] : [], xName: "policy version", yName: "return", integers: true,
    });
  };
  return card("Return on held-out tasks", h("p.note", "Tasks that training never draws. Bands are 95 % intervals over the tasks; the dashed line is a policy of random actions."), h("div.charts", ids.map(chart)));
}

function training(run) {
  const ids = Object.keys(run.training);
  if (!ids.length) return null;
  return card("Return while training", lineChart({ series: ids.map((id) => ({ name: worldName(id), points: points(run.training[id]) })), xName: "policy version", yName: "return", integers: true, height: 240 }));
}

function planning(run) {
  const known = run.history.filter((line) => line.model_error);
  if (!known.length) return null;
  const line = (key) => known.filter((one) => one.model_error[key] !== null && one.model_error[key] !== undefined).map((one) => ({ x: one.version, y: one.model_error[key], n: one.model_error.n }));
  return card("World model", h("p.note", "Share of real transitions that it predicts exactly, of those it was never fitted to."),
    lineChart({ series: [{ name: "all", points: line("exact") }, { name: "those the gate keeps", points: line("exact_kept") }, { name: "copy baseline", points: line("copy"), dashed: true }], xName: "policy version", low: 0, high: 1, height: 190, integers: true }));
}

const PANELS = [["Loss", "nats a token", ["policy_loss", "nll", "model_nll"]], ["Gradient", "norm", ["gradient_norm"]], ["Mismatch with the acting policy", "", ["kl", "clipped", "ratio"]], ["Value", "squared return", ["value_loss"]]];

function inside(run) {
  const shown = PANELS.map(([title, unit, names]) => [title, unit, names.map((name) => ({
    name, points: run.history.filter((line) => line.metrics[name] !== undefined && line.version !== null).map((line) => ({ x: line.version, y: line.metrics[name] })),
  })).filter((one) => one.points.length > 1)]).filter(([, , series]) => series.length);
  if (!shown.length) return null;
  return h("section.card", h("details", { "data-name": "inside" }, h("summary", h("h2", "Inside the learner")), h("div.charts", shown.map(([title, unit, series]) => lineChart({ title, series, xName: "policy version", yName: unit, height: 170, integers: true })))));
}

function phases(run) {
  if (!run.phases.length) return null;
  const now = Date.now() / 1000;
  const lasted = run.phases.map((one) => Math.max(0, (one.to ?? now) - one.from));
  const whole = lasted.reduce((a, b) => a + b, 0) || 1;
  return card("Phases", h("ol.phases", run.phases.map((one, i) => {
    const counts = Object.entries(one.counts || {}).map(([what, [done, of]]) => (what === one.phase ? `${count(done)} of ${count(of)}` : `${what} ${count(done)} of ${count(of)}`)).join(", ");
    return h("li", { "aria-current": i === run.phases.length - 1 && run.status === "running" ? "step" : undefined },
      h("span.name", one.phase), h("span.meter", h("span", { style: { width: `${(lasted[i] / whole) * 100}%` } })), h("span.value", span(lasted[i])), counts ? h("span.more", counts) : null);
  })));
}

function data(run) {
  const steps = Object.entries(run.sources).filter(([, n]) => n);
  if (!steps.length) return null;
  const whole = steps.reduce((sum, [, n]) => sum + n, 0);
  return card("Where the data came from", h("div.stack", { role: "img", "aria-label": steps.map(([name, n]) => `${name} ${n} steps`).join(", ") }, steps.map(([name, n]) => h("span", { style: { width: `${(n / whole) * 100}%`, background: SOURCES[name] || "var(--c6)" } }))),
    h("ul.legend", steps.map(([name, n]) => h("li", h("span.dot", { style: { background: SOURCES[name] || "var(--c6)" }, "aria-hidden": "true" }), `${name}: ${count(n)} steps (${percent(n / whole)})`))));
}

function streams(run) {
  const busy = run.streams;
  if (!busy.length) return null;
  const shares = busy.map((one) => one.idle).filter((idle) => idle !== null);
  const mid = shares.reduce((a, b) => a + b, 0) / (shares.length || 1);
  return card("Streams and their idle shares",
    h("p.note", `${count(busy.length)} streams; in ${percent(mid)} of their time no episode was under way.`),
    h("ul.meters", busy.slice(0, 16).map((one) => h("li", { title: one.stream }, h("a.name", { href: link("run", run.name, "timeline", { stream: one.stream }) }, one.stream.slice(0, 8)), h("span.meter", h("span", { style: { width: `${(1 - (one.idle ?? 1)) * 100}%` } })), h("span.value", one.idle === null ? "–" : `${percent(one.idle)} idle`), h("span.more", `${count(one.episodes)} episodes`)))),
    busy.length > 16 ? h("p.note", `and ${count(busy.length - 16)} more streams, on the timeline`) : null);
}

function endings(run) {
  const rows = Object.entries(run.endings).map(([id, by]) => [world(id), h("span.chips", Object.entries(by).map(([ending, n]) => h("a", { href: link("run", run.name, "episodes", { world: id, ending }) }, `${count(n)} ${ending.replace("_", " ")}`)))]);
  return rows.length ? card("How episodes ended", table(["world", "endings"], rows)) : null;
}

function failures(run) {
  return card("Failures", run.failures.length ? null : h("p.note", "No episode was ended by a failure of the machinery."),
    run.failures.map((one, i) => h("details.failure", { open: i === 0, "data-name": `failure ${i}` }, h("summary", chip(`${count(one.count)} ×`, "bad"), " ", world(one.world), " ", h("b", one.kind)), h("pre", one.traceback || one.first),
      one.episodes.length ? h("p", "Episodes: ", one.episodes.slice(0, 8).map((key, k) => h("a", { href: link("run", run.name, "episode", key) }, `${k + 1} `))) : null)));
}
