/**
 * The form that asks for an API key.
 *
 * Invariant: the key goes from its box to the service's object, and the box is emptied.
 */

import { byId } from "./elements.js";

export class KeyForm {
  #form = byId("key-form");
  #box = byId("key");
  #problem = byId("key-problem");

  /** `onKey()` is called once the service has another key; it tries the key out. */
  constructor(service, onKey) {
    byId("open-key").addEventListener("click", () => this.open());
    byId("forget-key").addEventListener("click", () => {
      service.forgetKey();
      this.open("The key is forgotten.");
      this.showKey(false);
    });
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      const isKey = service.useKey(this.#box.value.trim());
      this.#problem.textContent = isKey
        ? ""
        : "A key has letters, digits and signs, and no spaces.";
      if (!isKey) return;
      this.#box.value = "";
      onKey();
    });
  }

  /** Ask for a key; `problem` says what is wrong with the last one. */
  open(problem = "") {
    this.#form.hidden = false;
    byId("open-key").hidden = false;
    this.#problem.textContent = problem;
    this.#box.focus();
  }

  close() {
    const hadFocus = this.#form.contains(document.activeElement);
    this.#form.hidden = true;
    if (hadFocus) byId("query").focus();
  }

  showKey(hasKey) {
    byId("forget-key").hidden = !hasKey;
  }
}
