/** The open conversation, and the answers that are being written: another may be opened meanwhile. */

import { streamChat } from "./api.js";
import { byId } from "./dom.js";
import { AnswerMessage, drawQuestion } from "./message.js";
import { keepContext, toRequest } from "./request.js";
import { follow } from "./scroll.js";
import { say, Speech } from "./speech.js";
import { lookAtQueue, theQueue } from "./status.js";
import { create } from "./store.js";
import { words } from "./words.js";

const SAVE_EVERY_MS = 2000;
const LOOK_EVERY_MS = 3000;
const LONG_WAIT_S = 4;
const TITLE_LENGTH = 60;

export class Conversation {
  #runs = new Map();
  #questions = [];
  #hooks;

  /** `hooks`: model() to ask, sees() images or not, thinks() or not, save(data), changed() in what is possible, unlock() with a key. */
  constructor(hooks) {
    this.#hooks = hooks;
    this.data = create();
  }

  get running() {
    return this.#runs.has(this.data.id);
  }

  get lastAnswer() {
    return this.data.messages.findLast(({ role }) => role === "assistant")?.text ?? "";
  }

  open(data) {
    this.data = this.#runs.get(data.id)?.data ?? data;
    this.draw();
    follow();
    this.#hooks.changed();
  }

  draw() {
    const run = this.#runs.get(this.data.id);
    this.#questions = [];
    const articles = this.data.messages.map((message, index) => {
      if (message === run?.message) return run.view.element;
      if (message.role === "assistant") return this.#settled(message);
      const resend = (text) => this.send(text, message, index);
      const article = drawQuestion(message, { resend });
      this.#questions.push(article);
      return article;
    });
    byId("messages").replaceChildren(...articles);
  }

  #settled(message) {
    const view = new AnswerMessage(message);
    view.settle(message, this.#actions());
    return view.element;
  }

  #actions() {
    const regenerate = () => this.regenerate();
    return { regenerate, unlock: () => this.#hooks.unlock(regenerate) };
  }

  /** Says something, in the place of all that was said from message `index` on. */
  send(text, { images = [], files = [] } = {}, index = this.data.messages.length) {
    if (this.running) return;
    const { data } = this;
    data.messages.splice(index, Infinity, { role: "user", text, images, files });
    data.title ||= (text.split("\n")[0] || files[0]?.name || "").slice(0, TITLE_LENGTH);
    this.#answer();
  }

  regenerate() {
    if (this.running || !this.data.messages.length) return;
    if (this.data.messages.at(-1).role === "assistant") this.data.messages.pop();
    this.#answer();
  }

  editLast() {
    if (!this.running) this.#questions.at(-1)?.edit();
  }

  stop() {
    this.#runs.get(this.data.id)?.controller.abort();
  }

  /** Stops what is being written in a conversation that is no more. */
  forget(id) {
    const run = this.#runs.get(id);
    if (run) run.forgotten = true;
    run?.controller.abort();
  }

  async #answer() {
    const { data } = this;
    const model = this.#hooks.model();
    const request = toRequest(data, model, { sees: this.#hooks.sees(), thinks: this.#hooks.thinks() });
    const message = { role: "assistant", model, text: "", ended: "unfinished" };
    const controller = new AbortController();
    const run = { data, message, controller, view: new AnswerMessage(message) };
    this.#runs.set(data.id, run);
    data.messages.push(message);
    data.updated = Date.now();
    this.draw();
    follow();
    this.#hooks.changed();
    this.#hooks.save(data);
    const saver = setInterval(() => this.#hooks.save(data), SAVE_EVERY_MS);
    await write(request, run);
    clearInterval(saver);
    if (!run.forgotten) await this.#hooks.save(data);
    this.#runs.delete(data.id);
    if (run.forgotten) return;
    run.view.settle(message, this.#actions());
    this.#hooks.changed();
    if (message.failure?.kind === 401 && data === this.data) this.#actions().unlock();
  }
}

/** Has the model write the message of a run, and notes how it ended. */
async function write(request, { data, message, view, controller: { signal } }) {
  const speech = new Speech();
  const start = performance.now();
  let first = 0;
  let count = 0;
  let thinks = false;

  function showProgress() {
    const now = performance.now();
    const s = Math.floor((now - start) / 1000);
    const since = s ? `, ${words.seconds(s)}` : "";
    if (first) view.progress = words.writing(Math.round((count * 1000) / Math.max(now - first, 250)));
    else if (thinks) view.progress = words.thinking(since);
    else if (theQueue()?.waiting) view.progress = words.queued(message.model, theQueue(), since);
    else view.progress = (s < LONG_WAIT_S ? words.waiting : words.loading)(message.model, since);
  }

  showProgress();
  const clock = setInterval(showProgress, 500);
  const watch = setInterval(lookAtQueue, LOOK_EVERY_MS);
  try {
    for await (const line of streamChat(request, signal)) {
      clearInterval(watch);
      if (line.done) finish(line);
      else if (line.response) append(line.response);
      else if (request.think && !thinks) {
        thinks = true;
        showProgress();
      }
    }
  } catch (error) {
    if (signal.aborted) message.ended = "stopped";
    else fail(error);
  } finally {
    clearInterval(clock);
    clearInterval(watch);
    if (performance.now() - start > LOOK_EVERY_MS) setTimeout(lookAtQueue, 500); // what is left of it
    speech.finish();
  }

  function append(text) {
    count += 1;
    if (!first) {
      first = performance.now();
      showProgress();
    }
    message.text += text;
    view.append(text);
    speech.append(text);
  }

  function finish(line) {
    const end = performance.now();
    keepContext(data, message, line.context);
    message.thinking = line.thinking;
    message.ended = line.done_reason;
    message.tokens = line.eval_count ?? count;
    message.seconds = (end - start) / 1000;
    message.rate = (message.tokens * 1000) / Math.max(end - (first || start), 1);
  }

  function fail(error) {
    const { kind = "other", message: said, retryAfter = 0 } = error;
    message.ended = "failed";
    message.failure = { kind, said, retryAt: Date.now() + 1000 * retryAfter };
    say((words.errors[kind] ?? words.errors.other).join(" "));
  }
}
