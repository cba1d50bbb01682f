/** What Enter means in a field of several lines. */

const touch = matchMedia("(hover: none) and (pointer: coarse)");

/** Tells whether a key's event belongs to a Hangul or Kanji composition. */
export const isComposing = (event) => event.isComposing || event.keyCode === 229;

/** Tells whether `event` means "send": on touch screens Enter is a new line, as there is no Shift. */
export const meansSend = (event) =>
  event.key === "Enter" &&
  !isComposing(event) &&
  (event.ctrlKey || event.metaKey || !(event.shiftKey || touch.matches));

/** Names the key on the keyboards of touch screens. */
export function nameEnter(field) {
  const name = () => (field.enterKeyHint = touch.matches ? "enter" : "send");
  touch.addEventListener("change", name);
  name();
}
