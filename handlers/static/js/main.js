/** The page: its parts put together. */

import { Failure, needsKey } from "./api.js";
import { onSend, onStop, showRunning } from "./composer.js";
import { Conversation } from "./conversation.js";
import { byId, number, toClipboard } from "./dom.js";
import { dropDraft, forgetDraft, moveDraft, showDraft } from "./drafts.js";
import { askForKey } from "./key.js";
import { lengthOf } from "./length.js";
import { choose, contextLength, loadModels, model, sees, showModels } from "./models.js";
import { toRichText } from "./rich.js";
import { takeUnsaved } from "./run.js";
import { setUpSettings, showSettings } from "./settings.js";
import { setUpShortcuts } from "./shortcuts.js";
import { listConversations, markCurrent, refresh } from "./sidebar.js";
import { say } from "./speech.js";
import { showStats } from "./stats.js";
import { showStatus, watchStatus } from "./status.js";
import * as store from "./store.js";
import { onNews } from "./tabs.js";
import { toast } from "./toast.js";
import { union } from "./tree.js";
import { words } from "./words.js";

const narrow = matchMedia("(max-width: 46rem)");

const conversation = new Conversation({
  model,
  sees,
  save,
  changed() {
    showRunning(conversation.running);
    showTitle();
  },
  unlock,
  open: show,
});

function showTitle() {
  const { title } = conversation.data;
  byId("title").textContent = title || words.newChat;
  document.title = title ? `${title} · Ollama Web` : "Ollama Web";
}

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

/** Leaves a conversation that another tab has deleted; what was asked just now is kept to be sent. */
function leave(data) {
  const asked = conversation.isRunning(data.id) && data.messages.findLast(({ role }) => role === "user").text;
  conversation.stop(data.id);
  if (data.id !== conversation.data.id) return;
  show(store.create());
  byId("message").value ||= asked || "";
  toast(words.deletedElsewhere);
}

/** Stores what pages had no time to save when they were closed. */
async function saveUnsaved() {
  for (const [id, message] of takeUnsaved()) {
    const data = await store.load(id);
    if (!data?.messages.some((other) => other.id === message.parent)) continue;
    data.messages = union(data.messages, [message]);
    await store.save(data);
  }
}

function show(data) {
  conversation.open(data);
  showDraft(data);
  choose(data.messages.findLast((message) => message.model)?.model);
  history.replaceState(null, "", data.messages.length ? `#${data.id}` : " ");
  markCurrent(data.id);
  showSidebar(false);
}

function startNew() {
  show(store.create());
  byId("message").focus();
}

async function unlock(retry, kind) {
  if (!(await askForKey(words.errors[kind].join(" ")))) return;
  await start();
  retry();
}

let again = 0;

/** Loads the models; where that fails, says so and tries again. */
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

function showSidebar(shown) {
  document.body.classList.toggle("sidebar-open", shown);
  byId("open-sidebar").ariaExpanded = String(shown);
  if (shown) byId("close-sidebar").focus();
  else if (narrow.matches && byId("sidebar").contains(document.activeElement)) byId("open-sidebar").focus();
}

function search() {
  showSidebar(narrow.matches);
  byId("search").focus();
}

onSend((text, attached) => {
  if (conversation.running) return false;
  const { system } = conversation.data;
  const length = lengthOf({ system, messages: conversation.branch }, { text, ...attached });
  const limit = contextLength();
  const problem =
    (conversation.runningElsewhere && words.elsewhere) ||
    (length > limit && words.tooLong(model(), number(length), number(limit)));
  byId("notice").textContent = problem || "";
  if (problem) return false;
  forgetDraft(text, conversation.send(text, attached));
  moveDraft(conversation.data);
  history.replaceState(null, "", `#${conversation.data.id}`);
  markCurrent(conversation.data.id);
  return true;
});
listConversations({
  failed: storageFailed,
  open: async (id) => show((await store.load(id)) ?? store.create()),
  async removing(id) {
    await conversation.stop(id);
    dropDraft(id);
    if (id === conversation.data.id) show(store.create());
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
  imported: refresh,
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

/** Ends what is nearest: a search, the open list of conversations, an answer. */
function escape() {
  if (document.activeElement === byId("search")) {
    byId("search").value = "";
    refresh();
  } else if (document.body.classList.contains("sidebar-open")) showSidebar(false);
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
byId("open-sidebar").onclick = () => showSidebar(true);
byId("close-sidebar").onclick = () => showSidebar(false);
byId("conversation").addEventListener("click", ({ target }) => {
  if (!byId("open-sidebar").contains(target)) showSidebar(false);
});
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
const wanted = location.hash && (await store.load(location.hash.slice(1)).catch(() => null));
show(wanted || store.create());
await start();
if (!narrow.matches) byId("message").focus();
