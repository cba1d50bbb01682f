/** Draws messages: their text, their actions, and what went wrong. */

import { Answer } from "./answer.js";
import { describe } from "./attachments.js";
import { copy, iconButton, make, number } from "./dom.js";
import { isComposing, meansSend } from "./enter.js";
import { endingOf } from "./notice.js";
import { toRichText } from "./rich.js";
import { session } from "./storage.js";
import { drawTyped } from "./typed.js";
import { words } from "./words.js";

const picture = (image) => make("img", { src: `data:image/jpeg;base64,${image}`, alt: "" });

const drawFile = (file) =>
  make("details", { className: "file" }, make("summary", {}, ...describe(file)), make("pre", { tabIndex: 0 }, file.text));

/** A user's message; `resend` is called with its new text; for `versions` see `steps`. */
export function drawQuestion(message, { resend, versions }) {
  const article = make("article", { className: "message user", ariaLabel: words.you });

  const draft = `edit:${message.id}`;

  function show() {
    session.removeItem(draft);
    const edit = iconButton("edit", words.edit, () => article.edit());
    article.replaceChildren(
      ...(message.images.length
        ? [make("div", { className: "pictures" }, ...message.images.map(picture))]
        : []),
      ...(message.files ?? []).map(drawFile),
      ...(message.text ? [make("div", { className: "text" }, ...drawTyped(message.text))] : []),
      make("div", { className: "tools" }, copyButton(() => message.text), edit, ...steps(versions)),
    );
  }

  article.edit = (text = message.text) => {
    const oninput = () => session.setItem(draft, field.value);
    const field = make("textarea", { value: text, ariaLabel: words.edit, oninput });
    const form = make(
      "form",
      { className: "edit" },
      field,
      make(
        "div",
        { className: "pair" },
        make("button", { className: "primary" }, words.resend),
        make("button", { type: "button", onclick: show }, words.cancel),
      ),
    );
    form.onsubmit = (event) => {
      event.preventDefault();
      if ((field.value.trim() || message.images.length || message.files?.length) && resend(field.value.trim())) session.removeItem(draft);
    };
    form.onkeydown = (event) => {
      if (isComposing(event)) return;
      if (event.key === "Escape") show();
      else if (meansSend(event) && event.target === field) form.requestSubmit();
      else return;
      event.preventDefault();
      event.stopPropagation();
    };
    article.replaceChildren(form);
    field.focus();
  };

  const kept = session.getItem(draft); // the page was left in the middle of an edit
  if (kept === null) show();
  else article.edit(kept);
  return article;
}

const copyButton = (text, html) => {
  const button = iconButton("copy", words.copy, () => copy(text(), button, html?.()));
  return button;
};

/** A model's message, while it arrives (`append`, `progress`) and when it is complete (`settle`). */
export class AnswerMessage {
  #answer;
  #progress = make("p", { className: "progress" });

  constructor(message) {
    this.#answer = new Answer(message.text);
    this.element = make(
      "article",
      { className: "message assistant", ariaLabel: words.answered(message.model) },
      this.#answer.element,
    );
  }

  append(text) {
    this.#answer.append(text);
  }

  set progress(text) {
    this.#progress.textContent = text;
    if (!this.#progress.isConnected) this.element.append(this.#progress);
  }

  /**
   * Shows how it ended; the actions `regenerate` it, continue it (`resume`), begin a conversation
   * with it (`split`), or ask for a key first (`unlock`); for `versions` see `steps`.
   */
  settle(message, actions) {
    this.#answer.finish();
    this.#progress.remove();
    this.element.prepend(...thoughts(message));
    this.element.append(
      ...(message.failure ? [] : endingOf(message, actions)),
      make(
        "div",
        { className: "tools" },
        ...(message.text ? [copyButton(() => message.text, () => toRichText(this.#answer.element))] : []),
        iconButton("again", words.regenerate, actions.regenerate),
        iconButton("branch", words.split, actions.split),
        ...steps(actions.versions),
        ...figures(message),
      ),
      ...(message.failure ? endingOf(message, actions) : []),
    );
  }
}

const thoughts = ({ thinking }) =>
  thinking
    ? [
        make(
          "details",
          { className: "thinking" },
          make("summary", {}, words.thoughts),
          make("div", {}, thinking),
        ),
      ]
    : [];

/** Steps through the versions of a message: `at` of `count`, and what to call to `show` another. */
const steps = ({ at, count, show }) =>
  count > 1
    ? [
        make(
          "span",
          { className: "versions", role: "group", ariaLabel: words.version(at + 1, count) },
          step("previous", words.previousVersion, at > 0, () => show(at - 1)),
          `${at + 1}/${count}`,
          step("next", words.nextVersion, at < count - 1, () => show(at + 1)),
        ),
      ]
    : [];

const step = (name, label, possible, onclick) =>
  Object.assign(iconButton(name, label, onclick), { disabled: !possible });

const figures = ({ model, tokens, seconds, rate }) =>
  tokens
    ? [
        make(
          "span",
          { className: "figures" },
          words.figures(model, number(tokens), number(seconds, 1), number(rate, 1)),
        ),
      ]
    : [make("span", { className: "figures" }, model)];
