/**
 * Mathematics: TeX as MathML, which browsers draw and screen readers read. Temml loads with the first
 * formula, and refuses commands that could load, link or style more than the formula itself.
 */

import "../vendor/dompurify/purify.min.js";
import { make } from "./dom.js";

const { DOMPurify } = globalThis;
const OPTIONS = { throwOnError: true, trust: false, strict: false, maxSize: [25, 500], maxExpand: 500 };
/** Formulas that are drawn at a time; between them, the page stays responsive. */
const AT_ONCE = 40;

const TAGS =
  "math menclose mfrac mi mmultiscripts mn mo mover mpadded mphantom mprescripts mroot mrow mspace msqrt mstyle msub msubsup msup mtable mtd mtext mtr munder munderover none #text".split(
    " ",
  );
const ATTRIBUTES =
  "accent accentunder class columnalign depth display displaystyle fence form height largeop linethickness lspace mathbackground mathcolor mathsize mathvariant maxsize minsize movablelimits notation rowspacing rspace scriptlevel separator stretchy style symmetric voffset width".split(
    " ",
  );
const STYLES =
  /^(?:border(?:Top|Right|Bottom|Left)?|color|display|font(?:Family|Style|Weight)|height|left|margin(?:Left|Right)|mathDepth|math-depth|padding(?:Top|Right|Bottom|Left)?|textAlign|width)$/;

let temml;
let loading;

const STYLESHEETS = ["../vendor/temml/Temml-Local.css", "../css/math.css"];

const addStylesheet = (path) =>
  new Promise((resolve) => {
    const { pathname } = new URL(path, import.meta.url);
    document.head.append(make("link", { rel: "stylesheet", href: pathname, onload: resolve, onerror: resolve }));
  });

async function load() {
  const loaded = [import("../vendor/temml/temml.min.js"), ...STYLESHEETS.map(addStylesheet)];
  temml = (await Promise.all(loaded))[0].default;
}

/**
 * Draws the formulas inside of `element`, now or, if Temml has to be loaded first, soon; only the
 * first of them, if it is not `finished` and will soon be laid out again.
 */
export async function typeset(element, finished) {
  const formulas = [...element.querySelectorAll(".math")].slice(0, finished ? Infinity : AT_ONCE);
  if (!formulas.length) return;
  if (!temml) await (loading ??= load().catch(() => (loading = undefined)));
  if (!temml) return; // without a network, TeX stays readable
  for (const [index, formula] of formulas.entries()) {
    if (index && index % AT_ONCE === 0) await new Promise((resolve) => setTimeout(resolve));
    show(formula);
  }
}

const sources = new WeakMap(); // what each formula was drawn from
let drawn = new Map();

/** Takes the formulas of `elements`, which are being replaced, for the next drawing of the same source. */
export function reuse(elements) {
  drawn = new Map();
  for (const element of elements) {
    for (const formula of element.querySelectorAll(".math.drawn")) {
      drawn.set(sources.get(formula), [...(drawn.get(sources.get(formula)) ?? []), formula.firstChild]);
    }
  }
}

/** Replaces the source with the drawn formula; invalid TeX stays. */
function show(element) {
  const source = element.textContent;
  const [, open, tex] = /^(\$\$?|\\[([])([^]*?)(?:\$\$?|\\[)\]])$/.exec(source) ?? [];
  if (!tex?.trim()) return;
  try {
    element.replaceChildren(drawn.get(source)?.pop() ?? draw(tex, open === "$$" || open === "\\["));
    element.classList.add("drawn");
    sources.set(element, source);
  } catch {
    element.classList.add("wrong");
  }
}

function draw(tex, displayMode) {
  const tree = temml.__renderToMathMLTree(tex, { ...OPTIONS, displayMode });
  restyle(tree);
  return DOMPurify.sanitize(tree.toNode(), {
    ALLOWED_TAGS: TAGS,
    ALLOWED_ATTR: ATTRIBUTES,
    ALLOW_ARIA_ATTR: false,
    ALLOW_DATA_ATTR: false,
    IN_PLACE: true,
  });
}

/**
 * Keeps the styles that formulas need. They are set as properties: the page's policy forbids style
 * attributes, and a property's value cannot contain another property.
 */
function restyle(node) {
  const style = node.attributes?.style;
  if (style) {
    delete node.attributes.style;
    const [name, value] = style.replace(";", "").split(":");
    node.style[name.replace(/-(.)/, (_, letter) => letter.toUpperCase())] = value.trim();
  }
  for (const [name, value] of Object.entries(node.style ?? {})) {
    if (!STYLES.test(name) || /url|image/i.test(value)) delete node.style[name];
  }
  for (const child of node.children ?? []) restyle(child);
}
