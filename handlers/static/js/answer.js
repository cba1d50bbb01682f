/** Draws an answer while it grows, at most once per frame; finished blocks are not touched again. */

import { blocks, draw, sourceOf, splitRows } from "./markdown.js";
import { make } from "./dom.js";
import { reuse } from "./math.js";

/** A list or table with more rows than this is drawn piece by piece. */
const LONG = 20;
/** Everything else gets this many times as long as drawing takes. */
const REST = 3;

export class Answer {
  #tail = "";
  #live = [];
  #open = null; // the list or table that gets the next rows
  #frame = 0;
  #finished = null; // the tail in its final form
  #notBefore = 0;

  constructor(text = "") {
    this.element = make("div", { className: "answer" });
    this.#tail = text;
    if (text) this.finish();
  }

  append(text) {
    this.#tail += text;
    this.#frame ||= requestAnimationFrame((now) => this.#draw(now));
  }

  /** Draws the rest in its final form. */
  finish() {
    cancelAnimationFrame(this.#frame);
    if (this.#finished === this.#tail) return;
    this.#finished = this.#tail;
    this.#replaceLive(blocks(this.#tail), true);
  }

  #draw(now) {
    this.#frame = 0;
    if (now < this.#notBefore) {
      this.append("");
      return;
    }
    const start = performance.now();
    const tokens = blocks(this.#tail, true);
    const last = Math.max(0, tokens.findLastIndex((token) => token.type !== "space"));
    if (last > 0) {
      this.#keep(tokens.slice(0, last));
      this.#open = null;
      this.#tail = sourceOf(tokens.slice(last));
    }
    const long = splitRows(tokens[last], LONG, sourceOf(tokens.slice(last)));
    if (long) {
      this.#keep([long.finished]);
      this.#open ??= holderOf(this.element.lastElementChild);
      this.#tail = long.rest;
      tokens.splice(last, Infinity, ...blocks(this.#tail, true));
    }
    const code = tokens[last]?.type === "code" && this.#live[0]?.querySelector(":scope > pre > code");
    if (code?.textContent) code.textContent = tokens[last].text; // it keeps its place when scrolled
    else this.#replaceLive(tokens.slice(last), false);
    const end = performance.now();
    this.#notBefore = end + REST * (end - start);
  }

  #keep(tokens) {
    this.#replaceLive(tokens, true);
    this.#live = [];
  }

  #replaceLive(tokens, finished) {
    reuse(this.#live);
    for (const node of this.#live) node.remove();
    const fragment = draw(tokens, finished);
    this.#live = [];
    const first = fragment.firstElementChild;
    if (this.#open && first && holderOf(first)?.tagName === this.#open.tagName) {
      this.#live = [...holderOf(first).children];
      this.#open.append(...this.#live);
      first.remove();
    }
    this.#live.push(...fragment.children);
    this.element.append(fragment);
  }
}

/** The parent of a list's or table's rows; undefined for other elements. */
const holderOf = (element) =>
  element.matches("ul, ol") ? element : (element.matches(".table") && element.querySelector("tbody")) || undefined;
