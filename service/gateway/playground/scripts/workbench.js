/**
 * The workbench: a query, documents, one or two sides, and the rankings that the service gave.
 *
 * Does not depend on how things are added to it. Invariant: nothing is sent that the bounds
 * of `/info` refuse, and one request at a time is under way.
 */

import { byId, say } from "./elements.js";
import { clearNotices, notice } from "./notices.js";
import { downscaled } from "./pictures.js";
import { reveal } from "./motion.js";
import { RankLines } from "./rank_lines.js";
import { movedUp } from "./rankings.js";
import { count, encoded, isOversized, problemsOf, requestOf } from "./requests.js";
import { Refused } from "./service.js";
import { Side } from "./side.js";
import { spokenOutcome } from "./summary.js";

export class Workbench extends EventTarget {
  query = { text: "", picture: null };
  documents = [];
  #service;
  #info = null;
  #models = [];
  #sides = [];
  #instructions;
  #lines = new RankLines();
  #running = null;
  #version = 0;
  #problems = new Map();
  #pictures = new Set();

  constructor(service, instructions) {
    super();
    this.#service = service;
    this.#instructions = instructions;
    this.#addSide();
    this.#placeSides();
  }

  get isComparing() {
    return this.#sides.length > 1;
  }

  /** The bounds of the service, or those that it has by default, until they are known. */
  get maxDocuments() {
    return this.#info?.limits.max_documents ?? 1_000;
  }

  get maxTextBytes() {
    return 4 * (this.#info?.limits.max_text_chars ?? 100_000);
  }

  /** How many documents may still be added. */
  get room() {
    return Math.max(0, this.maxDocuments - this.documents.length);
  }

  /** What is served: the answers of `/info` and `/v1/models`. */
  serve(info, models) {
    [this.#info, this.#models] = [info, models];
    for (const side of this.#sides) side.form.offer(models, info);
    this.show();
  }

  add(documents) {
    this.documents.push(...documents);
    this.changed();
  }

  remove(key) {
    const index = this.documents.findIndex((document) => document.key === key);
    this.documents.splice(index, 1);
    this.changed();
  }

  edit(key, text) {
    const document = this.documents.find((candidate) => candidate.key === key);
    if (!text && !document.picture) this.remove(key);
    else document.text = text;
    this.changed();
  }

  /** Replace everything: the query, the documents and the first side's instruction. */
  load({ query, documents, instruction }) {
    [this.query, this.documents] = [query, documents];
    for (const side of this.#sides) side.forget();
    this.#sides[0].form.instruct(instruction);
    this.changed();
  }

  clear() {
    this.load({ query: { text: "", picture: null }, documents: [], instruction: "" });
  }

  compare(isOn) {
    if (isOn === this.isComparing) return;
    if (isOn) {
      const { instruction } = this.#sides[0].form.value;
      this.#addSide().form.instruct(instruction);
    } else {
      this.#sides.pop();
    }
    this.#placeSides();
    this.changed();
  }

  /** The requests as they stand, one a side: `[{letter, request}]`. */
  requests() {
    const options = optionsOf();
    return this.#sides.map(({ letter, form }) => ({
      letter,
      request: requestOf({ query: this.query, documents: this.documents, options }, form.value),
    }));
  }

  /** Note that documents or sides changed, which rankings do not show yet. */
  changed() {
    this.touched();
    this.#releasePictures();
    this.show();
    this.dispatchEvent(new Event("change"));
  }

  /** Note that the query or an option changed: the list is what it was, and older than that. */
  touched() {
    this.#version += 1;
    this.#problems.clear();
    clearNotices();
    this.#showCount();
  }

  /** Show documents, rankings and changes of rank. */
  show() {
    const [first, second] = this.#sides;
    const bars = byId("bars").value;
    for (const side of this.#sides) {
      const before = this.isComparing ? (side === second ? first.ranking : null) : side.earlier;
      side.show(this.documents, { before, bars, problems: this.#problems });
    }
    this.#connectLines(first, second);
    this.#showCount();
  }

  cancel() {
    this.#running?.abort();
  }

  /** Rank, side after side; what is wrong is said, and no more is sent then. */
  async rerank() {
    if (this.#running) return;
    if (!this.#info) this.dispatchEvent(new Event("unserved"));
    if (!this.#info || this.#findProblems()) return;
    this.#running = new AbortController();
    this.#showRunning(true);

    const version = this.#version;
    const documents = [...this.documents];
    const sides = [...this.#sides];
    const requests = this.requests();
    const spoken = [];
    try {
      for (const [index, { request }] of requests.entries()) {
        const side = sides[index];
        try {
          const json = await encoded(request);
          const outcome = await this.#service.rerank(json, this.#running.signal);
          side.accept(outcome, documents, version);
          spoken.push(
            `${side.letter ? `Side ${side.letter}. ` : ""}${spokenOutcome(outcome, documents)}`,
          );
        } catch (failure) {
          if (failure.name === "AbortError") throw failure;
          spoken.push(this.#refuse(side, failure, documents));
        }
        this.show();
        if (index === 0) reveal(byId("lists"));
      }
    } catch {
      spoken.push("Cancelled.");
    } finally {
      this.#running = null;
      this.#showRunning(false);
      say(spoken.join(" "));
    }
  }

  #addSide() {
    const side = new Side(this.#instructions, {
      onChange: () => this.changed(),
      onEdit: (key, text) => this.edit(key, text),
      onRemove: (key) => this.#removeFrom(side, key),
    });
    if (this.#info) side.form.offer(this.#models, this.#info);
    this.#sides.push(side);
    return side;
  }

  /** Remove a document, and leave the focus at the one that takes its place. */
  #removeFrom(side, key) {
    const card = side.list.card(key);
    const next = card.nextElementSibling ?? card.previousElementSibling;
    this.remove(key);
    (next?.querySelector(".remove") ?? byId("texts")).focus();
  }

  #placeSides() {
    const letters = this.isComparing ? ["A", "B"] : [""];
    this.#sides.forEach((side, index) => side.name(letters[index]));
    byId("sides").replaceChildren(...this.#sides.map(({ form }) => form.element));

    const [first, second] = this.#sides.map(({ column }) => column);
    byId("lists").replaceChildren(...(second ? [first, this.#lines.element, second] : [first]));
    byId("lists").classList.toggle("two", this.isComparing);
    document.body.classList.toggle("comparing", this.isComparing);
  }

  #connectLines(first, second) {
    if (!second) return;
    const ends = this.documents.map(({ key }) => ({
      left: first.list.card(key),
      right: second.list.card(key),
      up: movedUp(key, first.ranking, second.ranking),
    }));
    this.#lines.connect(ends);
  }

  #showCount() {
    const number = this.documents.length;
    let isOlder = false;
    for (const side of this.#sides) isOlder = side.showAge(this.#version) || isOlder;
    const words = isOlder ? `${count(number)}, changed since this ranking` : count(number);
    byId("count").textContent = number === 0 ? "" : words;
    byId("empty").hidden = number > 0;
    byId("ranking").classList.toggle("blank", number === 0);
    byId("clear").hidden = number === 0;
  }

  /** Let the browser forget pictures that are no longer here. */
  #releasePictures() {
    const items = [this.query, ...this.documents];
    const present = new Set(items.map(({ picture }) => picture).filter(Boolean));
    for (const picture of this.#pictures) {
      if (!present.has(picture)) picture.release();
    }
    this.#pictures = present;
  }

  /** Say what would be refused; returns whether there is anything. */
  #findProblems() {
    this.#problems.clear();
    clearNotices();
    const said = new Set();
    for (const { request } of this.requests()) {
      // `/info` tells what the default model reads, and of no other
      const reads = request.model ? ["text", "image"] : this.#info.reads;
      for (const problem of problemsOf(this, request, { ...this.#info, reads })) {
        if (!said.has(problem.sentence)) this.#sayProblem(problem);
        said.add(problem.sentence);
      }
    }
    this.show();
    return said.size > 0;
  }

  #sayProblem({ sentence, keys, shrinks }) {
    for (const key of keys) this.#problems.set(key, sentence);
    const run = () => this.#shrink();
    notice(sentence, shrinks ? { label: "Send smaller copies", run } : null);
  }

  /** Replace each picture that is over the limits with a smaller copy. */
  async #shrink() {
    const failed = [];
    for (const item of [this.query, ...this.documents]) {
      if (!item.picture || !isOversized(item.picture, this.#info.limits)) continue;
      try {
        item.picture = await downscaled(item.picture, this.#info.limits);
      } catch {
        failed.push(item.picture.name);
      }
    }
    this.changed();
    if (failed.length > 0) notice(`This browser cannot make these smaller: ${failed.join(", ")}.`);
  }

  #refuse(side, failure, documents) {
    const refused = failure instanceof Refused ? failure : notSent(failure);
    side.refuse(refused, documents);
    if (refused.status === 401) this.dispatchEvent(new CustomEvent("key", { detail: refused }));
    return ""; // the notice is an alert, which is read by itself
  }

  #showRunning(isRunning) {
    byId("rerank").setAttribute("aria-disabled", String(isRunning));
    byId("cancel").hidden = !isRunning;
    byId("lists").setAttribute("aria-busy", String(isRunning));
  }
}

/** The options of a request, as the page has them. */
function optionsOf() {
  const most = Number.parseInt(byId("top-n").value, 10);
  return {
    topN: most > 0 ? most : 0,
    cache: byId("cache").value,
    truncate: byId("truncate").value,
    skipErrors: byId("on-error").value === "skip",
  };
}

function notSent(failure) {
  return new Refused({ status: 0, code: "not_sent", message: failure.message });
}
