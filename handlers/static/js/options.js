/** The API's options in the drawer; empty ones are left to the model. */

import { byId, make } from "./dom.js";
import { words } from "./words.js";

/** The bounds are the API's. */
const NUMBERS = {
  num_predict: { min: 1, max: 2 ** 31 - 1, step: 1 },
  seed: { min: -(2 ** 31), max: 2 ** 31 - 1, step: 1 },
  top_k: { min: 0, max: 2 ** 20, step: 1 },
  top_p: { min: 0, max: 1, step: "any" },
  min_p: { min: 0, max: 1, step: "any" },
  typical_p: { min: 0, max: 1, step: "any" },
  repeat_last_n: { min: -1, max: 131_072, step: 1 },
  repeat_penalty: { min: 0.1, max: 10, step: "any" },
  presence_penalty: { min: -2, max: 2, step: "any" },
  frequency_penalty: { min: -2, max: 2, step: "any" },
};
const MOST_STOPS = 64;

/** Calls `change` with `{ options }` or `{ format }` when one gets another valid value. */
export function setUpOptions(data, change) {
  for (const [name, bounds] of Object.entries(NUMBERS)) {
    const oninput = ({ target }) => {
      if (!target.validity.valid) return;
      set(name, Number.isNaN(target.valueAsNumber) ? undefined : target.valueAsNumber);
    };
    const input = make("input", { type: "number", name, oninput, ...bounds, inputMode: "decimal" });
    byId("option-fields").append(label(name, input, rangeOf(bounds)));
  }
  const oninput = ({ target }) => {
    const stops = target.value.split("\n").filter(Boolean);
    target.setCustomValidity(stops.length > MOST_STOPS ? words.tooManyStops(MOST_STOPS) : "");
    if (target.validity.valid) set("stop", stops.length ? stops : undefined);
  };
  byId("option-fields").append(label("stop", make("textarea", { name: "stop", rows: 2, oninput })));

  function set(name, value) {
    const options = { ...data().options, [name]: value };
    change({ options: JSON.parse(JSON.stringify(options)) }); // drops undefined values
  }

  byId("options").addEventListener("change", ({ target }) => target.reportValidity());
  byId("options-reset").onclick = () => {
    change({ options: {} });
    showOptions({ ...data(), options: {} });
  };
  byId("format").onchange = ({ target }) => {
    byId("schema-label").hidden = target.value !== "schema";
    if (target.value !== "schema") change({ format: target.value });
    else readSchema();
  };
  byId("schema").oninput = readSchema;

  function readSchema() {
    const schema = parse(byId("schema").value);
    byId("schema").setCustomValidity(schema ? "" : words.notASchema);
    if (schema) change({ format: byId("schema").value });
  }
}

const rangeOf = ({ min, max }) => (max <= 10 ? ` ${min} … ${max}`.replace("-", "−") : "");

const label = (name, field, range = "") =>
  make(
    "label",
    {},
    make("span", {}, make("span", { dataset: { option: name } }), " ", make("code", {}, name + range)),
    field,
  );

function parse(text) {
  try {
    const value = JSON.parse(text);
    return value && typeof value === "object" && !Array.isArray(value) ? value : null;
  } catch {
    return null;
  }
}

/** Returns `format` as the API takes it: "json", a schema, or undefined for text. */
export const formatOf = (format) => (format === "json" ? format : parse(format || "") ?? undefined);

export function showOptions({ options = {}, format = "" }) {
  for (const field of byId("option-fields").querySelectorAll("[name]")) {
    const value = options[field.name] ?? "";
    field.value = Array.isArray(value) ? value.join("\n") : value;
    field.placeholder = words.optionDefaults[field.name] ?? words.temperatureDefault;
  }
  for (const name of byId("option-fields").querySelectorAll("[data-option]")) {
    name.textContent = words.options[name.dataset.option];
  }
  const isSchema = Boolean(format) && format !== "json";
  byId("format").value = isSchema ? "schema" : format;
  byId("schema").value = isSchema ? format : "";
  byId("schema").setCustomValidity("");
  byId("schema-label").hidden = !isSchema;
  if (Object.keys(options).length || format) byId("options").open = true;
}

/** Returns the options of the right type, whatever a file contains. */
export function checkedOptions(options = {}) {
  const fine = Object.entries(options ?? {}).filter(([name, value]) =>
    name === "stop"
      ? Array.isArray(value) && value.every((stop) => typeof stop === "string")
      : name in NUMBERS && Number.isFinite(value),
  );
  return Object.fromEntries(fine);
}
