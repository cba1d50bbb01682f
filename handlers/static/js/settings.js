/** The settings of the conversation and of the browser. */

import { exportAll, importAll } from "./archive.js";
import { byId, download } from "./dom.js";
import { askForKey } from "./key.js";
import { thinks } from "./models.js";
import { setUpOptions, showOptions } from "./options.js";
import { prefer, preference } from "./preferences.js";
import { setUpPrompts, showPrompts } from "./prompts.js";
import { words } from "./words.js";

const USUAL_TEMPERATURE = 0.8;

/** `hooks`: data() of the open conversation, save(data), imported(), keyChanged(). */
export function setUpSettings(hooks) {
  byId("open-settings").onclick = () => showSettings(hooks.data());
  byId("system").oninput = ({ target }) => change({ system: target.value.trim() });
  byId("think").onchange = byId("think-level").onchange = () => {
    byId("think-level-label").hidden = !byId("think").checked;
    change({ think: byId("think").checked && (byId("think-level").value || true) });
  };
  setUpOptions(hooks.data, change);
  setUpPrompts((system) => {
    byId("system").value = system;
    change({ system });
  });
  byId("temperature").oninput = ({ target }) => {
    change({ temperature: target.valueAsNumber });
    showTemperature(target.valueAsNumber);
  };
  byId("temperature-reset").onclick = () => {
    change({ temperature: null });
    showTemperature(null);
  };

  function change(values) {
    const data = Object.assign(hooks.data(), values);
    if (data.messages.length) hooks.save(data);
  }

  for (const name of ["theme", "language"]) {
    byId(name).value = preference(name);
    byId(name).onchange = ({ target }) => prefer(name, target.value);
  }

  byId("change-key").onclick = async () => (await askForKey()) && hooks.keyChanged();
  byId("export-all").onclick = async () => {
    try {
      download("conversations.json", "application/json", await exportAll());
    } catch {
      byId("import-result").textContent = words.storageFailed;
    }
  };
  byId("import").onclick = () => byId("import-file").click();
  byId("import-file").onchange = async ({ target }) => {
    try {
      byId("import-result").textContent = words.imported(
        await importAll(await target.files[0].text()),
      );
    } catch (error) {
      const isStores = error instanceof DOMException; // other errors are the file's
      byId("import-result").textContent = isStores ? words.storageFailed : words.importFailed;
    }
    target.value = "";
    hooks.imported();
  };
}

export function showSettings(data) {
  const { system, temperature, think } = data;
  byId("system").value = system;
  byId("thinking").hidden = !thinks();
  byId("think").checked = Boolean(think);
  byId("think-level").value = typeof think === "string" ? think : "";
  byId("think-level-label").hidden = !think;
  byId("prompt-result").textContent = "";
  byId("prompt-name").value = "";
  showPrompts();
  showOptions(data);
  byId("import-result").textContent = "";
  showTemperature(temperature);
  byId("settings").showModal();
}

function showTemperature(temperature) {
  byId("temperature").value = temperature ?? USUAL_TEMPERATURE;
  byId("temperature-value").textContent = temperature ?? words.temperatureDefault;
  byId("temperature-reset").disabled = temperature === null;
}
