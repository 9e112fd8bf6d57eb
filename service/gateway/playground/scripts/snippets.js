/**
 * A request as code that runs as it is pasted: curl for a shell, or Python with httpx.
 *
 * Pictures are read from their files, sample pictures from the service, so that no code has
 * megabytes of base64 in it. Invariant: the code has no API key; it reads RERANK_KEY.
 */

import { Picture } from "./pictures.js";
import { picturesOf } from "./requests.js";

/** Pictures that are in no file as they are sent: those that were pasted, or made smaller. */
export function unsavedPictures(request) {
  return [...picturesOf(request)].filter(({ path, source }) => !path && !source);
}

/** The request as a shell command. */
export function curl(request, { service, hasKey }) {
  const key = hasKey ? ` -H "authorization: Bearer $RERANK_KEY"` : "";
  const header = `-H 'content-type: application/json'`;
  const call = `curl -sS ${shellQuoted(`${service}/rerank`)} ${header}${key} --data-binary @- <<JSON`;
  return [call, hereDocument(request), "JSON", ""].join("\n");
}

/** The JSON of a request for a here-document, in which the shell puts pictures as base64. */
function hereDocument(request) {
  return literal(request, {
    indent: 2,
    trailing: "",
    constant: (value) => shellEscaped(JSON.stringify(value)),
    picture: (picture) => `"${shellPicture(picture)}"`,
  });
}

/** Text that the shell leaves as it is in a here-document. */
function shellEscaped(text) {
  return text.replace(/[\\$`]/g, "\\$&");
}

/** The command that prints a picture in base64, as the shell substitutes it. */
function shellPicture(picture) {
  const read = picture.source
    ? `curl -sS ${shellQuoted(picture.source)} | base64`
    : `base64 < ${shellQuoted(fileOf(picture))}`;
  return `$(${read} | tr -d '\\n')`;
}

/** The request as a Python program. */
export function python(request, { service, hasKey }) {
  const pictures = [...picturesOf(request)];
  const fromFiles = pictures.some(({ source }) => !source);
  const fromService = pictures.some(({ source }) => source);

  const imports = [];
  if (pictures.length > 0) imports.push("import base64");
  if (hasKey) imports.push("import os");
  if (fromFiles) imports.push("from pathlib import Path");
  const lines = imports.length > 0 ? [...imports, ""] : [];
  lines.push("import httpx", "");

  if (fromFiles) lines.push(...FROM_FILE);
  if (fromService) lines.push(...FROM_SERVICE);
  if (pictures.length > 0) lines.push("");
  lines.push(`request = ${pythonLiteral(request)}`);

  const key = hasKey ? `, headers={"authorization": f"Bearer {os.environ['RERANK_KEY']}"}` : "";
  lines.push(
    `answer = httpx.post(${JSON.stringify(`${service}/rerank`)}, json=request${key}, timeout=60)`,
  );
  lines.push(...PRINTING, "");
  return lines.join("\n");
}

const FROM_FILE = [
  "",
  "def picture(path: str) -> str:",
  '    """A picture of this folder, in base64."""',
  "    return base64.b64encode(Path(path).read_bytes()).decode()",
  "",
];
const FROM_SERVICE = [
  "",
  "def sample(url: str) -> str:",
  '    """A sample picture of the service, in base64."""',
  "    return base64.b64encode(httpx.get(url).raise_for_status().content).decode()",
  "",
];
const PRINTING = [
  "if answer.is_error:",
  "    raise SystemExit(answer.text)",
  'for result in answer.json()["results"]:',
  "    print(f\"{result['relevance_score']:.4f} {result['index']}\")",
];

/** A request as Python writes it; a string of JSON is one of Python, too. */
function pythonLiteral(value) {
  return literal(value, {
    indent: 4,
    trailing: ",",
    constant: (constant) => JSON.stringify(constant),
    picture: ({ source, ...picture }) =>
      source ? `sample(${JSON.stringify(source)})` : `picture(${JSON.stringify(fileOf(picture))})`,
  });
}

/** A request as nested brackets: a line for each field and each document. */
function literal(request, style) {
  const margin = " ".repeat(style.indent);
  const lines = Object.entries(request).map(([name, value]) => {
    if (!Array.isArray(value)) return `${margin}"${name}": ${inline(value, style)}`;
    const items = value.map((item) => `${margin}${margin}${inline(item, style)}`);
    return `${margin}"${name}": [\n${items.join(",\n")}${style.trailing}\n${margin}]`;
  });
  return `{\n${lines.join(",\n")}${style.trailing}\n}`;
}

/** A value of a request in one line: a constant, a picture, or an item of both. */
function inline(value, style) {
  if (value instanceof Picture) return style.picture(value);
  if (typeof value !== "object") return style.constant(value);
  const fields = Object.entries(value).map(([name, part]) => `"${name}": ${inline(part, style)}`);
  return `{${fields.join(", ")}}`;
}

/** The file that has a picture's bytes: the user's own, or one that the page saves. */
function fileOf(picture) {
  return picture.path ?? picture.name;
}

function shellQuoted(text) {
  return `'${text.replace(/'/g, "'\\''")}'`;
}
