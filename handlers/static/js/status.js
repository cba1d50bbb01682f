/** The status corner: whether the server, and Ollama behind it, can be reached, and the queue. */

import { apiKey, get } from "./api.js";
import { byId } from "./dom.js";
import { words } from "./words.js";

const TIMEOUT_MS = 3000;
const EVERY_MS = 30_000;

let state = "connecting";
let queue = null;
let refused = null;

/** How many requests are being answered (`running`) and wait (`waiting`); null is not known. */
export const theQueue = () => queue;

export function showStatus() {
  byId("status").dataset.state = { connecting: "", connected: "connected" }[state] ?? "broken";
  if (byId("status").textContent !== words[state]) byId("status").textContent = words[state];
  const { running, waiting } = queue ?? {};
  byId("queue").textContent = running || waiting ? words.queue(running, waiting) : "";
}

/** Looks at the queue, which stays unknown to who may not see it. */
export async function lookAtQueue() {
  if (apiKey() === refused) return;
  try {
    queue = (await get("/api/stats", AbortSignal.timeout(TIMEOUT_MS))).queue;
  } catch ({ kind }) {
    queue = null;
    if ([401, 403, 404].includes(kind)) refused = apiKey();
  }
  showStatus();
}

async function look() {
  if (document.hidden) return;
  try {
    state = (await get("/api/health", AbortSignal.timeout(TIMEOUT_MS))).ollama_status;
  } catch {
    state = "offline";
  }
  showStatus();
  if (state === "connected") await lookAtQueue();
}

/** Looks now, every half a minute, and when the page comes back to sight. */
export function watchStatus() {
  look();
  setInterval(look, EVERY_MS);
  for (const event of ["visibilitychange", "online", "offline"]) addEventListener(event, look);
}
