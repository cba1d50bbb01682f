/** The page: its parts put together. */

import { Failure, needsKey } from "./api.js";
import { attachedItems } from "./attachments.js";
import { onSend, onStop, showRunning } from "./composer.js";
import { Conversation } from "./conversation.js";
import { byId, number, toClipboard } from "./dom.js";
import { addToDraft, dropDraft, forgetDraft, moveDraft, showDraft } from "./drafts.js";
import { drawerIsOpen, isNarrow, showDrawer } from "./drawer.js";
import "./install.js";
import { askForKey } from "./key.js";
import { lengthOf } from "./length.js";
import { choose, contextLength, learnContextLength, loadModels, model, sees, showModels, thinks } from "./models.js";
import { addressed, onNavigation, visit } from "./navigation.js";
import { usualPrompt } from "./prompts.js";
import { toRichText } from "./rich.js";
import { setUpSettings, showSettings } from "./settings.js";
import { setUpShortcuts } from "./shortcuts.js";
import { listConversations, markCurrent, refresh } from "./sidebar.js";
import { say } from "./speech.js";
import "./starters.js";
import { showStats } from "./stats.js";
import { showStatus, watchStatus } from "./status.js";
import * as store from "./store.js";
import { onNews } from "./tabs.js";
import { toast } from "./toast.js";
import { saveUnsaved } from "./unsaved.js";
import { words } from "./words.js";

/** Tokens that fit into any model's context. */
const SHORT = 1000;

const conversation = new Conversation({
  model,
  sees,
  thinks,
  fits,
  save,
  changed() {
    showRunning(conversation.running);
    showTitle();
    if (!conversation.running && lengthOf(conversation.inView) > SHORT) learnContextLength();
  },
  unlock,
  open: show,
});

function showTitle() {
  const { title } = conversation.data;
  byId("title").textContent = title || words.newChat;
  document.title = title ? `${title} · Ollama Web` : "Ollama Web";
}

const newData = () => ({ ...store.create(), system: usualPrompt().text });

function storageFailed() {
  byId("notice").textContent = words.storageFailed;
}

async function save(data) {
  try {
    if (!(await store.save(data))) leave(data);
    await refresh();
  } catch {
    storageFailed();
  }
}

/** Leaves a conversation that another tab has deleted; an unsent question, or one just asked, is kept. */
function leave(data) {
  const asked = conversation.isRunning(data.id) && data.messages.findLast(({ role }) => role === "user");
  conversation.stop(data.id);
  if (data.id !== conversation.data.id) return;
  const typed = { text: byId("message").value, items: attachedItems() };
  dropDraft(data.id, { moved: true });
  show(newData());
  if (asked) addToDraft(asked.text, [...asked.images, ...(asked.files ?? [])]);
  addToDraft(typed.text, typed.items);
  toast(words.deletedElsewhere);
}

let opened = 0; // how often something was, so that a load that comes late opens nothing

function show(data) {
  opened += 1;
  conversation.open(data);
  showDraft(data);
  choose(data.messages.findLast((message) => message.model)?.model);
  visit(data.messages.length ? data.id : "");
  markCurrent(data.id);
  showDrawer(false);
}

/** Opens a conversation, unless the reader has opened another meanwhile, or it is no longer `wanted`. */
async function openConversation(id, wanted = () => true) {
  const turn = (opened += 1);
  const data = id ? await store.load(id).catch(() => null) : newData();
  if (turn !== opened || !wanted()) return;
  if (!data) visit("", { place: true });
  show(data ?? newData());
  if (data === null) storageFailed();
  else if (!data) byId("notice").textContent = words.notHere;
}

function startNew() {
  show(newData());
  byId("message").focus();
}

async function unlock(retry, kind) {
  if (!(await askForKey(words.errors[kind].join(" ")))) return;
  await start();
  retry();
}

let again = 0;

/** Loads the models; if that fails, says so and tries again. */
async function start() {
  clearTimeout(again);
  try {
    await loadModels();
    if (byId("notice").textContent === words.modelsFailed) byId("notice").textContent = "";
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    if (needsKey(error.kind)) return unlock(() => {}, error.kind);
    byId("notice").textContent = words.modelsFailed;
    again = setTimeout(start, Math.max(10_000, 1000 * error.retryAfter));
  }
}

function search() {
  showDrawer(true);
  byId("search").focus();
}

/** Returns whether these messages may be sent to the model now; if not, shows why. */
function fits(messages) {
  const length = lengthOf({ ...conversation.data, messages });
  const limit = contextLength();
  const problem =
    (conversation.runningElsewhere && words.elsewhere) ||
    (length > limit && words.tooLong(model(), number(length), number(limit)));
  byId("notice").textContent = problem || "";
  return !problem;
}

onSend((text, attached) => {
  const stored = conversation.send(text, attached);
  if (!stored) return false;
  forgetDraft(text, stored);
  moveDraft(conversation.data);
  visit(conversation.data.id, { place: true });
  markCurrent(conversation.data.id);
  return true;
});
listConversations({
  failed: storageFailed,
  open: (id) => openConversation(id),
  async removing(id) {
    await conversation.stop(id);
    const restoreDraft = await dropDraft(id);
    if (id === conversation.data.id) show(newData());
    return restoreDraft;
  },
  async changed(id, values) {
    const data = id === conversation.data.id ? conversation.data : await store.load(id);
    if (data) await save(Object.assign(data, values));
    if (id === conversation.data.id) showTitle();
  },
});
onNews(async ({ saved, deleted }) => {
  const { data } = conversation;
  if (saved || deleted) refresh();
  if (deleted === data.id) leave(data);
  if (saved === data.id) conversation.absorb(await store.load(saved));
});
document.addEventListener("elsewhere", () => conversation.draw());
document.addEventListener("reconnected", start);
setUpSettings({
  data: () => conversation.data,
  save,
  async imported() {
    await refresh();
    conversation.absorb(await store.load(conversation.data.id).catch(() => null));
  },
  keyChanged: start,
});
setUpShortcuts({
  Escape: escape,
  ArrowUp: () => conversation.editLast(),
  Slash: () => byId("message").focus(),
  KeyN: startNew,
  KeyR: () => conversation.regenerate(),
  KeyC: () => copyLast(),
  KeyS: () => showSettings(conversation.data),
  KeyF: search,
});

/** Closes the nearest of: a search, the open list of conversations, an answer. */
function escape() {
  if (document.activeElement === byId("search")) {
    byId("search").value = "";
    refresh();
  } else if (drawerIsOpen()) showDrawer(false);
  else conversation.stop();
}

async function copyLast() {
  const answers = byId("messages").querySelectorAll(".answer");
  await toClipboard(conversation.lastAnswer, answers.length ? toRichText([...answers].at(-1)) : "");
  say(words.copied);
}

byId("new").onclick = startNew;
onStop(() => conversation.stop());
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
await saveUnsaved().catch(storageFailed);
refresh();
onNavigation((id) => openConversation(id, () => addressed() === id));
await openConversation(addressed());
await start();
if (!isNarrow()) byId("message").focus();
