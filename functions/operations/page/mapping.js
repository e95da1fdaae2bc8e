// ---------------------------------------------------------------- mapping: what a mapping makes of a payload; nothing is stored or sent
let mappings = null;  // as they are stored, and after how many seconds every function uses them
let expressionOf = null;  // the mapping whose expression was put into the field

function forgetMapping() {
  mappings = expressionOf = null;
  for (const id of ["try-payload", "try-expression"]) $(id).value = "";
  clear("try-mapping", "try-active", "try-result", "try-from", "try-store");
}
const mayReadPayloads = () => glance !== null && glance.scopes.includes("operations:payload");
// A flow's own mapping is called by the flow's name, a source's by the source's and the number of its entry.
const isOfSource = (name) => name.includes("/");
const mappingPath = (name) => isOfSource(name) ? "/sources/try" : "/mappings/try";
// The payload goes as it is typed: in JavaScript a long number would become another one.
function questionOf(name, payload, expression) {
  const [source, entry] = name.split("/"), about = isOfSource(name) ? {source, entry: Number(entry)} : {flow: name};
  return `${JSON.stringify(expression ? {...about, expression} : about).slice(0, -1)},"payload":${payload}}`;
}

// A refresh leaves what somebody has typed as it is.
async function loadMapping(requestId, isRefresh = false) {
  const {signal} = session, address = location.hash;
  const [own, ofSources] = await Promise.all([ask("/mappings/try", {}), ask("/sources/try", {})]);
  if (signal.aborted || location.hash !== address) return;
  mappings = {all: [...ofSources.mappings, ...own.mappings], usedAfter: own.used_after};
  const chosen = $("try-mapping").value;
  redraw($("try-mapping"), mappings.all.map((one) => one.name), () => mappings.all.map((one) => make("option", {value: one.name}, nameOf(one))));
  if (mappings.all.some((one) => one.name === chosen)) $("try-mapping").value = chosen;
  if (requestId && !isRefresh) await takePayload(requestId);
  else if (!isRefresh) redraw($("try-from"), null, () => [hintOfPayload()]);
  chooseMapping();
}
const nameOf = (one) => isOfSource(one.name) ? `Source ${one.name.split("/")[0]}: ${label(one.flow)}${one.when ? `, if ${one.when}` : ""}` : label(one.flow);
const hintOfPayload = () => make("span", {}, "Paste what the sender sends. An event in quarantine has a link to this page in the list.");

// The payload of an event in quarantine; of a refused request only its form is kept, with kinds in place of values.
async function takePayload(id) {
  const one = await ask(`/requests/${id}`);
  const own = mappings.all.filter((other) => other.name.startsWith(`${one.sender}/`));
  const routed = mappings.all.find((other) => FLOWS[other.flow]?.route === one.route);
  if (one.route.startsWith("POST /in/") ? own.length : routed)
    $("try-mapping").value = (one.route.startsWith("POST /in/") ? (own.find((other) => one.mapping === `${one.sender} ${other.version}`) ?? own[0]) : routed).name;
  $("try-payload").value = one.payload !== undefined ? JSON.stringify(one.payload, null, 2) : one.shape === null ? "" : JSON.stringify(one.shape, null, 2);
  const what = one.payload !== undefined ? "This is what the sender sent."
    : one.state === "quarantined" && !mayReadPayloads() ? "Kinds stand in place of values: only a key with the scope operations:payload may see the values."
    : "Kinds stand in place of values: the values of this request were not kept. Replace the kinds with invented values.";
  redraw($("try-from"), [id, what], () => [make("span", {}, `${label(one.state)} request ${[one.id, ...one.ids].join(", ")}. ${what}`)]);
}

const chosenMapping = () => mappings?.all.find((one) => one.name === $("try-mapping").value);
function chooseMapping() {
  const one = chosenMapping();
  if (!one) return;
  if (expressionOf !== one.name) {
    $("try-expression").value = one.expression ?? "";
    expressionOf = one.name;
    clear("try-result", "try-store");
  }
  redraw($("try-active"), one, () => activeSince(one));
}
function activeSince(one) {
  if (!one.is_readable) return [`Whether there is a mapping cannot be seen here. ${commandLine(`mapping show ${glance.tenant} ${one.name}`)} shows it.`];
  if (one.version === null) return ["There is no mapping yet: what is sent must be what the flow takes."];
  const samples = one.samples.length ? ` ${count(one.samples.length, "sample")}.` : " No samples.";
  return [`Version ${one.version} `, ...(one.stored_at ? [`is active since ${exact(one.stored_at)}`] : ["is active; since when is not known"]), `.${samples}`];
}

async function tryMapping() {
  const one = chosenMapping();
  if (!one) return;
  clear("try-result", "try-store");
  const payload = $("try-payload").value;
  try {
    JSON.parse(payload);
  } catch (error) {
    $("try-payload").focus();
    return drawTrial([make("h3", {}, "The payload is not JSON"), make("p", {class: "problem"}, error.message)]);
  }
  const expression = $("try-expression").value.trim();
  const {trial} = await ask(mappingPath(one.name), questionOf(one.name, payload, expression && expression !== one.expression ? expression : null));
  drawTrial(result(trial));
  redraw($("try-store"), [one.name, expression], () => expression && trial.is_valid && expression !== one.expression ? storing(one) : []);
}
const drawTrial = (parts) => $("try-result").replaceChildren(...parts);
function result(trial) {
  const title = trial.command === null ? "No command" : trial.is_valid ? `A valid command for ${label(trial.flow).toLowerCase()}` : "Not a valid command";
  const wrong = trial.samples.filter((one) => !one.is_as_expected);
  const words = (one) => (one.errors.length ? one.errors.map((other) => `${other.field} ${other.message}`) : one.differences.map((other) => other.field)).join(", ");
  return [
    make("h3", {id: "try-title", class: trial.is_valid ? "good" : "problem"}, title),
    trial.errors.length ? make("ul", {id: "try-errors", class: "problem"}, ...trial.errors.map((one) => make("li", {}, make("strong", {}, one.field), ` ${one.message}`))) : null,
    trial.command === null ? null : make("pre", {id: "try-command"}, JSON.stringify(trial.command, null, 2)),
    trial.differences.length ? make("div", {}, make("h3", {}, "Differences to the active version"), differences(trial.differences)) : null,
    trial.not_read.length ? make("p", {id: "try-not-read"}, make("strong", {}, "Not read: "), trial.not_read.join(", ")) : null,
    trial.samples.length ? make("p", {id: "try-samples", class: wrong.length ? "problem" : null}, wrong.length
      ? wrong.map((one) => `The result of the sample ${one.name} differs: ${words(one)}.`).join(" ") : `${count(trial.samples.length, "sample")} as expected.`) : null,
  ].filter((part) => part !== null);
}
const valueOf = (value) => value === null || value === undefined ? make("span", {class: "dim"}, "nothing") : typeof value === "string" ? value : JSON.stringify(value);
function differences(found) {
  const cell = (tag, ...content) => make(tag, tag === "th" ? {scope: "col"} : {}, ...content);
  return make("div", {class: "scrolls", tabindex: "0", role: "region", "aria-label": "Differences to the active version"}, make("table", {id: "try-differences"},
    make("thead", {}, make("tr", {}, cell("th", "Field"), cell("th", "Active"), cell("th", "Tried"))),
    make("tbody", {}, ...found.map((one) => make("tr", {}, cell("td", one.field), cell("td", valueOf(one.active)), cell("td", valueOf(one.tried)))))));
}
// The settings are secrets of AWS, which no route writes; so whoever may do that types it.
function storing(one) {
  return [make("p", {}, "Nothing was stored. To store this expression, save it in a file, and type:"),
    make("pre", {id: "try-command-line"}, commandLine(`mapping set ${glance.tenant} ${one.name} expression.jmes`)),
    view.request ? make("p", {}, "Then send the event again:") : null,
    view.request ? make("pre", {id: "try-resend"}, commandLine(`requests ${glance.tenant} ${view.request} resend`)) : null,
    make("p", {class: "dim small"}, `Every function uses it within ${mappings.usedAfter} seconds. It is not stored if the result of a sample differs.`),
    make("button", {type: "button", id: "try-save", class: "quiet", onclick: () => download("expression.jmes", "text/plain", `${$("try-expression").value.trim()}\n`)}, "Save the expression")].filter((part) => part !== null);
}
$("try-back").addEventListener("click", () => { location.hash = lastList; });
$("try-mapping").addEventListener("change", chooseMapping);
$("try").addEventListener("submit", (event) => {
  event.preventDefault();
  attempt(tryMapping);
});
// In a text field Tab must lead on, so what submits is Ctrl or Cmd with Enter.
$("try").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("try").requestSubmit();
});
