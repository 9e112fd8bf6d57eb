/** Elements of the page: found by id, made with their properties, revealed, copied from. */

/** The element with an id; throws where there is none. */
export function byId(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`The page has no #${id}.`);
  return found;
}

/**
 * A new element with properties and children. `class`, `aria-*`, `role` and `for` are set as
 * attributes; children are elements or texts, and empty ones are left out.
 */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "class") element.className = value;
    else if (name.includes("-") || name === "role" || name === "for") {
      element.setAttribute(name, value);
    } else element[name] = value;
  }
  element.append(...children.filter((child) => child || child === 0));
  return element;
}

/** Text that is read aloud and not shown. */
export function aloud(text) {
  return make("span", { class: "hidden" }, text);
}

/** Text that is shown and not read aloud. */
export function silent(text, className = "") {
  return make("span", { class: className, "aria-hidden": "true" }, text);
}

/** Set the height of a text box to that of its text, up to a bound that the style has. */
export function fitHeight(box) {
  box.style.height = "auto";
  box.style.height = `${box.scrollHeight + 2}px`;
}

/** Keep the height of a text box that of its text whenever its width changes. */
export function keepFit(box) {
  let width = 0;
  new ResizeObserver(() => {
    if (box.clientWidth === width) return;
    width = box.clientWidth;
    fitHeight(box);
  }).observe(box);
}

/** Copy text to the clipboard; returns whether the browser did. */
export async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false; // not a secure context, or not allowed
  }
}

const SPOKEN_AFTER_MS = 60;
let sentences = [];

/** Say something to those who listen: in the live region, after what was said a moment before. */
export function say(sentence) {
  if (!sentence) return;
  if (sentences.length === 0) {
    // emptied first, so that the same sentence is read again
    byId("announcer").textContent = "";
    setTimeout(() => {
      byId("announcer").textContent = sentences.join(" ");
      sentences = [];
    }, SPOKEN_AFTER_MS);
  }
  sentences.push(sentence);
}
