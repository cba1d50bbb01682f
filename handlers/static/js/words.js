/** The interface's words. */

import { en } from "./en.js";
import { ko } from "./ko.js";

/** The words of the language in use; modules that import it see the current one. */
export let words = en;

/** Shows the whole page in `language`, or in the browser's if it is empty. */
export function speak(language) {
  const chosen = language || (navigator.language.toLowerCase().startsWith("ko") ? "ko" : "en");
  words = { en, ko }[chosen];
  document.documentElement.lang = chosen;
  for (const [attribute, target] of [["label", "aria-label"], ["placeholder", "placeholder"]]) {
    for (const element of document.querySelectorAll(`[data-${attribute}]`)) {
      element.setAttribute(target, words[element.dataset[attribute]]);
    }
  }
  for (const element of document.querySelectorAll("[data-word]")) {
    element.textContent = words[element.dataset.word];
  }
  for (const element of document.querySelectorAll("button[data-label]")) element.title = element.ariaLabel;
  document.dispatchEvent(new Event("languagechange"));
}
