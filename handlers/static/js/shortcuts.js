/** The keyboard shortcuts, and the dialog that lists them. */

import { byId, make } from "./dom.js";
import { words } from "./words.js";

const isField = (element) => element.matches("input, textarea, select");

/** `actions`, by a key's code with Alt, and for Escape, ArrowUp and "/". */
export function setUpShortcuts(actions) {
  addEventListener("keydown", (event) => {
    const { key, target } = event;
    if (event.isComposing || event.ctrlKey || event.metaKey || document.querySelector("dialog[open]")) return;
    const emptyMessage = target === byId("message") && !target.value;
    const name = event.altKey ? event.code : { "/": "Slash", "?": "Help" }[key] ?? key;
    const free = event.altKey || key === "Escape" || (key === "ArrowUp" ? emptyMessage : !isField(target));
    const action = { ...actions, Help: showShortcuts }[name];
    if (!free || !action) return;
    event.preventDefault();
    action();
  });
  byId("open-shortcuts").onclick = showShortcuts;
}

function showShortcuts() {
  const rows = Object.entries(words.keys).flatMap(([keys, meaning]) => [
    make("dt", {}, ...keys.split(" ").map((key) => make("kbd", {}, key))),
    make("dd", {}, meaning),
  ]);
  byId("shortcuts").querySelector("dl").replaceChildren(...rows);
  byId("shortcuts").showModal();
}
