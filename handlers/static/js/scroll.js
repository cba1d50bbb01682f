/** Keeps the latest text in view, unless the reader has scrolled away. */

import { byId } from "./dom.js";

const NEAR = 64;

const scroller = byId("scroller");
const toEnd = byId("to-end");
let following = true;
let lastTop = 0;

/** Goes to the end, and follows it while the text grows. */
export function follow() {
  following = true;
  keep();
}

function keep() {
  if (following) scroller.scrollTop = byId("messages").hasChildNodes() ? scroller.scrollHeight : 0;
}

scroller.addEventListener("scroll", () => {
  const near = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < NEAR;
  following = near || (following && scroller.scrollTop >= lastTop);
  lastTop = scroller.scrollTop;
  toEnd.hidden = following;
});
toEnd.addEventListener("click", follow);
const sizes = new ResizeObserver(keep);
sizes.observe(byId("messages"));
sizes.observe(scroller);
