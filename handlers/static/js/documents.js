/** Reads files for a model: text of any kind and encoding, and the text of PDFs. */

import { ownScript } from "./scripts.js";

const PDFJS = new URL("../vendor/pdfjs/", import.meta.url).pathname;
const LARGEST_BYTES = 50_000_000;

/** Why a file cannot be read: `reason` is "large", "gone", "empty", "binary", "locked", "broken", "scanned" or "unloaded". */
export class Unreadable extends Error {
  constructor(reason) {
    super(reason);
    this.reason = reason;
  }
}

/** Returns `{ name, size, text }`, the size in bytes; throws Unreadable. */
export async function readDocument(file) {
  if (file.size > LARGEST_BYTES) throw new Unreadable("large");
  const buffer = await file.arrayBuffer().catch(() => {
    throw new Unreadable("gone");
  });
  const bytes = new Uint8Array(buffer);
  const isPdf = String.fromCharCode(...bytes.subarray(0, 1024)).includes("%PDF-");
  const text = (isPdf ? await readPdf(bytes) : decode(bytes)).replaceAll("\r\n", "\n").trim();
  if (!text) throw new Unreadable(isPdf ? "scanned" : "empty");
  return { name: file.name, size: file.size, text };
}

/** Older Korean programs write EUC-KR, in Windows' extended form, and never say so. */
function decode(bytes) {
  const [first, second] = bytes;
  const utf16 = { 0xfffe: "utf-16le", 0xfeff: "utf-16be" }[(first << 8) | second];
  const encodings = utf16 ? [utf16] : bytes.includes(0) ? [] : ["utf-8", "euc-kr", "windows-1252"];
  for (const encoding of encodings) {
    try {
      return new TextDecoder(encoding, { fatal: true }).decode(bytes);
    } catch {
      // the next one
    }
  }
  throw new Unreadable("binary");
}

async function readPdf(data) {
  const pdfjs = await import("../vendor/pdfjs/pdf.min.mjs").catch(() => {
    throw new Unreadable("unloaded"); // no network, or a new version of the page
  });
  const port = new Worker(ownScript(`${PDFJS}pdf.worker.min.mjs`), { type: "module" });
  const worker = pdfjs.PDFWorker.create({ port });
  const task = pdfjs.getDocument({
    data,
    worker,
    cMapUrl: `${PDFJS}cmaps/`,
    cMapPacked: true,
    disableFontFace: true,
    useSystemFonts: true,
    useWasm: false,
    verbosity: pdfjs.VerbosityLevel.ERRORS,
  });
  try {
    return await textOf(await task.promise);
  } catch (error) {
    throw new Unreadable(error.name === "PasswordException" ? "locked" : "broken");
  } finally {
    task.destroy();
    port.terminate();
  }
}

async function textOf(pdf) {
  const pages = [];
  for (let number = 1; number <= pdf.numPages; number += 1) {
    const page = await pdf.getPage(number);
    const { items } = await page.getTextContent();
    pages.push(items.map(({ str = "", hasEOL }) => (hasEOL ? `${str}\n` : str)).join("").trim());
    page.cleanup();
  }
  return pages.filter(Boolean).join("\n\n");
}
