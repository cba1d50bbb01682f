/** What a closing page has no time to save: stored synchronously, and saved by the next page. */

import { local } from "./storage.js";
import { load, save } from "./store.js";
import { union } from "./tree.js";

const KEY = "answer:";

/** When to keep what is not saved; phones close a hidden page without further notice. */
export const LEAVING = ["beforeunload", "pagehide", "visibilitychange"];

const STAYED_MS = 2000;
let leaving = false;

/** Whether the page is about to be closed: its connections are cut then, before "pagehide". */
export const isLeaving = () => leaving;

addEventListener("beforeunload", () => {
  leaving = true;
  setTimeout(() => (leaving = false), STAYED_MS); // a link to a mail program leaves the page open
});

export const dropUnsaved = ({ id }) => local.removeItem(KEY + id);

/** Keeps a message of a conversation, for `saveUnsaved`. */
export function keepUnsaved({ id }, message) {
  local.setItem(KEY + message.id, JSON.stringify([id, message])); // if it is too long, what was saved last is kept
}

/** Saves what other pages have left like this. */
export async function saveUnsaved() {
  for (const key of local.keys().filter((key) => key.startsWith(KEY))) {
    const [id, message] = JSON.parse(local.getItem(key));
    const data = await load(id);
    if (data?.messages.some((other) => other.id === message.parent)) {
      data.messages = union(data.messages, [message]);
      await save(data);
    }
    local.removeItem(key);
  }
}
