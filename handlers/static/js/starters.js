/** Cards on the empty page: each begins a message, which the reader completes. */

import { byId, icon, make } from "./dom.js";
import { words } from "./words.js";

const field = byId("message");
let last = ""; // what the last card has written

/** Begins a message; what has been typed already becomes a part of it, between `before` and `after`. */
function begin(before, after) {
  if (!before) {
    byId("attach").click();
    return;
  }
  const begun = before + (field.value === last ? "" : field.value);
  field.value = last = begun + after;
  field.dispatchEvent(new Event("input", { bubbles: true }));
  field.focus();
  field.setSelectionRange(begun.length, begun.length);
}

function show() {
  const cards = words.starters.map(([name, title, hint, ...text]) => {
    const onclick = () => begin(...text);
    const label = make("span", {}, make("strong", {}, title), make("span", { className: "help" }, hint));
    return make("button", { type: "button", onclick }, icon(name), label);
  });
  byId("starters").replaceChildren(...cards);
}

document.addEventListener("languagechange", show);
show();
