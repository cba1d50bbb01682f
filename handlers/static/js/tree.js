/** A conversation's messages as a tree: each names its `parent`, and `leaf` is the end of the branch in view. */

/** Over plain HTTP, browsers have no randomUUID. */
export const newId = () => crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`;

/** Returns the messages from the first one to `leaf`. */
export function branchOf({ messages, leaf }) {
  const byId = new Map(messages.map((message) => [message.id, message]));
  const branch = [];
  for (let message = byId.get(leaf); message; message = byId.get(message.parent)) branch.unshift(message);
  return branch;
}

/** Returns all versions of `message`, itself included, oldest first. */
export const versionsOf = ({ messages }, { parent, role }) =>
  messages.filter((other) => other.parent === parent && other.role === role);

/** Returns the end of the newest branch through the message `id`. */
export function newestLeaf({ messages }, id) {
  const newestChild = new Map(messages.map((message) => [message.parent, message.id]));
  let leaf = id;
  while (newestChild.has(leaf)) leaf = newestChild.get(leaf);
  return leaf;
}

/** Adds a message after the leaf, or after `parent`; it becomes the leaf. */
export function add(data, message, parent = data.leaf) {
  const added = Object.assign(message, { id: newId(), parent, created: Date.now() });
  data.messages.push(added);
  data.leaf = added.id;
  data.updated = added.created;
  return added;
}

/** Gives the messages of a conversation that had a single branch their places in the tree. */
export function upgrade(data) {
  if (!data?.messages || (data.leaf !== undefined && data.messages.every(({ id }) => id))) return data;
  const { contexts, ...rest } = data;
  const messages = data.messages.map(({ context, ...message }, index) => ({
    ...message,
    id: `m${index}`,
    parent: index ? `m${index - 1}` : null,
    created: data.created + index,
  }));
  return { ...rest, messages, leaf: messages.at(-1)?.id ?? null };
}

/** How complete a message is: an answer grows, and one that broke off may be continued. */
const progress = ({ runs = 0, ended, text }) => [runs, ended === "unfinished" ? 0 : 1, text.length];

const isFurther = (one, other) => {
  const [a, b] = [progress(one), progress(other)];
  const at = a.findIndex((value, index) => value !== b[index]);
  return at >= 0 && a[at] > b[at];
};

/** Returns the messages of both; of those in both, `own`, unless the other is more complete. */
export function union(own, others) {
  const merged = new Map(own.map((message) => [message.id, message]));
  for (const message of others) {
    const mine = merged.get(message.id);
    if (!mine) merged.set(message.id, message);
    else if (isFurther(message, mine)) {
      delete mine.failure; // it may have been continued
      Object.assign(mine, message);
    }
  }
  return [...merged.values()].sort((a, b) => a.created - b.created);
}
