// ---------------------------------------------------------------- bulk: retry all that match the filters
const MOST_RETRIES = 100, MOST_LOOKS = 20;
const WAITS = ["waiting", "unconfirmed"];
let plan = null;  // what would be retried, and whether somebody stopped it

// What waits is found by the bridge itself; what needs review a person confirms, because it may be there twice.
const mayRetryAll = () => mayDecide() && shownRows().length > 0 && (view.state === "needs_review" || (WAITS.includes(view.state) && !view.id));
const wantedNow = () => ({state: view.state, ...(view.flow ? {flow: view.flow} : {}), ...(view.text ? {text: view.text} : {}),
  ...(view.since ? {since: new Date(now() - SPANS[view.since][1] * 3600_000).toISOString()} : {})});

$("retry-all").addEventListener("click", () => attempt(() => WAITS.includes(view.state) ? planWaiting(wantedNow()) : planReview()));

async function planReview() {
  const page = await ask(query({...view, state: "needs_review"}, MOST_RETRIES));
  const chosen = page.operations.filter((one) => matches(one) && one.state === "needs_review").slice(0, MOST_RETRIES);
  if (!chosen.length) return say("Nothing that needs review matches any more.");
  const risky = chosen.filter((one) => !FLOWS[one.flow]?.repeatable).length;
  plan = {chosen, risky, run: retryReviewed};
  openPlan([
    page.next ? `These are the first ${MOST_RETRIES} of more.` : "These operations need review and match the filters.",
    risky ? `${count(risky, "of them creates", "of them create")} a record: if the vendor has it already, it will be there twice. Look at the vendor first.` : "To repeat them is harmless.",
  ]);
}
async function planWaiting(wanted) {
  let page, after = null, chosen = [];
  for (let looks = 0; looks < MOST_LOOKS && !chosen.length && (looks === 0 || after); looks += 1) {
    page = await ask("/operations/retry", {...wanted, dry_run: true, ...(after ? {after} : {})});
    chosen = page.operations;
    after = page.next;
  }
  if (!chosen.length) return say("Nothing that matches waits for a later time. What is due is sent within about a minute.");
  plan = {chosen, risky: 0, wanted, isMore: Boolean(page.next), run: retryWaiting};
  openPlan([
    page.next ? `These are the first ${chosen.length}; all that match the filters are retried, ${MOST_RETRIES} at a time.` : "These operations match the filters.",
    "They are due now instead of at their times, in turn with the events of other tenants. The bridge looks first for events that may be done, and does not call a vendor that is still down.",
  ]);
}
function openPlan(words) {
  const {chosen, risky} = plan, all = plan.isMore ? "all that match" : count(chosen.length, "operation");
  Object.assign(plan, {isRunning: false, isStopped: false});
  $("bulk-title").textContent = `Retry ${all}`;
  $("bulk-what").textContent = [...words, "Nothing is sent before you confirm."].join(" ");
  $("bulk-list").replaceChildren(...chosen.map((one) => make("li", {"data-retry": one.operation_id},
    `${label(one.flow)} `, make("strong", {}, keyOf(one)), make("div", {class: "dim small"}, reasonOf(one)))));
  $("bulk-ask").hidden = !risky;
  $("bulk-typed-label").textContent = `Type ${risky} to confirm`;
  $("bulk-typed").value = "";
  $("bulk-said").textContent = "";
  $("bulk-yes").textContent = plan.isMore ? "Retry all" : `Retry ${chosen.length}`;
  $("bulk-yes").className = risky ? "danger" : "";
  $("bulk-yes").hidden = false;
  $("bulk-no").textContent = "Cancel";
  $("bulk").showModal();
  $(risky ? "bulk-typed" : "bulk-no").focus();
}
$("bulk").querySelector("form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (plan === null || plan.isRunning) return;
  if (plan.risky && $("bulk-typed").value.trim() !== String(plan.risky)) {
    $("bulk-said").textContent = `Type ${plan.risky} to confirm. Nothing was changed.`;
    return;
  }
  attempt(() => retryAll(plan), (words) => { $("bulk-said").textContent = words; });
});
async function retryAll(running) {
  running.isRunning = true;
  $("bulk-yes").hidden = true;
  $("bulk-ask").hidden = true;
  $("bulk-no").textContent = "Stop";
  $("bulk-no").focus();
  try {
    await running.run(running);
  } finally {
    running.isRunning = false;
    $("bulk-no").textContent = "Close";
  }
  if (!$("bulk").open) say($("bulk-said").textContent);
  await refresh(true);
}
const rowOf = (one) => $("bulk-list").querySelector(`[data-retry=${one.operation_id}] div`);
async function retryReviewed(running) {
  let done = 0, failed = 0;
  for (const one of running.chosen) {
    if (running.isStopped) break;
    try {
      await ask(`/operations/${one.operation_id}/resolve`, {action: "retry"});
      rowOf(one).textContent = "Retried.";
      done += 1;
    } catch (error) {
      if (!(error instanceof Refused) || error.status !== 409) throw error;
      rowOf(one).textContent = `Not retried: ${error.message}`;  // somebody else decided meanwhile
      failed += 1;
    }
    $("bulk-said").textContent = `${done} of ${running.chosen.length} retried.`;
  }
  $("bulk-said").textContent = `${done} of ${running.chosen.length} retried${failed ? `, ${failed} not` : ""}${running.isStopped ? "; stopped" : ""}.`;
}
async function retryWaiting(running) {
  let done = 0, after = null;
  do {
    const page = await ask("/operations/retry", {...running.wanted, ...(after ? {after} : {})});
    for (const one of page.operations) if (rowOf(one)) rowOf(one).textContent = "Due now.";
    done += page.operations.length;
    after = page.next;
    $("bulk-said").textContent = `${done.toLocaleString()} due now.`;
  } while (after && !running.isStopped);
  $("bulk-said").textContent = `${count(done, "operation is", "operations are")} due now${after ? "; stopped" : ""}. The bridge sends within about a minute.`;
}
$("bulk-no").addEventListener("click", () => plan?.isRunning ? (plan.isStopped = true) : $("bulk").close());
$("bulk").addEventListener("close", () => {
  if (plan) plan.isStopped = true;
  plan = null;
});
