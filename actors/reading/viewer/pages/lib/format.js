// Numbers, times and names as people read them. Unknown is "–", never 0.

const MINUS = "−";

export function number(value, digits = 2) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  const size = Math.abs(value);
  let text;
  if (size !== 0 && (size >= 1e6 || size < 0.5 * 10 ** -digits)) text = value.toExponential(1);
  else if (Number.isInteger(value)) text = String(value);
  else text = value.toFixed(size >= 1000 ? 0 : digits);
  return text.replace("-", MINUS);
}

export function signed(value, digits = 2) {
  if (value === null || value === undefined) return "–";
  return value > 0 ? `+${number(value, digits)}` : number(value, digits);
}

// As it was measured, all digits.
export function exact(value) {
  return value === null || value === undefined ? "unknown" : String(value).replace("-", MINUS);
}

export function count(value) {
  if (value === null || value === undefined) return "–";
  return Number(value).toLocaleString("en").replaceAll(",", "\u202f");
}

export function bytes(value) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let size = value, unit = 0;
  while (size >= 1000 && unit < units.length - 1) { size /= 1000; unit += 1; }
  return `${unit ? size.toFixed(1) : size} ${units[unit]}`;
}

export function span(seconds) {
  if (seconds === null || seconds === undefined || !(seconds >= 0)) return "–";
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 90) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  if (seconds < 5400) return `${(seconds / 60).toFixed(1)} min`;
  if (seconds < 172800) return `${(seconds / 3600).toFixed(1)} h`;
  return `${(seconds / 86400).toFixed(1)} days`;
}

export function moment(seconds, withSeconds = false) {
  if (!seconds) return "–";
  const at = new Date(seconds * 1000);
  const two = (n) => String(n).padStart(2, "0");
  const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
  return `${day} ${two(at.getHours())}:${two(at.getMinutes())}${withSeconds ? `:${two(at.getSeconds())}` : ""}`;
}

export function ago(seconds) {
  if (!seconds) return "–";
  const past = Date.now() / 1000 - seconds;
  if (past < 60) return "just now";
  if (past < 3600) return `${Math.floor(past / 60)} min ago`;
  if (past < 86400) return `${Math.floor(past / 3600)} h ago`;
  if (past < 30 * 86400) return `${Math.floor(past / 86400)} days ago`;
  return moment(seconds).slice(0, 10);
}

export function percent(value) {
  return value === null || value === undefined ? "–" : `${(100 * value).toFixed(value < 0.1 ? 1 : 0)} %`;
}

// "envs:Office-v0" is read as "Office"; the whole name stands in its title.
export function worldName(id) {
  return String(id || "no world").replace(/^.*:/, "").replace(/-v\d+$/, "");
}

export function mean(found) {
  if (!found || found.mean === null || found.mean === undefined) return "–";
  const half = found.half === null || found.half === undefined ? "" : ` ± ${number(found.half)}`;
  return `${number(found.mean)}${half}`;
}
