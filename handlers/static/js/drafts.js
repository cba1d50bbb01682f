/** What is typed or attached and not sent yet, by conversation; it outlives a reload. */

import * as db from "../vendor/idb-keyval/index.js";
import { attachedItems, attachItems, onAttachments } from "./attachments.js";
import { byId } from "./dom.js";
import { local, session } from "./storage.js";
import { newId } from "./tree.js";
import { LEAVING } from "./unsaved.js";

const DELAY_MS = 300;
const FORGOTTEN_MS = 7 * 86_400_000;

/** Attachments are too large for the storage of texts. */
const parcels = db.createStore("drafts", "drafts");

/** If the browser stores nothing, attachments last until the page is left. */
async function ifStored(work) {
  try {
    return await work();
  } catch {
    return null;
  }
}

const field = byId("message");
let place = { storage: session, key: "draft" };
let pause = 0;
let shown;

/** A new chat's draft is this tab's own, a conversation's is every tab's. */
const placeOf = ({ id, messages }) =>
  messages.length ? { storage: local, key: `draft:${id}` } : { storage: session, key: "draft" };

/** The tab's name survives a reload. */
function tab() {
  const name = session.getItem("tab") ?? newId();
  session.setItem("tab", name);
  return name;
}
const parcelOf = ({ storage, key }) => (storage === session ? `tab:${tab()}` : key);

/** Keeps the draft that is in the field, and shows that of another conversation. */
export function showDraft(data) {
  keep();
  place = placeOf(data);
  field.value = place.storage.getItem(place.key) ?? "";
  field.dispatchEvent(new Event("input"));
  clearTimeout(pause);
  pause = 0;
  shown = showParcel(parcelOf(place));
}

/** Adds to the draft in the field. */
export async function addToDraft(text, items) {
  field.value = [field.value, text].filter(Boolean).join("\n\n");
  field.dispatchEvent(new Event("input"));
  if (!items.length) return;
  await shown;
  attachItems([...attachedItems(), ...items]);
  keepParcel();
}

async function showParcel(name) {
  attachItems([]);
  const { items = [] } = (await ifStored(() => db.get(name, parcels))) ?? {};
  if (name === parcelOf(place) && items.length) attachItems([...items, ...attachedItems()]);
}

/** Forgets a draft that has been sent, once that is stored; meanwhile another may have been begun. */
export async function forgetDraft(text, stored) {
  const { storage, key } = place;
  const parcel = parcelOf(place);
  clearTimeout(pause);
  pause = 0;
  storage.setItem(key, text);
  await stored;
  if (storage.getItem(key) === text) storage.removeItem(key);
  await ifStored(() => db.del(parcel, parcels));
  keepParcel();
}

/** Moves the field's draft to a conversation that has just got its first message. */
export const moveDraft = (data) => (place = placeOf(data));

/** Deletes a conversation's draft; returns a function that restores it. */
export async function dropDraft(id) {
  keep();
  const key = `draft:${id}`;
  const text = local.getItem(key);
  const parcel = await ifStored(() => db.get(key, parcels));
  local.removeItem(key);
  await ifStored(() => db.del(key, parcels));
  return async () => {
    if (text) local.setItem(key, text);
    if (parcel) await ifStored(() => db.set(key, parcel, parcels));
  };
}

function keep() {
  if (!pause) return;
  clearTimeout(pause);
  pause = 0;
  if (field.value) place.storage.setItem(place.key, field.value);
  else place.storage.removeItem(place.key);
}

function keepParcel() {
  const items = attachedItems();
  const name = parcelOf(place);
  ifStored(() => (items.length ? db.set(name, { items, kept: Date.now() }, parcels) : db.del(name, parcels)));
}

/** Remembers the draft in the field for what is being read; returns what keeps it there, once another is shown. */
function keeperOf() {
  const name = parcelOf(place);
  const added = (item) => ({ items = [] } = {}) => ({ items: [...items, item], kept: Date.now() });
  return async (item) => {
    await shown;
    if (name === parcelOf(place)) return false;
    await ifStored(() => db.update(name, added(item), parcels));
    return true;
  };
}

/** Deletes what belonged to tabs that were closed long ago. */
async function forgetOldParcels() {
  for (const [name, { kept }] of await db.entries(parcels)) {
    if (name.startsWith("tab:") && Date.now() - kept > FORGOTTEN_MS) await db.del(name, parcels);
  }
}

field.addEventListener("input", () => {
  clearTimeout(pause);
  pause = setTimeout(keep, DELAY_MS);
});
for (const event of LEAVING) addEventListener(event, keep);
onAttachments(keepParcel, keeperOf);
ifStored(forgetOldParcels);
