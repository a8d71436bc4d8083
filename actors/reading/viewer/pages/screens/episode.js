// One episode, its screen first: the turns on the left, what was seen and done in the middle, what it
// was worth on the right. Keys walk through it; the address always names the turn that is shown.

import { exported, get } from "../lib/api.js";
import { go, h, link, renamed, replace, s, say } from "../lib/dom.js";
import { count, moment, number, span } from "../lib/format.js";
import { endingChip, pager, reward, sourceChip, trouble, world } from "../lib/parts.js";
import { rated } from "./feedback.js";
import { acted, episodeLink, worth } from "./turn.js";

const ROW = 34;
const PLAY_MS = 900;

export async function episode(box, { run, key, asked }) {
  const imagined = asked.imagined || "";
  const first = Number.parseInt(asked.turn || "0", 10) || 0;
  const found = await get(["runs", run, "episodes", key], { at: first || "", imagined });
  const strip = found.strip;
  const pages = new Map([[found.first, found.turns]]);
  const state = { at: Math.min(Math.max(first, 0), strip.length - 1), chat: asked.view === "chat", playing: 0 };
  const middle = h("div.middle"), side = h("aside.side", { "aria-label": "What the turn was worth" }), track = h("div.track");
  const list = turnList(strip, state, go_to);
  const modes = h("div.modes", { role: "group", "aria-label": "How it is shown" },
    h("button", { type: "button", onclick: () => mode(false) }, "Screen"), h("button", { type: "button", onclick: () => mode(true) }, "Conversation"));
  const body = h("div.episode", h("nav.turns", { "aria-label": "Turns" }, list.element), middle, side);
  replace(box, top(run, found, modes), track, body);
  strips(track, strip, state, go_to);

  async function page(number) {
    const start = Math.floor(number / found.page_size) * found.page_size;
    if (!pages.has(start)) {
      const more = await get(["runs", run, "episodes", key, "turns"], { from: start, count: found.page_size, imagined });
      pages.set(start, more.turns);
      if (pages.size > 12) pages.delete([...pages.keys()].find((one) => one !== start));
    }
    return pages.get(start);
  }

  async function draw() {
    const mine = state.at;
    for (const [i, button] of [...modes.children].entries()) button.setAttribute("aria-pressed", String(Boolean(i) === state.chat));
    body.classList.toggle("chat", state.chat);
    renamed(episodeLink(run, key, { turn: mine || "", view: state.chat ? "chat" : "", imagined }));
    list.mark(mine);
    track.mark(mine);
    let rows;
    try { rows = await page(mine); } catch (error) { replace(middle, trouble(error)); return; }
    if (mine !== state.at) return;
    const turn = rows.find((one) => one.number === mine);
    if (state.chat) conversation(rows, turn);
    else {
      replace(middle, h("h2.now", turnName(turn, strip.length)), acted(run, turn));
      replace(side, worth(turn), exported || imagined ? null : rated(run, key, turn));
      side.scrollTop = 0;
    }
  }

  // A page of turns at a time: an episode of ten thousand turns is walked through, not drawn at once.
  function conversation(rows, now) {
    const start = rows[0].number;
    if (middle.dataset.first !== `chat ${start}`) {
      const turnTo = (to) => go_to(to * found.page_size);
      const pages_bar = () => pager(Math.floor(start / found.page_size), Math.ceil(strip.length / found.page_size), turnTo, "part");
      replace(middle, pages_bar(), rows.map((turn) => h("article.talk", { "data-turn": turn.number, onclick: () => { if (!getSelection().toString() && state.at !== turn.number) go_to(turn.number, false); } },
        h("h2.now", turnName(turn, strip.length)), h("div.both", h("div", acted(run, turn, false)), h("div.beside", worth(turn, true))))), pages_bar());
      middle.dataset.first = `chat ${start}`;
    }
    replace(side);
    for (const one of middle.querySelectorAll("article")) one.classList.toggle("current", Number(one.dataset.turn) === now.number);
    if (state.scrolls !== false) middle.querySelector("article.current")?.scrollIntoView({ block: "start" });
    state.scrolls = true;
  }

  function go_to(number, scrolls = true) {
    const to = Math.min(Math.max(number, 0), strip.length - 1);
    if (to === state.at) return;
    state.at = to;
    state.scrolls = scrolls;
    draw();
  }

  function mode(chat) {
    state.chat = chat;
    delete middle.dataset.first;
    draw();
  }

  function jump(by) {
    const from = strip[state.at].reward;
    for (let i = state.at + by; i >= 0 && i < strip.length; i += by) {
      if (strip[i].answered && strip[i].reward !== from) { go_to(i); return; }
    }
    say(by > 0 ? "No later turn has another reward." : "No earlier turn has another reward.");
  }

  function play() {
    if (state.playing) { clearInterval(state.playing); state.playing = 0; say("Stopped."); return; }
    state.playing = setInterval(() => {
      if (state.at >= strip.length - 1) { clearInterval(state.playing); state.playing = 0; return; }
      go_to(state.at + 1);
    }, PLAY_MS);
    say("Playing; space stops.");
  }

  await draw();
  const walk = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1 };
  const keys = {
    j: ["the next turn (also ↓)", () => go_to(state.at + 1)], k: ["the turn before (also ↑)", () => go_to(state.at - 1)],
    Home: ["the first turn", () => go_to(0)], End: ["the last turn", () => go_to(strip.length - 1)],
    "]": ["the next turn with another reward", () => jump(1)], "[": ["the last turn with another reward", () => jump(-1)],
    " ": ["play and stop", play], c: ["conversation or screen", () => mode(!state.chat)],
    n: ["the next episode", () => found.after && go(episodeLink(run, found.after))], p: ["the episode before", () => found.before && go(episodeLink(run, found.before))],
    e: ["the list of episodes", () => go(link("run", run, "episodes"))],
  };
  if (found.group_size > 1 && !exported) keys.a = ["all attempts of its group", () => go(link("run", run, "group", { group: found.group_id }))];
  if (!exported) keys.f = ["give feedback", () => side.querySelector("input, textarea")?.focus()];
  for (const [name, by] of Object.entries(walk)) keys[name] ??= ["", () => go_to(state.at + by)];
  return { stop: () => { clearInterval(state.playing); list.stop(); }, keys: listed(keys) };
}

// The arrows do what j and k do, and are not told a second time in the help.
function listed(keys) {
  for (const [name, [what]] of Object.entries(keys)) if (!what) Object.defineProperty(keys, name, { value: keys[name], enumerable: false });
  return keys;
}

function turnName(turn, all) {
  return [turn.done ? `Turn ${turn.number}` : "The end", h("span.soft", ` of ${count(all - 1)}`), turn.ending !== "none" ? endingChip(turn.ending) : null];
}

function top(run, found, modes) {
  const version = found.first_version < 0 ? null : found.first_version === found.last_version ? `version ${found.first_version}` : `versions ${found.first_version} to ${found.last_version}`;
  const step = (to, word, sign) => (to ? h("a.step", { href: episodeLink(run, to), "aria-label": word, title: word }, sign) : h("span.step.off", { "aria-hidden": "true" }, sign));
  return h("div.about",
    h("div.title", h("h1", world(found.env_id), h("span.task", found.task_id)), h("span.total", "return ", reward(found.reward)), endingChip(found.ending), sourceChip(found.source), h("span.room"), modes,
      exported ? null : h("span.steps", step(found.before, "the episode before", "←"), step(found.after, "the next episode", "→"))),
    h("p.line", [`${count(found.steps)} ${found.steps === 1 ? "turn" : "turns"}`, version, found.behaviour_id, found.split, `seed ${found.seed}`, moment(found.started_ns / 1e9, true), found.ended_ns > found.started_ns ? span((found.ended_ns - found.started_ns) / 1e9) : null, found.sandbox_tier ? `sandbox ${found.sandbox_tier}` : null, found.agent ? `agent ${found.agent}` : null].filter(Boolean).map((word) => h("span", String(word))),
      found.group_size > 1 && !exported ? h("a", { href: link("run", run, "group", { group: found.group_id }) }, `all ${found.group_size} attempts of its group`) : null),
    found.error ? h("details.trouble", { open: !found.steps }, h("summary", h("b", found.error)), found.traceback ? h("pre", found.traceback) : null) : null);
}

// A bar a turn: its reward up or down, and the sum so far as a line. Long episodes share bars.
function strips(track, strip, state, choose) {
  const high = 56, mid = 30, widest = 56;
  let bars = [];
  const draw = () => {
    if (!track.clientWidth) return;
    // A few turns do not become walls.
    const width = Math.min(track.clientWidth, strip.length * widest);
    const shown = Math.min(strip.length, Math.floor(width / 3));
    const each = strip.length / shown;
    let sum = 0, known = true;
    const sums = strip.map((one) => { if (one.answered) { if (one.reward === null) known = false; else sum += one.reward; } return known ? sum : null; });
    const most = Math.max(...strip.map((one) => Math.abs(one.reward || 0)), 1e-9);
    const told = sums.filter((v) => v !== null);
    const low = Math.min(0, ...told), span_of = Math.max(0, ...told) - low || 1;
    const x = (i) => ((i + 0.5) / strip.length) * width;
    const svg = s("svg", { width, height: high, role: "img", "aria-label": `Reward of each of ${strip.length} turns, and their sum, which ends at ${number(sums[sums.length - 1])}` });
    bars = [];
    for (let b = 0; b < shown; b += 1) {
      const part = strip.slice(Math.floor(b * each), Math.max(Math.floor(b * each) + 1, Math.floor((b + 1) * each)));
      const peak = part.reduce((best, one) => (Math.abs(one.reward || 0) > Math.abs(best.reward || 0) ? one : best), part[0]);
      const value = peak.reward || 0;
      const size = Math.max(value ? 2 : 0, (Math.abs(value) / most) * 22);
      const left = (b / shown) * width, wide = width / shown;
      const unknown = part.some((one) => one.answered && one.reward === null);
      const bar = s("g", { "data-from": Math.floor(b * each) }, s("rect.back", { x: left, y: 0, width: wide, height: high }),
        unknown ? s("text.unknown", { x: left + wide / 2, y: mid + 4, "text-anchor": "middle" }, "?") : s(`rect.${value < 0 ? "minus" : value > 0 ? "plus" : "none"}`, { x: left + wide * 0.15, y: value < 0 ? mid : mid - Math.max(size, 1), width: Math.max(1, wide * 0.7), height: Math.max(size, 1), rx: 1 }));
      bar.addEventListener("click", () => choose(Math.floor(b * each)));
      bars.push(bar);
      svg.append(bar);
    }
    svg.append(s("path.sum", { d: sums.map((v, i) => (v === null ? "" : `${i && sums[i - 1] !== null ? "L" : "M"}${x(i).toFixed(1)} ${(high - 4 - ((v - low) / span_of) * (high - 8)).toFixed(1)}`)).join("") }));
    replace(track, svg);
    mark(state.at);
  };
  const mark = (at) => bars.forEach((bar, i) => bar.classList.toggle("now", at >= Number(bar.dataset.from) && (i + 1 >= bars.length || at < Number(bars[i + 1].dataset.from))));
  track.mark = mark;
  new ResizeObserver(draw).observe(track);
  draw();
}

// Only the rows in sight are elements, however many turns there are.
function turnList(strip, state, choose) {
  const inner = h("div.inner", { style: { height: `${strip.length * ROW}px` } });
  const element = h("div.list", { tabindex: "0", role: "listbox", "aria-label": "Turns" }, inner);
  let drawn = "";
  const draw = () => {
    const from = Math.max(0, Math.floor(element.scrollTop / ROW) - 6);
    const to = Math.min(strip.length, Math.ceil((element.scrollTop + (element.clientHeight || 600)) / ROW) + 6);
    if (drawn === `${from} ${to} ${state.at}`) return;
    drawn = `${from} ${to} ${state.at}`;
    replace(inner, strip.slice(from, to).map((one, k) => row(one, from + k)));
  };
  const row = (one, i) => h("div.turn", { role: "option", "aria-selected": String(i === state.at), style: { top: `${i * ROW}px` }, onclick: () => choose(i) },
    h("span.number", i), h("span.what", one.answered ? one.action || "(empty)" : `the end: ${one.ending}`), one.calls ? h("span.soft", { title: `${one.calls} calls` }, "⚙") : null, one.answered ? reward(one.reward) : null);
  element.addEventListener("scroll", draw, { passive: true });
  const sized = new ResizeObserver(draw);
  sized.observe(element);
  return {
    element,
    stop: () => sized.disconnect(),
    mark(at) {
      const top_of = at * ROW;
      if (top_of < element.scrollTop || top_of + ROW > element.scrollTop + element.clientHeight) element.scrollTop = Math.max(0, top_of - element.clientHeight / 2);
      draw();
    },
  };
}
