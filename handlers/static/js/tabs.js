/** What this browser's tabs tell each other: what was saved or deleted, and what is being written. */

const channel = new BroadcastChannel("conversations");
const TELL_EVERY_MS = 1000;
const FORGET_MS = 5000;

/** The answers that other tabs are writing, by id; each with the timer that ends this. */
const elsewhere = new Map();

export const tell = (news) => channel.postMessage(news);

/** Calls `hear` with other tabs' messages: { saved, deleted, writing or written: an id }. */
export const onNews = (hear) => channel.addEventListener("message", ({ data }) => hear(data));

const announcements = new Set();

/** Tells other tabs that this one is writing the answer `id`; returns how to end that. */
export function announce(id) {
  const announcement = () => tell({ writing: id });
  const timer = setInterval(announcement, TELL_EVERY_MS);
  announcements.add(announcement);
  announcement();
  return () => {
    clearInterval(timer);
    announcements.delete(announcement);
  };
}

/** Returns whether another tab is writing the answer `id`; the event "elsewhere" reports changes. */
export const isElsewhere = (id) => elsewhere.has(id);

/** How many answers other tabs are waiting for. */
export const countElsewhere = () => elsewhere.size;

onNews(({ asking, writing, written }) => {
  if (asking) for (const announcement of announcements) announcement();
  if (writing) {
    const known = elsewhere.has(writing);
    clearTimeout(elsewhere.get(writing));
    elsewhere.set(writing, setTimeout(forget, FORGET_MS, writing));
    if (!known) document.dispatchEvent(new Event("elsewhere"));
  }
  if (written) forget(written);
});

function forget(id) {
  clearTimeout(elsewhere.get(id));
  if (elsewhere.delete(id)) document.dispatchEvent(new Event("elsewhere"));
}

tell({ asking: true }); // this tab is new
