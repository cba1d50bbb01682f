/**
 * Turns a model's Markdown into elements. A model's output is untrusted: it gets no HTML, no image
 * is loaded, and only http, https and mailto links remain.
 */

import "../vendor/dompurify/purify.min.js";
import { Marked } from "../vendor/marked/marked.esm.js";
import { copy, icon, make } from "./dom.js";
import { typeset } from "./math.js";
import { words } from "./words.js";

const { DOMPurify } = globalThis;
const SAFE_URL = /^(?:https?:\/\/|mailto:)/i;
const LONGEST_HIGHLIGHTED = 50_000;

/** Numbers, dates, amounts with units, names: never broken over two lines. */
const FIGURE = /^[\p{N}\p{P}\p{S}\s]{1,24}\p{L}{0,4}$/u;
const SHORT_CELL = 12;
const LONG_CELL = 40;

const escape = (text) => text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);

/** Whether mathematics at the text's end may be incomplete, because more is to come. */
let growing = false;

/** An extension that leaves TeX as it is written, for `typeset` to draw. */
const math = (level, start, rule, tag) => ({
  name: `${level}Math`,
  level,
  start: (source) => source.match(start)?.index,
  tokenizer(source) {
    const raw = (rule.exec(source) ?? (growing && level === "block" && OPEN.exec(source)))?.[0];
    return raw && { type: `${level}Math`, raw, text: raw.trim() };
  },
  renderer: ({ text }) => `<${tag} class="math">${escape(text)}</${tag}>`,
});

/** The longest formula; a stray sign would otherwise swallow much text. */
const OPEN = /^ {0,3}(?:\$\$|\\\[)[^]{0,2000}$/;

const link = (href, html) => (SAFE_URL.test(href) ? `<a href="${escape(href)}">${html}</a>` : html);

const marked = new Marked({
  breaks: true,
  extensions: [
    math(
      "block",
      /^ {0,3}(?:\$\$|\\\[)/m,
      /^ {0,3}(?:\$\$[^]{1,2000}?\$\$|\\\[[^]{1,2000}?\\\])/,
      "p",
    ),
    math(
      "inline",
      /\$|\\[([]/,
      /^(?:\$(?![\s$])(?:[^$\n\\`]|\\.){0,999}?(?<![\s\\])\$(?!\d)|\$\$[^]{1,999}?\$\$|\\\([^]{1,999}?\\\)|\\\[[^]{1,999}?\\\])/,
      "span",
    ),
  ],
  renderer: {
    html({ text, block }) {
      if (/^<br ?\/?>$/i.test(text)) return "<br>";
      return block ? `<p>${escape(text.trim()).replaceAll("\n", "<br>")}</p>` : escape(text);
    },
    image: ({ href, text }) => link(href, escape(words.imageLink(text || href))),
    link({ href, tokens }) {
      return link(href, this.parser.parseInline(tokens));
    },
    checkbox: ({ checked }) => `<span class="box">${checked ? "☑" : "☐"}</span> `,
  },
});

/** Lets through what the renderer above creates, and nothing else. */
const sanitize = (html) =>
  DOMPurify.sanitize(html, {
    ALLOWED_TAGS:
      "a blockquote br code del em h1 h2 h3 h4 h5 h6 hr li ol p pre span strong table tbody td th thead tr ul #text".split(" "),
    ALLOWED_ATTR: ["align", "class", "href", "start"],
    ALLOW_ARIA_ATTR: false,
    ALLOW_DATA_ATTR: false,
    ALLOWED_URI_REGEXP: SAFE_URL,
    ADD_URI_SAFE_ATTR: ["align", "start"],
    RETURN_DOM_FRAGMENT: true,
  });

export const sourceOf = (tokens) => tokens.map((token) => token.raw).join("");

/** Splits `source` into blocks; `more` of it may follow. */
export function blocks(source, more = false) {
  growing = more;
  try {
    return marked.lexer(source);
  } catch {
    return [{ type: "html", raw: source, text: source, block: true }];
  }
}

/**
 * Splits the list or table at the start of `source`, if it has more than `many` rows: all rows but
 * the last, and the source from there on. `raw` is trimmed at a list's end, which may still grow.
 */
export function splitRows(token, many, source) {
  if (token?.type === "list" && token.items.length > many) {
    const items = token.items.slice(0, -1);
    return { finished: { ...token, items }, rest: source.slice(sourceOf(items).length) };
  }
  if (token?.type === "table" && token.rows.length > many) {
    const head = source.split("\n", 2).join("\n");
    const last = source.slice(source.trimEnd().lastIndexOf("\n"));
    return { finished: { ...token, rows: token.rows.slice(0, -1) }, rest: head + last };
  }
  return null;
}

function toHtml(tokens) {
  try {
    return marked.parser(tokens);
  } catch {
    // Blocks nested thousands deep exhaust the parser's stack; their source is legible.
    return `<p>${escape(sourceOf(tokens))}</p>`;
  }
}

/** Draws blocks; code is coloured only where it is `finished`. */
export function draw(tokens, finished) {
  const fragment = sanitize(toHtml(tokens));
  for (const anchor of fragment.querySelectorAll("a")) {
    anchor.target = "_blank";
    anchor.rel = "noopener noreferrer";
  }
  for (const block of fragment.querySelectorAll("ul, ol, blockquote")) block.dir = "auto";
  for (const code of fragment.querySelectorAll("code")) code.dir = "ltr"; // says nothing about the text around it
  for (const cell of fragment.querySelectorAll("td, th")) {
    const text = cell.textContent.trim();
    if (FIGURE.test(text) || text.length <= SHORT_CELL) cell.classList.add("whole");
    else if (text.length > LONG_CELL) cell.classList.add("long");
  }
  for (const table of fragment.querySelectorAll("table")) {
    const frame = make("div", { className: "table", tabIndex: 0, dir: "auto" });
    table.replaceWith(frame);
    frame.append(table);
  }
  for (const pre of fragment.querySelectorAll("pre")) {
    const code = pre.firstElementChild;
    const language = /^language-(.+)/.exec(code.className)?.[1] ?? "";
    const button = make("button", { type: "button", className: "quiet" }, icon("copy"), words.copyCode);
    button.onclick = () => copy(code.textContent, button);
    const figure = make("figure", { className: "code" });
    pre.replaceWith(figure);
    pre.tabIndex = 0;
    figure.append(make("figcaption", {}, make("span", {}, language), button), pre);
    if (finished) highlight(code, language);
  }
  typeset(fragment, finished);
  return fragment;
}

async function highlight(code, language) {
  const text = code.textContent;
  if (!language || text.length > LONGEST_HIGHLIGHTED) return;
  const { default: hljs } = await import("../vendor/highlightjs/highlight.min.js").catch(() => ({}));
  if (!hljs?.getLanguage(language)) return;
  code.replaceChildren(sanitize(hljs.highlight(text, { language }).value));
}
