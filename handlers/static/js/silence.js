/** Notices a network that is gone: it closes no connection, it only falls silent. */

const CHECK_EVERY_MS = 500;
/** Heartbeats come every 3 s, so this is two that are missing. */
const LONGEST_MS = 7000;
/** Without heartbeats the server is asked, on another connection, whether it is still there. */
const ASK_AFTER_MS = 4000;
/** After a sleep, what has arrived meanwhile gets this long to be read. */
const WAKE_MS = 2000;

export class Silence {
  #ask;
  #since = Date.now();
  #checked = Date.now();
  #promised = false;
  #asking = false;
  #controller = new AbortController();
  #timer = setInterval(() => this.#check(), CHECK_EVERY_MS);

  /** `signal` is aborted with `given`, or when nothing more can be expected; `ask()` throws a Failure. */
  constructor(given, ask) {
    this.#ask = ask;
    this.signal = AbortSignal.any([given, this.#controller.signal]);
  }

  /** Notes that something has come; with `promised`, that from now on heartbeats will. */
  broken(promised = this.#promised) {
    this.#promised = promised;
    this.#since = Date.now();
  }

  end() {
    clearInterval(this.#timer);
  }

  async #check() {
    const now = Date.now();
    if (now - this.#checked > WAKE_MS) this.#since = Math.max(this.#since, now - LONGEST_MS + WAKE_MS);
    this.#checked = now;
    const silent = now - this.#since;
    if (this.#promised) {
      if (silent > LONGEST_MS) this.#controller.abort();
    } else if (silent > ASK_AFTER_MS && !this.#asking) {
      this.#asking = true;
      await this.#ask().catch(({ kind }) => Number.isInteger(kind) || this.#controller.abort());
      this.#asking = false;
      this.#since = Date.now();
    }
  }
}
