/** The list of conversations. */

import { byId, download, iconButton, make } from "./dom.js";
import * as store from "./store.js";
import { words } from "./words.js";

const SEARCH_DELAY_MS = 150;

let current = "";
let drawn = "";
let hooks;

/** `hooks`: open(id), removed(id), renamed(id, title), failed() to read the store. */
export function listConversations(given) {
  hooks = given;
  store.onChange(refresh);
}

export function markCurrent(id) {
  current = id;
  for (const button of byId("list").querySelectorAll(".open")) {
    button.ariaCurrent = String(button.dataset.id === id);
  }
}

export async function refresh() {
  const query = byId("search").value;
  const found = await store.list(query).catch(hooks.failed);
  if (!found) return;
  if (query !== byId("search").value || byId("list").querySelector("input")) return;
  const drawing = JSON.stringify([words.rename, query, found]);
  if (drawing === drawn) return; // who is in the list with the keyboard stays there
  drawn = drawing;
  const empty = make("li", { className: "empty" }, query ? words.nothingFound : words.noConversations);
  byId("list").replaceChildren(...(found.length ? found.map(drawItem) : [empty]));
  markCurrent(current);
}

function drawItem({ id, title }) {
  const open = make("button", { type: "button", className: "open", dataset: { id } }, title);
  open.onclick = () => hooks.open(id);
  const item = make(
    "li",
    {},
    open,
    make(
      "span",
      { className: "actions" },
      iconButton("edit", `${words.rename}: ${title}`, () => rename(item, id, title)),
      iconButton("export", `${words.export}: ${title}`, () => save(id)),
      iconButton("delete", `${words.delete}: ${title}`, () => remove(id, title)),
    ),
  );
  return item;
}

function rename(item, id, title) {
  drawn = "";
  const field = make("input", { className: "list-name", value: title, ariaLabel: words.rename });
  let finished = false;
  async function finish(name) {
    if (finished) return;
    finished = true;
    field.remove();
    if (name && name !== title) await hooks.renamed(id, name);
    await refresh();
    byId("list").querySelector(`[data-id="${CSS.escape(id)}"]`)?.focus();
  }
  field.onkeydown = (event) => {
    if (event.isComposing || event.keyCode === 229) return;
    if (event.key === "Enter") finish(field.value.trim());
    if (event.key === "Escape") finish("");
    event.stopPropagation();
  };
  field.onblur = () => finish(field.value.trim());
  item.replaceChildren(field);
  field.select();
}

async function save(id) {
  const conversation = await store.load(id);
  const name = conversation.title.replace(/[^\p{L}\p{N} _-]+/gu, "").trim() || "conversation";
  download(`${name}.md`, "text/markdown", store.toMarkdown(conversation));
}

async function remove(id, title) {
  if (!confirm(words.deleteFor(title))) return;
  hooks.removed(id);
  await store.remove(id);
  await refresh();
  byId("new").focus();
}

let pause;
byId("search").addEventListener("input", () => {
  clearTimeout(pause);
  pause = setTimeout(refresh, SEARCH_DELAY_MS);
});
