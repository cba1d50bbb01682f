/** The list of conversations. */

import { toMarkdown } from "./archive.js";
import { byId, download, iconButton, make } from "./dom.js";
import * as store from "./store.js";
import { toast } from "./toast.js";
import { words } from "./words.js";

const SEARCH_DELAY_MS = 150;
const DAY_MS = 86_400_000;

let current = "";
let drawn = "";
let hooks;

/** `hooks`: open(id), removing(id), restored(id), changed(id, values), failed() reading the store. */
export const listConversations = (given) => (hooks = given);

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
  const groups = Map.groupBy(found, groupOf);
  const drawing = JSON.stringify([words.rename, query, [...groups]]);
  if (drawing === drawn) return; // the keyboard's focus stays where it is in the list
  drawn = drawing;
  const empty = make("li", { className: "empty" }, query ? words.nothingFound : words.noConversations);
  const items = [...groups].flatMap(([name, outlines]) => [
    make("li", { className: "day" }, name),
    ...outlines.map(drawItem),
  ]);
  byId("list").replaceChildren(...(items.length ? items : [empty]));
  markCurrent(current);
}

/** Names the time of a conversation: recent days individually, others by month. */
function groupOf({ pinned, updated }) {
  if (pinned) return words.pinned;
  const { lang } = document.documentElement;
  const midnight = new Date().setHours(0, 0, 0, 0);
  const days = Math.max(0, Math.ceil((midnight - updated) / DAY_MS));
  if (days < 2) return new Intl.RelativeTimeFormat(lang, { numeric: "auto" }).format(-days, "day");
  const form = days < 7 ? { weekday: "long" } : { month: "long", year: "numeric" };
  return new Date(updated).toLocaleDateString(lang, form);
}

const drawExcerpt = (excerpt) =>
  make("span", { className: "excerpt" }, ...excerpt.map(([text, matches]) => (matches ? make("mark", {}, text) : text)));

function drawItem({ id, title, updated, pinned, excerpt }) {
  const when = new Date(updated).toLocaleString(document.documentElement.lang, { dateStyle: "medium", timeStyle: "short" });
  const open = make("button", { type: "button", className: "open", dataset: { id }, title: `${title}\n${when}` }, title);
  if (excerpt) open.append(drawExcerpt(excerpt));
  open.onclick = () => hooks.open(id);
  const pin = iconButton("pin", `${words.pin}: ${title}`, () => change(id, { pinned: !pinned }));
  pin.ariaPressed = String(pinned);
  const more = iconButton("more", `${words.more}: ${title}`, () => {
    more.ariaExpanded = String(item.classList.toggle("opened"));
  });
  more.ariaExpanded = "false";
  more.classList.add("more");
  const item = make(
    "li",
    {},
    open,
    more,
    make(
      "span",
      { className: "actions" },
      pin,
      iconButton("edit", `${words.rename}: ${title}`, () => rename(item, id, title)),
      iconButton("export", `${words.export}: ${title}`, () => save(id)),
      iconButton("delete", `${words.delete}: ${title}`, () => remove(id, title)),
    ),
  );
  return item;
}

/** Changes a conversation; the focus stays on it, though it may have moved. */
async function change(id, values) {
  await hooks.changed(id, values);
  await refresh();
  byId("list").querySelector(`[data-id="${CSS.escape(id)}"]`)?.focus();
}

function rename(item, id, title) {
  drawn = "";
  const field = make("input", { className: "list-name", value: title, ariaLabel: words.rename });
  let finished = false;
  async function finish(name) {
    if (finished) return;
    finished = true;
    field.remove();
    await change(id, name && name !== title ? { title: name } : {});
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
  download(`${name}.md`, "text/markdown", toMarkdown(conversation));
}

async function remove(id, title) {
  await hooks.removing(id);
  const removed = await store.remove(id);
  await refresh();
  byId("new").focus();
  toast(words.deleted(title), async () => {
    await store.restore(removed);
    await refresh();
    hooks.open(id);
  });
}

let pause;
byId("search").addEventListener("input", () => {
  clearTimeout(pause);
  pause = setTimeout(refresh, SEARCH_DELAY_MS);
});
