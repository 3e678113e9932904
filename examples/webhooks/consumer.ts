// A receiver of webhooks: verifies the signature, handles each event once, and answers at once.

import { createHmac, timingSafeEqual } from "node:crypto";
import { createServer, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";

const secret = Buffer.from((process.env.WEBHOOK_SECRET ?? "").replace(/^whsec_/, ""), "base64");
const toleranceSeconds = 300;
const largest = 20_000;

// In real life a table of your database, written in the transaction of what handling does: an event comes again when
// an answer was lost, also after a restart.
const handled = new Set<string>();

type Event = { type: string; timestamp: string; data: { id: string } };

function isGenuine(headers: IncomingMessage["headers"], body: Buffer): boolean {
  const header = (name: string): string => String(headers[name] ?? "");
  const timestamp = header("webhook-timestamp");
  if (!/^\d{1,12}$/.test(timestamp) || Math.abs(Date.now() / 1000 - Number(timestamp)) > toleranceSeconds) return false;
  const digest = createHmac("sha256", secret).update(`${header("webhook-id")}.${timestamp}.`).update(body).digest("base64");
  const expected = Buffer.from(`v1,${digest}`);
  return header("webhook-signature").split(" ").some((each) => {
    const given = Buffer.from(each);
    return given.length === expected.length && timingSafeEqual(given, expected);
  });
}

function handle(id: string, event: Event): void {
  if (handled.has(id)) return;
  handled.add(id);
  console.log(event.type, event.data.id); // here goes what the event means to you
}

const server = createServer((request, response) => {
  const pieces: Buffer[] = [];
  let size = 0;
  request.on("data", (piece: Buffer) => {
    size += piece.length;
    if (size > largest) request.destroy();
    else pieces.push(piece);
  });
  request.on("end", () => {
    const body = Buffer.concat(pieces);
    const genuine = isGenuine(request.headers, body);
    if (genuine) handle(String(request.headers["webhook-id"]), JSON.parse(body.toString("utf8")) as Event);
    response.writeHead(genuine ? 204 : 401).end();
  });
});

server.listen(Number(process.env.PORT ?? 0), "127.0.0.1", () =>
  console.log("listening on", (server.address() as AddressInfo).port),
);
