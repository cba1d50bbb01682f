/** Images and files for the next message: added by button, drop and paste. */

import { readDocument, Unreadable } from "./documents.js";
import { byId, icon, iconButton, make, number } from "./dom.js";
import { readImage } from "./images.js";
import { estimate } from "./length.js";
import { model, onModel, sees } from "./models.js";
import { words } from "./words.js";

const field = byId("message");
const notice = byId("notice");
let attached = [];
let reading = 0;

let changed;
let keeper;

/**
 * Calls `change` when the reader adds or removes something. `keeping()` returns what takes an item that has
 * been read since, if another draft is shown by then; it returns whether it did.
 */
export const onAttachments = (change, keeping) => ([changed, keeper] = [change, keeping]);

/** Whether files are still being read. */
export const busy = () => reading > 0;

/** What is attached: `{ images, files }`. */
export const attachments = () => ({
  images: attached.filter((item) => typeof item === "string"),
  files: attached.filter((item) => typeof item !== "string"),
});

/** What is attached, in its order. */
export const attachedItems = () => attached;

/** Attaches these items in place of the current ones. */
export function attachItems(items) {
  attached = items;
  show();
  showSight();
}

async function add(files) {
  const problems = [];
  const keptElsewhere = keeper();
  notice.textContent = "";
  for (const file of files) {
    reading += 1;
    show();
    try {
      const item = await read(file);
      if (!(await keptElsewhere(item))) {
        attached.push(item);
        changed();
      }
    } catch (problem) {
      problems.push(problem instanceof Unreadable ? words.unreadable[problem.reason](file.name) : problem.message);
      notice.textContent = [...new Set(problems)].join("\n");
    }
    reading -= 1;
    show();
  }
  field.focus();
}

async function read(file) {
  if (!file.type.startsWith("image/") || file.type === "image/svg+xml") return readDocument(file);
  if (!sees()) throw new Error(words.blind(model()));
  return readImage(file).catch(() => {
    throw new Error(words.notAnImage(file.name));
  });
}

function show() {
  const list = byId("attachments");
  const waiting = reading ? [make("li", { className: "file" }, words.readingFile)] : [];
  list.hidden = !attached.length && !reading;
  list.replaceChildren(...attached.map(drawItem), ...waiting);
}

function drawItem(item, index) {
  const remove = iconButton("close", typeof item === "string" ? words.removeImage : `${words.removeFile}: ${item.name}`, () => {
    attached.splice(index, 1);
    notice.textContent = "";
    show();
    changed();
    field.focus();
  });
  remove.className = "round";
  if (typeof item === "string") {
    return make("li", {}, make("img", { src: `data:image/jpeg;base64,${item}`, alt: "" }), remove);
  }
  return make("li", { className: "file" }, ...describe(item), remove);
}

/** A file's icon, name, size and length. */
export const describe = ({ name, size, text }) => [
  icon("file"),
  make("span", { className: "name", title: name }, name),
  make("span", { className: "size" }, words.fileSize(bytes(size), number(estimate(text)))),
];

function bytes(size) {
  const [value, unit] = size < 1e6 ? [Math.max(size / 1e3, 0.1), "kilobyte"] : [size / 1e6, "megabyte"];
  const style = { style: "unit", unit, maximumFractionDigits: value < 10 ? 1 : 0 };
  return value.toLocaleString(document.documentElement.lang, style);
}

/** Images are for models with vision, files for all. */
function showSight() {
  const label = sees() ? words.attach : words.attachFiles;
  Object.assign(byId("attach"), { ariaLabel: label, title: label });
  const images = attached.some((item) => typeof item === "string");
  if (images) notice.textContent = sees() ? "" : words.blind(model());
}
onModel(showSight);
document.addEventListener("languagechange", () => {
  showSight();
  show();
});

/** Spreadsheets add a picture to the text that is meant; files come with their name as text, without HTML. */
field.addEventListener("paste", (event) => {
  const { files, types } = event.clipboardData;
  if (!files.length || (types.includes("text/plain") && types.includes("text/html"))) return;
  event.preventDefault();
  add([...files]);
});

const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
const form = byId("composer");
addEventListener("dragover", (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  form.classList.add("dropping");
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) form.classList.remove("dropping");
});
addEventListener("drop", (event) => {
  form.classList.remove("dropping");
  if (!hasFiles(event)) return;
  event.preventDefault();
  add([...event.dataTransfer.files]);
});
byId("attach").onclick = () => byId("attach-file").click();
byId("attach-file").onchange = ({ target }) => {
  add([...target.files]);
  target.value = "";
};
