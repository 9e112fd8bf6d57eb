/** What came of a request, above its ranking: time by stage, tokens, warnings, or the refusal. */

import { nameOf } from "./documents.js";
import { make, silent } from "./elements.js";
import { count } from "./requests.js";

/** Stages that a worker measured inside the gateway's stage `score`. */
const INSIDE_SCORE = ["queue", "engine"];

/** Stages below this are not listed. */
const LEAST_MS = 0.05;

/** A line about a ranking, and its time by stage. */
export function summaryOf({ answer, stages, milliseconds }) {
  const { results, errors, usage, meta } = answer;
  const facts = [
    `${count(results.length)} ranked in ${time(milliseconds)}`,
    `${count(usage.total_tokens)} tokens`,
  ];
  if (meta.cached_pairs) facts.push(`${count(meta.cached_pairs)} cached`);
  if (errors.length) facts.push(`${count(errors.length)} failed`);

  const line = make("p", { class: "summary" }, facts.join(" · "));
  const warnings = (meta.warnings ?? []).map((warning) => make("p", { class: "warning" }, warning));
  return make("div", { class: "outcome" }, line, ...warnings, timeline(answer.id, stages, milliseconds));
}

/** The sentence that is read aloud about a ranking. */
export function spokenOutcome({ answer, milliseconds }, documents) {
  const { results, errors } = answer;
  const parts = [`Ranked ${count(results.length)} documents in ${time(milliseconds)}.`];
  if (results.length > 0) {
    const [{ index, relevance_score: score }] = results;
    parts.push(`First: ${nameOf(documents[index])}, score ${score.toFixed(4)}.`);
  }
  if (errors.length > 0) parts.push(`${count(errors.length)} documents failed.`);
  return parts.join(" ");
}

/**
 * A refused request: its message, each place in it, its code and request id.
 *
 * `onPlace(index)` is called when the user goes to a document that is named.
 */
export function refusalNotice(refused, { onPlace }) {
  const notice = make("div", { class: "notice bad", role: "alert" });
  notice.append(make("p", { class: "message" }, refused.message));

  const places = refused.places.filter(({ loc }) => loc.length > 0);
  if (places.length > 0) {
    const list = make("ul", { class: "places" });
    for (const { loc, message } of places) list.append(placeItem(loc, message, onPlace));
    notice.append(list);
  }

  const status = refused.status ? `${refused.status} ${refused.code}` : refused.code;
  const facts = make("p", { class: "facts" }, make("code", {}, status));
  if (refused.retryAfter) facts.append(make("span", {}, `try again in ${refused.retryAfter} s`));
  if (refused.requestId) {
    facts.append(make("span", {}, "request ", make("code", {}, refused.requestId)));
  }
  notice.append(facts);
  return notice;
}

function placeItem(loc, message, onPlace) {
  const item = make("li");
  const path = pathOf(loc);
  if (loc[0] === "documents" && Number.isInteger(loc[1])) {
    const link = make("button", { type: "button", class: "link" }, make("code", {}, path));
    link.addEventListener("click", () => onPlace(loc[1]));
    item.append(link);
  } else {
    item.append(make("code", {}, path));
  }
  item.append(" ", message);
  return item;
}

/** A place in the request as JavaScript writes it. */
function pathOf(loc) {
  let path = "";
  for (const step of loc) path += typeof step === "number" ? `[${step}]` : `${path && "."}${step}`;
  return path;
}

/** A bar with a piece for each stage, and the same as a list in words. */
function timeline(requestId, stages, milliseconds) {
  const pieces = piecesOf(stages, milliseconds);
  const total = pieces.reduce((sum, piece) => sum + piece.milliseconds, 0) || 1;
  const bar = make("div", { class: "timeline", "aria-hidden": "true" });
  const words = make("ul", { class: "stages", "aria-label": "Time by stage" });
  for (const { name, milliseconds: spent } of pieces) {
    const piece = make("i", { class: `stage-${name}`, title: `${name} ${time(spent)}` });
    piece.style.flexGrow = String(spent / total);
    bar.append(piece);
    words.append(make("li", {}, silent("", `dot stage-${name}`), `${name} ${time(spent)}`));
  }
  words.append(make("li", { class: "id" }, "request ", make("code", {}, requestId)));
  const closed = make("summary", {}, bar, make("span", {}, "Timings"));
  return make("details", { class: "timings" }, closed, words);
}

/** Stages that do not overlap: those inside `score` by themselves, and the network last. */
function piecesOf(stages, milliseconds) {
  const spent = new Map(stages.map((stage) => [stage.name, stage.milliseconds]));
  const total = spent.get("total") ?? 0;
  const inside = INSIDE_SCORE.reduce((sum, name) => sum + (spent.get(name) ?? 0), 0);
  if (spent.has("score")) spent.set("score", Math.max(0, spent.get("score") - inside));
  spent.delete("total");

  spent.set("network", Math.max(0, milliseconds - total));
  const pieces = [...spent].map(([name, value]) => ({ name, milliseconds: value }));
  return pieces.filter((piece) => piece.milliseconds >= LEAST_MS);
}

function time(milliseconds) {
  if (milliseconds >= 10_000) return `${(milliseconds / 1000).toFixed(1)} s`;
  return milliseconds >= 10 ? `${count(Math.round(milliseconds))} ms` : `${milliseconds.toFixed(1)} ms`;
}
