/**
 * The playground: what starts when the page has loaded.
 *
 * Connects the parts with the page and the keyboard. Invariant: every action of the keyboard is one
 * of a button, too.
 */

import { acceptDocuments, showQuery } from "./adding.js";
import { CodeDialog } from "./code_dialog.js";
import { byId, fitHeight, make } from "./elements.js";
import { KeyForm } from "./key_form.js";
import { clearNotices, notice } from "./notices.js";
import { offerSamples, ownData } from "./samples.js";
import { Refused, Service } from "./service.js";
import { offerThemes } from "./theme.js";
import { Workbench } from "./workbench.js";

const RETRY_SECONDS = 2;
const MAX_RETRIES = 60;

const service = new Service();
const workbench = new Workbench(service, await ownData("instructions"));
const keyForm = new KeyForm(service, connect);
let retries = 0;

/** Learn what is served; ask for a key or wait for a worker where that is what is missing. */
async function connect() {
  try {
    const [info, models] = await Promise.all([service.info(), service.models()]);
    showServed(info);
    workbench.serve(info, models);
    clearNotices();
    keyForm.close();
    keyForm.showKey(service.hasKey);
    retries = 0;
  } catch (failure) {
    if (failure instanceof Refused) showUnserved(failure);
    else throw failure;
  }
}

function showServed({ model, model_digest: digest, reads }) {
  const kinds = reads.includes("image") ? "reads text and pictures" : "reads text alone";
  byId("served").replaceChildren(make("strong", { title: digest }, model), ` ${kinds}`);
}

function showUnserved(refused) {
  if (refused.status === 401) {
    keyForm.open(service.hasKey ? refused.message : "");
    service.forgetKey();
    return;
  }

  clearNotices();
  const waits = refused.status === 503 && retries < MAX_RETRIES;
  const sentence = waits ? `${refused.message} Trying again.` : refused.message;
  notice(sentence, { label: "Try again", run: connect });
  if (waits) {
    retries += 1;
    setTimeout(connect, 1000 * (refused.retryAfter ?? RETRY_SECONDS));
  }
}

const code = new CodeDialog(
  () => workbench.requests(),
  () => service.hasKey,
);

/** What each shortcut does; the dialog of the page lists them. */
const shortcuts = {
  KeyQ: () => byId("query").focus(),
  KeyN: () => byId("texts").focus(),
  KeyO: () => byId("files").click(),
  KeyV: () => byId("compare").click(),
  KeyC: () => code.open(workbench.requests()),
};

function onKey(event) {
  if (document.querySelector("dialog[open]")) return;
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    workbench.rerank();
  } else if (event.key === "Escape") {
    workbench.cancel();
  } else if (event.altKey && !event.ctrlKey && !event.metaKey && shortcuts[event.code]) {
    event.preventDefault();
    shortcuts[event.code]();
  }
}

function connectPage() {
  byId("query").addEventListener("input", ({ target }) => {
    workbench.query.text = target.value;
    workbench.touched();
    fitHeight(target);
  });
  byId("rerank").addEventListener("click", () => workbench.rerank());
  byId("cancel").addEventListener("click", () => workbench.cancel());
  byId("compare").addEventListener("change", ({ target }) => workbench.compare(target.checked));
  byId("clear").addEventListener("click", () => {
    workbench.clear();
    byId("texts").focus();
  });
  for (const id of ["top-n", "cache", "truncate", "on-error"]) {
    byId(id).addEventListener("change", () => workbench.touched());
  }
  byId("bars").addEventListener("change", () => workbench.show());
  byId("open-keyboard").addEventListener("click", () => byId("keyboard-dialog").showModal());
  for (const button of document.querySelectorAll("[data-close]")) {
    button.addEventListener("click", () => button.closest("dialog").close());
  }

  workbench.addEventListener("change", () => showQuery(workbench));
  workbench.addEventListener("unserved", connect);
  workbench.addEventListener("key", ({ detail }) => showUnserved(detail));
  addEventListener("keydown", onKey);
}

offerThemes();
acceptDocuments(workbench);
connectPage();
offerSamples(byId("samples"), await ownData("samples"), (sample) => {
  workbench.load(sample);
  workbench.rerank();
});
workbench.show();
await connect();
document.documentElement.dataset.ready = "true";
