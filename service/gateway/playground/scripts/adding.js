/** Ways to add documents: typing, pasting, dropping and choosing files and folders. */

import { documentsOfFiles, documentsOfText } from "./documents.js";
import { filesOfChooser, filesOfTransfer } from "./dropping.js";
import { byId, fitHeight, say } from "./elements.js";
import { notice } from "./notices.js";
import { readPicture } from "./pictures.js";
import { count } from "./requests.js";

let pasted = 0;

/** Connect the page's boxes, choosers and drops with a workbench. */
export function acceptDocuments(workbench) {
  acceptTexts(workbench);
  acceptChoosers(workbench);
  acceptDrops(workbench);
  addEventListener("paste", (event) => {
    const { items, types } = event.clipboardData;
    const isFile = [...items].some(({ kind }) => kind === "file");
    if (!isFile || types.includes("text/plain")) return; // text, with a picture of it
    event.preventDefault();
    const found = filesOfTransfer(event.clipboardData, workbench.room);
    take(workbench, found.then(withoutPaths), byId("query-box").contains(event.target));
  });
}

/** Show the query's text and picture as they are in a workbench. */
export function showQuery({ query }) {
  const box = byId("query");
  if (box.value !== query.text) box.value = query.text;
  fitHeight(box);
  byId("query-picture").hidden = !query.picture;
  byId("choose-query-picture").textContent = query.picture ? "Another picture" : "Add a picture";
  if (query.picture) {
    byId("query-image").src = query.picture.preview;
    byId("query-image").alt = `Picture ${query.picture.name}`;
  }
}

function acceptTexts(workbench) {
  const box = byId("texts");
  const add = () => {
    const documents = documentsOfText(box.value, { perLine: byId("split").value === "lines" });
    if (documents.length === 0) {
      box.focus();
      return;
    }
    box.value = "";
    fitHeight(box);
    workbench.add(documents);
    say(`${count(documents.length)} added.`);
  };
  byId("add-texts").addEventListener("click", add);
  box.addEventListener("input", () => fitHeight(box));
  box.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !event.altKey) return;
    event.preventDefault();
    add();
  });
}

function acceptChoosers(workbench) {
  for (const [button, input] of [
    ["choose-files", "files"],
    ["choose-folder", "folder"],
  ]) {
    byId(button).addEventListener("click", () => byId(input).click());
    byId(input).addEventListener("change", ({ target }) => {
      const found = filesOfChooser(target, workbench.room);
      target.value = "";
      take(workbench, found, false);
    });
  }

  byId("choose-query-picture").addEventListener("click", () => byId("query-file").click());
  byId("query-file").addEventListener("change", ({ target }) => {
    const found = filesOfChooser(target, 1);
    target.value = "";
    take(workbench, found, true);
  });
  byId("remove-query-picture").addEventListener("click", () => {
    workbench.query.picture = null;
    workbench.changed();
    byId("query").focus();
  });
}

function acceptDrops(workbench) {
  const mark = byId("drop-mark");
  const box = byId("query-box");
  addEventListener("dragover", (event) => {
    if (!isDroppable(event.dataTransfer, event.target)) return;
    event.preventDefault();
    const onQuery = box.contains(event.target);
    box.classList.toggle("over", onQuery);
    mark.classList.toggle("over", !onQuery);
  });
  const unmark = () => {
    box.classList.remove("over");
    mark.classList.remove("over");
  };
  addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) unmark();
  });
  addEventListener("drop", (event) => {
    unmark();
    if (!isDroppable(event.dataTransfer, event.target)) return;
    event.preventDefault();
    if (event.dataTransfer.types.includes("Files")) {
      const found = filesOfTransfer(event.dataTransfer, workbench.room);
      take(workbench, found, box.contains(event.target));
    } else {
      workbench.add(documentsOfText(event.dataTransfer.getData("text/plain"), { perLine: true }));
    }
  });
}

/** Files can be dropped anywhere; text anywhere but into a box that takes text itself. */
function isDroppable(transfer, target) {
  if (transfer.types.includes("Files")) return true;
  return transfer.types.includes("text/plain") && !target.matches?.("textarea, input");
}

/** Take files as documents, or the first picture among them as the query's. */
async function take(workbench, found, forQuery) {
  const { files, more, unread } = await found;
  if (forQuery) {
    await takeAsQuery(workbench, files);
    return;
  }

  const { documents, leftOut } = await documentsOfFiles(files, workbench);
  if (documents.length > 0) workbench.add(documents);
  say(`${count(documents.length)} added.`);
  if (leftOut) notice(leftOut);
  if (unread > 0) notice(`${count(unread)} files or folders could not be read.`);
  if (more) {
    const most = count(workbench.maxDocuments);
    notice(`${count(files.length)} files were taken: one request may have ${most} documents.`);
  }
}

async function takeAsQuery(workbench, files) {
  for (const { file, path } of files) {
    const picture = await readPicture(file, { path });
    if (!picture) continue;
    workbench.query.picture = picture;
    workbench.changed();
    say(`${picture.name} is the query's picture.`);
    return;
  }
  notice("A query's picture is a PNG, JPEG or WebP file; nothing of that kind was dropped.");
}

/** Pasted files have no path, and all of them the same name. */
function withoutPaths({ files, ...rest }) {
  const renamed = files.map(({ file }) => {
    pasted += 1;
    const suffix = /\.[^.]*$/.exec(file.name)?.[0] ?? "";
    return { file: new File([file], `pasted-${pasted}${suffix}`, { type: file.type }), path: null };
  });
  return { files: renamed, ...rest };
}
