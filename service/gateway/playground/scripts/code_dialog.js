/** The dialog that shows the request as code and copies it. */

import { byId, copied, make, say } from "./elements.js";
import { picturesOf } from "./requests.js";
import { SERVICE } from "./service.js";
import { curl, python, unsavedPictures } from "./snippets.js";

/** Connect the dialog's buttons; `requests()` and `hasKey()` are asked whenever it opens. */
export class CodeDialog {
  #dialog = byId("code-dialog");
  #write = curl;
  #requests = [];
  #hasKey;

  constructor(requests, hasKey) {
    this.#hasKey = hasKey;
    byId("copy").addEventListener("click", () => this.open(requests()));
    byId("code-side").addEventListener("change", () => this.#show());
    for (const [id, write] of [
      ["as-curl", curl],
      ["as-python", python],
    ]) {
      byId(id).addEventListener("click", () => {
        this.#write = write;
        this.#show();
      });
    }

    const button = byId("copy-code");
    button.addEventListener("click", async () => {
      const done = await copied(byId("code").textContent);
      if (!done) getSelection().selectAllChildren(byId("code"));
      button.textContent = done ? "Copied" : "Selected: press Ctrl C";
      say(button.textContent);
    });
  }

  open(requests) {
    this.#requests = requests;
    byId("code-side-label").hidden = requests.length < 2;
    byId("code-side").replaceChildren(
      ...requests.map(({ letter }, index) => make("option", { value: String(index) }, letter)),
    );
    this.#show();
    this.#dialog.showModal();
  }

  #show() {
    const index = Number(byId("code-side").value) || 0;
    const { request } = this.#requests[index];
    byId("code").textContent = this.#write(request, {
      service: SERVICE.href.replace(/\/$/, ""),
      hasKey: this.#hasKey(),
    });
    byId("copy-code").textContent = "Copy";
    byId("as-curl").setAttribute("aria-pressed", String(this.#write === curl));
    byId("as-python").setAttribute("aria-pressed", String(this.#write === python));

    const unsaved = unsavedPictures(request);
    byId("code-about").textContent = this.#about(request, unsaved);
    byId("save").replaceChildren(...unsaved.map(saveItem));
  }

  #about(request, unsaved) {
    const parts = [];
    if ([...picturesOf(request)].some(({ path }) => path)) {
      parts.push("Run it in the folder that your pictures, or the folders you dropped, are in.");
    }
    if (unsaved.length > 0) parts.push("Save there first what was pasted or made smaller here:");
    if (this.#hasKey()) parts.push("It reads your key from RERANK_KEY.");
    return parts.join(" ");
  }
}

function saveItem({ name, preview }) {
  return make("li", {}, make("a", { href: preview, download: name }, `Save ${name}`));
}
