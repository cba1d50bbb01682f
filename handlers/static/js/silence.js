/** Notices a lost network, which closes no connection but only falls silent. */

const CHECK_EVERY_MS = 500;
/** Heartbeats arrive every 3 s, so two are missing. */
const LONGEST_MS = 7000;
/** Without heartbeats, the server is asked on another connection whether it is still there. */
const ASK_AFTER_MS = 4000;
/** After a sleep, time to read what has arrived meanwhile. */
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

  /** Records that something has arrived and, with `promised`, that heartbeats will follow. */
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
