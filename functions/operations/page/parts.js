// ---------------------------------------------------------------- parts: elements, words and times
const FLOWS = {/* by name */};
const STATES = ["needs_review", "unconfirmed", "waiting", "sending", "rejected", "succeeded"];
const MEANS = {
  needs_review: "Only a person can decide.",
  unconfirmed: "It may be done. The bridge looks at the vendor before it sends again.",
  waiting: "Surely not done. The bridge sends it again by itself.",
  sending: "It is being sent right now.",
  rejected: "Not done, and it will not be sent again by itself.",
  succeeded: "Done at the vendor.",
  quarantined: "No mapping made a valid event of it. It waits for a person, and is not counted in All.",
};
const DECISIONS = ["linked", "retry requested", "discarded", "unlinked", "made due"];  // events of an attempt that a person caused
const $ = (id) => document.getElementById(id);
let ahead = 0;  // milliseconds by which the bridge's clock is ahead of this machine's

// Whatever comes from the API is put in as text, never as markup.
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}
function draw(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}
function drawText(x, y, words, anchor, kind = "") {
  return draw("text", {x, y, "text-anchor": anchor, class: kind}, words);
}
// Draws only what differs from the last time: what somebody has selected, focused or scrolled to stays where it is.
const drawn = new WeakMap();
function redraw(element, data, build) {
  const text = JSON.stringify(data);
  if (drawn.get(element) === text) return false;
  drawn.set(element, text);
  element.replaceChildren(...build());
  return true;
}
function clear(...ids) {
  for (const id of ids) {
    drawn.delete($(id));
    $(id).replaceChildren();
  }
}

const label = (name) => name.replaceAll("_", " ").replace(/^./, (first) => first.toUpperCase());
const badge = (state, id = null) => make("span", {class: `badge ${state}`, title: MEANS[state] ?? null, id}, label(state));
const vendorOf = (one) => FLOWS[one.flow]?.vendor ?? "the vendor";
const isLocal = ["127.0.0.1", "localhost", "[::1]"].includes(location.hostname);
const commandLine = (words) => `crm-bridge ${words}${isLocal ? ` --local --port ${location.port}` : ""}`;
const count = (number, singular, plural = `${singular}s`) => `${number.toLocaleString()} ${number === 1 ? singular : plural}`;

// A key of several parts is stored as `a#b#c`, with # and % escaped; see `joined` in storage/links.py.
function keyParts(one) {
  const names = FLOWS[one.flow]?.key ?? [];
  const values = one.event_key.split("#").map((part) => part.replaceAll("%23", "#").replaceAll("%25", "%"));
  return values.length <= names.length ? values.map((value, place) => [names[place], readable(names[place], value)]) : null;
}
function readable(name, value) {
  if (!name.endsWith("_at")) return value;
  const digits = /^\d+$/.test(value) ? Number(value) : null;
  const time = new Date(digits === null ? value : digits > 1e14 ? digits / 1000 : digits > 1e11 ? digits : digits * 1000);
  return Number.isNaN(time.getTime()) ? value : exact(time);
}
function keyOf(one) {
  const parts = keyParts(one);
  return parts ? parts.filter(([name]) => name !== "fingerprint").map(([, value]) => value).join(" · ") : one.event_key;
}
const reasonOf = (one) => one.last_attempt ? [label(one.last_attempt.event), one.last_attempt.reason].filter(Boolean).join(": ") : "Accepted";

const now = () => Date.now() + ahead;
const EXACT = new Intl.DateTimeFormat(undefined, {dateStyle: "medium", timeStyle: "long"});
const RELATIVE = new Intl.RelativeTimeFormat(undefined, {numeric: "auto", style: "short"});
const exact = (time) => EXACT.format(new Date(time));
function ago(iso) {
  const seconds = Math.round((new Date(iso) - now()) / 1000);
  for (const [unit, size, below] of [["second", 1, 60], ["minute", 60, 60], ["hour", 3600, 48], ["day", 86400, 14]])
    if (Math.abs(seconds) / size < below) return RELATIVE.format(Math.trunc(seconds / size), unit).replace(/\.$/, "");  // a sentence may end with it
  return new Date(iso).toLocaleDateString(undefined, {dateStyle: "medium"});
}
// The time from now is read by eye; the exact one, with its zone, is there on hover and for screen readers.
function when(iso) {
  return make("time", {datetime: iso, title: exact(iso)}, make("span", {"aria-hidden": "true"}, ago(iso)), make("span", {class: "sr"}, exact(iso)));
}
function tick() {
  for (const time of document.querySelectorAll("time")) {
    const words = ago(time.dateTime);
    if (time.firstChild.textContent !== words) time.firstChild.textContent = words;
  }
}
let silence = null;
function say(text, isError = false) {
  clearTimeout(silence);
  $("message").textContent = text;
  $("message").classList.toggle("error", isError);
  if (text && !isError) silence = setTimeout(() => say(""), 8000);
}

