/** What to ask the model, so that it knows the conversation up to its last message. */

import { toldText } from "./length.js";
import { formatOf } from "./options.js";

/**
 * The last answer's `context` holds all that was said before it, for its own model. What came
 * after that answer (cut short, imported, or another model's) is told again in words. The system
 * prompt is told every time: without it Ollama would put the model's own in its place.
 */
export function toRequest(data, model, { sees, thinks }) {
  const { messages, system, temperature, think, format } = data;
  const options = { ...data.options, ...(temperature !== null && { temperature }) };
  const question = messages.at(-1);
  const known = messages.findLastIndex((message) => message.context && message.model === model);
  const untold = messages.slice(known + 1, -1).filter(toldText);
  const images = sees ? [...untold, question].flatMap((message) => message.images ?? []) : [];
  return {
    model,
    message: untold.length ? retold([...untold, question]) : toldText(question),
    ...(known >= 0 && { context: contextOf(data, messages[known]) }),
    ...(system && { system }),
    ...(Object.keys(options).length && { options }),
    ...(formatOf(format) && { format: formatOf(format) }),
    ...(images.length && { images }),
    ...(think && thinks && { think }),
  };
}

const retold = (messages) =>
  messages.map((message) => `${message.role === "user" ? "User" : "Assistant"}: ${toldText(message)}`).join("\n\n");

const contextOf = ({ contexts }, { model, context }) =>
  Array.isArray(context) ? context : contexts[model].slice(0, context);

/**
 * Keeps the context of a new answer. As a rule it goes on where that of the answer before ended: so
 * the conversation has the longest alone, and an answer only how much of it is its own.
 */
export function keepContext(data, message, context) {
  const { model } = message;
  const counted = data.messages.filter((other) => other.model === model && other.context > 0);
  const shared = Math.max(0, ...counted.map((other) => other.context));
  const last = data.contexts?.[model] ?? [];
  const goesOn = context.length >= shared && last.slice(0, shared).every((id, at) => id === context[at]);
  message.context = goesOn ? context.length : context;
  if (goesOn) data.contexts = { ...data.contexts, [model]: context };
}
