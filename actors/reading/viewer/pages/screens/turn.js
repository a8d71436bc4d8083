// One turn, whole: what was seen, thought, called and done, what answered it, and what it was worth.

import { picture } from "../lib/api.js";
import { lineChart } from "../lib/charts.js";
import { h, link, s } from "../lib/dom.js";
import { count, exact, number, signed, span } from "../lib/format.js";
import { chip, endingChip, facts, reward, table } from "../lib/parts.js";

// What was seen and done, for the middle of the screen or one turn of a conversation.
export function acted(run, turn, withAnswer = true) {
  const text = turn.seen ? part("seen", turn.pictures.length ? "Seen as text" : "Seen", h("pre.seen", turn.seen)) : null;
  const isScreen = turn.pictures.length > 0;
  return [
    turn.pictures.map((one, i) => screen(run, one, i === 0 ? turn.marks : [])),
    turn.drawn.map(block),
    // Below a screen the action comes first: the text says again what the screen shows.
    isScreen ? null : text,
    turn.done ? [
      turn.done.reasoning ? part("thought", "Thought", h("pre", turn.done.reasoning)) : null,
      turn.done.content ? part("said", "Said", h("pre", turn.done.content)) : null,
      turn.done.refusal ? part("bad", "Not done", h("pre", turn.done.refusal)) : null,
      turn.done.calls.length ? turn.done.calls.map((call) => called(call, turn.results)) : null,
      action(turn),
    ] : part("end", "The end", h("p", endingChip(turn.ending), " the last observation of the episode")),
    isScreen ? text : null,
    withAnswer ? answer(turn) : null,
    turn.info.error ? part("bad", "Failure", h("pre", [turn.info.error, turn.info.traceback].filter(Boolean).join("\n\n"))) : null,
  ];
}

function part(kind, name, ...children) {
  return h(`section.part.${kind}`, h("h3", name), children);
}

function action(turn) {
  const text = turn.done.text;
  const name = turn.done.aside ? "Wrote, without acting in the world" : "Did";
  // Calls are shown as calls; their text is shown only where it says more.
  if (turn.done.calls.length) return h("details.raw", h("summary", "As it was written"), h("pre", text));
  return part("did", name, text ? h(text.includes("\n") ? "pre.code" : "pre", text) : h("p.note", "an empty text"));
}

function called(call, results) {
  const result = results.find((one) => one.id === call.id);
  return h("section.part.call", h("h3", h("span", "Called "), h("code", call.name)),
    h("pre.code", pretty(call.arguments)),
    result ? [h("h4", "It gave"), h("pre.result", pretty(result.result))] : null);
}

// JSON with line ends inside its texts shown as such: a program in an argument stays readable.
export function pretty(text) {
  let value;
  try { value = JSON.parse(text); } catch { return text; }
  if (value && typeof value === "object" && !Array.isArray(value)) {
    return Object.entries(value).map(([key, inner]) => {
      const shown = typeof inner === "string" ? inner : JSON.stringify(inner, null, 2);
      return shown.includes("\n") ? `${key}:\n${shown}` : `${key}: ${shown}`;
    }).join("\n");
  }
  return typeof value === "string" ? value : JSON.stringify(value, null, 2);
}

function answer(turn) {
  if (!turn.done || turn.done.aside || turn.next_seen === null) return null;
  const results = turn.done.calls.length ? [] : turn.results;
  if (results.length) return part("answer", "It answered", results.map((one) => h("pre.result", pretty(one.result))));
  return h("details.answer-text", h("summary", "What was seen next"), h("pre.seen", turn.next_seen));
}

// A picture with the action's marks at the very pixels that the action names.
function screen(run, one, marks) {
  const wide = one.w || 640, high = one.h || 480;
  const what = one.role || "picture";
  const shown = marks.filter((mark) => mark.x <= wide && mark.y <= high);
  const alt = `${what}, ${one.w} by ${one.h} pixels${shown.length ? `; ${shown.map((m) => `${m.what} at ${m.x}, ${m.y}`).join("; ")}` : ""}`;
  if (!one.media.startsWith("image/")) {
    return h("figure.screen", h("figcaption", `${what}: ${one.media}, ${count(one.bytes)} bytes `, h("a", { href: picture(run, one.hash), download: `${one.hash.slice(0, 12)}` }, "download")));
  }
  const size = Math.min(wide, high);
  const arm = Math.max(5, size * 0.035);
  const pixels = wide <= 160 ? ".pixels" : "";
  return h("figure.screen", { style: { "--wide": String(wide), "--high": String(high) } },
    h("div.frame", h(`img${pixels}`, { src: picture(run, one.hash), alt, width: wide, height: high, loading: "lazy", decoding: "async" }),
      shown.length ? s("svg.marks", { viewBox: `0 0 ${wide} ${high}`, preserveAspectRatio: "none", "aria-hidden": "true" },
        shown.length > 1 ? s("path.way", { d: shown.map((m, i) => `${i ? "L" : "M"}${m.x} ${m.y}`).join("") }) : null,
        shown.map((m) => s("g.mark", { "data-x": m.x, "data-y": m.y },
          s("circle.halo", { cx: m.x, cy: m.y, r: arm }), s("circle.ring", { cx: m.x, cy: m.y, r: arm }), s("circle.point", { cx: m.x, cy: m.y, r: Math.max(1, size * 0.006) })))) : null),
    h("figcaption", `${what}, ${one.w} × ${one.h}`, shown.map((m) => h("span.where", `${m.what} at ${m.x}, ${m.y}`))));
}

// What a world draws of a turn: plain data of a few kinds.
function block(one) {
  const name = one.title || one.kind;
  if (one.kind === "curve") return part("drawn", name, lineChart({ series: one.series.map((line) => ({ name: line.name, points: line.points.map(([x, y]) => ({ x, y })) })), xName: one.x_name, yName: one.y_name, height: 190 }));
  if (one.kind === "table") return part("drawn", name, table(one.head, one.rows.map((row) => row.map((cell) => (typeof cell === "number" ? number(cell, 3) : cell ?? "unknown")))));
  if (one.kind === "proof") return part("drawn", name, one.goals.length ? one.goals.map((goal, i) => h("div.goal", h("span.soft", `goal ${i + 1} of ${one.goals.length}`), goal.hypotheses.map((line) => h("code", line)), h("code.conclusion", `⊢ ${goal.conclusion}`))) : h("p.note", "no goal is left"));
  if (one.kind === "grid") return part("drawn", name, h("table.grid", h("tbody", one.rows.map((row) => h("tr", row.map((cell) => h("td", cell)))))));
  if (one.kind === "note") return h("p.note", one.text);
  return part("drawn", name, h(one.kind === "code" ? "pre.code" : "pre", one.text));
}

// What the turn was worth and why: signals with evidence, the reward by term, how it was decided.
export function worth(turn, brief = false) {
  const done = turn.done;
  const decided = [
    done ? facts([
      ["who", done.behaviour], ["model", done.model], ["version", versions(done)], ["decoder", done.decoder], ["option", turn.option === null ? null : `${turn.option}, its turn ${turn.option_step}`],
      ["plan", turn.plan], ["tokens", done.tokens_read === null && done.tokens_written === null ? null : `${count(done.tokens_read)} read, ${count(done.tokens_written)} written${done.exact ? ", exact" : ""}`],
      ["log-probability", done.logprob === null ? null : number(done.logprob, 3)], ["value expected", turn.value === null ? null : number(turn.value, 3)], ["uncertainty", turn.uncertainty === null ? null : number(turn.uncertainty, 3)],
      ["cut", [done.prompt_cut ? `${done.prompt_cut} prompt tokens` : "", done.action_cut ? "the action, by the token limit" : ""].filter(Boolean).join(", ")],
      ["stopped by", done.finish], ["model's time", done.seconds === null ? null : span(done.seconds)],
    ]) : h("p.note", "nobody decided: the episode is over"), facts([
      ["turn took", turn.ended_ns > turn.started_ns ? span((turn.ended_ns - turn.started_ns) / 1e9) : null], ["marks", turn.marks_in_stream.map((name) => name.toLowerCase().replace("_", " ")).join(", ")],
      ["discount", turn.done ? number(turn.discount) : null], ["row", `t = ${turn.t}`], ["branches from", turn.parent],
    ]),
  ];
  return [
    h("section.worth", h("h3", "Reward ", turn.done ? reward(turn.reward) : null, turn.reward_version ? h("span.soft", turn.reward_version) : null), terms(turn)),
    h("section.worth", h("h3", "Signals"), turn.signals.length ? h("ul.signals", turn.signals.map(signal)) : h("p.note", "nothing was measured")),
    brief ? h("details.raw", h("summary", "How it was decided"), decided) : h("section.worth", h("h3", "How it was decided"), decided),
    Object.keys(turn.info).filter((key) => !["error", "traceback"].includes(key)).length ? h("details.raw", h("summary", "What else the world said"), h("pre", JSON.stringify(turn.info, null, 2))) : null,
  ];
}

function versions(done) {
  if (done.versions.length < 2) return String(done.version);
  return done.versions.map(([version, tokens]) => `${version} (${tokens} tokens)`).join(", ");
}

function signal(one) {
  const value = one.awaited ? chip("awaited", "warn") : one.value === null ? chip("unknown", "warn") : h("b", { title: exact(one.value) }, number(one.value, 3));
  return h("li", h("div.line", h("span.name", one.name), value, h("span.soft", one.unit)), h("span.source", one.source.replace("_", " ")), one.evidence && !one.awaited ? h("pre.evidence", one.evidence) : null);
}

function terms(turn) {
  const found = turn.terms;
  if (!turn.done || turn.reward === null) return h("p.note", turn.done ? "unknown" : "the closing row has none");
  if (!found || !found.terms.length) return h("p.note", found ? "no signal of this turn has a weight" : "the weights of this reward are not known here");
  const most = Math.max(...found.terms.map((one) => Math.abs(one.part || 0)), 1e-12);
  return [
    h("ul.terms", found.terms.map((one) => h("li", { title: `${exact(one.weight)} × ${exact(one.value)}` }, h("span.name", one.name),
      h("span.meter.two", h(`span.${(one.part || 0) < 0 ? "minus" : "plus"}`, { style: { width: `${(Math.abs(one.part || 0) / most) * 50}%` } })),
      h("span.value", signed(one.part, 3)), h("span.more", `${number(one.weight, 3)} × ${number(one.value, 3)}`)))),
    found.is_code ? h("p.note", "A function of the world computes this reward; the terms are its signals times their weights.") : null,
    found.adds_up === false ? h("p.trouble", `The terms add up to ${number(found.terms.reduce((sum, one) => sum + (one.part || 0), 0), 4)}, and the row says ${number(turn.reward, 4)}.`) : null,
  ];
}

export function episodeLink(run, key, more = {}) {
  return link("run", run, "episode", key, more);
}
