/** The colour theme: the system's, light or dark, for as long as the page is open. */

import { byId } from "./elements.js";

const THEMES = [
  ["", "system"],
  ["light", "light"],
  ["dark", "dark"],
];

/** Let the page's button go from theme to theme. */
export function offerThemes() {
  const button = byId("theme");
  let chosen = 0;
  const show = () => {
    const [theme, name] = THEMES[chosen];
    document.documentElement.dataset.theme = theme;
    byId("theme-name").textContent = name;
    button.setAttribute("aria-label", `Colour theme: ${name}`);
  };
  button.addEventListener("click", () => {
    chosen = (chosen + 1) % THEMES.length;
    show();
  });
  show();
}
