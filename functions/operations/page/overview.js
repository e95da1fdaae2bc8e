// ---------------------------------------------------------------- overview: the header, vendors, a day by the hour
let glance = null;
let quarantine = {count: 0, more: false};  // events of sources that no mapping made a command of

function forgetOverview() {
  glance = null;
  quarantine = {count: 0, more: false};
  ahead = 0;
  clear("attention", "vendors", "plot", "legend", "states");
}
const mayDecide = () => glance !== null && glance.scopes.includes("operations:resolve");
const vendorName = (one) => one.vendor === "webhook" ? "Webhooks to you" : one.vendor;

async function loadOverview() {
  const [summary, page] = await Promise.all([ask("/operations/summary"), ask(query({state: QUARANTINED}, 100))]);
  glance = summary;
  quarantine = {count: page.requests.length, more: page.next !== null};
  ahead = Date.parse(glance.at) - Date.now();
  if (Math.abs(ahead) < 5000) ahead = 0;
  $("where").textContent = `${glance.tenant} · ${glance.stage} · ${glance.region}`;
  $("where").title = "Tenant, stage and region";
  $("as-of").textContent = `as of ${new Date(now()).toLocaleTimeString([], {timeZoneName: "short"})}`;
  const known = glance.vendors.filter((one) => one.state !== "nothing known");
  redraw($("vendors"), known, () => known.length ? known.map(vendor) : [make("li", {class: "dim"}, "No outcome is known yet.")]);
  drawPlot();
  redraw($("attention"), [glance.states.needs_review, quarantine, known], () => attention(known.filter((one) => one.state === "failing")));
  drawStates();
}
function attention(failing) {
  const {count: waiting, more} = glance.states.needs_review, words = [];
  $("attention").classList.toggle("needs", waiting > 0 || quarantine.count > 0 || failing.length > 0);
  const events = (state, number, isMore, one, several) => make("a", {href: addressOf({state})}, `${number.toLocaleString()}${isMore ? "+" : ""} ${number === 1 && !isMore ? `event ${one}` : `events ${several}`}`);
  if (waiting) words.push(events("needs_review", waiting, more, "needs a person", "need a person"), ". ");
  if (quarantine.count) words.push(events(QUARANTINED, quarantine.count, quarantine.more, "is in quarantine", "are in quarantine"), `: correct the mapping, then send ${quarantine.count === 1 ? "it" : "them"} again. `);
  if (!words.length) words.push("Nothing needs a person. ");
  for (const one of failing)
    words.push(make("strong", {}, `${vendorName(one)} is failing`), `: ${count(one.unsettled, "event")} ${one.unsettled === 1 ? "is" : "are"} not settled; the bridge retries by itself. `);
  return words;
}
function vendor(one) {
  const since = one.last_success ? ["last success ", when(one.last_success)] : ["no success yet"];
  return make("li", {class: one.state},
    make("strong", {}, vendorName(one)), " ", make("span", {class: "badge"}, label(one.state)),
    one.unsettled ? make("div", {class: "small"}, `${count(one.unsettled, "event waits", "events wait")} after a failure`, ...(one.next_attempt ? [", next attempt ", when(one.next_attempt)] : [])) : null,
    one.state === "failing" ? make("div", {class: "small"}, one.reason || "", ", ", when(one.last_failure)) : null,
    make("div", {class: "dim small"}, ...since));
}
function drawStates() {
  const all = STATES.map((name) => glance.states[name]);
  const entries = [[null, all.reduce((sum, one) => sum + one.count, 0), all.some((one) => one.more)], ...STATES.map((name, place) => [name, all[place].count, all[place].more])];
  if (quarantine.count || view.state === QUARANTINED) entries.push([QUARANTINED, quarantine.count, quarantine.more]);
  const focused = $("states").contains(document.activeElement) ? document.activeElement.id : null;
  redraw($("states"), [entries, view.state], () => entries.map(([name, number, more]) => make("button", {
    type: "button", id: `only-${name || "all"}`, "aria-pressed": String((view.state || null) === name), title: name ? MEANS[name] : null,
    onclick: () => { location.hash = addressOf({...view, state: name}); },
  }, `${name ? label(name) : "All"} ${number.toLocaleString()}${more ? "+" : ""}`)));
  if (focused) $(focused)?.focus();
}

function drawPlot() {
  const width = Math.max(240, $("plot").clientWidth || 290);
  redraw($("plot"), [glance.hours, width], () => [plot(width)]);
  const sums = STATES.map((name) => [name, glance.hours.reduce((sum, one) => sum + (one.states[name] || 0), 0)]).filter(([, sum]) => sum);
  redraw($("legend"), sums, () => sums.length
    ? sums.map(([name, sum]) => make("li", {}, make("i", {class: name}), `${label(name)} ${sum.toLocaleString()}`))
    : [make("li", {class: "dim"}, "Nothing changed in the last 24 hours.")]);
}
function plot(width) {
  const hours = glance.hours, height = 140, bottom = 22, top = 14, step = width / hours.length, gap = Math.min(3, step / 6);
  const sums = hours.map((one) => Object.values(one.states).reduce((sum, number) => sum + number, 0));
  const most = Math.max(1, ...sums);
  const picture = draw("svg", {viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `At most ${most} in an hour, ${sums.reduce((a, b) => a + b, 0)} in all`});
  picture.append(draw("line", {x1: 0, x2: width, y1: height - bottom, y2: height - bottom, class: "edge"}));
  hours.forEach((one, place) => {
    let y = height - bottom;
    for (const name of [...STATES].reverse()) {
      const number = one.states[name] || 0;
      if (!number) continue;
      const tall = Math.max(2, number / most * (height - bottom - top));
      y -= tall;
      picture.append(draw("rect", {x: place * step + gap, y, width: step - 2 * gap, height: tall, class: name},
        draw("title", {}, `${number} ${label(name)}, ${exact(one.hour)}`)));
    }
    if (sums[place] && (step > 20 || sums[place] === most)) picture.append(drawText(place * step + step / 2, y - 3, String(sums[place]), "middle"));
    const [x, anchor] = place === 0 ? [0, "start"] : place === hours.length - 1 ? [width, "end"] : [place * step + step / 2, "middle"];
    if ([0, 12, hours.length - 1].includes(place))
      picture.append(drawText(x, height - 6, new Date(one.hour).toLocaleTimeString(undefined, {hour: "2-digit", minute: "2-digit"}), anchor));
  });
  return picture;
}
addEventListener("resize", () => glance && !$("overview").hidden && drawPlot());

