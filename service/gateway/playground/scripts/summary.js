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
  return make(
    "div",
    { class: "outcome" },
    line,
    ...warnings,
    timeline(answer.id, stages, milliseconds),
  );
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
 * A refused request for `documents`: its message, each place in it, its code and request id.
 *
 * `onPlace(document)` is called when the user goes to a document that is named.
 */
export function refusalNotice(refused, { documents, onPlace }) {
  const notice = make("div", { class: "notice bad", role: "alert" });
  notice.append(make("p", { class: "message" }, refused.message));

  const list = make("ul", { class: "places" });
  for (const { loc, message } of refused.places) {
    const document = loc[0] === "documents" ? documents[loc[1]] : undefined;
    const rest = message === refused.message ? "" : ` ${message}`;
    if (document) list.append(make("li", {}, placeLink(document, onPlace), rest));
    else if (rest) list.append(make("li", {}, rest));
  }
  if (list.childElementCount > 0) notice.append(list);

  const status = refused.status ? `${refused.status} ${refused.code}` : refused.code;
  const facts = make("p", { class: "facts" }, make("code", {}, status));
  if (refused.retryAfter) facts.append(make("span", {}, `try again in ${refused.retryAfter} s`));
  if (refused.requestId) {
    facts.append(make("span", {}, "request ", make("code", {}, refused.requestId)));
  }
  notice.append(facts);
  return notice;
}

function placeLink(document, onPlace) {
  const link = make("button", { type: "button", class: "link" }, `Show ${nameOf(document)}`);
  link.addEventListener("click", () => onPlace(document));
  return link;
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
  return milliseconds >= 10
    ? `${count(Math.round(milliseconds))} ms`
    : `${milliseconds.toFixed(1)} ms`;
}
