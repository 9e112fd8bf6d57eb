/**
 * Lines between two rankings, from each document's place in one to its place in the other.
 *
 * Decoration: the changes of rank are on the documents in words, too.
 */

import { make } from "./elements.js";

const SVG = "http://www.w3.org/2000/svg";
const MOST_LINES = 200;
const RANK_MIDDLE = 26;

/** Draws lines in a gutter between two lists, again whenever one of them changes its size. */
export class RankLines {
  #gutter = make("div", { class: "gutter", "aria-hidden": "true" });
  #drawing = document.createElementNS(SVG, "svg");
  #ends = [];
  #observer = new ResizeObserver(() => this.#draw());

  constructor() {
    this.#gutter.append(this.#drawing);
    this.#observer.observe(this.#gutter);
  }

  get element() {
    return this.#gutter;
  }

  /** Connect pairs of cards: `[{left, right, up}]`, `up` being the places moved up, or null. */
  connect(ends) {
    this.#ends = ends.slice(0, MOST_LINES);
    this.#observer.disconnect();
    this.#observer.observe(this.#gutter);
    for (const { left, right } of this.#ends.slice(0, 1)) {
      // the shorter list may grow, as cards come into view, without the gutter
      this.#observer.observe(left.parentElement);
      this.#observer.observe(right.parentElement);
    }
    this.#draw();
  }

  #draw() {
    const { offsetTop: top, clientWidth: width } = this.#gutter;
    const paths = [];
    for (const { left, right, up } of this.#ends) {
      if (up === null || width === 0) continue;
      const [from, to] = [middle(left) - top, middle(right) - top];
      const path = document.createElementNS(SVG, "path");
      const bend = width * 0.5;
      path.setAttribute("d", `M0 ${from} C${bend} ${from} ${width - bend} ${to} ${width} ${to}`);
      path.setAttribute("class", up > 0 ? "up" : up < 0 ? "down" : "same");
      paths.push(path);
    }
    this.#drawing.replaceChildren(...paths);
  }
}

/** Where a card's rank stands, whether the card is still gliding there or not. */
function middle(card) {
  return card.offsetTop + RANK_MIDDLE;
}
