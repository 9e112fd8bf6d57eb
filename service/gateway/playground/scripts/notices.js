/** Sentences above the ranking, each with a button where something can be done about it. */

import { byId, make, say } from "./elements.js";

/** Show and say a sentence; `action` is `{label, run}` of a button beside it. */
export function notice(sentence, action = null) {
  const element = make("div", { class: "notice" }, make("p", {}, sentence));
  if (action) {
    const button = make("button", { type: "button", class: "quiet" }, action.label);
    button.addEventListener("click", action.run);
    element.append(button);
  }
  byId("notices").append(element);
  say(sentence);
}

export function clearNotices() {
  byId("notices").replaceChildren();
}
