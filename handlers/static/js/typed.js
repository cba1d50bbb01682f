/** The user's text, shown as it was typed, but with code drawn as code. */

import { make } from "./dom.js";
import { blocks, draw } from "./markdown.js";

/** A fenced block, which may be unfinished. */
const FENCED = /^ {0,3}(`{3,}|~{3,})[^\n`]*\n[^]*?(?:^ {0,3}\1[`~]*[ \t]*(?:\n|$(?![^]))|$(?![^]))/gm;
const CODE = /(?<!`)(`{1,2})(?!`)([^\n]*?[^`\n])\1(?!`)/g;

/** Returns the nodes of `text`. */
export function drawTyped(text) {
  const nodes = [];
  let end = 0;
  for (const { 0: block, index } of text.matchAll(FENCED)) {
    nodes.push(...drawLine(text.slice(end, index).replace(/\n$/, "")), ...draw(blocks(block), true).children);
    end = index + block.length;
  }
  return [...nodes, ...drawLine(text.slice(end))];
}

function drawLine(text) {
  const nodes = [];
  let end = 0;
  for (const { 0: span, 2: code, index } of text.matchAll(CODE)) {
    nodes.push(text.slice(end, index), make("code", {}, code));
    end = index + span.length;
  }
  return [...nodes, text.slice(end)].filter((node) => node !== "");
}
