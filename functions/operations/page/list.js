// ---------------------------------------------------------------- list: its address, filters, rows and export
const SPANS = {"": ["Any time", 0], "1h": ["In the last hour", 1], "24h": ["In the last 24 hours", 24], "7d": ["In the last 7 days", 168]};
const FILTERS = {  // what an address may say, and which values of it are valid
  id: (value) => value.length <= 1000,
  state: (value) => STATES.includes(value) || value === QUARANTINED,
  flow: (value) => Object.hasOwn(FLOWS, value),
  since: (value) => Object.hasOwn(SPANS, value),
  changed: (value) => value === "true",
  text: (value) => value.length <= 200,
};
const QUARANTINED = "quarantined";  // a state of requests: they have no operation yet
const PAGE = 50, MOST_ROWS = 1000;
let view = {}, rows = [], refused = [], next = null;
let isSearch = false;  // whether the first row gets the focus when the list is there

// Returns null for an address that the page does not know.
function viewOf(address) {
  if (/^op_[0-9a-f]{32}$/.test(address)) return {operation: address};
  if (/^mapping(\/req_[0-9a-f]{32})?$/.test(address)) return {mapping: true, request: address.split("/")[1]};
  const entries = [...new URLSearchParams(address)];
  return entries.every(([name, value]) => Object.hasOwn(FILTERS, name) && FILTERS[name](value)) ? Object.fromEntries(entries.filter(([, value]) => value)) : null;
}
function addressOf(wanted) {
  const set = Object.keys(FILTERS).filter((name) => wanted[name]).map((name) => [name, wanted[name]]);
  return `#${new URLSearchParams(set)}`;
}
const isFiltered = () => Object.keys(FILTERS).some((name) => view[name]);
function forgetList() {
  view = {};
  rows = [];
  refused = [];
  next = null;
  clear("list", "refused", "none", "count", "list-error");
  $("list-error").hidden = $("none").hidden = true;
  delete $("list").dataset.address;
}

$("flow").append(make("option", {value: ""}, "All flows"), ...Object.keys(FLOWS).sort().map((name) => make("option", {value: name}, label(name))));
$("since").append(...Object.entries(SPANS).map(([value, [words]]) => make("option", {value}, words)));
function fillFilters() {
  for (const [id, name] of [["wanted", "id"], ["flow", "flow"], ["since", "since"], ["changed", "changed"], ["text", "text"]])
    if ($(id).value !== (view[name] || "")) $(id).value = view[name] || "";
  $("clear").hidden = !isFiltered();
  $("overview").classList.toggle("filtered", isFiltered());
}
function apply() {
  const id = $("wanted").value.trim();
  const isOther = (id && id !== view.id) || (view.state === QUARANTINED && ($("flow").value || $("changed").value));
  const state = isOther ? "" : view.state;  // an id is found in whichever state it is; a request has no flow
  const address = addressOf({id, state, flow: $("flow").value, since: $("since").value, changed: $("changed").value, text: $("text").value.trim()});
  if (address === `#${location.hash.slice(1)}`) attempt(() => show());
  else location.hash = address;
}
$("search").addEventListener("submit", (event) => {
  event.preventDefault();
  isSearch = true;
  apply();
});
for (const id of ["flow", "since", "changed", "text"]) $(id).addEventListener("change", apply);
$("clear").addEventListener("click", () => {
  location.hash = "";
  $("wanted").focus();
});

function query(wanted, limit, after) {
  const parameters = new URLSearchParams();
  for (const name of wanted.state === QUARANTINED ? ["id", "state"] : ["id", "state", "flow", "changed"]) if (wanted[name]) parameters.set(name, wanted[name]);
  if (wanted.since) parameters.set(wanted.state === QUARANTINED ? "from" : "since", new Date(now() - SPANS[wanted.since][1] * 3600_000).toISOString());
  parameters.set("limit", limit);
  if (after) parameters.set("after", after);
  return `/${wanted.state === QUARANTINED ? "requests" : "operations"}?${parameters}`;
}
const matches = (one) => !view.text || [one.event_key, keyOf(one), reasonOf(one)].some((words) => words.toLowerCase().includes(view.text.toLowerCase()));
const shownRows = () => rows.filter(matches);
const numberRead = () => view.state === QUARANTINED ? refused.length : rows.length;

// Reads as many rows as there were before, so that a refresh does not fold up what "Show more" has opened.
async function loadList(wanted = PAGE) {
  const {signal} = session, address = location.hash;
  const isOther = $("list").dataset.address !== address;
  $("list").setAttribute("aria-busy", String(isOther));
  if (isOther) {
    $("count").textContent = "Loading …";
    $("none").hidden = true;
  }
  const found = new Map();
  let after = null, requests = [];
  try {
    do {
      const page = await ask(query(view, Math.min(100, wanted - found.size), after));
      for (const one of page.operations ?? page.requests) found.set(one.id ?? one.operation_id, one);
      after = page.next;
    } while (after && found.size < wanted);
    if (view.state === QUARANTINED) {
      requests = [...found.values()];
      found.clear();
    } else if (view.id) requests = (await ask(`/requests?id=${encodeURIComponent(view.id)}`)).requests;
  } catch (error) {
    if (signal.aborted || location.hash !== address || view.operation) throw error;
    if ($("list").dataset.address !== address) {  // rows of another list must not stand under this one's error
      rows = [];
      refused = [];
      next = null;
      drawList();
    }
    $("count").textContent = "";
    $("list-error").textContent = rows.length ? `${wordsOf(error)} The rows below are older.` : wordsOf(error);
    $("list-error").hidden = false;
    $("none").hidden = true;
    $("list").removeAttribute("aria-busy");
    if (error instanceof Refused && error.status === 401) throw error;
    return;
  }
  if (location.hash !== address) return;
  rows = [...found.values()];
  refused = requests;
  next = after;
  $("list").dataset.address = address;
  $("list-error").hidden = true;
  $("list").removeAttribute("aria-busy");
  drawList();
}
function drawList() {
  const shown = shownRows(), list = $("list"), focused = document.activeElement, place = [...list.children].findIndex((row) => row.contains(focused));
  const there = new Map([...list.children].map((row) => [row.firstChild.dataset.operation, row]));
  shown.forEach((one, at) => {
    const row = there.get(one.operation_id) ?? make("li", {}, make("a", {href: `#${one.operation_id}`, "data-operation": one.operation_id}));
    there.delete(one.operation_id);
    redraw(row.firstChild, one, () => [
      badge(one.state),
      make("span", {class: "what"}, `${label(one.flow)} `, make("strong", {}, keyOf(one))),
      make("span", {class: "dim small changed"}, when(one.updated_at)),
      make("span", {class: "small why"}, reasonOf(one), ...(one.due_at && one.state !== "sending" ? [", next ", when(one.due_at)] : []), ...(one.changed ? [". Different payload not applied: ", when(one.changed.at)] : [])),
    ]);
    if (list.children[at] !== row) list.insertBefore(row, list.children[at] ?? null);
  });
  for (const row of there.values()) row.remove();
  if (place >= 0 && document.activeElement !== focused)
    (list.contains(focused) ? focused : list.children[Math.min(place, list.children.length - 1)]?.firstChild)?.focus({preventScroll: true});
  redraw($("refused"), refused, () => refused.map(requestRow));
  const number = shown.length + refused.length;
  const found = isFiltered() ? `${number.toLocaleString()} found${next ? ", more not read yet" : ""}` : next ? `the first ${number}` : "";
  if ($("count").textContent !== found) $("count").textContent = found;  // it is read aloud
  $("more").hidden = !next || numberRead() >= MOST_ROWS;
  $("none").hidden = number > 0;
  redraw($("none"), [view, Boolean(next)], nothing);
  $("export-csv").disabled = $("export-json").disabled = !shown.length;
  $("retry-all").hidden = !mayRetryAll();
}
// A request that was refused, or is in quarantine: it has no operation.
function requestRow(one) {
  const reasons = [`${one.status} ${one.problem}`, ...one.errors.map((wrong) => `${wrong.field} ${wrong.message}`), one.id];
  return make("li", {"data-request": one.id},
    badge(one.state),
    make("span", {class: "what"}, `${one.route === "POST /in/{tenant}/{source}" ? `From ${one.sender}` : one.route} `, make("strong", {}, one.ids.join(", "))),
    make("span", {class: "dim small changed"}, when(one.received_at)),
    make("span", {class: "small why"}, reasons.join("; "), " ", one.problem === "invalid" ? make("a", {href: `#mapping/${one.id}`}, "Try a mapping") : ""));
}
function nothing() {
  if (!isFiltered()) return [make("strong", {}, "No event has come yet."), "Events of your CRM appear here as soon as the bridge accepts them."];
  const words = [];
  if (view.id) words.push(`the id ${view.id}`);
  if (view.state) words.push(`the state ${label(view.state).toLowerCase()}`);
  if (view.flow) words.push(`the flow ${label(view.flow).toLowerCase()}`);
  if (view.since) words.push(`a change ${SPANS[view.since][0].toLowerCase()}`);
  if (view.changed) words.push("a different payload that was not applied");
  if (view.text) words.push(`“${view.text}” in its key or reason`);
  const hint = view.id ? "Ids of other systems are written system/entity/id. A request without an API key is not kept." : next ? "Press Show more to read more rows." : "";
  if (view.state === QUARANTINED) return [make("strong", {}, "No event in quarantine found."), next ? "Press Show more to read more rows." : ""];
  return [make("strong", {}, `No operation found with ${words.join(", ")}.`), hint];
}
$("more").addEventListener("click", () => attempt(() => loadList(numberRead() + PAGE)));

// ---- export
const COLUMNS = ["operation_id", "flow", "event_key", "state", "last_event", "reason", "vendor_status", "due_at", "created_at", "updated_at"];
// A spreadsheet must not run what a customer's id begins with; the same rule as in cli/cells.py.
const escaped = (cell) => String(cell ?? "").replace(/(?:^|(?<=[;\t]))(?='*[=+@\-\t\r\n\0\uff1d\uff0b\uff0d\uff20])/g, "'");
const cell = (value) => `"${escaped(value).replaceAll('"', '""')}"`;
function csv(operations) {
  const line = (one) => ({...one, last_event: one.last_attempt?.event, reason: one.last_attempt?.reason, vendor_status: one.last_attempt?.vendor_status});
  return [COLUMNS, ...operations.map(line).map((one) => COLUMNS.map((name) => one[name]))].map((values) => `${values.map(cell).join(",")}\r\n`).join("");
}
function download(name, kind, content) {
  const address = URL.createObjectURL(new Blob([content], {type: kind}));
  make("a", {href: address, download: name}).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
function save(name, kind, content) {
  download(name, kind, content);
  say(`${count(shownRows().length, "operation")} exported${next ? "; there are more that are not listed yet" : ""}.`);
}
$("export-csv").addEventListener("click", () => save("operations.csv", "text/csv", csv(shownRows())));
$("export-json").addEventListener("click", () => save("operations.json", "application/json", `${JSON.stringify(shownRows(), null, 2)}\n`));

