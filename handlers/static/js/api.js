/** Talks to the server that this page comes from. */

import { session } from "./storage.js";

const KEY = "api-key";

export const apiKey = () => session.getItem(KEY) ?? "";
export const keepApiKey = (key) =>
  key ? session.setItem(KEY, key) : session.removeItem(KEY);

/** What went wrong: `kind` is an HTTP status, "unreachable", "lost" or "stream". */
export class Failure extends Error {
  constructor(kind, said = "", retryAfter = 0) {
    super(said);
    this.kind = kind;
    this.retryAfter = retryAfter;
  }
}

/** Fetches `path` with the key, and throws a Failure for whatever is not an answer. */
async function call(path, options = {}) {
  const headers = { ...options.headers };
  if (apiKey()) headers.Authorization = `Bearer ${apiKey()}`;
  const response = await fetch(path, { ...options, headers, cache: "no-store" }).catch((error) => {
    throw options.signal?.aborted ? error : new Failure("unreachable");
  });
  if (response.ok) return response;
  const { error } = await response.json().catch(() => ({}));
  throw new Failure(response.status, error, Number(response.headers.get("Retry-After")) || 0);
}

export const get = async (path, signal) => (await call(path, { signal })).json();

/** Yields the lines of an answer as they come; aborting `signal` stops the model too. */
export async function* streamChat(request, signal) {
  const response = await call("/api/chat/stream", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(request),
    signal,
  });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read().catch((error) => {
      throw signal.aborted ? error : new Failure("lost");
    });
    if (done) throw new Failure("lost");
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const text of lines) {
      const line = JSON.parse(text);
      if (line.success === false) throw new Failure("stream", line.error);
      yield line;
      if (line.done) return;
    }
  }
}
