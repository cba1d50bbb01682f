/**
 * The browser's Back and Forward: through conversations, whose address is `#id`, and out of whatever
 * is open over them. Opening a dialog or drawer adds an entry to the history; closing it otherwise
 * removes that entry.
 */

import { byId } from "./dom.js";
import { drawerIsOpen, showDrawer } from "./drawer.js";

const overlays = []; // how to close what is open, the topmost last
let shown = "";

/** The conversation that the address names, or "". */
export function addressed() {
  const id = location.hash.slice(1);
  try {
    return decodeURIComponent(id);
  } catch {
    return id; // a lone "%"
  }
}

/** Records that conversation `id` is shown ("" for a new one), as a new page or in `place` of the last. */
export function visit(id, { place = false } = {}) {
  shown = id;
  if (addressed() === id) return;
  const how = place || history.state?.overlay ? "replaceState" : "pushState";
  history[how](null, "", id ? `#${encodeURIComponent(id)}` : location.pathname);
}

/** Calls `open` with the conversation that Back, Forward or an edited address leads to. */
export function onNavigation(open) {
  addEventListener("popstate", () => {
    const depth = history.state?.overlay ?? 0;
    while (overlays.length > depth) overlays.pop()();
    if (addressed() !== shown) open(addressed());
  });
}

function watch(element, attribute, isOpen, close) {
  let was = false;
  const look = () => {
    if (isOpen() === was) return;
    was = !was;
    if (was) {
      overlays.push(close);
      history.pushState({ overlay: overlays.length }, "");
      return;
    }
    const index = overlays.indexOf(close);
    if (index < 0) return; // Back has closed it
    overlays.splice(index, 1);
    if (history.state?.overlay) history.back();
  };
  new MutationObserver(look).observe(element, { attributeFilter: [attribute] });
}

for (const dialog of document.querySelectorAll("dialog")) {
  watch(dialog, "open", () => dialog.open, () => dialog.close());
}
watch(document.body, "class", drawerIsOpen, () => showDrawer(false));
document.querySelector(".skip").onclick = (event) => {
  event.preventDefault(); // its address is not a conversation's
  byId("message").focus();
};
