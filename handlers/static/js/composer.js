/** The field to write in, with its images. */

import { byId, iconButton, make } from "./dom.js";
import { readImage } from "./images.js";
import { model, onModel, sees } from "./models.js";
import { words } from "./words.js";

const DOUBLE_CLICK_MS = 500;

const form = byId("composer");
const field = byId("message");
let images = [];
let sentAt = -Infinity;

/** Has `send` called with text and images; it returns whether it has taken them. */
export function onSend(send) {
  form.onsubmit = (event) => {
    event.preventDefault();
    const text = field.value.trim();
    if (!(text || images.length) || !send(text, images)) return;
    if (event.submitter) sentAt = performance.now();
    field.value = "";
    images = [];
    showImages();
    resize();
  };
}

/** Has `stop` called; the second click of a double-click on Send is none on Stop. */
export const onStop = (stop) =>
  (byId("stop").onclick = () => performance.now() - sentAt > DOUBLE_CLICK_MS && stop());

export function showRunning(running) {
  const hadFocus = form.contains(document.activeElement);
  byId("send").hidden = running;
  byId("stop").hidden = !running;
  if (hadFocus) field.focus();
}

/** Tells whether Enter is the user's own, not the end of a Hangul or Kanji composition. */
const isEnter = (event) =>
  event.key === "Enter" && !event.shiftKey && !event.isComposing && event.keyCode !== 229;

field.addEventListener("keydown", (event) => {
  if (!isEnter(event)) return;
  event.preventDefault();
  form.requestSubmit();
});

/** Lets the field grow with its text where CSS alone does not. */
function resize() {
  if (CSS.supports("field-sizing", "content")) return;
  field.style.height = "auto";
  field.style.height = `${field.scrollHeight}px`;
}
field.addEventListener("input", resize);

/** Images are offered where the model can see them. */
function showSight() {
  byId("attach").hidden = !sees();
  if (images.length) byId("notice").textContent = sees() ? "" : words.blind(model());
}
onModel(showSight);

async function add(files) {
  byId("notice").textContent = sees() ? "" : words.blind(model());
  if (!sees()) return;
  for (const file of files) {
    try {
      images.push(await readImage(file));
    } catch {
      byId("notice").textContent = words.notAnImage(file.name);
    }
  }
  showImages();
  field.focus();
}

function showImages() {
  byId("images").hidden = !images.length;
  byId("images").replaceChildren(
    ...images.map((image, index) => {
      const remove = iconButton("close", words.removeImage, () => {
        images.splice(index, 1);
        showImages();
        field.focus();
      });
      remove.className = "round";
      return make("li", {}, make("img", { src: `data:image/jpeg;base64,${image}`, alt: "" }), remove);
    }),
  );
}

const filesOf = (transfer) => [...(transfer?.files ?? [])].filter(({ type }) => type.startsWith("image/"));

field.addEventListener("paste", (event) => {
  const files = filesOf(event.clipboardData);
  if (!files.length) return;
  event.preventDefault();
  add(files);
});
addEventListener("dragover", (event) => {
  event.preventDefault();
  form.classList.add("dropping");
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) form.classList.remove("dropping");
});
addEventListener("drop", (event) => {
  event.preventDefault();
  form.classList.remove("dropping");
  add(event.dataTransfer.files);
});
byId("attach").onclick = () => byId("image-file").click();
byId("image-file").onchange = ({ target }) => {
  add([...target.files]);
  target.value = "";
};
