/** The message field. */

import { attachItems, attachments, busy } from "./attachments.js";
import { byId } from "./dom.js";
import { meansSend, nameEnter } from "./enter.js";
import { words } from "./words.js";

const DOUBLE_CLICK_MS = 500;

const form = byId("composer");
const field = byId("message");
let sentAt = -Infinity;

/** Calls `send` with text and `{ images, files }`; it returns whether it accepted them. */
export function onSend(send) {
  form.onsubmit = (event) => {
    event.preventDefault();
    const text = field.value.trim();
    const { images, files } = attachments();
    if (busy()) byId("notice").textContent = words.stillReading;
    if (busy() || !(text || images.length || files.length) || !send(text, { images, files })) return;
    if (event.submitter) sentAt = performance.now();
    field.value = "";
    attachItems([]);
    resize();
  };
}

/** Calls `stop`; the second click of a double-click on Send does not count. */
export const onStop = (stop) =>
  (byId("stop").onclick = () => performance.now() - sentAt > DOUBLE_CLICK_MS && stop());

export function showRunning(running) {
  const hadFocus = form.contains(document.activeElement);
  byId("send").hidden = running;
  byId("stop").hidden = !running;
  if (hadFocus) field.focus();
}

nameEnter(field);
field.addEventListener("keydown", (event) => {
  if (!meansSend(event)) return;
  event.preventDefault();
  form.requestSubmit();
});

/** Lets the field grow with its text where CSS alone does not. */
function resize() {
  if (CSS.supports("field-sizing", "content")) return;
  field.style.height = "auto";
  field.style.height = `${field.scrollHeight}px`;
}
field.addEventListener("input", resize);
