// ---------------------------------------------------------------- main: which view an address shows, refreshing, the keyboard
let lastList = "#";  // the list from which an operation was opened

async function show(isOlder = true) {
  const wanted = viewOf(location.hash.slice(1)), left = view.operation;
  view = wanted ?? {unknown: true};
  const isMapping = wanted !== null && Boolean(wanted.mapping), isList = wanted !== null && !wanted.operation && !isMapping;
  $("overview").hidden = !isList;
  $("detail").hidden = isList || isMapping;
  $("mapping").hidden = !isMapping;
  if (wanted === null) return showProblem("There is no such page", "The address leads to nothing in this console.");
  if (wanted.operation) {
    clear("detail");
    return loadOperation(wanted.operation, false);
  }
  clear("detail");
  if (isMapping) {
    await loadMapping(wanted.request);
    return $("try-mapping").focus({preventScroll: true});
  }
  lastList = location.hash || "#";
  fillFilters();
  drawStates();
  drawPlot();
  await Promise.all([isOlder ? loadOverview() : null, loadList().then(() => view === wanted && focusRow(left))]);
  tick();
}
// The row of the operation that was left, or the first one that a search has found.
function focusRow(left) {
  const row = left && $("list").querySelector(`[data-operation=${left}]`);
  if (row) row.focus();
  else if (isSearch) $("list").querySelector("a")?.focus();
  isSearch = false;
}
addEventListener("hashchange", () => {
  if (key === null) return;
  say("");
  attempt(() => show());
});

let isStale = false;
async function refresh(quiet) {
  await attempt(async () => {
    if (view.operation) await loadOperation(view.operation, true);
    else if (view.mapping) await loadMapping(null, true);
    else if (!view.unknown) await Promise.all([loadOverview(), loadList(Math.max(PAGE, numberRead()))]);
    tick();
    if (!quiet) say("Up to date.");
    else if (isStale) say("");
    isStale = false;
  }, (words) => {
    isStale = true;
    say(`Could not refresh: ${words} What is shown is older.`, true);
  });
}
$("refresh").addEventListener("click", () => refresh(false));
$("skip").addEventListener("click", (event) => {  // not by its address, which names a view
  event.preventDefault();
  $("main").focus();
});

addEventListener("keydown", (event) => {
  if (key === null || $("confirm").open || $("bulk").open || event.ctrlKey || event.metaKey || event.altKey) return;
  const isTyping = event.target instanceof HTMLInputElement || event.target instanceof HTMLSelectElement || event.target instanceof HTMLTextAreaElement, isList = !$("overview").hidden;
  if (event.key === "Escape" && !isList && !isTyping) location.hash = lastList;
  else if (event.key === "/" && !isTyping && isList) { event.preventDefault(); $("wanted").focus(); }
  else if (!isTyping && isList && ["j", "k", "ArrowDown", "ArrowUp"].includes(event.key)) {
    const links = [...$("list").querySelectorAll("a")], down = event.key === "j" || event.key === "ArrowDown";
    const place = links.indexOf(document.activeElement);
    if (place < 0 && event.key.startsWith("Arrow")) return;
    const to = links[Math.min(links.length - 1, Math.max(0, place + (down ? 1 : -1)))];
    if (to) { event.preventDefault(); to.focus(); }
  }
});
// Only the gateway of `make run` has it; on AWS nothing is asked.
if (isLocal)
  fetch("/docs", {cache: "no-store"}).then((response) => $("docs").hidden = !response.ok, () => {});
$("key").focus();
