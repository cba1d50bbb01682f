/** The response times by model, as a chart and as a table. */

import { Failure, get } from "./api.js";
import { byId, make, makeSvg, number } from "./dom.js";
import { words } from "./words.js";

const ROW = 46;
const VALUE_WIDTH = 64;
const LETTER = 8;

export async function showStats() {
  const content = byId("stats-content");
  content.replaceChildren();
  byId("stats").showModal();
  try {
    const { models } = await get("/api/stats");
    content.append(...(models.length ? [drawCharts(models), drawTable(models)] : [words.statsNone]));
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    content.append(
      error.kind === 404 ? words.statsMissing : (words.errors[error.kind] ?? words.errors.other).join(" "),
    );
  }
}

const seconds = (value) =>
  value === null
    ? "–"
    : value.toLocaleString(document.documentElement.lang, {
        maximumFractionDigits: value < 10 ? 2 : 1,
      });

/** The end of a name says more than its beginning does. */
const shortened = (name, most) => (name.length > most ? `…${name.slice(1 - most)}` : name);

/** The chart at the available width, so that its letters keep their size. */
function drawCharts(models) {
  const figure = make("figure", {});
  let width = 0;
  const draw = ([{ contentRect }]) => {
    if (Math.round(contentRect.width) === width) return;
    width = Math.round(contentRect.width);
    figure.replaceChildren(...drawChart(models, Math.max(width, 4 * VALUE_WIDTH)));
  };
  new ResizeObserver(draw).observe(figure);
  return figure;
}

/** A bar per model: to the first token, to the mean, and a line to the 95th percentile. */
function drawChart(models, width) {
  const longest = Math.max(...models.map((model) => model.p95_s ?? model.mean_s ?? 0)) || 1;
  const x = (value) => ((value ?? 0) / longest) * (width - VALUE_WIDTH);
  const rows = models.flatMap((model, index) => {
    const top = index * ROW;
    const rect = (name, from, to) =>
      makeSvg("rect", { class: name, x: x(from), y: top + 22, width: Math.max(x(to) - x(from), 0), height: 12, rx: 2 });
    const text = (name, left, y, content) => makeSvg("text", { class: name, x: left, y }, content);
    const slow = model.p95_s
      ? [makeSvg("path", { class: "slow", d: `M${x(model.mean_s)} ${top + 28}H${x(model.p95_s)}m0 -4v8` })]
      : [];
    return [
      text("name", 0, top + 15, shortened(model.model, Math.floor(width / LETTER))),
      rect("first", 0, model.first_token_mean_s),
      rect("rest", model.first_token_mean_s, model.mean_s),
      ...slow,
      text("value", x(Math.max(model.p95_s, model.mean_s)) + 8, top + 33, model.mean_s === null ? "–" : words.seconds(seconds(model.mean_s))),
    ];
  });
  const viewBox = `0 0 ${width} ${models.length * ROW}`;
  const chart = makeSvg("svg", { viewBox, role: "img", "aria-label": words.statsChart }, ...rows);
  return [chart, make("figcaption", { className: "help" }, words.statsChart)];
}

function drawTable(models) {
  const row = (tag, cells) => make("tr", {}, ...cells.map((cell) => make(tag, {}, cell)));
  const body = models.map((model) =>
    row("td", [
      model.model,
      number(model.count),
      ...[model.mean_s, model.p50_s, model.p95_s, model.first_token_mean_s, model.tokens_per_s].map(seconds),
    ]),
  );
  const table = make("table", {}, make("thead", {}, row("th", words.statsColumns)), make("tbody", {}, ...body));
  return make("div", { className: "table", tabIndex: 0, role: "region", ariaLabel: words.responseTimes }, table);
}
