/** The user's preferences, applied before the first paint. */

import { local } from "./storage.js";
import { speak } from "./words.js";

const appliers = {
  theme: (value) => (document.documentElement.dataset.theme = value),
  language: speak,
};

export const preference = (name) => local.getItem(name) ?? "";

export function prefer(name, value) {
  local.setItem(name, value);
  appliers[name](value);
}

for (const [name, apply] of Object.entries(appliers)) apply(preference(name));
