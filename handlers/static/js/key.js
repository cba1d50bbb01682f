/** The API key: asked for, and kept for this tab or on this device. */

import { apiKey, isKeyRemembered, keepApiKey } from "./api.js";
import { byId } from "./dom.js";
import { words } from "./words.js";

byId("key-value").oninput = ({ target }) => {
  // Other characters cannot be sent in a header.
  target.setCustomValidity(/^[!-~]*$/.test(target.value.trim()) ? "" : words.keyCharacters);
};

/** Asks for the API key; returns whether one was entered or removed. */
export async function askForKey(why = words.keyHelp) {
  const dialog = byId("key");
  if (dialog.open) return false;
  byId("key-why").textContent = why;
  byId("key-value").value = apiKey();
  byId("key-value").setCustomValidity("");
  byId("key-remember").checked = isKeyRemembered();
  dialog.returnValue = "";
  dialog.showModal();
  await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
  if (dialog.returnValue !== "save") return false;
  keepApiKey(byId("key-value").value.trim(), byId("key-remember").checked);
  return true;
}
