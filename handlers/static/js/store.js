/** Keeps conversations in this browser: outlines to list, and whole ones to open and to search. */

import { toldText } from "./length.js";
import { checkedOptions } from "./options.js";
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
  options: {},
  format: "",
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

/** What to compare: macOS writes Hangul in its parts. */
const plain = (text) => text.normalize("NFC").toLowerCase();

/** Lists the outlines of the conversations that have all of the words, the last used first. */
export async function list(query = "") {
  const wanted = plain(query).split(/\s+/).filter(Boolean);
  const candidates = wanted.length
    ? (await db.values(conversations)).filter((conversation) => {
        const texts = [conversation.title, ...conversation.messages.map(({ text }) => text)];
        const all = plain(texts.join("\n"));
        return wanted.every((word) => all.includes(word));
      })
    : await db.values(outlines);
  return candidates.map(outlineOf).sort((a, b) => b.updated - a.updated);
}

export const exportAll = async () =>
  JSON.stringify({ conversations: await db.values(conversations) }, null, 1);

/** Stores what `exportAll` or `toMarkdown` made; returns how many conversations it was. */
export async function importAll(file) {
  const found = file.startsWith("# ") ? [fromMarkdown(file)] : JSON.parse(file).conversations;
  const imported = found.map(checked);
  for (const conversation of imported) {
    const own = await load(conversation.id);
    if (own && said(own) !== said(conversation)) conversation.id = create().id; // both are kept
    await save(conversation);
  }
  return imported.length;
}

const said = ({ title, messages }) => JSON.stringify([title, messages.map(({ text }) => text)]);

/** Returns a conversation of the right shape, whatever a file has in its place. */
function checked({ id, title, created, updated, system, temperature, think, options, format, contexts, messages }) {
  return {
    ...create(),
    ...(id && { id: String(id) }),
    title: String(title ?? ""),
    created: Number(created) || Date.now(),
    updated: Number(updated) || Date.now(),
    system: String(system ?? ""),
    temperature: Number.isFinite(temperature) ? temperature : null,
    think: ["low", "medium", "high"].includes(think) ? think : think === true,
    options: checkedOptions(options),
    format: String(format ?? ""),
    contexts: Object.fromEntries(Object.entries(contexts ?? {}).filter(([, ids]) => areTokens(ids))),
    messages: messages.map((message) => checkedMessage(message, contexts ?? {})),
  };
}

const areTokens = (ids) => Array.isArray(ids) && ids.every(Number.isInteger);

function checkedMessage({ role, text, images, files, model, ended, context, tokens, seconds, rate }, contexts) {
  if (!["user", "assistant"].includes(role) || typeof text !== "string") throw new TypeError();
  if (role === "user") {
    return {
      role,
      text,
      images: (images ?? []).filter((image) => /^[A-Za-z0-9+/=]+$/.test(image)),
      files: (files ?? []).map((file) => ({ name: String(file.name), size: Number(file.size) || 0, text: String(file.text) })),
    };
  }
  const figures = [tokens, seconds, rate].every(Number.isFinite) && { tokens, seconds, rate };
  const known = areTokens(context) || (context > 0 && areTokens(contexts[model]));
  return { role, text, model: String(model ?? ""), ...(ended && { ended: String(ended) }), ...figures, ...(known && { context }) };
}

/** The comments, which readers do not see, tell the messages from the headings inside of them. */
export const toMarkdown = ({ title, messages }) =>
  [
    `# ${title}`,
    ...messages.map((message) => `<!-- ${message.role} -->\n## ${message.role === "user" ? "User" : message.model}\n\n${toldText(message)}`),
  ].join("\n\n") + "\n";

function fromMarkdown(file) {
  const [head, ...parts] = file.replaceAll("\r\n", "\n").split(/^<!-- (user|assistant) -->\n## (.*)\n\n/m);
  const messages = [];
  for (let at = 0; at < parts.length; at += 3) {
    messages.push({ role: parts[at], model: parts[at + 1], text: parts[at + 2].trim() });
  }
  if (!messages.length) throw new TypeError();
  return { title: head.slice(2).trim(), messages };
}
