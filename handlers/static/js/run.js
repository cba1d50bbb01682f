/** An answer being written: shown, read to screen readers, and saved in parts. */

import { streamChat } from "./api.js";
import { byId } from "./dom.js";
import { say, Speech } from "./speech.js";
import { look, lookAtQueue, ownAnswer, theQueue } from "./status.js";
import { announce } from "./tabs.js";
import { isLeaving } from "./unsaved.js";
import { words } from "./words.js";

const SAVE_EVERY_MS = 2000;
const LOOK_EVERY_MS = 3000;
const LONG_WAIT_S = 4;

export class Run {
  #start = performance.now();
  #first = 0;
  #count = 0;
  #thinks = false;
  #told = "";
  #controller = new AbortController();
  #speech = new Speech();

  /** `view` shows the `message` of `data` being written. */
  constructor(data, message, view) {
    Object.assign(this, { data, message, view });
  }

  stop() {
    this.#controller.abort();
  }

  /** Runs the model, and records how it ended; `save` is called from time to time. */
  async write(request, save) {
    const { message } = this;
    const forgetOwn = ownAnswer(() => this.#first > 0);
    const announced = announce(message.id);
    const timers = [setInterval(() => this.#showProgress(), 500), setInterval(save, SAVE_EVERY_MS)];
    const watch = setInterval(lookAtQueue, LOOK_EVERY_MS);
    this.#showProgress();
    try {
      for await (const line of streamChat(request, this.#controller.signal)) {
        if (!line.heartbeat) clearInterval(watch);
        this.#take(line, request);
      }
    } catch (error) {
      if (this.#controller.signal.aborted) message.ended = "stopped";
      else this.#fail(error);
    }
    for (const timer of [...timers, watch]) clearInterval(timer);
    forgetOwn();
    announced();
    if (performance.now() - this.#start > LOOK_EVERY_MS) setTimeout(lookAtQueue, 500); // what is left of it
    this.#speech.finish();
    byId("waiting").textContent = "";
  }

  #take(line, request) {
    if (line.done) this.#finish(line);
    else if (line.response) this.#append(line.response);
    else if (request.think && !line.heartbeat && !this.#thinks) {
      this.#thinks = true;
      this.#showProgress();
    }
  }

  #append(text) {
    this.#count += 1;
    this.message.text += text;
    this.view.append(text);
    this.#speech.append(text);
    if (this.#first) return;
    this.#first = performance.now();
    this.#showProgress();
  }

  #finish(line) {
    const { message } = this;
    const end = performance.now();
    const tokens = line.eval_count ?? this.#count;
    if (line.thinking) message.thinking = [message.thinking, line.thinking].filter(Boolean).join("\n\n");
    message.ended = line.done_reason ?? "stop";
    message.tokens = (message.tokens ?? 0) + tokens;
    message.seconds = (message.seconds ?? 0) + (end - this.#start) / 1000;
    message.rate = (tokens * 1000) / Math.max(end - (this.#first || this.#start), 1);
  }

  #fail({ kind = "other", message: said, retryAfter = 0 }) {
    if (isLeaving()) return;
    this.message.ended = "failed";
    this.message.failure = { kind, said, retryAt: Date.now() + 1000 * retryAfter };
    say((words.errors[kind] ?? words.errors.other).join(" "));
    if (["lost", "unreachable"].includes(kind)) look();
  }

  #showProgress() {
    const { model } = this.message;
    const now = performance.now();
    const s = Math.floor((now - this.#start) / 1000);
    const state = this.#state(s);
    const since = s ? `, ${words.seconds(s)}` : "";
    const rate = Math.round((this.#count * 1000) / Math.max(now - this.#first, 250));
    const texts = {
      writing: () => words.writing(rate),
      thinking: () => words.thinking(since),
      queued: () => words.queued(model, theQueue(), since),
      waiting: () => words.waiting(model, since),
      loading: () => words.loading(model, since),
    };
    this.view.progress = texts[state]();
    if (state === this.#told) return;
    this.#told = state;
    byId("waiting").textContent = state === "writing" ? "" : texts[state]();
  }

  #state(s) {
    if (this.#first) return "writing";
    if (this.#thinks) return "thinking";
    if (theQueue()?.waiting) return "queued";
    return s < LONG_WAIT_S ? "waiting" : "loading";
  }
}
