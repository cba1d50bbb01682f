/** Draws messages: what was said, what can be done with it, and what went wrong. */

import { Answer } from "./answer.js";
import { describe } from "./attachments.js";
import { copy, icon, iconButton, make, number } from "./dom.js";
import { isComposing, meansSend } from "./enter.js";
import { toRichText } from "./rich.js";
import { drawTyped } from "./typed.js";
import { words } from "./words.js";

const picture = (image) => make("img", { src: `data:image/jpeg;base64,${image}`, alt: "" });

const drawFile = (file) =>
  make("details", { className: "file" }, make("summary", {}, ...describe(file)), make("pre", { tabIndex: 0 }, file.text));

/** A message of the user's; `resend` is called with its new text. */
export function drawQuestion(message, { resend }) {
  const article = make("article", { className: "message user", ariaLabel: words.you });

  function show() {
    const edit = iconButton("edit", words.edit, () => article.edit());
    article.replaceChildren(
      ...(message.images.length
        ? [make("div", { className: "pictures" }, ...message.images.map(picture))]
        : []),
      ...(message.files ?? []).map(drawFile),
      ...(message.text ? [make("div", { className: "text" }, ...drawTyped(message.text))] : []),
      make("div", { className: "tools" }, copyButton(() => message.text), edit),
    );
  }

  article.edit = () => {
    const field = make("textarea", { value: message.text, ariaLabel: words.edit });
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
      if (field.value.trim() || message.files?.length) resend(field.value.trim());
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

  show();
  return article;
}

const copyButton = (text, html) => {
  const button = iconButton("copy", words.copy, () => copy(text(), button, html?.()));
  return button;
};

/** A message of a model's, while it comes (`append`, `progress`) and when it is there (`settle`). */
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

  /** Shows how it ended; the actions are to `regenerate` it, and to enter a key before (`unlock`). */
  settle(message, actions) {
    const regenerate = iconButton("again", words.regenerate, actions.regenerate);
    regenerate.classList.add("again");
    this.#answer.finish();
    this.#progress.remove();
    this.element.prepend(...thoughts(message));
    this.element.append(
      ...asides(message),
      make(
        "div",
        { className: "tools" },
        ...(message.text ? [copyButton(() => message.text, () => toRichText(this.#answer.element))] : []),
        regenerate,
        ...figures(message),
      ),
      ...(message.failure ? [notice(message.failure, actions)] : []),
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

const asides = ({ text, ended, failure }) =>
  [
    ended === "stopped" && words.stopped,
    ended === "unfinished" && words.unfinished,
    ended === "length" && words.cutShort,
    !text && !["stopped", "unfinished", "failed"].includes(ended) && !failure && words.empty,
  ]
    .filter(Boolean)
    .map((aside) => make("p", { className: "aside" }, aside));

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

/** Says what went wrong and what to do; what must wait counts down the seconds. */
function notice({ kind, said, retryAt }, { regenerate, unlock }) {
  const [problem, advice] = words.errors[kind] ?? words.errors.other;
  const button = make("button", { type: "button", className: "again" });
  if (kind === 401) {
    button.textContent = words.enterKey;
    button.onclick = unlock;
  } else {
    button.onclick = regenerate;
    countDown();
  }

  function countDown() {
    const left = Math.ceil(((retryAt ?? 0) - Date.now()) / 1000);
    button.disabled = left > 0;
    button.replaceChildren(icon("again"), left > 0 ? words.tryAgainIn(left) : words.tryAgain);
    if (left > 0) setTimeout(countDown, 250);
  }

  return make(
    "div",
    { className: "notice" },
    make("p", {}, make("strong", {}, problem), ` ${advice}`),
    ...(said ? [make("p", { className: "said" }, words.said(said))] : []),
    button,
  );
}
