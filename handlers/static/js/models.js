/** The choice of the model. */

import { get } from "./api.js";
import { byId, make } from "./dom.js";
import { words } from "./words.js";

const CHOSEN = "model";
const usual = document.querySelector("meta[name=default-model]").content;
const select = byId("model");

export const model = () => select.value;

/** Chooses the model of a conversation, if it is there to be chosen. */
export function choose(name) {
  if ([...select.options].some(({ value }) => value === name)) select.value = name;
}

/** Lists the installed models; throws a Failure. */
export async function loadModels() {
  const { models } = await get("/api/models");
  showModels(models);
}

/** Without a list there is still the default. */
export function showModels(models = [...select.options].map(({ value }) => value)) {
  const chosen = select.value || localStorage.getItem(CHOSEN) || usual;
  const options = (models.length ? models : [usual]).map((name) =>
    make("option", { value: name }, name === usual ? words.defaultModel(name) : name),
  );
  select.replaceChildren(...options);
  for (const name of [usual, chosen]) choose(name);
}

select.onchange = () => localStorage.setItem(CHOSEN, select.value);
showModels();
