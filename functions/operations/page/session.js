// ---------------------------------------------------------------- session: the key, requests, signing in and out
const REFRESH = 30_000, IDLE = 15 * 60_000;
const base = location.pathname.replace(/\/console\/?$/, "");
let key = null, timer = null, activeAt = 0, session = new AbortController();

class Refused extends Error {
  constructor(status, problem) {
    super([problem.detail || problem.title || problem.message || `The response was ${status}.`, ...(problem.errors || []).map((one) => `${one.field}: ${one.message}`)].join(" "));
    this.status = status;
    this.detail = problem.detail;
    this.mustConfirm = (problem.errors || []).some((one) => one.field === "confirmed");
  }
}
const wordsOf = (error) => error instanceof Refused ? error.message : "The bridge did not respond. Check the network.";
async function ask(path, body) {
  const options = {headers: {Authorization: `Bearer ${key}`}, cache: "no-store", credentials: "omit", referrerPolicy: "no-referrer", signal: session.signal};
  if (body) Object.assign(options, {method: "POST", body: typeof body === "string" ? body : JSON.stringify(body), headers: {...options.headers, "Content-Type": "application/json"}});
  const response = await fetch(base + path, options);
  const content = await response.json().catch(() => ({}));
  options.signal.throwIfAborted();
  if (!response.ok) throw new Refused(response.status, content);
  return content;
}
// Does the work, and shows what went wrong with it; a session that ended meanwhile shows nothing.
async function attempt(work, complain = (words) => say(words, true)) {
  const {signal} = session;
  try {
    await work();
  } catch (error) {
    if (signal.aborted) return;
    if (error instanceof Refused && error.status === 401) {
      signOut();
      say(error.message, true);
    } else complain(wordsOf(error));
  }
}

function forget() {
  session.abort();  // a response that is on its way would be shown
  session = new AbortController();
  key = null;
  clearInterval(timer);
  forgetOverview();
  forgetList();
  forgetOperation();
  forgetMapping();
  for (const id of ["confirm", "bulk"]) $(id).close("no");
  for (const id of ["overview", "detail", "mapping", "mappings", "sign-out", "refresh", "as-of", "where"]) $(id).hidden = true;
  clear("confirm-title", "confirm-what", "vendor-id-label", "bulk-title", "bulk-what", "bulk-list", "bulk-typed-label", "bulk-said", "where", "as-of");
  for (const id of ["key", "wanted", "text", "vendor-id", "vendor-id-again", "bulk-typed"]) $(id).value = "";
  document.body.classList.add("out");
  $("sign-in").hidden = false;
  say("");
}
// The address stays, so that whoever signs in again comes back to the same place; it holds no key.
function signOut() {
  forget();
  $("key").focus();
}
// Without this the browser keeps the page, and shows it to the next person who goes back.
addEventListener("pagehide", forget);
// By the clock, since timers rest while the machine sleeps; so what wakes it must not count before this was asked.
function isIdle() {
  if (key === null || Math.abs(Date.now() - activeAt) < IDLE) return false;
  signOut();
  say("You are signed out, because nothing was pressed or moved for 15 minutes.", true);
  return true;
}
for (const kind of ["keydown", "pointerdown", "pointermove", "wheel"])
  addEventListener(kind, () => { if (!isIdle()) activeAt = Date.now(); }, {capture: true, passive: true});
document.addEventListener("visibilitychange", isIdle);

$("sign-in").querySelector("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  key = $("key").value.trim();
  activeAt = Date.now();
  $("key").value = "";
  say("");
  await attempt(async () => {
    await loadOverview();
    isSearch = false;
    document.body.classList.remove("out");
    $("sign-in").hidden = true;
    for (const id of ["sign-out", "refresh", "as-of", "where", "mappings"]) $(id).hidden = false;
    timer = setInterval(() => isIdle() || document.hidden || $("confirm").open || $("bulk").open || refresh(true), REFRESH);
    await show(false);
  }, (words) => {
    if (!$("sign-in").hidden) forget();
    say(words, true);
  });
});
$("sign-out").addEventListener("click", () => {
  history.replaceState(null, "", location.pathname);
  signOut();
});
