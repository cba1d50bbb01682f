/** The browser's storage for settings; what it does not take, because it is blocked or full, does not last. */

function open(name) {
  const values = new Map();
  let kept;
  try {
    kept = window[name];
  } catch {
    // blocked
  }
  return {
    keys: () => Object.keys(kept ?? {}),
    getItem: (key) => values.get(key) ?? kept?.getItem(key) ?? null,
    setItem(key, value) {
      values.delete(key);
      try {
        kept.setItem(key, value);
      } catch {
        values.set(key, value);
      }
    },
    removeItem(key) {
      values.delete(key);
      kept?.removeItem(key);
    },
  };
}

export const local = open("localStorage");
export const session = open("sessionStorage");
