/** System prompts saved under a name; one of them may be the start of new conversations. */

import { byId, make } from "./dom.js";
import { local } from "./storage.js";
import { words } from "./words.js";

const KEY = "prompts";

/** Returns `[{ name, text, usual }]` by name. */
function load() {
  try {
    return JSON.parse(local.getItem(KEY)) ?? [];
  } catch {
    return []; // written by something else
  }
}

function keep(prompts) {
  const sorted = prompts.toSorted((a, b) => a.name.localeCompare(b.name));
  local.setItem(KEY, JSON.stringify(sorted));
  showPrompts();
}

const find = (name) => load().find((prompt) => prompt.name === name);
const chosen = () => find(byId("prompt").value);

/** The prompt for new conversations; its text is "" if there is none. */
export const usualPrompt = () => load().find(({ usual }) => usual) ?? { name: "", text: "" };

/** Shows the saved prompts, and which one is in the field. */
export function showPrompts() {
  const prompts = load();
  const options = prompts.map(({ name, usual }) =>
    make("option", { value: name }, usual ? words.promptIsUsual(name) : name),
  );
  byId("prompt").replaceChildren(make("option", { value: "" }, words.noPrompt), ...options);
  byId("prompt").value = prompts.find(({ text }) => text === byId("system").value.trim())?.name ?? "";
  byId("prompt-row").hidden = !prompts.length;
  showChosen();
  byId("welcome-prompt").textContent = usualPrompt().name && words.promptUsed(usualPrompt().name);
}

function showChosen() {
  const prompt = chosen();
  byId("prompt-actions").hidden = !prompt;
  byId("prompt-usual").checked = Boolean(prompt?.usual);
  if (prompt) byId("prompt-name").value = prompt.name;
}

function save() {
  const name = byId("prompt-name").value.trim();
  const text = byId("system").value.trim();
  if (!text || !name) {
    byId(text ? "prompt-name" : "system").focus();
    return;
  }
  const usual = Boolean(find(name)?.usual);
  keep([...load().filter((prompt) => prompt.name !== name), { name, text, usual }]);
  byId("prompt-result").textContent = words.promptSaved(name);
}

/** Calls `use` with the text of the chosen prompt. */
export function setUpPrompts(use) {
  byId("prompt").onchange = () => {
    byId("prompt-result").textContent = "";
    if (chosen()) use(chosen().text);
    showChosen();
  };
  byId("prompt-save").onclick = save;
  byId("prompt-name").onkeydown = (event) => {
    if (event.key !== "Enter" || event.isComposing || event.keyCode === 229) return;
    event.preventDefault(); // it would close the drawer
    save();
  };
  byId("prompt-usual").onchange = ({ target }) => {
    const { name } = chosen();
    keep(load().map((prompt) => ({ ...prompt, usual: target.checked && prompt.name === name })));
  };
  byId("prompt-delete").onclick = () => {
    const { name } = chosen();
    keep(load().filter((prompt) => prompt.name !== name));
    byId("prompt-result").textContent = words.promptDeleted(name);
    byId("prompt-save").focus();
  };
  byId("system").addEventListener("input", () => (byId("prompt-result").textContent = ""));
  addEventListener("storage", ({ key }) => key === KEY && showPrompts());
  document.addEventListener("languagechange", showPrompts);
  showPrompts();
}
