/** On narrow screens the list of conversations is a drawer: while open, nothing else can be reached. */

import { byId } from "./dom.js";

const narrow = matchMedia("(max-width: 46rem)");

export const isNarrow = () => narrow.matches;
export const drawerIsOpen = () => document.body.classList.contains("sidebar-open");

export function showDrawer(shown) {
  const open = shown && narrow.matches;
  document.body.classList.toggle("sidebar-open", open);
  byId("open-sidebar").ariaExpanded = String(open);
  byId("conversation").inert = open;
  if (open) byId("close-sidebar").focus();
  else if (narrow.matches && byId("sidebar").contains(document.activeElement)) byId("open-sidebar").focus();
}

byId("open-sidebar").onclick = () => showDrawer(true);
byId("close-sidebar").onclick = () => showDrawer(false);
narrow.addEventListener("change", () => showDrawer(false));
addEventListener("pointerdown", ({ target }) => {
  if (drawerIsOpen() && !byId("sidebar").contains(target)) showDrawer(false);
});
