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
let items = new Map(); // those that are drawn, by what they show
let hooks;

/** `hooks`: open(id), removing(id) returning what restores its draft, changed(id, values), failed() reading the store. */
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
  const before = items;
  items = new Map();
  const rows = [...groups].flatMap(([name, outlines]) => [make("li", { className: "day" }, name), ...outlines.map(itemOf)]);
  byId("list").replaceChildren(...(rows.length ? rows : [empty]));
  markCurrent(current);

  function itemOf(outline) {
    const shown = JSON.stringify([words.rename, outline]);
    items.set(shown, before.get(shown) ?? drawItem(outline));
    return items.get(shown);
  }
}

/** How to write times in a language; these are slow to make, and a long list writes many. */
const timesIn = (lang) => ({
  lang,
  day: new Intl.RelativeTimeFormat(lang, { numeric: "auto" }),
  weekday: new Intl.DateTimeFormat(lang, { weekday: "long" }),
  month: new Intl.DateTimeFormat(lang, { month: "long", year: "numeric" }),
  exact: new Intl.DateTimeFormat(lang, { dateStyle: "medium", timeStyle: "short" }),
});
let known = timesIn("en");
const times = () => {
  const { lang } = document.documentElement;
  return known.lang === lang ? known : (known = timesIn(lang));
};

/** Names the time of a conversation: recent days individually, others by month. */
function groupOf({ pinned, updated }) {
  if (pinned) return words.pinned;
  const midnight = new Date().setHours(0, 0, 0, 0);
  const days = Math.max(0, Math.ceil((midnight - updated) / DAY_MS));
  if (days < 2) return times().day.format(-days, "day");
  return (days < 7 ? times().weekday : times().month).format(updated);
}

const marked = (parts) => parts.map(([text, matches]) => (matches ? make("mark", {}, text) : text));

function drawItem({ id, title, updated, pinned, excerpt, parts = [[title]] }) {
  const when = times().exact.format(updated);
  const open = make("button", { type: "button", className: "open", dataset: { id }, title: `${title}\n${when}` }, ...marked(parts));
  if (excerpt) open.append(make("span", { className: "excerpt" }, ...marked(excerpt)));
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
  items.clear();
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

const bin = []; // what "undo" brings back: all that was deleted since the toast appeared

async function remove(id, title) {
  const restoreDraft = await hooks.removing(id);
  bin.push({ data: await store.remove(id), restoreDraft });
  await refresh();
  byId("new").focus();
  const text = bin.length > 1 ? words.deletedSome(bin.length) : words.deleted(title);
  toast(text, { undo, closed: () => bin.splice(0) });
}

async function undo() {
  const { id } = bin.at(-1).data;
  for (const { data, restoreDraft } of bin.splice(0)) {
    await store.restore(data);
    await restoreDraft();
  }
  await refresh();
  hooks.open(id);
}

let pause;
byId("search").addEventListener("input", () => {
  clearTimeout(pause);
  pause = setTimeout(refresh, SEARCH_DELAY_MS);
});
