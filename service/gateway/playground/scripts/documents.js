/**
 * Documents: texts, pictures, or both, in the order in which they were added.
 *
 * Does not depend on the page's elements. Invariant: a document's key is never used again.
 */

import { readPicture } from "./pictures.js";

const TEXT_FILE = /\.(txt|text|md)$/i;
const NAMES_LISTED = 3;

let lastKey = 0;

/** A document of a text, a picture, or both. */
export function newDocument({ text = "", picture = null }) {
  lastKey += 1;
  return { key: lastKey, text, picture };
}

/** A document's name for people: its file's name, or how its text begins. */
export function nameOf({ text, picture }) {
  if (picture) return picture.name;
  const line = text.trim().split("\n", 1)[0];
  return line.length > 60 ? `${line.slice(0, 59)}…` : line;
}

/** The documents of pasted text: one, or one for each line that is not empty. */
export function documentsOfText(text, { perLine }) {
  const parts = perLine ? text.split(/\r?\n/) : [text];
  const documents = [];
  for (const part of parts) {
    const trimmed = part.trim();
    if (trimmed) documents.push(newDocument({ text: trimmed }));
  }
  return documents;
}

/**
 * The documents of files: pictures, and text files as one document each.
 *
 * Returns `{documents, leftOut}`; `leftOut` is a sentence about files of other kinds, or empty.
 * A text file larger than `maxTextBytes` is left out, too.
 */
export async function documentsOfFiles(files, { maxTextBytes }) {
  const documents = [];
  const refused = [];
  for (const { file, path } of files) {
    const document = await documentOfFile(file, path, maxTextBytes);
    if (document) documents.push(document);
    else refused.push(file.name);
  }
  return { documents, leftOut: leftOutSentence(refused) };
}

async function documentOfFile(file, path, maxTextBytes) {
  if (TEXT_FILE.test(file.name)) {
    if (file.size > maxTextBytes) return null;
    const text = (await file.text()).trim();
    return text ? newDocument({ text }) : null;
  }
  const picture = await readPicture(file, { path });
  return picture && newDocument({ picture });
}

function leftOutSentence(names) {
  if (names.length === 0) return "";
  const listed = names.slice(0, NAMES_LISTED).join(", ");
  const rest = names.length - NAMES_LISTED;
  const more = rest > 0 ? ` and ${rest} more` : "";
  return `Left out, as they are no PNG, JPEG, WebP or short text files: ${listed}${more}.`;
}
