/** How long a conversation is for a model, and whether the model can still read it. */

/** Letters per token, in prose, by the vocabularies of Llama 3, Qwen 2.5 and Gemma 3. */
const LETTERS_A_TOKEN = 4;
const OTHERS_A_TOKEN = 1.6; // Hangul, Han, Kana

/** Estimates how many tokens `text` has; tables of numbers and program text have more. */
export function estimate(text) {
  const others = text.replace(/[\0-\u024f]+/g, "").length;
  return Math.ceil((text.length - others) / LETTERS_A_TOKEN + others / OTHERS_A_TOKEN);
}

/** Returns what the model gets of a message: its files and its text. */
export const toldText = ({ text, files = [] }) =>
  [...files.map((file) => `<file name="${file.name.replaceAll('"', "'")}">\n${file.text}\n</file>`), text]
    .filter(Boolean)
    .join("\n\n");

/** Estimates the tokens of a whole conversation, with one `more` message. */
export const lengthOf = ({ system, messages }, ...more) =>
  [system, ...[...messages, ...more].map(toldText)].reduce((sum, text) => sum + estimate(text), 0);
