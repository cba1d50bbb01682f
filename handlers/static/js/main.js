/** The page: its parts put together. */

import { Failure } from "./api.js";
import { onSend, showRunning } from "./composer.js";
import { Conversation } from "./conversation.js";
import { byId, number, toClipboard } from "./dom.js";
import { drawerIsOpen, isNarrow, showDrawer } from "./drawer.js";
import "./install.js";
import { lengthOf } from "./length.js";
import { choose, contextLength, learnContextLength, loadModels, model, sees, showModels, thinks } from "./models.js";
import { addressed, onNavigation, visit } from "./navigation.js";
import { usualPrompt } from "./prompts.js";
import { toRichText } from "./rich.js";
import { askForKey, setUpSettings, showSettings } from "./settings.js";
import { setUpShortcuts } from "./shortcuts.js";
import { listConversations, markCurrent, refresh } from "./sidebar.js";
import { say } from "./speech.js";
import "./starters.js";
import { showStats } from "./stats.js";
import { showStatus, watchStatus } from "./status.js";
import * as store from "./store.js";
import { words } from "./words.js";

/** Tokens that every model holds. */
const SHORT = 1000;

const conversation = new Conversation({
  model,
  sees,
  thinks,
  save,
  changed() {
    showRunning(conversation.running);
    const { title } = conversation.data;
    byId("title").textContent = title || words.newChat;
    document.title = title ? `${title} · Ollama Web` : "Ollama Web";
    if (!conversation.running && lengthOf(conversation.data) > SHORT) learnContextLength();
  },
  unlock: (retry) => unlock(retry),
});

const newData = () => ({ ...store.create(), system: usualPrompt().text });

function storageFailed() {
  byId("notice").textContent = words.storageFailed;
}

async function save(data) {
  try {
    await store.save(data);
    await refresh();
  } catch {
    storageFailed();
  }
}

function show(data) {
  conversation.open(data);
  choose(data.messages.findLast((message) => message.model)?.model);
  visit(data.messages.length ? data.id : "");
  markCurrent(data.id);
  showDrawer(false);
}

/** Opens a conversation, unless by now the reader is elsewhere and it is not `wanted` any more. */
async function openConversation(id, wanted = () => true) {
  const data = id ? await store.load(id).catch(() => null) : newData();
  if (!wanted()) return;
  if (!data) visit("", { place: true });
  show(data ?? newData());
  if (data === null) storageFailed();
  else if (!data) byId("notice").textContent = words.notHere;
}

function startNew() {
  show(newData());
  byId("message").focus();
}

async function unlock(retry) {
  if (!(await askForKey(words.errors[401].join(" ")))) return;
  await start();
  retry();
}

async function start() {
  try {
    await loadModels();
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    if (error.kind === 401) await unlock(() => {});
  }
}

function search() {
  showDrawer(true);
  byId("search").focus();
}

onSend((text, attached) => {
  if (conversation.running) return false;
  const length = lengthOf(conversation.data, { text, ...attached });
  const tooLong = length > contextLength();
  byId("notice").textContent = tooLong ? words.tooLong(model(), number(length), number(contextLength())) : "";
  if (tooLong) return false;
  conversation.send(text, attached);
  visit(conversation.data.id, { place: true });
  markCurrent(conversation.data.id);
  return true;
});
listConversations({
  failed: storageFailed,
  open: (id) => openConversation(id),
  removed(id) {
    conversation.forget(id);
    if (id === conversation.data.id) show(newData());
  },
  async renamed(id, title) {
    const data = id === conversation.data.id ? conversation.data : await store.load(id);
    await save(Object.assign(data, { title }));
  },
});
setUpSettings({
  data: () => conversation.data,
  save,
  imported: refresh,
  keyChanged: start,
});
setUpShortcuts({
  Escape: () => (drawerIsOpen() ? showDrawer(false) : conversation.stop()),
  ArrowUp: () => conversation.editLast(),
  Slash: () => byId("message").focus(),
  KeyN: startNew,
  KeyR: () => conversation.regenerate(),
  KeyC: () => copyLast(),
  KeyS: () => showSettings(conversation.data),
  KeyF: search,
});

async function copyLast() {
  const answers = byId("messages").querySelectorAll(".answer");
  await toClipboard(conversation.lastAnswer, answers.length ? toRichText([...answers].at(-1)) : "");
  say(words.copied);
}

byId("new").onclick = startNew;
byId("stop").onclick = () => conversation.stop();
byId("open-stats").onclick = showStats;
for (const dialog of document.querySelectorAll("dialog")) {
  dialog.addEventListener("click", ({ target }) => target === dialog && dialog.close());
}
document.addEventListener("languagechange", () => {
  showModels();
  showStatus();
  conversation.open(conversation.data);
  refresh();
});

watchStatus();
refresh();
onNavigation((id) => openConversation(id, () => addressed() === id));
await openConversation(addressed());
await start();
if (!isNarrow()) byId("message").focus();
