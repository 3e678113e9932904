// Serves the example on http://127.0.0.1:8000, and hands /v1 on to the service, so that both have one origin.

import { readFile } from "node:fs/promises";
import http from "node:http";

const SERVICE = new URL(process.env.INGESTD_URL ?? "http://127.0.0.1:8080");
const HERE = new URL("./", import.meta.url);
const FILES = {
  "/": ["index.html", "text/html; charset=utf-8"],
  "/build/main.js": ["build/main.js", "text/javascript"],
  "/build/client.js": ["build/client.js", "text/javascript"],
  "/openapi-fetch.mjs": ["../../node_modules/openapi-fetch/dist/index.mjs", "text/javascript"],
};

http
  .createServer(async (request, response) => {
    if (request.url.startsWith("/v1/")) return handOn(request, response);
    const [file, type] = FILES[request.url] ?? [];
    if (!file) return response.writeHead(404).end();
    response.writeHead(200, { "Content-Type": type }).end(await readFile(new URL(file, HERE)));
  })
  .listen(8000, "127.0.0.1", () => console.log(`http://127.0.0.1:8000 shows the ingestions of ${SERVICE}`));

function handOn(request, response) {
  const { method, url, headers } = request;
  const handed = http.request(new URL(url, SERVICE), { method, headers }, (answer) => {
    response.writeHead(answer.statusCode, answer.headers);
    answer.pipe(response);
  });
  handed.on("error", () => response.headersSent ? response.destroy() : response.writeHead(502).end());
  response.on("close", () => handed.destroy());
  request.pipe(handed);
}
