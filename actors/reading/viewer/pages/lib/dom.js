// Makes elements. Every text becomes a text node: nothing that a run holds is read as markup.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [k, v] of Object.entries(value)) element.style.setProperty(k, v);
    else if (name === "value" || name === "checked") element[name] = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  append(element, children);
  return element;
}

function append(element, children) {
  for (const child of children.flat(4)) {
    if (child === undefined || child === null || child === false || child === "") continue;
    element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

// h("div.card.wide", {id: "x"}, "text", h("b", "more")): attributes may be left out.
export function h(what, ...rest) {
  const [tag, ...classes] = what.split(".");
  const element = document.createElement(tag || "div");
  if (classes.length) element.className = classes.join(" ");
  return filled(element, rest);
}

// The same for SVG.
export function s(what, ...rest) {
  const [tag, ...classes] = what.split(".");
  const element = document.createElementNS(SVG, tag);
  if (classes.length) element.setAttribute("class", classes.join(" "));
  return filled(element, rest);
}

function filled(element, rest) {
  const first = rest[0];
  const plain = first && typeof first === "object" && !(first instanceof Node) && !Array.isArray(first);
  return fill(element, plain ? first : {}, plain ? rest.slice(1) : rest);
}

export function replace(element, ...children) {
  element.replaceChildren();
  append(element, children);
  return element;
}

// The address of a screen: link("run", name, "episodes", {world: "…"}).
export function link(...parts) {
  const last = parts[parts.length - 1];
  const asked = last && typeof last === "object" ? parts.pop() : {};
  const words = new URLSearchParams();
  for (const [name, value] of Object.entries(asked)) {
    if (value !== undefined && value !== null && value !== "") words.set(name, String(value));
  }
  const path = parts.map((part) => encodeURIComponent(part)).join("/");
  return `#/${path}${[...words].length ? `?${words}` : ""}`;
}

export function go(address) {
  if (location.hash === address) window.dispatchEvent(new Event("hashchange"));
  else location.hash = address;
}

// Changes the address without a new screen: links then lead to what is seen now.
export function renamed(address) {
  history.replaceState(null, "", address);
}

export function say(text) {
  const place = document.getElementById("said");
  place.textContent = text;
  place.classList.add("shown");
  clearTimeout(say.timer);
  say.timer = setTimeout(() => place.classList.remove("shown"), 3500);
}
