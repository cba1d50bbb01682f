/** The choice of the model. */

import { get } from "./api.js";
import { byId, make } from "./dom.js";
import { local } from "./storage.js";
import { words } from "./words.js";

const CHOSEN = "model";
const usual = document.querySelector("meta[name=default-model]").content;
const select = byId("model");

let capabilities = {};
let contextLengths = {};

export const model = () => select.value;

/** Returns whether the chosen model can see images; if unknown, it may. */
export const sees = () => capabilities[model()]?.includes("vision") ?? true;

/** Returns whether the chosen model can think first; if unknown, it may. */
export const thinks = () => capabilities[model()]?.includes("thinking") ?? true;

/** The tokens that the chosen model can process, answer included; Infinity if unknown. */
export const contextLength = () => contextLengths[model()] ?? Infinity;

/** Calls `changed` when another model is chosen, or more is known about it. */
export const onModel = (changed) => document.addEventListener("model", changed);
const tell = () => document.dispatchEvent(new Event("model"));

/** Chooses a conversation's model, if it is in the list. */
export function choose(name) {
  if ([...select.options].some(({ value }) => value === name)) select.value = name;
  tell();
}

/** Lists the installed models; throws a Failure. */
export async function loadModels() {
  const { models, ...more } = await get("/api/models?capabilities=true");
  capabilities = more.capabilities ?? {};
  contextLengths = more.context_lengths ?? {};
  showModels(models.filter((name) => capabilities[name]?.includes("completion") ?? true)); // others embed
}

const learned = new Set();

/** Ollama may give a model less context than it could have, which shows once the model is loaded. */
export function learnContextLength() {
  if (!learned.has(model())) loadModels().catch(() => {});
  learned.add(model());
}

/** Without a list, the default can still be chosen. */
export function showModels(models = [...select.options].map(({ value }) => value)) {
  const chosen = select.value || local.getItem(CHOSEN) || usual;
  const options = (models.length ? models : [usual]).map((name) =>
    make("option", { value: name }, name === usual ? words.defaultModel(name) : name),
  );
  select.replaceChildren(...options);
  for (const name of [usual, chosen]) choose(name);
}

select.onchange = () => {
  local.setItem(CHOSEN, select.value);
  tell();
};
showModels();
