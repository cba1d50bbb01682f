/** What to ask the model, so that it knows the conversation up to its last message. */

/**
 * The last answer's `context` holds all that was said before it, for its own model. What came
 * after that answer (cut short, imported, or another model's) is told again in words.
 */
export function toRequest({ messages, system, temperature, think }, model) {
  const question = messages.at(-1);
  const known = messages.findLastIndex((message) => message.context && message.model === model);
  const untold = messages.slice(known + 1, -1).filter(({ text }) => text);
  const images = [...untold, question].flatMap((message) => message.images ?? []);
  return {
    model,
    message: untold.length ? retold([...untold, question]) : question.text,
    ...(known >= 0 && { context: messages[known].context }),
    ...(system && system !== messages[known]?.system && { system }),
    ...(temperature !== null && { options: { temperature } }),
    ...(images.length && { images }),
    ...(think && { think }),
  };
}

const retold = (messages) =>
  messages.map(({ role, text }) => `${role === "user" ? "User" : "Assistant"}: ${text}`).join("\n\n");
