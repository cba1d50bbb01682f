/** Draws an answer while it grows, at most once a frame: finished blocks are not touched again. */

import { blocks, draw, sourceOf } from "./markdown.js";
import { make } from "./dom.js";

/** Of the time that drawing takes, this many times over is left to everything else. */
const REST = 3;

export class Answer {
  #tail = "";
  #live = [];
  #frame = 0;
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

  /** Draws what is left as it will stay. */
  finish() {
    cancelAnimationFrame(this.#frame);
    this.#replaceLive(blocks(this.#tail), true);
  }

  #draw(now) {
    this.#frame = 0;
    if (now < this.#notBefore) {
      this.append("");
      return;
    }
    const start = performance.now();
    const tokens = blocks(this.#tail);
    const last = Math.max(0, tokens.findLastIndex((token) => token.type !== "space"));
    if (last > 0) {
      this.#replaceLive(tokens.slice(0, last), true);
      this.#live = [];
      this.#tail = sourceOf(tokens.slice(last));
    }
    const code = tokens[last]?.type === "code" && this.#live[0]?.querySelector(":scope > pre > code");
    if (code?.textContent) code.textContent = tokens[last].text; // it keeps its place when scrolled
    else this.#replaceLive(tokens.slice(last), false);
    const end = performance.now();
    this.#notBefore = end + REST * (end - start);
  }

  #replaceLive(tokens, finished) {
    for (const node of this.#live) node.remove();
    const fragment = draw(tokens, finished);
    this.#live = [...fragment.children];
    this.element.append(fragment);
  }
}
