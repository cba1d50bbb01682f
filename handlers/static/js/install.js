/** Lets the page be installed, and open without a network. Plain HTTP has neither. */

import { byId } from "./dom.js";
import { ownScript } from "./scripts.js";

navigator.serviceWorker?.register(ownScript("/service-worker.js")).catch(() => {
  // Blocked storage, a private window: the page works without it.
});

let offer = null;

addEventListener("beforeinstallprompt", (event) => {
  event.preventDefault();
  offer = event;
  byId("install").hidden = false;
});
addEventListener("appinstalled", () => (byId("install").hidden = true));
byId("install").onclick = async () => {
  offer.prompt(); // once; if it is declined, the browser offers it again
  byId("install").hidden = true;
};
