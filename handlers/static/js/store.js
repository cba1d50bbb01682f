/**
 * Keeps conversations in this browser, for all its tabs: outlines to list, and whole ones to open and
 * search. Nothing is overwritten: saving merges with what is stored, in one transaction.
 */

import * as db from "../vendor/idb-keyval/index.js";
import { excerptOf, partsOf } from "./excerpt.js";
import { tell } from "./tabs.js";
import { newestLeaf, newId, union, upgrade } from "./tree.js";

const outlines = db.createStore("outlines", "conversations");
const conversations = db.createStore("conversations", "conversations");

const outlineOf = ({ id, title, updated, pinned }) => ({ id, title, updated, pinned: pinned === true });

export const create = () => ({
  id: newId(),
  title: "",
  created: Date.now(),
  updated: Date.now(),
  pinned: false,
  system: "",
  temperature: null,
  think: false,
  options: {},
  format: "",
  messages: [],
  leaf: null,
});

/** The last stored settings of a conversation, by the object that a tab works on. */
const bases = new WeakMap();
const settingsOf = ({ messages, leaf, updated, ...settings }) => settings;
const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);

function remember(data) {
  bases.set(data, structuredClone(settingsOf(data)));
  return data;
}

/** Merges what has been stored meanwhile into `data`, which keeps its own changes. */
export function absorb(data, stored) {
  if (!stored || stored.deleted) return data;
  const { messages, updated, ...others } = upgrade(stored);
  const base = bases.get(data) ?? {};
  for (const [name, value] of Object.entries(settingsOf(others))) {
    if (data[name] === undefined || same(data[name], base[name])) data[name] = value;
  }
  data.messages = union(data.messages, messages);
  data.leaf = newestLeaf(data, data.leaf ?? others.leaf);
  data.updated = Math.max(data.updated, updated);
  return remember(data);
}

/** Saves a conversation; returns false if it was deleted meanwhile, in another tab. */
export async function save(data) {
  let deleted = false;
  await db.update(
    data.id,
    (stored) => {
      deleted = Boolean(stored?.deleted);
      return deleted ? stored : remember(absorb(data, stored));
    },
    conversations,
  );
  if (deleted) return false;
  await db.update(data.id, (stored) => (stored?.deleted ? stored : outlineOf(data)), outlines);
  tell({ saved: data.id });
  navigator.storage?.persist?.(); // the browser may ask its user, or decide by itself
  return true;
}

/** Returns a conversation, or nothing. */
export async function load(id) {
  const stored = await db.get(id, conversations);
  return stored && !stored.deleted ? remember(upgrade(stored)) : undefined;
}

/** Deletes a conversation in all tabs; `restore` undoes it with the value returned. */
export async function remove(id) {
  const removed = await load(id);
  for (const part of [conversations, outlines]) await db.set(id, { id, deleted: Date.now() }, part);
  tell({ deleted: id });
  return removed;
}

/** Stores a deleted conversation again. */
export async function restore(data) {
  for (const part of [conversations, outlines]) {
    await db.update(data.id, (stored) => (stored?.deleted ? undefined : stored), part);
  }
  await save(data);
}

const valuesOf = async (part) => (await db.values(part)).filter((value) => value && !value.deleted);

export const all = async () => (await valuesOf(conversations)).map(upgrade);

/** A form to compare: macOS decomposes Hangul. */
const plain = (text) => text.normalize("NFC").toLowerCase();

/** Lists the outlines of the conversations with all of the words, most recent first. */
export async function list(query = "") {
  const wanted = plain(query).split(/\s+/).filter(Boolean);
  const found = wanted.length ? await search(wanted) : await valuesOf(outlines);
  return found.sort((a, b) => (b.pinned === true) - (a.pinned === true) || b.updated - a.updated);
}

const textsOf = ({ text, files = [] }) => [text, ...files.flatMap((file) => [file.name, file.text])];

async function search(wanted) {
  const found = [];
  for (const conversation of await all()) {
    const texts = conversation.messages.flatMap(textsOf).map((text) => text.normalize("NFC"));
    const whole = plain([conversation.title, ...texts].join("\n"));
    if (!wanted.every((word) => whole.includes(word))) continue;
    const excerpt = excerptOf(texts, wanted);
    const parts = partsOf(conversation.title.normalize("NFC"), wanted);
    found.push({ ...outlineOf(conversation), parts, ...(excerpt && { excerpt }) });
  }
  return found;
}
