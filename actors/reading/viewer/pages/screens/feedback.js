// What a person thinks of a turn, an episode or a group: it goes into the store as signals of source human.

import { mayWrite, post } from "../lib/api.js";
import { h, replace, say } from "../lib/dom.js";

const CLOSED = "To write feedback, open the address that ./xp view printed: it holds a token.";

export function rated(run, key, turn) {
  if (!mayWrite()) return h("p.note.feedback", CLOSED);
  const told = h("p.note", { role: "status" });
  const comment = h("textarea", { rows: 2, "aria-label": "comment", placeholder: "why (optional)" });
  const whole = h("input", { type: "radio", name: "about", value: "episode", checked: true });
  const one = h("input", { type: "radio", name: "about", value: "turn" });
  const send = async (rating) => {
    const said = { key, comment: comment.value, ...(rating === null ? {} : { rating }), ...(one.checked ? { turn: turn.number } : {}) };
    try {
      const done = await post(["runs", run, "feedback"], said);
      told.textContent = `Kept: ${done.names.join(", ")}.`;
      comment.value = "";
    } catch (error) { told.textContent = error.message; }
  };
  const button = (word, name, rating) => h("button", { type: "button", title: name, "aria-label": name, onclick: () => send(rating) }, word);
  return h("form.feedback", { onsubmit: (event) => event.preventDefault() }, h("h3", "Your feedback"),
    h("div.about-what", h("label", whole, " the episode"), turn.done ? h("label", one, " this turn") : null),
    h("div.ratings", button("Bad", "rate it 0", 0), button("So so", "rate it 0.5", 0.5), button("Good", "rate it 1", 1), button("Comment only", "keep the comment", null)), comment, told);
}

export function preferred(run, keys) {
  const place = h("p.note", { role: "status" });
  const choose = (key) => async () => {
    if (!mayWrite()) { say(CLOSED); return; }
    try {
      const done = await post(["runs", run, "feedback"], { preferred: key, over: keys.filter((one) => one !== key) });
      replace(place, `Kept: this attempt is preferred over ${done.written - 1} others.`);
      say("Kept.");
    } catch (error) { replace(place, error.message); }
  };
  return { place, choose };
}
