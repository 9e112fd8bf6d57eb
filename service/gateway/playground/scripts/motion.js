/**
 * Movement of elements from where they were to where they are.
 *
 * Invariant: where the user prefers reduced motion, nothing moves.
 */

const DURATION_MS = 420;
const EASING = "cubic-bezier(0.22, 0.8, 0.24, 1)";
const reduced = matchMedia("(prefers-reduced-motion: reduce)");

/**
 * Make a change to the page, and let `elements` glide from their places before it.
 *
 * Only elements that are seen before or after are animated. The focus stays where it was.
 */
export function gliding(elements, change) {
  const focused = document.activeElement;
  const before = new Map(elements.map((element) => [element, element.getBoundingClientRect()]));
  change();
  if (focused && focused !== document.activeElement && focused.isConnected) {
    focused.focus({ preventScroll: true });
  }
  if (reduced.matches) return;

  for (const [element, was] of before) {
    if (!element.isConnected || was.height === 0) continue;
    const is = element.getBoundingClientRect();
    const [x, y] = [was.left - is.left, was.top - is.top];
    const moves = Math.abs(x) + Math.abs(y) > 1;
    if (!moves || !(isSeen(was) || isSeen(is))) continue;
    element.animate([{ transform: `translate(${x}px, ${y}px)` }, { transform: "none" }], {
      duration: DURATION_MS,
      easing: EASING,
    });
  }
}

/** Scroll to an element that begins below what is seen, as a ranking does on a phone. */
export function reveal(element) {
  const { top } = element.getBoundingClientRect();
  if (top < innerHeight * 0.8) return;
  element.scrollIntoView({ block: "start", behavior: reduced.matches ? "auto" : "smooth" });
}

function isSeen({ top, bottom }) {
  return bottom > 0 && top < innerHeight;
}
