/** The status corner: whether the server, and Ollama behind it, can be reached, and the queue. */

import { apiKey, get } from "./api.js";
import { byId } from "./dom.js";
import { countElsewhere } from "./tabs.js";
import { words } from "./words.js";

const TIMEOUT_MS = 3000;
const EVERY_MS = 30_000;
const EVERY_MS_WHEN_BROKEN = 3000;

const own = new Set();
let state = "connecting";
let queue = null;
let refused = null;
let timer = 0;

/** How many requests are being answered (`running`) or wait (`waiting`); null if unknown. */
export const theQueue = () => queue;

/** Counts one of this page's answers, which may have `begun()`; returns a function that ends that. */
export function ownAnswer(begun) {
  own.add(begun);
  return () => own.delete(begun);
}

/** The queue without this user's requests: the user's own answer is visible anyway. */
function others() {
  const { running = 0, waiting = 0 } = queue ?? {};
  const mine = [...own].filter((begun) => !waiting || begun()).length + (waiting ? 0 : countElsewhere());
  return { running: Math.max(0, running - mine), waiting };
}

export function showStatus() {
  byId("status").dataset.state = { connecting: "", connected: "connected" }[state] ?? "broken";
  if (byId("status").textContent !== words[state]) byId("status").textContent = words[state];
  const { running, waiting } = others();
  byId("queue").textContent = running || waiting ? words.queue(running, waiting) : "";
}

/** Checks the queue, which stays unknown without permission. */
export async function lookAtQueue() {
  if (apiKey() === refused) return;
  try {
    queue = (await get("/api/stats", AbortSignal.timeout(TIMEOUT_MS))).queue;
  } catch ({ kind }) {
    queue = null;
    if ([401, 403, 404, "badKey"].includes(kind)) refused = apiKey();
  }
  showStatus();
}

/** Checks now, and again after a while. */
export async function look() {
  clearTimeout(timer);
  if (document.hidden) return;
  const before = state;
  try {
    state = (await get("/api/health", AbortSignal.timeout(TIMEOUT_MS))).ollama_status;
  } catch {
    state = "offline";
  }
  clearTimeout(timer);
  timer = setTimeout(look, state === "connected" ? EVERY_MS : EVERY_MS_WHEN_BROKEN);
  showStatus();
  if (state !== "connected") return;
  if (!["connected", "connecting"].includes(before)) document.dispatchEvent(new Event("reconnected"));
  await lookAtQueue();
}

/** Checks now, every half minute, and when the page becomes visible again. */
export function watchStatus() {
  look();
  for (const event of ["visibilitychange", "online", "offline"]) addEventListener(event, look);
}
