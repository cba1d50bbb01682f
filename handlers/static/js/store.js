/** Keeps conversations in this browser: outlines to list, and whole ones to open and to search. */

import * as db from "../vendor/idb-keyval/index.js";

const outlines = db.createStore("outlines", "conversations");
const conversations = db.createStore("conversations", "conversations");
const others = new BroadcastChannel("conversations");

const outlineOf = ({ id, title, updated }) => ({ id, title, updated });

/** Has `changed` called when another tab has changed something. */
export const onChange = (changed) => (others.onmessage = changed);

export const create = () => ({
  id: crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`, // plain HTTP has no randomUUID
  title: "",
  created: Date.now(),
  updated: Date.now(),
  system: "",
  temperature: null,
  think: false,
  messages: [],
});

export async function save(conversation) {
  await db.set(conversation.id, conversation, conversations);
  await db.set(conversation.id, outlineOf(conversation), outlines);
  others.postMessage(conversation.id);
}

export const load = (id) => db.get(id, conversations);

export async function remove(id) {
  await db.del(id, outlines);
  await db.del(id, conversations);
  others.postMessage(id);
}

/** Lists the outlines of the conversations that have all of the words, the last used first. */
export async function list(query = "") {
  const wanted = query.toLowerCase().split(/\s+/).filter(Boolean);
  const candidates = wanted.length
    ? (await db.values(conversations)).filter((conversation) => {
        const texts = [conversation.title, ...conversation.messages.map(({ text }) => text)];
        const all = texts.join("\n").toLowerCase();
        return wanted.every((word) => all.includes(word));
      })
    : await db.values(outlines);
  return candidates.map(outlineOf).sort((a, b) => b.updated - a.updated);
}

export const exportAll = async () =>
  JSON.stringify({ conversations: await db.values(conversations) }, null, 1);

/** Stores what `exportAll` made, and returns how many conversations it was. */
export async function importAll(json) {
  const imported = JSON.parse(json).conversations.map(checked);
  for (const conversation of imported) await save(conversation);
  return imported.length;
}

/** Returns a conversation of the right shape, whatever a file has in its place. */
function checked({ id, title, created, updated, system, temperature, think, messages }) {
  return {
    ...create(),
    ...(id && { id: String(id) }),
    title: String(title ?? ""),
    created: Number(created) || Date.now(),
    updated: Number(updated) || Date.now(),
    system: String(system ?? ""),
    temperature: Number.isFinite(temperature) ? temperature : null,
    think: think === true,
    messages: messages.map(checkedMessage),
  };
}

function checkedMessage({ role, text, images, model, system, context, tokens, seconds, rate }) {
  if (!["user", "assistant"].includes(role) || typeof text !== "string") throw new TypeError();
  if (role === "user") {
    return { role, text, images: (images ?? []).filter((image) => /^[A-Za-z0-9+/=]+$/.test(image)) };
  }
  const figures = [tokens, seconds, rate].every(Number.isFinite) && { tokens, seconds, rate };
  const continued = Array.isArray(context) && context.every(Number.isInteger) && { context };
  return { role, text, model: String(model ?? ""), system: String(system ?? ""), ...figures, ...continued };
}

export const toMarkdown = ({ title, messages }) =>
  [`# ${title}`, ...messages.map(({ role, model, text }) => `## ${role === "user" ? "User" : model}\n\n${text}`)].join(
    "\n\n",
  ) + "\n";
