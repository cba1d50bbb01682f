/** Why a conversation was found. */

const BEFORE = 12;
const EXCERPT_LENGTH = 120;

const patternOf = (wanted) =>
  new RegExp(wanted.map((word) => word.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&")).join("|"), "giu");

/** Returns `text` as [part, is it one of `wanted`] pairs. */
export function partsOf(text, wanted) {
  const parts = [];
  let last = 0;
  for (const { 0: match, index } of text.matchAll(patternOf(wanted))) {
    parts.push([text.slice(last, index), false], [match, true]);
    last = index + match.length;
  }
  return [...parts, [text.slice(last), false]].filter(([part]) => part);
}

/** Returns the words around the first of `wanted`, in `partsOf` them, from that of `texts` with most of them; or null. */
export function excerptOf(texts, wanted) {
  let most = 0;
  let text = null;
  for (const each of texts) {
    const lower = each.toLowerCase();
    const count = wanted.filter((word) => lower.includes(word)).length;
    if (count > most) [most, text] = [count, each];
  }
  if (text === null) return null;
  const start = Math.max(0, text.search(patternOf(wanted)) - BEFORE);
  const cut = `${start ? "…" : ""}${text.slice(start, start + EXCERPT_LENGTH)}`.replace(/[\s*`#]+/g, " ");
  return partsOf(cut, wanted);
}
