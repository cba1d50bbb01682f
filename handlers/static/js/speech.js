/** Passes the answer to screen readers, a sentence at a time. */

import { byId, make } from "./dom.js";

const SENTENCE = /[^]*?(?:[.!?。！？…]["'”’)\]*_]*\s|\n)/y;
const REMEMBERED = 20;

export class Speech {
  #rest = "";

  append(text) {
    this.#rest += text;
    SENTENCE.lastIndex = 0;
    let end = 0;
    while (SENTENCE.test(this.#rest)) {
      say(this.#rest.slice(end, SENTENCE.lastIndex));
      end = SENTENCE.lastIndex;
    }
    this.#rest = this.#rest.slice(end);
  }

  finish() {
    say(this.#rest);
    this.#rest = "";
  }
}

export function say(text) {
  const plain = text.replace(/[*_`#>|~]+/g, " ").trim();
  if (!plain) return;
  const region = byId("spoken");
  region.append(make("p", {}, plain));
  while (region.children.length > REMEMBERED) region.firstElementChild.remove();
}
