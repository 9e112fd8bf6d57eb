/**
 * The files of a drop, a paste or a file chooser, folders included.
 *
 * Invariant: at most `limit` files are taken and a bounded number of entries is looked at, however
 * large the folder is.
 */

const MAX_DEPTH = 32;
const ENTRIES_A_FILE = 20;

/**
 * The files of a drop or paste: `{files: [{file, path}], more, unread}`, in the order of their
 * paths; `more` is whether there were more than `limit`, `unread` the number that failed.
 *
 * Must be called in the event itself: a browser empties the transfer afterwards.
 */
export function filesOfTransfer(transfer, limit) {
  const entries = [];
  const loose = [];
  for (const item of transfer.items) {
    if (item.kind !== "file") continue;
    const entry = item.webkitGetAsEntry?.();
    if (entry) entries.push(entry);
    else if (item.getAsFile()) loose.push(item.getAsFile());
  }
  return collected(entries, loose, limit);
}

/** The files of a file chooser, in the same shape. */
export function filesOfChooser(input, limit) {
  const files = [...input.files].map((file) => ({
    file,
    path: file.webkitRelativePath || file.name,
  }));
  return inOrder(files.filter(isShown), limit, 0);
}

async function collected(entries, loose, limit) {
  const files = loose.map((file) => ({ file, path: file.name }));
  const budget = { entries: limit * ENTRIES_A_FILE, files: limit + 1 };
  let unread = 0;

  const walk = async (entry, depth) => {
    if (files.length >= budget.files || budget.entries <= 0) return;
    budget.entries -= 1;
    try {
      if (entry.isFile) {
        const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
        const found = { file, path: entry.fullPath.replace(/^\//, "") };
        if (isShown(found)) files.push(found);
      } else if (depth < MAX_DEPTH) {
        for (const child of await childrenOf(entry, budget.entries)) await walk(child, depth + 1);
      }
    } catch {
      unread += 1;
    }
  };
  for (const entry of entries) await walk(entry, 0);
  return inOrder(files, limit, unread);
}

/** The entries of a folder; a browser hands them out in batches. */
async function childrenOf(folder, most) {
  const reader = folder.createReader();
  const children = [];
  while (children.length < most) {
    const batch = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (batch.length === 0) break;
    children.push(...batch);
  }
  return children.sort(byName);
}

function inOrder(files, limit, unread) {
  const sorted = files.sort((one, other) => byName({ name: one.path }, { name: other.path }));
  return { files: sorted.slice(0, limit), more: sorted.length > limit, unread };
}

function byName(one, other) {
  return one.name.localeCompare(other.name, "en", { numeric: true });
}

/** Whether a file is not hidden, as `.DS_Store` is. */
function isShown({ file }) {
  return !file.name.startsWith(".");
}
