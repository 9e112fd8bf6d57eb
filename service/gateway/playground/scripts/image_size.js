/**
 * Type and size of an image, from the first bytes of its file.
 *
 * Does not decode anything, so that a small file of many pixels costs nothing. Source: PNG's IHDR,
 * JPEG's start of frame, WebP's three kinds of first chunk.
 */

const PNG = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];

/**
 * `{type, width, height}` of a PNG, JPEG or WebP file that begins with `bytes`, or null where the
 * bytes are of no such file or end before its size.
 */
export function imageSize(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (PNG.every((byte, index) => bytes[index] === byte)) return pngSize(view);
  if (bytes[0] === 0xff && bytes[1] === 0xd8) return jpegSize(view);
  if (word(view, 0) === "RIFF" && word(view, 8) === "WEBP") return webpSize(view);
  return null;
}

function pngSize(view) {
  if (view.byteLength < 24 || word(view, 12) !== "IHDR") return null;
  return { type: "image/png", width: view.getUint32(16), height: view.getUint32(20) };
}

function jpegSize(view) {
  let offset = 2;
  while (offset + 9 <= view.byteLength) {
    if (view.getUint8(offset) !== 0xff) return null;
    const marker = view.getUint8(offset + 1);
    if (marker === 0xff) {
      offset += 1; // padding
      continue;
    }

    // C4, C8 and CC are tables and extensions among the starts of frames
    const startsFrame = marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker);
    if (startsFrame) {
      const height = view.getUint16(offset + 5);
      return { type: "image/jpeg", width: view.getUint16(offset + 7), height };
    }
    offset += 2 + view.getUint16(offset + 2);
  }
  return null;
}

function webpSize(view) {
  if (view.byteLength < 30) return null;
  const type = "image/webp";
  const kind = word(view, 12);
  if (kind === "VP8X") {
    return { type, width: 1 + uint24(view, 24), height: 1 + uint24(view, 27) };
  }
  if (kind === "VP8L") {
    const bits = view.getUint32(21, true);
    return { type, width: 1 + (bits & 0x3fff), height: 1 + ((bits >> 14) & 0x3fff) };
  }
  if (kind === "VP8 ") {
    const width = view.getUint16(26, true) & 0x3fff;
    return { type, width, height: view.getUint16(28, true) & 0x3fff };
  }
  return null;
}

function word(view, offset) {
  if (view.byteLength < offset + 4) return "";
  return String.fromCharCode(...[0, 1, 2, 3].map((index) => view.getUint8(offset + index)));
}

function uint24(view, offset) {
  return view.getUint16(offset, true) | (view.getUint8(offset + 2) << 16);
}
