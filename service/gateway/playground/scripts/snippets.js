/**
 * A request as code that runs as it is pasted: curl for a shell, or Python with httpx.
 *
 * Pictures are read from their files, sample pictures from the service, so that no code has
 * megabytes of base64 in it. Invariant: the code has no API key; it reads RERANK_KEY.
 */

import { Picture } from "./pictures.js";
import { picturesOf } from "./requests.js";

const INDENT = 2;

/** The pictures of a request that no file on disk has as they are sent: pasted, or made smaller. */
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
  const commands = [];
  const json = JSON.stringify(
    request,
    (_, value) => {
      if (!(value instanceof Picture)) return value;
      commands.push(shellPicture(value));
      return `\u0000${commands.length - 1}\u0000`;
    },
    INDENT,
  );
  const escaped = json.replace(/[\\$`]/g, "\\$&");
  return escaped.replace(/\\\\u0000(\d+)\\\\u0000/g, (_, index) => commands[Number(index)]);
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
  lines.push(`answer = httpx.post(${pythonLiteral(`${service}/rerank`)}, json=request${key}, timeout=60)`);
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

/** A value as Python writes it, over several lines; a string of JSON is one of Python, too. */
function pythonLiteral(value, depth = 0) {
  if (value instanceof Picture) {
    const [read, path] = value.source ? ["sample", value.source] : ["picture", fileOf(value)];
    return `${read}(${JSON.stringify(path)})`;
  }
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value !== "object") return JSON.stringify(value);

  const margin = " ".repeat(4 * (depth + 1));
  const entries = Array.isArray(value)
    ? value.map((entry) => pythonLiteral(entry, depth + 1))
    : Object.entries(value).map(
        ([name, entry]) => `${JSON.stringify(name)}: ${pythonLiteral(entry, depth + 1)}`,
      );
  const [open, close] = Array.isArray(value) ? "[]" : "{}";
  const body = entries.map((entry) => `${margin}${entry},\n`).join("");
  return `${open}\n${body}${" ".repeat(4 * depth)}${close}`;
}

/** The file that has a picture's bytes: the user's own, or one that the page saves. */
function fileOf(picture) {
  return picture.path ?? picture.name;
}

function shellQuoted(text) {
  return `'${text.replace(/'/g, "'\\''")}'`;
}
