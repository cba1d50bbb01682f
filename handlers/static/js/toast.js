/** A short notice about the last action, with a way to undo it. */

import { byId, iconButton, make } from "./dom.js";
import { words } from "./words.js";

/** Shows `text` until it is `closed`, or another takes its place. */
export function toast(text, { undo, closed } = {}) {
  const close = () => byId("toast").replaceChildren();
  const button = make("button", { type: "button" }, words.undo);
  button.onclick = () => {
    close();
    undo();
  };
  byId("toast").replaceChildren(
    make("span", {}, text),
    ...(undo ? [button] : []),
    iconButton("close", words.close, () => {
      close();
      closed?.();
    }),
  );
}
