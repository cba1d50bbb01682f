/** What is typed and not sent yet, by conversation; it outlives a reload. */

import { byId } from "./dom.js";
import { local, session } from "./storage.js";

const DELAY_MS = 300;

const field = byId("message");
let place = { storage: session, key: "draft" };
let pause = 0;

/** A new chat's draft is this tab's own, a conversation's is every tab's. */
const placeOf = ({ id, messages }) =>
  messages.length ? { storage: local, key: `draft:${id}` } : { storage: session, key: "draft" };

/** Keeps the draft that is in the field, and shows that of another conversation. */
export function showDraft(data) {
  keep();
  place = placeOf(data);
  field.value = place.storage.getItem(place.key) ?? "";
  field.dispatchEvent(new Event("input"));
  clearTimeout(pause);
  pause = 0;
}

/** Forgets a draft that has been sent, once that is stored; meanwhile another may have been begun. */
export async function forgetDraft(text, stored) {
  const { storage, key } = place;
  clearTimeout(pause);
  pause = 0;
  storage.setItem(key, text);
  await stored;
  if (storage.getItem(key) === text) storage.removeItem(key);
}

/** Has the field's draft belong to a conversation that has just got its first message. */
export const moveDraft = (data) => (place = placeOf(data));

export const dropDraft = (id) => local.removeItem(`draft:${id}`);

function keep() {
  if (!pause) return;
  clearTimeout(pause);
  pause = 0;
  if (field.value) place.storage.setItem(place.key, field.value);
  else place.storage.removeItem(place.key);
}

field.addEventListener("input", () => {
  clearTimeout(pause);
  pause = setTimeout(keep, DELAY_MS);
});
addEventListener("pagehide", keep);
