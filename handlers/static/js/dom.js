/** Shorthands for making elements. */

import { words } from "./words.js";

const ICONS = new URL("../icons.svg", import.meta.url).pathname;
const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

/** Makes an element; `properties` are set on the object, their `dataset` and attributes included. */
export function make(tag, { dataset, attributes = {}, ...properties } = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  Object.assign(element.dataset, dataset);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Writes a number as the page's language does. */
export const number = (value, digits = 0) =>
  value.toLocaleString(document.documentElement.lang, { maximumFractionDigits: digits });

export function makeSvg(tag, attributes, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

export const icon = (name) =>
  makeSvg("svg", { class: "icon", "aria-hidden": "true" }, makeSvg("use", { href: `${ICONS}#${name}` }));

/** A button that shows an icon, with the accessible name `label`. */
export const iconButton = (name, label, onclick) =>
  make("button", { type: "button", className: "quiet", title: label, ariaLabel: label, onclick }, icon(name));

/** Copies text, and `html` beside it; over plain HTTP, browsers have no `navigator.clipboard`. */
export async function toClipboard(text, html) {
  const forms = Object.entries({ "text/plain": text, ...(html && { "text/html": html }) });
  if (navigator.clipboard?.write) {
    const blobs = forms.map(([type, form]) => [type, new Blob([form], { type })]);
    const item = new ClipboardItem(Object.fromEntries(blobs));
    if (await navigator.clipboard.write([item]).then(() => true, () => false)) return; // else it is not allowed
  }
  const focused = document.activeElement;
  const field = make("textarea", { className: "unseen", value: text });
  document.body.append(field);
  field.select();
  field.oncopy = (event) => {
    event.preventDefault();
    for (const [type, form] of forms) event.clipboardData.setData(type, form);
  };
  document.execCommand("copy");
  field.remove();
  focused.focus();
}

const copied = new WeakSet(); // buttons that say so

/** Copies text, and `html` beside it, and lets `button` say so for a moment. */
export async function copy(text, button, html) {
  await toClipboard(text, html);
  if (copied.has(button)) return;
  copied.add(button);
  const before = [...button.childNodes];
  button.replaceChildren(icon("check"), words.copied);
  setTimeout(() => {
    copied.delete(button);
    button.replaceChildren(...before);
  }, 1500);
}

/** Offers `text` as a file. */
export function download(name, type, text) {
  const href = URL.createObjectURL(new Blob([text], { type }));
  make("a", { href, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(href));
}
