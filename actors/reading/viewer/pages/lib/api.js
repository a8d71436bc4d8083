// Asks the server, or, in an exported file, the data that the file holds.

const holder = document.getElementById("data");
const kept = holder ? JSON.parse(holder.textContent) : null;
const KEY = "xp-token";

export const exported = kept !== null;

export class Refused extends Error {
  constructor(status, error, hint) {
    super(error);
    this.status = status;
    this.hint = hint;
  }
}

export function address(parts, asked = {}) {
  const words = new URLSearchParams();
  for (const name of Object.keys(asked).sort()) {
    const value = asked[name];
    if (value !== undefined && value !== null && value !== "") words.set(name, String(value));
  }
  const query = [...words].length ? `?${words}` : "";
  return `/api/${parts.map((part) => encodeURIComponent(part)).join("/")}${query}`;
}

export async function get(parts, asked = {}, signal = undefined) {
  const where = address(parts, asked);
  if (exported) {
    // An exported file holds the answers that its pages need, without filters or further pages.
    const found = kept.answers[where] ?? kept.answers[where.split("?")[0]];
    if (found === undefined) throw new Refused(404, "This file does not hold that.", "./xp view shows the whole run");
    return found;
  }
  return answered(await fetch(where, { signal }));
}

export async function post(parts, said) {
  const token = localStorage.getItem(KEY) || "";
  const headers = { "content-type": "application/json", "x-xp-token": token };
  return answered(await fetch(address(parts), { method: "POST", headers, body: JSON.stringify(said) }));
}

async function answered(response) {
  let body = {};
  try { body = await response.json(); } catch { /* an empty answer says nothing more */ }
  if (!response.ok) throw new Refused(response.status, body.error || `the server answered ${response.status}`, body.hint || "");
  return body;
}

export function picture(run, hash) {
  if (exported) return kept.pictures[hash] || "";
  return `/blobs/${encodeURIComponent(run)}/${hash}`;
}

// Calls `changed` with what changed of a run, until the returned function is called.
export function live(run, changed) {
  if (exported) return () => {};
  const source = new EventSource(address(["runs", run, "live"]));
  source.onmessage = (event) => changed(JSON.parse(event.data));
  return () => source.close();
}

// The token stands in the fragment of the address that `./xp view` prints; it leaves the address.
export function keepToken() {
  const [path, query] = location.hash.split("?");
  const words = new URLSearchParams(query || "");
  const token = words.get("token");
  if (!token) return;
  localStorage.setItem(KEY, token);
  words.delete("token");
  history.replaceState(null, "", `${path || "#/"}${[...words].length ? `?${words}` : ""}`);
}

export const mayWrite = () => !exported && Boolean(localStorage.getItem(KEY));
