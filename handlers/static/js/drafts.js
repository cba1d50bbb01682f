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

const heirs = new Map(); // where what is still being read goes, by the parcel of a deleted conversation; "" for nowhere

/** Deletes a conversation's draft, or lets a new chat have it (`moved`); returns a function that restores it. */
export async function dropDraft(id, { moved = false } = {}) {
  keep();
  const key = `draft:${id}`;
  heirs.set(key, moved ? `tab:${tab()}` : "");
  const text = local.getItem(key);
  const parcel = await ifStored(() => db.get(key, parcels));
  local.removeItem(key);
  await ifStored(() => db.del(key, parcels));
  return async () => {
    heirs.delete(key);
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
  heirs.delete(name); // its conversation is here again
  const added = (item) => ({ items = [] } = {}) => ({ items: [...items, item], kept: Date.now() });
  return async (item) => {
    await shown;
    const heir = heirs.get(name) ?? name;
    if (heir === parcelOf(place)) return false;
    if (heir) await ifStored(() => db.update(heir, added(item), parcels));
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
