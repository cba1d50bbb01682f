/** The status corner: whether the server, and Ollama behind it, can be reached. */

import { get } from "./api.js";
import { byId } from "./dom.js";
import { words } from "./words.js";

const TIMEOUT_MS = 3000;
const EVERY_MS = 30_000;

let state = "connecting";

export function showStatus() {
  byId("status").dataset.state = { connecting: "", connected: "connected" }[state] ?? "broken";
  if (byId("status").textContent !== words[state]) byId("status").textContent = words[state];
}

async function look() {
  if (document.hidden) return;
  try {
    state = (await get("/api/health", AbortSignal.timeout(TIMEOUT_MS))).ollama_status;
  } catch {
    state = "offline";
  }
  showStatus();
}

/** Looks now, every half a minute, and when the page comes back to sight. */
export function watchStatus() {
  look();
  setInterval(look, EVERY_MS);
  for (const event of ["visibilitychange", "online", "offline"]) addEventListener(event, look);
}
