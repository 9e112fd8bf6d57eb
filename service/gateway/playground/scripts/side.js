/**
 * One side of the workbench: its form, its latest answer, and the list that shows it.
 *
 * Invariant: a ranking is shown with the request that it answers; once something has changed since,
 * it is marked as older.
 */

import { make } from "./elements.js";
import { RankingList } from "./ranking_list.js";
import { rankingOf } from "./rankings.js";
import { SideForm } from "./side_form.js";
import { refusalNotice, summaryOf } from "./summary.js";

export class Side {
  ranking = null;
  /** The ranking before this one, which changes of rank are counted from. */
  earlier = null;
  #outcome = make("div");
  #heading = make("header", { class: "side-heading" });
  #version = -1;

  constructor(instructions, { onChange, onEdit, onRemove }) {
    this.form = new SideForm(instructions, onChange);
    this.list = new RankingList("Documents", { onEdit, onRemove });
    this.column = make(
      "section",
      { class: "column" },
      this.#heading,
      this.#outcome,
      this.list.element,
    );
  }

  /** Name the side, such as "A"; one that stands alone has no name. */
  name(letter) {
    this.form.name(letter);
    this.column.setAttribute("aria-label", letter ? `Side ${letter}` : "Ranking");
    this.list.element.setAttribute(
      "aria-label",
      letter ? `Documents of side ${letter}` : "Documents",
    );
    this.letter = letter;
  }

  /** Keep an answer to a request for `documents`, made at `version` of the workbench. */
  accept(outcome, documents, version) {
    this.earlier = this.ranking;
    this.ranking = rankingOf(outcome.answer, documents);
    this.#version = version;
    this.#outcome.replaceChildren(summaryOf(outcome));
  }

  /** Show why a request for `documents` has no answer; an older ranking stays, marked as such. */
  refuse(refused, documents) {
    const onPlace = ({ key }) => this.#goTo(this.list.card(key));
    this.#outcome.replaceChildren(refusalNotice(refused, { documents, onPlace }));
    this.#version = -1;
  }

  /** Forget the ranking. */
  forget() {
    this.ranking = null;
    this.earlier = null;
    this.#outcome.replaceChildren();
  }

  /** Show documents in the order of the ranking. */
  show(documents, { before, bars, problems }) {
    this.list.show(documents, this.ranking, { before, bars, problems });
    this.#showHeading();
  }

  /** Show whether the ranking is older than `version` of the workbench; returns whether it is. */
  showAge(version) {
    const isOlder = Boolean(this.ranking) && version !== this.#version;
    this.list.element.classList.toggle("stale", isOlder);
    return isOlder;
  }

  #goTo(card) {
    card?.scrollIntoView({ block: "center" });
    card?.focus();
  }

  #showHeading() {
    this.#heading.hidden = !this.letter;
    if (!this.letter) return;
    const { model, instruction } = this.form.summary;
    this.#heading.replaceChildren(
      make("h3", {}, this.letter, make("span", {}, model)),
      make("p", {}, instruction),
    );
  }
}
