// ---------------------------------------------------------------- attempts: what was sent, what came back, and where the event came from
const opened = new Set();  // the attempts that somebody has opened, which a refresh keeps open
let origins = [];  // the requests with the same ids that are kept

function forgetAttempts() {
  opened.clear();
  origins = [];
}
const took = (milliseconds) => milliseconds < 1000 ? `${milliseconds} ms` : `${(milliseconds / 1000).toFixed(1)} s`;
const outcomeOf = (call) => call.error ?? String(call.status);
const pathOf = (call) => `${call.method} ${call.path}`.trim();
const readableBody = (text) => {  // one that was cut is no JSON any more
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
};

// The latest first. The list of calls is in the order of time, since one follows from the other.
function attempts(one) {
  if (!one.exchanges.length) return [make("p", {class: "dim"}, "No calls are kept. Those of failed attempts are kept for 30 days, those of successful ones as the tenant's settings say (keep_exchanges_days).")];
  return one.exchanges.map((exchange, place) => {
    const last = exchange.calls.at(-1), name = `${exchange.at} ${place}`;
    const details = make("details", {class: "attempt", open: opened.has(name), "data-attempt": place, ontoggle: (event) => event.target.open ? opened.add(name) : opened.delete(name)},
      make("summary", {}, make("strong", {}, label(exchange.event)), " ", make("span", {class: "dim small"}, when(exchange.at)),
        make("span", {class: "call small"}, `${pathOf(last)}: ${outcomeOf(last)}, ${took(last.milliseconds)}`)));
    const calls = exchange.calls.map((call) => make("li", {}, make("code", {}, pathOf(call)), ` ${outcomeOf(call)}, ${took(call.milliseconds)}, `, when(call.at)));
    details.append(
      ...(calls.length + exchange.left_out > 1 ? [make("h3", {}, exchange.left_out ? `The last calls (${exchange.left_out.toLocaleString()} earlier ones are not kept)` : "Calls"), make("ol", {class: "calls small"}, ...calls)] : []),
      ...bodyOf(exchange, "request", "Request"), ...bodyOf(exchange, "response", "Response"));
    return details;
  });
}
function bodyOf(exchange, name, title) {
  const why = !(name in exchange) ? "It may be about people, so only a key with the scope operations:payload shows it."
    : exchange[name] ? null
    : exchange.event === "done" || exchange.event === "found" ? "It is not kept for a successful attempt."
    : name === "response" && exchange.calls.at(-1).error ? "None came." : "It is empty, or not kept because it may have a password.";
  const words = why === null ? make("pre", {"data-body": name}, readableBody(exchange[name])) : make("p", {class: "dim small"}, why);
  return [make("h3", {}, title), words];
}

// The requests that carried this event's ids: those that were refused before it, or from whose quarantine it comes.
async function loadOrigins(one) {
  const ids = [...new Set((keyParts(one) ?? [[null, one.event_key]]).filter(([name]) => name !== "fingerprint" && !name?.endsWith("_at")).map(([, value]) => value))];
  const found = new Map();
  for (const id of ids.slice(0, 2))
    for (const request of (await ask(`/requests?limit=10&id=${encodeURIComponent(id)}`)).requests) found.set(request.id, request);
  return [...found.values()];
}
function cameFrom(one) {
  if (!origins.length) return null;
  const rows = origins.map((request) => {
    const its = request.operation_id === one.operation_id ? request.state === "sent" ? "This event comes from it." : "It was about this event." : "It carried the same id.";
    return make("li", {"data-request": request.id}, badge(request.state), " ", make("span", {class: "dim small"}, when(request.received_at)),
      make("div", {class: "small"}, `${request.route}, ${request.sender}: ${[`${request.status} ${request.problem}`, ...request.errors.map((wrong) => `${wrong.field} ${wrong.message}`)].join("; ")}`),
      make("div", {class: "dim small"}, its, " ", make("a", {href: addressOf({id: request.id})}, "Show the request")));
  });
  return make("section", {class: "card"}, make("h2", {}, "Requests with the same id"), make("ul", {id: "origins"}, ...rows));
}
