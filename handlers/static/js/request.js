/** What to ask the model: the conversation as it is on the screen. */

import { toldText } from "./length.js";
import { words } from "./words.js";

/** Returns the request for an answer to the last message of `branch`, or for the rest of it if it is one. */
export function toRequest(data, branch, model, sees) {
  const { system, temperature, think } = data;
  const messages = branch
    .filter(({ role, text }) => role === "user" || text)
    .map((message) => ({
      role: message.role,
      content: toldText(message),
      ...(sees && message.images?.length && { images: message.images }),
    }));
  if (messages.at(-1).role === "assistant") messages.push({ role: "user", content: words.goOn });
  return {
    model,
    messages,
    ...(system && { system }),
    ...(temperature !== null && { options: { temperature } }),
    ...(think && { think }),
  };
}

