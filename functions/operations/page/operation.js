// ---------------------------------------------------------------- operation: what became of an event, and decisions
function forgetOperation() {
  clear("detail");
  forgetAttempts();
}
const back = (words = "← All operations") => make("p", {}, make("button", {type: "button", id: "back", onclick: () => { location.hash = lastList; }}, words));
function showProblem(title, words) {
  clear("detail");
  $("detail").append(make("section", {class: "card empty"}, make("strong", {}, title), make("p", {}, words), back("Show all operations")));
  $("back").focus();
}

async function loadOperation(id, quiet) {
  let one;
  try {
    one = await ask(`/operations/${id}`);
  } catch (error) {
    if (id === view.operation && !quiet && error instanceof Refused && error.status === 404)
      return showProblem("Operation not found", `${error.message} It may belong to another tenant than this key's, or have been deleted.`);
    if (id === view.operation && !quiet) showProblem("The operation cannot be shown", wordsOf(error));
    throw error;
  }
  const {signal} = session;
  if (id !== view.operation) return;
  // What the page can do without is not worth an error.
  if (!quiet) origins = await loadOrigins(one).catch(() => []);
  signal.throwIfAborted();
  if (id !== view.operation) return;
  const focused = $("detail").contains(document.activeElement) ? document.activeElement.id : null;
  $("as-of").textContent = `as of ${new Date(now()).toLocaleTimeString()}`;
  redraw($("detail"), [one, origins, mayDecide()], () => [
    back(),
    make("section", {class: "card"},
      make("h2", {}, badge(one.state, "state"), ` ${label(one.flow)} ${keyOf(one)}`),
      make("p", {id: "next", class: `next tinted ${one.state}`}, ...nextStep(one)),
      candidates(one), decisions(one)),
    make("div", {class: "two"},
      make("div", {},
        make("section", {class: "card"}, make("h2", {}, "Time line"), timeLine(one)),
        make("section", {id: "attempts", class: "card"}, make("h2", {}, "Calls to the vendor"), ...attempts(one)),
        make("section", {class: "card"}, make("h2", {}, "Details"), facts(one))),
      make("div", {},
        make("section", {class: "card"}, make("h2", {}, "Event"), request(one)),
        ...[cameFrom(one)].filter(Boolean),
        make("section", {class: "card"}, make("h2", {}, "Result"), one.result ? make("pre", {}, JSON.stringify(one.result, null, 2)) : make("p", {class: "dim"}, one.due_at ? "None yet." : "None.")),
        make("section", {class: "card"}, make("h2", {}, "Links"), graph(one.links)))),
  ]);
  if (!quiet) ($(focused) ?? $("back")).focus({preventScroll: Boolean(focused)});
  else if (focused && !$("detail").contains(document.activeElement)) ($(focused) ?? $("back")).focus({preventScroll: true});
}

// What happens now, when, and whether a person has to do anything.
function nextStep(one) {
  const vendor = vendorOf(one), isRepeatable = FLOWS[one.flow]?.repeatable;
  const due = one.due_at && Date.parse(one.due_at) > now() ? [" ", when(one.due_at)] : [" within about two minutes"];
  const failing = glance?.vendors.find((other) => other.vendor === vendor && other.state === "failing");
  const outage = failing && failing.unsettled > 1 ? ` ${vendor} fails for ${count(failing.unsettled, "event")} at the moment.` : "";
  switch (one.state) {
    case "waiting": return [`Not done yet. The bridge sends it to ${vendor} again by itself`, ...due, `. Nothing has to be done by hand.${outage}`];
    case "unconfirmed": return isRepeatable
      ? [`It may be done. The bridge sends it again by itself`, ...due, `: to repeat it is harmless.${outage}`]
      : [`It may be done. The bridge looks at ${vendor}`, ...due, `, and links what it finds; it sends again only what is not there. Nothing has to be done by hand.${outage}`];
    case "sending": return [`A function is sending it right now. If that dies, the bridge takes it up again`, ...due, "."];
    case "needs_review": return [`A person has to decide: ${one.last_attempt?.reason || "see the time line"}. Nothing is sent until then.`];
    case "rejected": return [one.last_attempt?.event === "discarded" ? "Discarded: it is not sent." : `Not done, and not sent again by itself${one.last_attempt?.reason ? `: ${one.last_attempt.reason.replace(/\.$/, "")}` : ""}.`, " If the CRM sends the event again, it is sent."];
    default: return [`Done at ${vendor}. The same event is not sent again.${one.changed ? " It came again with a different payload, which was not applied: see Details." : ""}`];
  }
}
function facts(one) {
  const parts = keyParts(one), decided = [...one.attempts].reverse().find((attempt) => DECISIONS.includes(attempt.event));
  const rows = [
    ["Goes to", vendorOf(one)],
    ["Decided", decided && make("span", {id: "decided"}, `${label(decided.event)} ${decided.reason}, `, when(decided.at))],
    ["Next", one.due_at && one.state !== "needs_review" ? when(one.due_at) : null],
    ["Last changed", when(one.updated_at)],
    ["Not applied", one.changed && make("span", {id: "not-applied"}, `A different payload came ${count(one.changed.times, "time")}, last `, when(one.changed.at), `. ${FLOWS[one.flow]?.update ?? ""}`)],
    ["Accepted", when(one.created_at)],
    ["Flow", make("code", {}, one.flow)],
    ...(parts ?? []).map(([name, value]) => [label(name), value]),
    ["Event key", make("code", {}, one.event_key)],
    ["Mapping", one.mapping],
    ["Operation", make("code", {}, one.operation_id)],
  ];
  return make("dl", {}, ...rows.filter(([, value]) => value).flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
}
function timeLine(one) {
  const entry = (at, event, kind, ...more) => make("li", {class: kind}, make("strong", {}, label(event)), " ", make("span", {class: "dim small"}, when(at)), ...more);
  return make("ol", {class: "line"}, entry(one.created_at, "accepted", null), ...one.attempts.map((attempt) => entry(attempt.at, attempt.event,
    DECISIONS.includes(attempt.event) ? "person" : null,
    attempt.reason ? make("div", {}, attempt.reason) : null,
    attempt.vendor_status ? make("div", {class: "dim small"}, `${vendorOf(one)} returned ${attempt.vendor_status}`) : null)));
}
function request(one) {
  if (one.payload) return make("pre", {id: "payload"}, JSON.stringify(one.payload, null, 2));
  const why = "payload" in one ? "It is not kept once an event is done." : "It may be about people, so only a key with the scope operations:payload shows it.";
  return make("p", {class: "dim"}, why);
}
// This event and the records that may be its own, side by side.
function candidates(one) {
  if (!one.candidates.length) return null;
  const mayName = "payload" in one, name = one.payload?.name ?? null;
  const card = (title, kind, values, ...more) => make("li", {class: kind}, make("h3", {}, title),
    make("dl", {}, ...values.flatMap(([what, value]) => [make("dt", {}, what), make("dd", {}, value)])), ...more);
  return make("div", {},
    make("p", {}, `These records at ${vendorOf(one)} may be this event's. Compare them there. ${mayName ? "" : "Only a key with the scope operations:payload shows their names."}`),
    make("ul", {id: "candidates"},
      card("This event", "ours", [["Key", keyOf(one)], ...(mayName && name ? [["Name", String(name)]] : []), ["Accepted", exact(one.created_at)]]),
      ...one.candidates.map((found, place) => card(`Candidate ${place + 1}`, null,
        [["ID", found.id], ...(mayName ? [["Name", `${found.name || "(empty)"}${name && found.name === name ? " (the same)" : ""}`]] : []), ["Created", madeAt(found.created_at)]],
        mayDecide() ? make("button", {type: "button", id: `link-candidate-${place}`, class: "primary", onclick: () => decide(one, linking(one, found.id), found.id)}, `Link ${found.id} …`) : null))));
}
// As the vendor shows it; without a zone nobody knows which time it is.
const madeAt = (time) => !time ? "not known" : /(Z|[+-]\d\d:?\d\d)$/.test(time) && Date.parse(time) ? exact(time) : `${time} (no zone)`;
function graph(links) {
  if (!links.length) return make("p", {class: "dim"}, "None.");
  const nodes = new Map(), name = (end) => `${end.system} ${end.entity}`;
  for (const end of links.flat()) nodes.set(`${name(end)} ${end.id}`, end);
  const names = [...nodes.keys()], width = 420, tall = 78, height = names.length * tall;
  const picture = draw("svg", {viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": links.map(([left, right]) => `${name(left)} ${left.id} is ${name(right)} ${right.id}`).join("; ")});
  links.forEach(([left, right], place) => {
    const [from, to] = [names.indexOf(`${name(left)} ${left.id}`), names.indexOf(`${name(right)} ${right.id}`)].sort((a, b) => a - b);
    const side = to - from > 1 ? 330 + 20 * place : 60;
    const [y1, y2] = [from * tall + 52, to * tall + 6];
    picture.append(draw("path", {d: to - from > 1 ? `M300 ${y1 - 22} H${side} V${y2 + 24} H300` : `M${side} ${y1} V${y2}`, class: "edge", fill: "none"}));
  });
  names.forEach((one, place) => {
    const end = nodes.get(one), y = place * tall + 6;
    const short = end.id.length > 34 ? `${end.id.slice(0, 33)}…` : end.id;
    picture.append(draw("rect", {x: 1, y, width: 300, height: 46, rx: 6, class: "node"}, draw("title", {}, one)),
      drawText(12, y + 19, name(end), "start"), drawText(12, y + 37, short, "start", "name"));
  });
  return picture;
}

// ---- decisions. The safe one is prominent; what can make a duplicate or lose an event never is.
function linking(one, id = null) {
  const vendor = vendorOf(one), record = id === null ? "The record with the id below" : `${vendor}'s record ${id}`;
  return {action: "link", label: "Link existing", kind: "primary",
    what: `Look at ${vendor} first. ${record} is linked to ${eventOf(one)} if ${vendor} confirms the id. Nothing is made at ${vendor}.`};
}
const eventOf = (one) => `${label(one.flow)} ${keyOf(one)}`;
function choices(one) {
  const vendor = vendorOf(one), event = eventOf(one), isRepeatable = FLOWS[one.flow]?.repeatable;
  const retry = {action: "retry", label: "Retry", kind: isRepeatable ? "primary" : "", what: isRepeatable
    ? `${event} is sent to ${vendor} again, within about a minute. To repeat it is harmless.`
    : `${event} is sent to ${vendor} again, within about a minute. If ${vendor} has done it already, it will be there twice.`};
  const discard = {action: "discard", label: "Discard", kind: "danger",
    what: `${event} is not sent, and its payload is deleted here. If the CRM sends it again, it is sent to ${vendor} without a look.`};
  if (isRepeatable) return [retry, discard];
  return [one.candidates.length ? {...linking(one), label: "Link another", kind: ""} : linking(one), retry, discard];
}
function retryNow(one) {
  const vendor = vendorOf(one), event = eventOf(one);
  const how = FLOWS[one.flow]?.repeatable ? `It is sent to ${vendor}; to repeat it is harmless.`
    : one.state === "unconfirmed" ? `It looks at ${vendor} first, and sends only what is not there.`
    : `It sends it to ${vendor}. If ${vendor} may have done it in spite of its response, it looks there first.`;
  return {action: "retry", label: "Retry now", kind: "primary", done: "The bridge takes it up within about a minute.",
    what: `The bridge takes up ${event} within about a minute instead of at the time above. ${how} If ${vendor} is still down or asks to wait, it waits again.`};
}
function decisions(one) {
  const last = one.last_attempt && one.last_attempt.event;
  const isLinked = one.state === "succeeded" && (last === "linked" || last === "found");
  const waits = WAITS.includes(one.state);
  if ((isLinked || waits || one.state === "needs_review") && !mayDecide())
    return make("p", {id: "may-not-decide", class: "dim"}, "This key may look but not decide: that needs the scope operations:resolve.");
  const button = (choice) => make("button", {type: "button", id: `decide-${choice.action}`, class: choice.kind, onclick: () => decide(one, choice)}, `${choice.label} …`);
  if (isLinked)
    return make("div", {}, make("p", {}, "If the link is wrong:"), make("p", {}, button({action: "unlink", label: "Unlink", kind: "danger",
      what: `The links of ${eventOf(one)} are deleted, and it waits for a decision again. Nothing is sent to ${vendorOf(one)}. Its record stays, and so does what used the link, such as a job at that site.`})));
  if (waits) return make("p", {}, button(retryNow(one)));
  if (one.state !== "needs_review") return null;
  return make("div", {}, make("p", {}, one.candidates.length ? "Or, if none of them is it:" : `Look at ${vendorOf(one)}, then decide:`),
    make("div", {class: "row"}, ...choices(one).map(button)));
}
// `candidate` is the id that has to be typed, `doubted` one that the vendor could not verify.
function decide(one, choice, candidate = null, doubted = null) {
  const dialog = $("confirm"), isAgain = doubted !== null, isLink = choice.action === "link";
  $("confirm-title").textContent = `${choice.label}: ${keyOf(one)}`;
  $("confirm-what").textContent = choice.what;
  $("confirm-yes").textContent = choice.label;
  $("confirm-yes").className = choice.kind;
  $("confirm-no").className = choice.kind === "primary" ? "" : "primary";
  $("confirm-ask").hidden = !isLink || isAgain;
  $("vendor-id-label").textContent = candidate === null ? "The vendor's id of the record" : `Type ${candidate} to confirm`;
  $("vendor-id").required = isLink && !isAgain;
  $("vendor-id").value = doubted || "";
  $("confirm-again").hidden = !isAgain;
  $("vendor-id-again").required = isAgain;
  $("vendor-id-again").value = "";
  dialog.returnValue = "no";
  dialog.onclose = () => dialog.returnValue === "yes" && attempt(async () => {
    const id = $("vendor-id").value.trim();
    if ((isAgain && $("vendor-id-again").value.trim() !== id) || (candidate !== null && candidate !== id)) return say("The two ids are not the same. Nothing was changed.", true);
    let after;
    try {
      after = await ask(`/operations/${one.operation_id}/resolve`, {action: choice.action, ...(isLink ? {id} : {}), ...(isAgain ? {confirmed: true} : {})});
    } catch (error) {
      if (error instanceof Refused && error.mustConfirm) return decide(one, {...choice, kind: "danger", what: error.detail}, null, id);
      throw error;
    }
    await loadOperation(one.operation_id, false);
    say(choice.done ?? `Done: its state is ${label(after.state).toLowerCase()} now.`);
  });
  dialog.showModal();
  $(isAgain ? "vendor-id-again" : isLink ? "vendor-id" : "confirm-no").focus();
}
$("confirm-no").addEventListener("click", () => $("confirm").close("no"));

