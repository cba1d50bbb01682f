/** What this browser's tabs tell each other: what was saved or deleted, and what is being written. */

const channel = new BroadcastChannel("conversations");
const FORGET_MS = 5000;

/** The answers that other tabs write, by their ids, with the time at which that was heard last. */
const elsewhere = new Map();

export const tell = (news) => channel.postMessage(news);

/** Has `hear` called with { saved: id }, { deleted: id } or { writing: id } of other tabs. */
export const onNews = (hear) => channel.addEventListener("message", ({ data }) => hear(data));

/** Tells whether another tab is writing the answer `id` now. */
export const isElsewhere = (id) => elsewhere.has(id);

/** How many answers other tabs are waiting for. */
export const countElsewhere = () => elsewhere.size;

onNews(({ writing, written }) => {
  clearTimeout(elsewhere.get(writing ?? written));
  elsewhere.delete(written);
  if (writing) elsewhere.set(writing, setTimeout(() => forget(writing), FORGET_MS));
});

function forget(id) {
  elsewhere.delete(id);
  document.dispatchEvent(new CustomEvent("quiet", { detail: id }));
}
