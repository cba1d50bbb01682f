/** Conversations as files: all of them as JSON, or one as Markdown, with every version of every message. */

import { toldText } from "./length.js";
import { checkedOptions } from "./options.js";
import * as store from "./store.js";
import { branchOf, newId, union, upgrade } from "./tree.js";

export const exportAll = async () => JSON.stringify({ conversations: await store.all() }, null, 1);

/** Stores what `exportAll` or `toMarkdown` wrote; returns the number of conversations. */
export async function importAll(file) {
  const found = file.startsWith("# ") ? [fromMarkdown(file)] : JSON.parse(file).conversations;
  const imported = found.map(checked);
  for (const conversation of imported) {
    const own = await store.load(conversation.id);
    if (own && areOne(own, conversation)) {
      own.messages = union(own.messages, conversation.messages);
      await store.save(own);
    } else {
      if (own) conversation.id = newId(); // both are kept
      await store.restore(conversation);
    }
  }
  return imported.length;
}

/** Returns whether one of two conversations is an earlier state of the other. */
function areOne(one, other) {
  if (one.title !== other.title) return false;
  const texts = new Map(one.messages.map(({ id, text }) => [id, text]));
  const shared = other.messages.filter(({ id, text }) => texts.get(id) === text).length;
  return shared === Math.min(one.messages.length, other.messages.length);
}

/** Returns a conversation in the right shape, whatever the file contains. */
function checked(given) {
  const { id, title, created, updated, pinned, leaf, system, temperature, think, options, format, messages } = upgrade({
    created: Date.now(),
    ...given,
  });
  const told = messages.map(checkedMessage);
  const ids = new Set([null]);
  for (const message of told) {
    if (ids.has(message.id) || !ids.has(message.parent)) throw new TypeError();
    ids.add(message.id);
  }
  return {
    ...store.create(),
    ...(id && { id: String(id) }),
    title: String(title ?? ""),
    created: Number(created) || Date.now(),
    updated: Number(updated) || Date.now(),
    pinned: pinned === true,
    system: String(system ?? ""),
    temperature: Number.isFinite(temperature) ? temperature : null,
    think: ["low", "medium", "high"].includes(think) ? think : think === true,
    options: checkedOptions(options),
    format: String(format ?? ""),
    messages: union(told, []),
    leaf: ids.has(leaf) ? leaf : (told.at(-1)?.id ?? null),
  };
}

function checkedMessage({ id, parent, created, role, text, images, files, ...answer }) {
  if (!["user", "assistant"].includes(role) || typeof text !== "string") throw new TypeError();
  const message = { id: String(id), parent: parent == null ? null : String(parent), created: Number(created) || 0, role, text };
  if (role === "user") {
    return {
      ...message,
      images: (images ?? []).filter((image) => /^[A-Za-z0-9+/=]+$/.test(image)),
      files: (files ?? []).map(({ name, size, text }) => ({ name: String(name), size: Number(size) || 0, text: String(text) })),
    };
  }
  const { model, ended, thinking, runs, tokens, seconds, rate } = answer;
  return {
    ...message,
    model: String(model ?? ""),
    ...(ended && { ended: String(ended) }),
    ...(thinking && { thinking: String(thinking) }),
    ...(runs > 0 && { runs: Number(runs) }),
    ...([tokens, seconds, rate].every(Number.isFinite) && { tokens, seconds, rate }),
  };
}

const VERSIONS = "<!-- versions -->\n# Other versions\n\n";

/**
 * Writes the branch in view, then the other versions. Comments, which readers do not see, tell messages
 * from headings inside them, and name a message's predecessor if it is not the one before.
 */
export function toMarkdown(data) {
  const branch = branchOf(data);
  const others = data.messages.filter((message) => !branch.includes(message));
  const order = [null, ...[...branch, ...others].map(({ id }) => id)];
  const write = (message, index) => {
    const { role, model, parent } = message;
    const after = order.indexOf(parent);
    const place = after === index ? "" : ` after ${after}`;
    const rest = index === branch.length ? VERSIONS : "";
    return `${rest}<!-- ${role}${place} -->\n## ${role === "user" ? "User" : model}\n\n${toldText(message)}`;
  };
  return [`# ${data.title}`, ...[...branch, ...others].map(write)].join("\n\n") + "\n";
}

function fromMarkdown(file) {
  const source = file.replaceAll("\r\n", "\n");
  const [head, ...parts] = source.split(/^(?:<!-- versions -->\n# .*\n\n)?<!-- (user|assistant)(?: after (\d+))? -->\n## (.*)\n\n/m);
  const messages = [];
  let leaf;
  for (let at = 0; at < parts.length; at += 4) {
    const [role, after, model, text] = parts.slice(at, at + 4);
    const before = Number(after ?? messages.length);
    messages.push({ id: `m${messages.length}`, parent: before ? `m${before - 1}` : null, created: messages.length, role, model, text: text.trim() });
    if (after === undefined && leaf === messages.at(-2)?.id) leaf = messages.at(-1).id;
  }
  if (!messages.length) throw new TypeError();
  return { title: head.slice(2).trim(), messages, leaf };
}
