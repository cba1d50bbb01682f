/** What to ask the model: the conversation as it is on the screen. */

import { toldText } from "./length.js";
import { formatOf } from "./options.js";
import { words } from "./words.js";

/** Returns the request for an answer to the last message of `branch`, or for the rest of that answer. */
export function toRequest(data, branch, model, { sees, thinks }) {
  const { system, temperature, think, format } = data;
  const options = { ...data.options, ...(temperature !== null && { temperature }) };
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
    ...(Object.keys(options).length && { options }),
    ...(formatOf(format) && { format: formatOf(format) }),
    ...(think && thinks && { think }),
  };
}

