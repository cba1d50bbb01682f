/** Cards on the empty page: each begins a message, which the reader completes. */

import { byId, icon, make } from "./dom.js";
import { words } from "./words.js";

const field = byId("message");

function begin(text) {
  if (!text) {
    byId("attach").click();
    return;
  }
  field.value = text;
  field.dispatchEvent(new Event("input", { bubbles: true }));
  field.focus();
  field.setSelectionRange(text.length, text.length);
}

function show() {
  const cards = words.starters.map(([name, title, hint, text]) => {
    const onclick = () => begin(text);
    const label = make("span", {}, make("strong", {}, title), make("span", { className: "help" }, hint));
    return make("button", { type: "button", onclick }, icon(name), label);
  });
  byId("starters").replaceChildren(...cards);
}

document.addEventListener("languagechange", show);
show();
