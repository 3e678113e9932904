// Lists the newest ingestions and follows those that have not ended.

import { type Api, type Ingestion, connect, follow, newest } from "./client.js";

const form = document.querySelector("form")!;
const key = document.querySelector<HTMLInputElement>("#key")!;
const table = document.querySelector("table")!;
const problem = document.querySelector("#problem")!;

form.addEventListener("submit", (event) => {
  event.preventDefault();
  problem.textContent = "";
  list(connect(key.value)).catch(tell);
});

async function list(api: Api): Promise<void> {
  const ingestions = await newest(api);
  const body = table.tBodies[0]!;
  body.replaceChildren();
  table.hidden = false;
  for (const ingestion of ingestions) {
    const row = body.insertRow();
    show(row, ingestion);
    if (ingestion.finished_at === null) keepShowing(api, row, ingestion.id).catch(tell);
  }
}

async function keepShowing(api: Api, row: HTMLTableRowElement, id: string): Promise<void> {
  for await (const ingestion of follow(api, id)) show(row, ingestion);
}

function show(row: HTMLTableRowElement, { file, status, stage, progress, counts }: Ingestion): void {
  const texts = [file?.name ?? "", status, stage, `${progress.percent} %`, `${counts.accepted}`, `${counts.rejected}`];
  row.replaceChildren();
  for (const text of texts) row.insertCell().textContent = text;
}

function tell(error: unknown): void {
  problem.textContent = error instanceof Error ? error.message : String(error);
}
