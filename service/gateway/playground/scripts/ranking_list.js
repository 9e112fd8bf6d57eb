/**
 * The list of documents, in the order of their ranking, with scores and what they cost.
 *
 * Invariant: a document keeps its element, so that pictures do not load again, and the focus and
 * unfinished edits stay.
 */

import { nameOf } from "./documents.js";
import { aloud, fitHeight, make, silent } from "./elements.js";
import { gliding } from "./motion.js";
import { count } from "./requests.js";
import { inOrder, logitRange, movedUp } from "./rankings.js";

/** One list; `onEdit(key, text)` and `onRemove(key)` are called for the user's changes. */
export class RankingList {
  #cards = new Map();
  #element;
  #onEdit;
  #onRemove;

  constructor(label, { onEdit, onRemove }) {
    this.#element = make("ol", { class: "ranking", "aria-label": label });
    this.#onEdit = onEdit;
    this.#onRemove = onRemove;
    this.#element.addEventListener("keydown", stepBetweenCards);
  }

  get element() {
    return this.#element;
  }

  /** The card of a document, or undefined. */
  card(key) {
    return this.#cards.get(key)?.element;
  }

  /**
   * Show documents as `ranking` orders them.
   *
   * `before` is the ranking that changes of rank are counted from; `bars` is what bars show;
   * `problems` are sentences by document key.
   */
  show(documents, ranking, { before, bars, problems }) {
    const range = ranking && bars === "logit" ? logitRange(ranking) : null;
    const kept = new Set(documents.map(({ key }) => key));
    for (const [key, card] of this.#cards) {
      if (kept.has(key)) continue;
      card.element.remove();
      this.#cards.delete(key);
    }

    const present = [...this.#element.children];
    const ordered = inOrder(documents, ranking).map((document) => {
      const card = this.#cardOf(document);
      const up = movedUp(document.key, before, ranking);
      card.fill(document, ranking?.get(document.key), up, range, problems.get(document.key));
      return card.element;
    });
    this.#element.classList.toggle(
      "pictured",
      documents.some(({ picture }) => picture),
    );

    const begin = ordered.findIndex((element, index) => element !== present[index]);
    if (begin >= 0) gliding(present, () => this.#element.append(...ordered.slice(begin)));
  }

  #cardOf(document) {
    const existing = this.#cards.get(document.key);
    if (existing) return existing;
    const card = new Card(document, this.#onEdit, this.#onRemove);
    this.#cards.set(document.key, card);
    return card;
  }
}

/** The element of one document. */
class Card {
  constructor(document, onEdit, onRemove) {
    this.key = document.key;
    this.rank = make("p", { class: "rank" });
    this.thumb = make("img", { class: "thumb", alt: "", decoding: "async", loading: "lazy" });
    this.tile = silent("Aa", "thumb tile");
    this.text = make("p", { class: "text" });
    this.bar = make("i");
    this.facts = make("p", { class: "facts" });
    this.score = make("p", { class: "score" });
    this.edit = iconButton("edit", "✎", () => this.#startEdit(document, onEdit));
    this.remove = iconButton("remove", "✕", () => onRemove(this.key));

    this.body = make("div", { class: "body" }, this.text, this.facts);
    const actions = make("div", { class: "actions" }, this.edit, this.remove);
    const bar = make("div", { class: "bar", "aria-hidden": "true" }, this.bar);
    this.element = make(
      "li",
      { class: "card", tabIndex: -1 },
      this.rank,
      this.thumb,
      this.tile,
      this.body,
      this.score,
      actions,
      bar,
    );
  }

  /** Show a document and its entry of a ranking, if any. */
  fill(document, entry, up, range, problem) {
    const { picture, text } = document;
    this.thumb.hidden = !picture;
    this.tile.hidden = Boolean(picture);
    if (picture && this.thumb.src !== picture.preview) this.thumb.src = picture.preview;
    this.thumb.alt = picture ? `Picture ${picture.name}` : "";
    this.text.textContent = text || picture?.name || "";
    this.text.classList.toggle("name", !text);

    const name = nameOf(document);
    this.edit.setAttribute("aria-label", `Edit the text of ${name}`);
    this.remove.setAttribute("aria-label", `Remove ${name}`);

    const rank = entry?.rank;
    this.element.classList.toggle("ranked", Boolean(rank));
    this.element.classList.toggle("failed", Boolean(entry?.error || problem));
    this.rank.replaceChildren(...(rank ? [aloud("Rank "), String(rank)] : [silent("·")]));
    this.score.replaceChildren(...scoreOf(entry, up));
    this.facts.replaceChildren(...factsOf(document, entry, problem));
    this.bar.style.width = `${100 * shareOf(entry, range)}%`;
  }

  /** Put a text box in the place of the text, until it is left. */
  #startEdit(document, onEdit) {
    if (this.body.querySelector("textarea")) return;
    const name = nameOf(document);
    const box = make("textarea", {
      value: document.text,
      "aria-label": `Text of ${name}`,
      rows: 1,
    });
    let isDone = false;
    const finish = (keeps) => {
      if (isDone) return;
      isDone = true; // before the box is removed, which takes the focus from it
      box.replaceWith(this.text);
      if (keeps && box.value.trim() !== document.text) onEdit(this.key, box.value.trim());
    };

    box.addEventListener("input", () => fitHeight(box));
    box.addEventListener("blur", () => finish(true));
    box.addEventListener("keydown", (event) => {
      if (event.key === "Escape") {
        event.stopPropagation();
        finish(false);
        this.edit.focus();
      }
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) finish(true);
    });
    this.text.replaceWith(box);
    fitHeight(box);
    box.focus();
  }
}

function iconButton(name, sign, onClick) {
  const button = make("button", { type: "button", class: `icon ${name}` }, silent(sign));
  button.addEventListener("click", onClick);
  return button;
}

/** The arrow keys go from a card's button to the same button of the card above or below. */
function stepBetweenCards(event) {
  const { target, key } = event;
  if (!["ArrowUp", "ArrowDown"].includes(key) || target.tagName === "TEXTAREA") return;
  const card = target.closest(".card");
  const next = key === "ArrowUp" ? card?.previousElementSibling : card?.nextElementSibling;
  if (!next) return;
  event.preventDefault();
  const button = target.classList.contains("edit") ? ".edit" : ".remove";
  next.querySelector(button).focus();
}

function scoreOf(entry, up) {
  if (entry?.score === undefined) return [];
  const parts = [aloud("Score "), make("span", { class: "number" }, scoreText(entry.score))];
  if (up) {
    const [sign, word] = up > 0 ? ["▲", "up"] : ["▼", "down"];
    const moved = make("span", { class: `moved ${word}` });
    moved.append(silent(`${sign} ${Math.abs(up)}`), aloud(`, ${word} ${Math.abs(up)}`));
    parts.push(moved);
  } else if (up === 0) {
    parts.push(aloud(", the same rank"));
  }
  return parts;
}

/** A score of four digits; one that would read as zero is said to be less. */
function scoreText(score) {
  return score > 0 && score < 0.00005 ? "<0.0001" : score.toFixed(4);
}

function factsOf(document, entry, problem) {
  if (problem) return [make("span", { class: "problem" }, problem)];
  if (entry?.error) {
    const { code, message } = entry.error;
    return [make("span", { class: "problem" }, message), make("code", {}, code)];
  }
  if (entry?.leftOut) return [make("span", {}, "below the number of results asked for")];
  if (!entry) return sizeOf(document);

  const { prompt_tokens: tokens, image_tokens: ofImages, truncated, cached } = entry.meta;
  const sign = entry.logit < 0 ? "−" : "+";
  const spent = ofImages
    ? `${count(tokens)} tokens, ${count(ofImages)} of images`
    : `${count(tokens)} tokens`;
  const facts = [
    make("span", { class: "logit" }, `logit ${sign}${Math.abs(entry.logit).toFixed(2)}`),
    make("span", { class: "tokens" }, spent),
  ];
  if (entry.probability !== undefined) {
    const percent = `probability ${(100 * entry.probability).toFixed(1)} %`;
    facts.splice(1, 0, make("span", {}, percent));
  }
  if (cached) facts.push(make("span", { class: "mark" }, "cached"));
  if (truncated) facts.push(make("span", { class: "mark warn" }, "cut"));
  return facts;
}

function sizeOf({ picture }) {
  return picture ? [make("span", {}, `${picture.width} × ${picture.height}`)] : [];
}

/** The part of its length that a bar fills: the score, or the logit within its range. */
function shareOf(entry, range) {
  if (entry?.score === undefined) return 0;
  if (!range) return Math.min(1, Math.max(0, entry.score));
  const span = range.greatest - range.least;
  return span > 0 ? (entry.logit - range.least) / span : 1;
}
