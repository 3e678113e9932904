// The client: every path, parameter and answer below is checked against the service's OpenAPI document.

import createClient, { type Client } from "openapi-fetch";

import type { components, paths } from "./api";

export type Ingestion = components["schemas"]["IngestionView"];
export type Api = Client<paths>;

export function connect(key: string): Api {
  return createClient<paths>({ headers: { Authorization: `Bearer ${key}` } });
}

export async function newest(api: Api): Promise<Ingestion[]> {
  const { data, error } = await api.GET("/v1/ingestions", { params: { query: { limit: 20 } } });
  if (error) throw new Error(`${error.title}: ${error.detail}`);
  return typeof data === "string" ? [] : data.data; // a text is what `Accept: text/csv` gets
}

/** Every state of an ingestion from now to its end. A stream that was cut off is taken up where it ended. */
export async function* follow(api: Api, id: string): AsyncGenerator<Ingestion> {
  let seen: string | undefined;
  for (;;) {
    const { data, error, response } = await api.GET("/v1/ingestions/{ingestion_id}/events", {
      params: { path: { ingestion_id: id }, header: seen ? { "last-event-id": seen } : {} },
      parseAs: "stream",
    });
    if (response.status === 204) return; // it has ended, and we have seen the end
    if (error) throw new Error(`${error.title}: ${error.detail}`);
    for await (const event of events(data as ReadableStream<Uint8Array>)) {
      seen = event.id;
      yield JSON.parse(event.data) as Ingestion;
    }
  }
}

/** The events of a stream: EventSource would read them too, but sends no Authorization. */
async function* events(stream: ReadableStream<Uint8Array>): AsyncGenerator<{ id: string; data: string }> {
  const reader = stream.pipeThrough(new TextDecoderStream() as ReadableWritablePair<string, Uint8Array>).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const blocks = (text + value).split("\n\n");
    text = blocks.pop() ?? "";
    for (const block of blocks) {
      const field = (name: string) => block.split("\n").find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2);
      const [id, data] = [field("id"), field("data")];
      if (id !== undefined && data !== undefined) yield { id, data };
    }
  }
}
