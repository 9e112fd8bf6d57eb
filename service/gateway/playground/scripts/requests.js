/**
 * Requests: what is sent to `POST /rerank`, and what would be refused for its size.
 *
 * A request holds pictures as `Picture` objects until it is encoded. Invariant: everything that
 * `/info` bounds and this page can measure is said before anything is sent.
 */

import { nameOf } from "./documents.js";
import { Picture } from "./pictures.js";

/** The request for one side: a model and an instruction, over the query, documents and options. */
export function requestOf({ query, documents, options }, { model, instruction }) {
  const request = { query: itemOf(query), documents: documents.map(itemOf) };
  if (model) request.model = model;
  if (instruction) request.instruction = instruction;
  if (options.topN) request.top_n = options.topN;
  if (options.truncate !== "end") request.truncate = options.truncate;
  if (options.cache !== "use") request.cache = options.cache;
  if (options.skipErrors) request.on_error = "skip";
  return request;
}

/** The request as JSON text, its pictures as data URLs. */
export async function encoded(request) {
  const urls = new Map();
  for (const picture of picturesOf(request)) urls.set(picture, await picture.dataUrl());
  return JSON.stringify(request, (_, value) => urls.get(value) ?? value);
}

/** Each different picture of a request once. */
export function picturesOf(request) {
  const pictures = new Set();
  for (const item of [request.query, ...request.documents]) {
    if (item.image instanceof Picture) pictures.add(item.image);
  }
  return pictures;
}

/**
 * What the service would refuse: `[{sentence, keys, shrinks}]`, the gravest first.
 *
 * `keys` are of the documents meant; `shrinks` is whether smaller copies of their pictures help.
 */
export function problemsOf({ query, documents }, request, info) {
  const { limits } = info;
  const found = [];
  const say = (sentence, keys = [], shrinks = false) => found.push({ sentence, keys, shrinks });

  if (!query.text.trim() && !query.picture) say("Type a query, or drop a picture on it.");
  if (documents.length === 0) say("Add documents to rank: texts, pictures, or both.");
  if (documents.length > limits.max_documents) {
    const most = count(limits.max_documents);
    say(
      `These are ${count(documents.length)} documents; one request may have ${most}. Remove some.`,
    );
  }
  for (const [items, one] of [
    [[query], "The query"],
    [documents, ""],
  ]) {
    sayOfTexts(items, one, limits, say);
    sayOfPictures(items, one, info, say);
  }

  const size = encodedLength(request);
  if (found.length === 0 && size > limits.max_body_bytes) {
    const most = bytes(limits.max_body_bytes);
    say(`The request has ${bytes(size)}; the service takes ${most}. Remove some documents.`);
  }
  return found;
}

/** Whether a picture is over the limits that a smaller copy of it would keep. */
export function isOversized(picture, limits) {
  return picture.pixels > limits.max_image_pixels || picture.blob.size > limits.max_image_bytes;
}

/** A number for people, such as `1,000`. */
export function count(number) {
  return number.toLocaleString("en");
}

function sayOfTexts(items, one, limits, say) {
  const long = items.filter(({ text }) => characters(text) > limits.max_text_chars);
  if (long.length > 0) {
    const most = count(limits.max_text_chars);
    say(`${subject(long, one)} longer than ${most} characters.`, keysOf(long));
  }
}

function sayOfPictures(items, one, info, say) {
  const { limits } = info;
  const shown = items.filter(({ picture }) => picture);
  if (shown.length > 0 && !info.reads.includes("image")) {
    say(`${subject(shown, one)} a picture, and ${info.model} reads text alone.`, keysOf(shown));
    return;
  }

  const large = shown.filter(({ picture }) => isOversized(picture, limits));
  if (large.length > 0) {
    const [{ picture }] = large;
    const size = `${picture.width} × ${picture.height} pixels, ${bytes(picture.blob.size)}`;
    const most = `${count(limits.max_image_pixels)} pixels and ${bytes(limits.max_image_bytes)}`;
    const which =
      large.length > 1 ? `${subject(large, one)} too large, such as` : subject(large, one);
    const form = large.length > 1 ? `${nameOf(large[0])} (${size})` : `too large (${size})`;
    say(`${which} ${form}: a picture may have ${most}.`, keysOf(large), true);
  }

  const odd = shown.filter(({ picture }) => !isFit(picture, limits));
  if (odd.length > 0) {
    const bounds =
      `${limits.min_image_side} pixels or more a side, and one side at most` +
      ` ${limits.max_image_aspect} times the other`;
    say(`${subject(odd, one)} not of a size that is read: ${bounds}.`, keysOf(odd));
  }
}

function isFit({ width, height }, limits) {
  const [short, long] = width < height ? [width, height] : [height, width];
  return short >= limits.min_image_side && long <= short * limits.max_image_aspect;
}

function subject(items, one) {
  if (one) return `${one} is`;
  return items.length > 1 ? `${count(items.length)} documents are` : `“${nameOf(items[0])}” is`;
}

function keysOf(items) {
  return items.map(({ key }) => key).filter((key) => key !== undefined);
}

/** A query or document as the API has it: a string, or an object with an image. */
function itemOf({ text, picture }) {
  if (!picture) return text;
  return text.trim() ? { text, image: picture } : { image: picture };
}

/** The number of code points, which is how the service counts. */
function characters(text) {
  let surrogates = 0;
  for (let index = 0; index < text.length; index += 1) {
    const unit = text.charCodeAt(index);
    if (unit >= 0xdc00 && unit <= 0xdfff) surrogates += 1;
  }
  return text.length - surrogates;
}

/** The bytes of the encoded request, computed without encoding a picture. */
function encodedLength(request) {
  let pictures = 0;
  const rest = JSON.stringify(request, (_, value) => {
    if (!(value instanceof Picture)) return value;
    pictures += value.encodedLength;
    return "";
  });
  return pictures + new Blob([rest]).size;
}

function bytes(size) {
  if (size < 1024 * 1024) return `${Math.max(1, Math.round(size / 1024))} KiB`;
  return `${(size / 1024 / 1024).toFixed(1).replace(/\.0$/, "")} MiB`;
}
