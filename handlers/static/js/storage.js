/** The browser's storage for settings; if it is blocked, one that does not last. */

function open(name) {
  try {
    return window[name];
  } catch {
    const values = new Map();
    return {
      getItem: (key) => values.get(key) ?? null,
      setItem: (key, value) => values.set(key, value),
      removeItem: (key) => values.delete(key),
    };
  }
}

export const local = open("localStorage");
export const session = open("sessionStorage");
