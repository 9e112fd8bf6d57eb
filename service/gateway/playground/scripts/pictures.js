/**
 * Pictures: files that the service can read, their previews, and smaller copies of them.
 *
 * Invariant: a picture's bytes are sent as they are in its file, unless the user asked for a
 * smaller copy.
 */

import { imageSize } from "./image_size.js";

const HEADER_BYTES = 256 * 1024;
const JPEG_QUALITY = 0.92;
const CONTROL_CHARACTERS = /[\u0000-\u001f\u007f]/;

/**
 * One picture.
 *
 * `path` is the file's path below the folder that it was chosen from, or null where no file of the
 * user's has these bytes; `source` is the address of a sample's picture.
 */
export class Picture {
  constructor({ blob, name, path, source = null, size }) {
    this.blob = blob;
    this.name = name;
    this.path = path;
    this.source = source;
    this.type = size.type;
    this.width = size.width;
    this.height = size.height;
    this.preview = URL.createObjectURL(blob);
  }

  get pixels() {
    return this.width * this.height;
  }

  /** Free what the preview holds; the picture is not shown any more. */
  release() {
    URL.revokeObjectURL(this.preview);
  }

  /** The bytes as a data URL of the picture's type. */
  dataUrl() {
    return new Promise((resolve, reject) => {
      const reader = new FileReader();
      reader.onload = () => resolve(`data:${this.type};base64,${reader.result.split(",")[1]}`);
      reader.onerror = () => reject(new Error(`${this.name} cannot be read any more.`));
      reader.readAsDataURL(this.blob);
    });
  }

  /** The length of that data URL. */
  get encodedLength() {
    return `data:${this.type};base64,`.length + 4 * Math.ceil(this.blob.size / 3);
  }
}

/** The picture in a file, or null where it is no PNG, JPEG or WebP file. */
export async function readPicture(file, { path = null, source = null, name = file.name } = {}) {
  let size = null;
  for (const end of [HEADER_BYTES, file.size]) {
    const bytes = await file.slice(0, end).arrayBuffer();
    size = imageSize(new Uint8Array(bytes));
    if (size || end >= file.size) break;
  }
  if (!size) return null;
  return new Picture({ blob: file, name, path: isPlain(path) ? path : null, source, size });
}

/**
 * A copy of a picture within `max_image_pixels` and `max_image_bytes` of the limits.
 *
 * Throws where the browser cannot decode the picture.
 */
export async function downscaled(picture, limits) {
  let scale = Math.min(1, Math.sqrt(limits.max_image_pixels / picture.pixels));
  const decoded = await createImageBitmap(picture.blob);
  try {
    for (let attempt = 0; attempt < 8; attempt += 1) {
      const blob = await drawn(decoded, scale, picture.type);
      if (blob.size <= limits.max_image_bytes) return copyOf(picture, blob);
      scale *= 0.7;
    }
  } finally {
    decoded.close();
  }
  throw new Error(`${picture.name} stays too large.`);
}

async function drawn(decoded, scale, type) {
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.floor(decoded.width * scale));
  canvas.height = Math.max(1, Math.floor(decoded.height * scale));
  const pen = canvas.getContext("2d");
  pen.imageSmoothingQuality = "high";
  pen.drawImage(decoded, 0, 0, canvas.width, canvas.height);

  const blob = await new Promise((resolve) => canvas.toBlob(resolve, type, JPEG_QUALITY));
  if (!blob) throw new Error("The browser could not draw the picture.");
  return blob;
}

async function copyOf(picture, blob) {
  const bytes = new Uint8Array(await blob.slice(0, HEADER_BYTES).arrayBuffer());
  const size = imageSize(bytes);
  const [, stem, suffix] = /^(.*?)(\.[^.]*)?$/.exec(picture.name);
  const name = `${stem}-${size.width}x${size.height}${suffix ?? ""}`;
  return new Picture({ blob, name, path: null, size });
}

/** Whether a path can stand in a command as it is. */
function isPlain(path) {
  return Boolean(path) && !CONTROL_CHARACTERS.test(path);
}
