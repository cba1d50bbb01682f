/** Calls the server that this page comes from. */

import { Silence } from "./silence.js";
import { local, session } from "./storage.js";

const KEY = "api-key";
const HEARTBEAT = "heartbeat=3";

export const apiKey = () => session.getItem(KEY) ?? local.getItem(KEY) ?? "";

/** Whether the key outlives this tab. */
export const isKeyRemembered = () => local.getItem(KEY) !== null;

/** Keeps the key until this tab closes, or for good on this device; without a key, forgets it. */
export function keepApiKey(key, remembered) {
  for (const storage of [local, session]) storage.removeItem(KEY);
  if (key) (remembered ? local : session).setItem(KEY, key);
}

/** Whether a failure of this kind is about the API key. */
export const needsKey = (kind) => [401, "badKey"].includes(kind);

/** What went wrong: `kind` is an HTTP status, "badKey", "unreachable", "lost" or "stream". */
export class Failure extends Error {
  constructor(kind, said = "", retryAfter = 0) {
    super(said);
    this.kind = kind;
    this.retryAfter = retryAfter;
  }
}

/** Fetches `path` with the key; throws a Failure unless it gets an answer. */
async function call(path, options = {}) {
  const headers = { ...options.headers };
  if (apiKey()) headers.Authorization = `Bearer ${apiKey()}`;
  const response = await fetch(path, { ...options, headers, cache: "no-store" }).catch((error) => {
    throw options.signal?.aborted ? error : new Failure("unreachable");
  });
  if (response.ok) return response;
  const { error } = await response.json().catch(() => ({}));
  const kind = response.status === 401 && apiKey() ? "badKey" : response.status;
  throw new Failure(kind, error, Number(response.headers.get("Retry-After")) || 0);
}

export const get = async (path, signal) => (await call(path, { signal })).json();

/** Yields the lines of an answer as they arrive; aborting `signal` stops the model too. */
export async function* streamChat(request, signal) {
  const silence = new Silence(signal, () => get("/api/health", AbortSignal.timeout(3000)));
  const failure = (kind) => (error) => {
    throw signal.aborted || !silence.signal.aborted && error instanceof Failure ? error : new Failure(kind);
  };
  try {
    const response = await call("/api/chat/stream", {
      method: "POST",
      headers: { "Content-Type": "application/json", Prefer: HEARTBEAT },
      body: JSON.stringify(request),
      signal: silence.signal,
    }).catch(failure("unreachable"));
    silence.broken(response.headers.get("Preference-Applied") === HEARTBEAT);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    let begun = false;
    for (;;) {
      const { value, done } = await reader.read().catch(failure("lost"));
      if (done) throw new Failure("lost");
      silence.broken();
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const text of lines) {
        const line = JSON.parse(text);
        if (line.success === false) throw new Failure((!begun && line.status) || "stream", line.error);
        begun ||= line.response !== "";
        yield line;
        if (line.done) return;
      }
    }
  } finally {
    silence.end();
  }
}
