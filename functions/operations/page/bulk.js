// ---------------------------------------------------------------- bulk: retry all that needs review and match the filters
const MOST_RETRIES = 100;
let plan = null;  // what would be retried, and whether somebody stopped it

$("retry-all").addEventListener("click", () => attempt(async () => {
  const page = await ask(query({...view, state: "needs_review"}, MOST_RETRIES));
  const chosen = page.operations.filter((one) => matches(one) && one.state === "needs_review").slice(0, MOST_RETRIES);
  if (!chosen.length) return say("Nothing that needs review matches any more.");
  const risky = chosen.filter((one) => !FLOWS[one.flow]?.repeatable).length;
  plan = {chosen, risky, isRunning: false, isStopped: false};
  $("bulk-title").textContent = `Retry ${count(chosen.length, "operation")}`;
  $("bulk-what").textContent = [
    page.next ? `These are the first ${MOST_RETRIES} of more.` : "These operations need review and match the filters.",
    risky ? `${count(risky, "of them creates", "of them create")} a record: if the vendor has it already, it will be there twice. Look at the vendor first.` : "To repeat them is harmless.",
    "Nothing is sent before you confirm.",
  ].join(" ");
  $("bulk-list").replaceChildren(...chosen.map((one) => make("li", {"data-retry": one.operation_id},
    `${label(one.flow)} `, make("strong", {}, keyOf(one)), make("div", {class: "dim small"}, reasonOf(one)))));
  $("bulk-ask").hidden = !risky;
  $("bulk-typed-label").textContent = `Type ${risky} to confirm`;
  $("bulk-typed").value = "";
  $("bulk-said").textContent = "";
  $("bulk-yes").textContent = `Retry ${chosen.length}`;
  $("bulk-yes").className = risky ? "danger" : "";
  $("bulk-yes").hidden = false;
  $("bulk-no").textContent = "Cancel";
  $("bulk").showModal();
  $(risky ? "bulk-typed" : "bulk-no").focus();
}));
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
  let done = 0, failed = 0;
  try {
    for (const one of running.chosen) {
      if (running.isStopped) break;
      const row = $("bulk-list").querySelector(`[data-retry=${one.operation_id}] div`);
      try {
        await ask(`/operations/${one.operation_id}/resolve`, {action: "retry"});
        row.textContent = "Retried.";
        done += 1;
      } catch (error) {
        if (!(error instanceof Refused) || error.status !== 409) throw error;
        row.textContent = `Not retried: ${error.message}`;  // somebody else decided meanwhile
        failed += 1;
      }
      $("bulk-said").textContent = `${done} of ${running.chosen.length} retried.`;
    }
    $("bulk-said").textContent = `${done} of ${running.chosen.length} retried${failed ? `, ${failed} not` : ""}${running.isStopped ? "; stopped" : ""}.`;
  } finally {
    running.isRunning = false;
    $("bulk-no").textContent = "Close";
  }
  if (!$("bulk").open) say($("bulk-said").textContent);
  await refresh(true);
}
$("bulk-no").addEventListener("click", () => plan?.isRunning ? (plan.isStopped = true) : $("bulk").close());
$("bulk").addEventListener("close", () => {
  if (plan) plan.isStopped = true;
  plan = null;
});

