/**
 * Lets the page open without a network, or while the server is down. The page's files are cached,
 * the API's answers never. The server adds VERSION, STATIC and SHELL at the top: a new page means a
 * new script, which takes over once no tab shows the old page.
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

/** A file never changes under its address. Files loaded on demand are cached on first use. */
async function openFile(request) {
  const cache = await caches.open(VERSION);
  const kept = await cache.match(request);
  if (kept) return kept;
  const answer = await fetch(request);
  if (answer.status === 200) await cache.put(request, answer.clone());
  return answer;
}
