/**
 * Lets the page open without a network, or while the server is down. The page's files are kept;
 * what the API answers never is. The server puts VERSION, STATIC and SHELL before this script: with
 * another page it is another script, which takes over once no tab has the page before.
 */

addEventListener("install", (event) => event.waitUntil(keepShell()));
addEventListener("activate", (event) => event.waitUntil(forgetOthers()));
addEventListener("fetch", (event) => {
  const { request } = event;
  const { origin, pathname } = new URL(request.url);
  if (request.method !== "GET" || origin !== location.origin) return;
  if (request.mode === "navigate" && pathname === "/") event.respondWith(openPage(request));
  else if (pathname.startsWith(`${STATIC}/`)) event.respondWith(openFile(request));
});

async function keepShell() {
  const cache = await caches.open(VERSION);
  await cache.addAll(["/", ...SHELL]);
}

async function forgetOthers() {
  const names = await caches.keys();
  await Promise.all(names.filter((name) => name !== VERSION).map((name) => caches.delete(name)));
}

/** The server's page if there is one; behind a proxy, a server that is down answers 5xx. */
async function openPage(request) {
  const answer = await fetch(request).catch(() => null);
  if (answer && answer.status < 500) return answer;
  const cache = await caches.open(VERSION);
  return (await cache.match("/")) ?? answer ?? Response.error();
}

/** A file never changes under its address. What is loaded on demand is kept with its first use. */
async function openFile(request) {
  const cache = await caches.open(VERSION);
  const kept = await cache.match(request);
  if (kept) return kept;
  const answer = await fetch(request);
  if (answer.status === 200) await cache.put(request, answer.clone());
  return answer;
}
