/** Why a conversation was found. */

const BEFORE = 12;
const EXCERPT_LENGTH = 120;

/** Returns the words around the first of `wanted` in `texts`, as [text, is it a match] pairs; or null. */
export function excerptOf(texts, wanted) {
  const pattern = new RegExp(wanted.map((word) => word.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&")).join("|"), "giu");
  const text = texts.find((text) => text.search(pattern) >= 0);
  if (!text) return null;
  const start = Math.max(0, text.search(pattern) - BEFORE);
  const cut = `${start ? "…" : ""}${text.slice(start, start + EXCERPT_LENGTH)}`.replace(/[\s*`#]+/g, " ");
  const parts = [];
  let last = 0;
  for (const { 0: match, index } of cut.matchAll(pattern)) {
    parts.push([cut.slice(last, index), false], [match, true]);
    last = index + match.length;
  }
  return [...parts, [cut.slice(last), false]].filter(([part]) => part);
}
