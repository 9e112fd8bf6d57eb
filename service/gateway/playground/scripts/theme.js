/** The colour theme: the system's, light or dark, for as long as the page is open. */

import { byId } from "./elements.js";

const THEMES = [
  ["", "Theme: system"],
  ["light", "Theme: light"],
  ["dark", "Theme: dark"],
];

/** Let the page's button go from theme to theme. */
export function offerThemes() {
  const button = byId("theme");
  let chosen = 0;
  const show = () => {
    const [theme, label] = THEMES[chosen];
    document.documentElement.dataset.theme = theme;
    button.textContent = label;
  };
  button.addEventListener("click", () => {
    chosen = (chosen + 1) % THEMES.length;
    show();
  });
  show();
}
