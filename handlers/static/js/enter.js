/** What Enter does in a field with several lines. */

const touch = matchMedia("(hover: none) and (pointer: coarse)");

/** Returns whether a key's event belongs to a Hangul or Kanji composition. */
export const isComposing = (event) => event.isComposing || event.keyCode === 229;

/** Returns whether `event` means "send": on touch screens, without Shift, Enter is a new line. */
export const meansSend = (event) =>
  event.key === "Enter" &&
  !isComposing(event) &&
  (event.ctrlKey || event.metaKey || !(event.shiftKey || touch.matches));

/** Labels the key on touch screens' keyboards. */
export function nameEnter(field) {
  const name = () => (field.enterKeyHint = touch.matches ? "enter" : "send");
  touch.addEventListener("change", name);
  name();
}
