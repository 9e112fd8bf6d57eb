/** The samples that ship with the page: a query, an instruction, and documents with pictures. */

import { newDocument } from "./documents.js";
import { make, silent } from "./elements.js";
import { readPicture } from "./pictures.js";

const FOLDER = new URL("./", import.meta.url);

/** Data of the page's own: `instructions`, `samples`. */
export async function ownData(name) {
  const response = await fetch(new URL(`${name}.json`, FOLDER), { credentials: "omit" });
  if (!response.ok) throw new Error(`${name}.json did not arrive (${response.status}).`);
  return response.json();
}

const SHOWN = 3;

/** A list of buttons, one a sample; `onChoose(sample)` is called with the loaded one. */
export function offerSamples(list, samples, onChoose) {
  for (const sample of samples) {
    const button = make("button", { type: "button", class: "sample" });
    const strip = make("span", { class: "strip" });
    for (const { picture, text } of shownOf(sample)) {
      const source = picture && new URL(picture, FOLDER).href;
      strip.append(source ? make("img", { src: source, alt: "" }) : silent(text));
    }
    button.append(
      strip,
      make("span", { class: "title" }, sample.title),
      make("small", {}, sample.about),
    );
    button.addEventListener("click", async () => onChoose(await loaded(sample)));
    list.append(make("li", {}, button));
  }
}

async function loaded({ query, instruction = "", documents }) {
  const pictures = new Map();
  const itemOf = async ({ text = "", picture = null }) => {
    if (picture && !pictures.has(picture)) pictures.set(picture, await samplePicture(picture));
    return { text, picture: pictures.get(picture) ?? null };
  };

  const loadedDocuments = [];
  for (const document of documents) loadedDocuments.push(newDocument(await itemOf(document)));
  return { query: await itemOf(query), instruction, documents: loadedDocuments };
}

async function samplePicture(name) {
  const source = new URL(name, FOLDER).href;
  const response = await fetch(source, { credentials: "omit" });
  if (!response.ok) throw new Error(`${name} did not arrive (${response.status}).`);
  return readPicture(await response.blob(), { source, name });
}

/** The items that stand for a sample: the query's picture first, and pictures before texts. */
function shownOf({ query, documents }) {
  const items = query.picture ? [query, ...documents] : documents;
  const pictures = items.filter(({ picture }) => picture);
  return [...pictures, ...items.filter(({ picture }) => !picture)].slice(0, SHOWN);
}
