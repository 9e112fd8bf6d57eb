/** The form of one side: the model that ranks, and the instruction that it is given. */

import { byId, fitHeight, keepFit, make } from "./elements.js";

const OWN = "own";
const DEFAULT = "default";
const KINDS = { T: "text", I: "image", VD: "page", IT: "image and text" };

/** One side's model and instruction; `onChange` is called when one of them changes. */
export class SideForm {
  #instructions;
  #default = "";
  /** Names of the default model: its own, and aliases for it. */
  #defaultNames = new Set();
  #model;
  #chooser;
  #text;
  #legend;

  constructor(instructions, onChange) {
    this.#instructions = instructions;
    this.element = byId("side-template").content.firstElementChild.cloneNode(true);
    this.#legend = this.element.querySelector("legend");
    this.#model = this.element.querySelector(".model select");
    this.#chooser = this.element.querySelector(".chooser select");
    this.#text = this.element.querySelector("textarea");
    this.#fillChooser();
    keepFit(this.#text);

    this.#model.addEventListener("change", () => {
      this.#showChosen();
      onChange();
    });
    this.#chooser.addEventListener("change", () => {
      this.#showChosen();
      if (this.#chooser.value === OWN) this.#text.focus();
      onChange();
    });
    this.#text.addEventListener("input", () => {
      this.#chooser.value = OWN;
      fitHeight(this.#text);
      onChange();
    });
  }

  /** What this side asks for; an empty string leaves the choice to the service. */
  get value() {
    const isDefault = this.#chooser.value === DEFAULT;
    return { model: this.#model.value, instruction: isDefault ? "" : this.#text.value.trim() };
  }

  /** Name the side, such as "A"; one that stands alone has no name. */
  name(letter) {
    this.#legend.textContent = letter ? `Side ${letter}` : "Model and instruction";
    this.#legend.classList.toggle("hidden", !letter);
    this.#text.setAttribute(
      "aria-label",
      letter ? `Instruction of side ${letter}` : "Instruction's text",
    );
  }

  /** Offer the served models, and the default model's own instruction. */
  offer(models, info) {
    const chosen = this.#model.value;
    this.#model.replaceChildren(make("option", { value: "" }, `${info.model} (default)`));
    for (const { id, root } of models) {
      if (id === info.model) continue;
      const label = id === root ? id : `${id} (${root})`;
      this.#model.append(make("option", { value: id }, label));
    }
    this.#model.value = [...this.#model.options].some(({ value }) => value === chosen)
      ? chosen
      : "";
    this.#model.parentElement.hidden = models.length < 2;
    this.#default = info.default_instruction;
    this.#defaultNames = new Set(["", info.model]);
    for (const { id, root } of models) if (root === info.model) this.#defaultNames.add(id);
    this.#showChosen();
  }

  /** Choose an instruction by its text; an empty one chooses the model's own. */
  instruct(text) {
    const index = this.#instructions.findIndex(({ instruction }) => instruction === text);
    this.#chooser.value = text ? (index < 0 ? OWN : String(index)) : DEFAULT;
    if (this.#chooser.value === OWN) this.#text.value = text;
    this.#showChosen();
  }

  /** What the side is, in a few words. */
  get summary() {
    const { model, instruction } = this.value;
    const served = model || this.#model.options[0]?.textContent;
    return {
      model: served,
      instruction: instruction || this.#ownOfModel() || "The model's own instruction",
    };
  }

  /** The chosen model's own instruction, or nothing: `/info` tells that of the default model. */
  #ownOfModel() {
    return this.#defaultNames.has(this.#model.value) ? this.#default : "";
  }

  #fillChooser() {
    const own = make("option", { value: OWN }, "My own");
    this.#chooser.append(make("option", { value: DEFAULT }, "The model's own"), own);
    let group = null;
    this.#instructions.forEach(({ task, dataset }, index) => {
      const label = `${taskName(task)} (${task})`;
      if (group?.label !== label) {
        group = make("optgroup", { label });
        this.#chooser.append(group);
      }
      group.append(make("option", { value: String(index) }, dataset));
    });
  }

  #showChosen() {
    const { value } = this.#chooser;
    if (value === DEFAULT) this.#text.value = this.#ownOfModel();
    else if (value !== OWN) this.#text.value = this.#instructions[Number(value)].instruction;
    fitHeight(this.#text);
  }
}

/** A task's name in words, such as "Image and text for text". */
function taskName(task) {
  const [query, documents] = task.split("-").map((side) => KINDS[side]);
  return `${query[0].toUpperCase()}${query.slice(1)} for ${documents}`;
}
