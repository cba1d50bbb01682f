/** What is copied beside plain text: HTML that word processors and mail programs lay out as it looks here. */

import { make } from "./dom.js";

/** Presentational attributes survive where stylesheets do not, and the page's policy forbids no attribute but style. */
const TABLE = { border: "1", cellspacing: "0", cellpadding: "6" };
const MONOSPACED = "Consolas, Menlo, D2Coding, monospace";

/** Returns the HTML of an answer's element: text, tables, code and MathML, without the page's buttons. */
export function toRichText(answer) {
  const copy = answer.cloneNode(true);
  for (const element of copy.querySelectorAll("figcaption, button, svg")) element.remove();
  for (const table of copy.querySelectorAll(".table:dir(rtl) > table")) table.dir = "rtl";
  for (const figure of copy.querySelectorAll("figure, .table")) figure.replaceWith(...figure.childNodes);
  for (const table of copy.querySelectorAll("table")) setAll(table, TABLE);
  for (const code of copy.querySelectorAll("code")) {
    const text = make("font", { attributes: { face: MONOSPACED } }, code.textContent);
    code.replaceChildren(text);
  }
  for (const element of copy.querySelectorAll("*")) {
    for (const name of ["class", "style", "tabindex", "target"]) element.removeAttribute(name);
  }
  return copy.innerHTML;
}

function setAll(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
}
