/** The page's own workers: trusted types allow no other addresses. */

const OWN = new URL("..", import.meta.url).pathname;

function createScriptURL(path) {
  if (path === "/service-worker.js" || (path.startsWith(OWN) && !path.includes(".."))) return path;
  throw new TypeError(`${path} is not a script of this page`);
}

const policy = window.trustedTypes?.createPolicy("own-scripts", { createScriptURL });

export const ownScript = (path) => policy?.createScriptURL(path) ?? createScriptURL(path);
