/** How an answer ended, in words, and what can be done about it. */

import { needsKey } from "./api.js";
import { icon, make } from "./dom.js";
import { words } from "./words.js";

const BROKEN_OFF = ["stopped", "unfinished", "length", "failed"];

/** Returns what to show under an answer; `actions`: regenerate(), resume(), unlock() with a key. */
export const endingOf = (message, actions) =>
  message.failure ? [failure(message, actions)] : aside(message, actions);

const canGoOn = ({ text, ended }) => text && BROKEN_OFF.includes(ended);

const goOn = (message, { resume }) =>
  canGoOn(message)
    ? [make("button", { type: "button", className: "resume", onclick: resume }, words.resume)]
    : [];

function aside(message, actions) {
  const { text, ended } = message;
  const known = { stopped: words.stopped, unfinished: words.unfinished, length: words.cutShort, failed: words.errors.stream[0] };
  const said = known[ended] ?? (text ? "" : words.empty);
  return said ? [make("p", { className: "aside" }, said, " ", ...goOn(message, actions))] : [];
}

/** What the server said, in the page's language if that is known. */
function drawSaid(said) {
  const line = make("p", { className: "said" }, words.said(said));
  if (document.documentElement.lang === "ko") {
    import("./ko-server.js").then(({ translated }) => (line.textContent = words.said(translated(said))));
  }
  return line;
}

/** Says what went wrong and what to do; a retry that must wait counts down the seconds. */
function failure(message, actions) {
  const { kind, said, retryAt } = message.failure;
  const [problem, advice] = words.errors[kind] ?? words.errors.other;
  const button = make("button", { type: "button", className: "again" });
  if (needsKey(kind)) {
    button.textContent = words.enterKey;
    button.onclick = actions.unlock;
  } else {
    button.onclick = actions.regenerate;
    countDown();
  }

  function countDown() {
    const left = Math.ceil(((retryAt ?? 0) - Date.now()) / 1000);
    button.disabled = left > 0;
    button.replaceChildren(icon("again"), left > 0 ? words.tryAgainIn(left) : words.tryAgain);
    if (left > 0) setTimeout(countDown, 250);
  }

  return make(
    "div",
    { className: "notice" },
    make("p", {}, make("strong", {}, problem), ` ${advice}`),
    ...(said ? [drawSaid(said)] : []),
    make("div", { className: "pair" }, ...goOn(message, actions), button),
  );
}
