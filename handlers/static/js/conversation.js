/** The open conversation, and the answers being written: another may be opened meanwhile. */

import { needsKey } from "./api.js";
import { byId } from "./dom.js";
import { AnswerMessage, drawQuestion } from "./message.js";
import { toRequest } from "./request.js";
import { Run } from "./run.js";
import { follow } from "./scroll.js";
import { absorb, create } from "./store.js";
import { isElsewhere, tell } from "./tabs.js";
import { add, branchOf, newestLeaf, versionsOf } from "./tree.js";
import { dropUnsaved, isLeaving, keepUnsaved, LEAVING } from "./unsaved.js";
import { words } from "./words.js";

const TITLE_LENGTH = 60;

/** The beginning of a long title, without half of an emoji at its end. */
const cut = (title) => title.slice(0, TITLE_LENGTH).replace(/[\ud800-\udbff]$/, "");

export class Conversation {
  #runs = new Map();
  #drawn = new Map();
  #views = new Map(); // of answers that have just ended, to be kept as they are
  #hooks;

  /**
   * `hooks`: model(), whether it sees() images or thinks(), whether it fits(messages), save(data),
   * changed() when other actions are possible, unlock(retry, kind of failure) with a key, open(data).
   */
  constructor(hooks) {
    this.#hooks = hooks;
    this.data = create();
  }

  get branch() {
    return branchOf(this.data);
  }

  /** The conversation without its other branches. */
  get inView() {
    return { ...this.data, messages: this.branch };
  }

  get running() {
    return this.isRunning(this.data.id);
  }

  isRunning(id) {
    return this.#runs.has(id);
  }

  /** Whether another tab is writing the last answer. */
  get runningElsewhere() {
    return !this.running && isElsewhere(this.data.leaf);
  }

  get lastAnswer() {
    return this.branch.findLast(({ role }) => role === "assistant")?.text ?? "";
  }

  open(data) {
    this.data = this.#runs.get(data.id)?.data ?? data;
    this.#drawn.clear();
    byId("messages").replaceChildren();
    this.draw();
    follow();
    this.#hooks.changed();
  }

  /** Takes over what another tab has stored, unless the reader has opened another conversation meanwhile. */
  absorb(stored) {
    if (stored?.id !== this.data.id) return;
    absorb(this.data, stored);
    this.draw();
    this.#hooks.changed();
  }

  /** Shows the branch; unchanged articles keep their place, and the focus in them. */
  draw() {
    const branch = this.branch;
    const articles = branch.map((message) => this.#articleOf(message));
    const holder = byId("messages");
    articles.forEach((article, at) => {
      if (holder.children[at] !== article) holder.insertBefore(article, holder.children[at] ?? null);
    });
    while (holder.children.length > articles.length) holder.lastElementChild.remove();
  }

  #articleOf(message) {
    const run = this.#runs.get(this.data.id);
    if (message === run?.message) return run.view.element;
    const versions = versionsOf(this.data, message);
    const written = isElsewhere(message.id);
    const { text, ended, tokens, runs, failure } = message;
    const state = JSON.stringify([text, ended, tokens, runs, failure, versions.map(({ id }) => id), written]);
    const drawn = this.#drawn.get(message.id);
    if (drawn?.state === state) return drawn.article;
    const article = this.#drawMessage(message, versions, written);
    this.#drawn.set(message.id, { state, article });
    return article;
  }

  #drawMessage(message, versions, written) {
    const shown = {
      at: versions.indexOf(message),
      count: versions.length,
      show: (at) => this.show(versions[at]),
    };
    if (message.role === "user") {
      const resend = (text) => this.send(text, message, message.parent);
      return drawQuestion(message, { resend, versions: shown });
    }
    const view = this.#views.get(message.id) ?? new AnswerMessage(message);
    this.#views.delete(message.id);
    if (written) view.progress = words.elsewhere;
    else view.settle(message, { ...this.#actions(message), versions: shown });
    return view.element;
  }

  #actions(message) {
    const regenerate = () => this.regenerate(message);
    return {
      regenerate,
      resume: () => this.resume(message),
      unlock: () => this.#hooks.unlock(regenerate, message.failure.kind),
      split: () => this.split(message),
    };
  }

  /** Shows another version of a message, with the latest branch after it. */
  show(version) {
    if (this.running) return;
    const focused = document.activeElement;
    const at = [...byId("messages").children].findIndex((article) => article.contains(focused));
    this.data.leaf = newestLeaf(this.data, version.id);
    this.draw();
    const steps = [...(byId("messages").children[at]?.querySelectorAll(".versions button:enabled") ?? [])];
    (steps.find(({ ariaLabel }) => ariaLabel === focused.ariaLabel) ?? steps[0])?.focus();
    this.#hooks.save(this.data);
  }

  /** Opens a new conversation that begins as this one does, up to a message. */
  split(message) {
    const { id, created, leaf, ...rest } = structuredClone(this.data);
    const messages = branchOf({ ...this.data, leaf: message.id });
    const data = { ...create(), ...rest, messages: structuredClone(messages), leaf: message.id };
    this.#hooks.save(Object.assign(data, { updated: Date.now(), pinned: false }));
    this.#hooks.open(data);
  }

  /** Adds a message after `parent`; what followed it before remains as another version. */
  send(text, { images = [], files = [] } = {}, parent = this.data.leaf) {
    const before = branchOf({ ...this.data, leaf: parent });
    if (this.running || !this.#hooks.fits([...before, { text, files }])) return null;
    add(this.data, { role: "user", text, images, files }, parent);
    this.data.title ||= cut(text.split("\n")[0] || files[0]?.name || words.imageAlone);
    return this.#answer();
  }

  /** Requests another answer to a message; earlier answers with text remain as versions. */
  regenerate(message = this.branch.at(-1)) {
    if (this.running || !message) return;
    if (message.role === "assistant" && !message.text) return this.resume(message);
    const leaf = message.role === "assistant" ? message.parent : message.id;
    if (!this.#hooks.fits(branchOf({ ...this.data, leaf }))) return;
    this.data.leaf = leaf;
    this.#answer();
  }

  /** Continues an answer that broke off. */
  resume(message) {
    const branch = branchOf({ ...this.data, leaf: message.id });
    if (this.running || !this.#hooks.fits(branch)) return;
    delete message.failure;
    Object.assign(message, { model: this.#hooks.model(), ended: "unfinished", runs: (message.runs ?? 0) + 1 });
    this.#run(message, branch);
  }

  editLast() {
    if (!this.running) [...byId("messages").querySelectorAll(".user")].at(-1)?.edit();
  }

  stop(id = this.data.id) {
    this.#runs.get(id)?.stop();
    return this.#runs.get(id)?.ended;
  }

  #answer() {
    const branch = this.branch;
    const model = this.#hooks.model();
    const message = add(this.data, { role: "assistant", model, text: "", ended: "unfinished" });
    return this.#run(message, branch);
  }

  /** Runs the model on a branch; the promise it returns resolves when the question is stored. */
  #run(message, branch) {
    const { data } = this;
    const { model, sees, thinks } = this.#hooks;
    const request = toRequest(data, branch, model(), { sees: sees(), thinks: thinks() });
    const run = new Run(data, message, new AnswerMessage(message));
    this.#runs.set(data.id, run);
    data.updated = Date.now();
    this.draw();
    follow();
    this.#hooks.changed();
    const saved = this.#hooks.save(data);
    run.ended = this.#finish(run, request);
    return saved;
  }

  async #finish(run, request) {
    const { data, message } = run;
    const keep = () => keepUnsaved(data, message);
    for (const event of LEAVING) addEventListener(event, keep);
    await run.write(request, () => this.#hooks.save(data));
    await this.#hooks.save(data);
    for (const event of LEAVING) removeEventListener(event, keep);
    if (!isLeaving()) dropUnsaved(message);
    this.#runs.delete(data.id);
    tell({ written: message.id, saved: data.id });
    if (data !== this.data) return;
    this.#views.set(message.id, run.view);
    this.draw();
    this.#hooks.changed();
    if (needsKey(message.failure?.kind)) this.#actions(message).unlock();
  }
}
