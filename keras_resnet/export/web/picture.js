// A picture as the net takes it: what keras_resnet/data/images.py does with Pillow, to the same pixels.

const MAX_BYTES = 512 * 2 ** 20;
const MAX_PIXELS = 64_000_000; // read from the header, before anything is decoded
const MAX_SIDE = 65_535; // of what browsers draw
const STRIP = 2 ** 20; // pixels that are drawn at a time: some browsers allow no larger canvas than 16 times that
const PRECISION_BITS = 22; // of Pillow's weights

/** Something to tell the user, in a sentence. */
export class PictureError extends Error {}

/**
 * Decode a picture file.
 *
 * @param {Blob} file
 * @param {string} name for messages
 * @returns {Promise<ImageBitmap>} turned as its EXIF data say; its colors are not converted
 * @throws {PictureError} for a file that is not a picture, or too large
 */
export async function decode(file, name) {
  if (!file.size) throw new PictureError(`${name} is empty: 0 bytes.`);
  if (file.size > MAX_BYTES) {
    throw new PictureError(`${name} has ${count(file.size)} bytes; at most ${count(MAX_BYTES)} are read.`);
  }
  const size = await headerSize(file);
  if (!size) throw new PictureError(`${name} is not a picture in PNG, JPEG, GIF, BMP or WebP.`);
  const [width, height] = size;
  if (width * height > MAX_PIXELS || Math.max(width, height) > MAX_SIDE) {
    throw new PictureError(
      `${name} has ${count(width)} × ${count(height)} pixels; at most ${count(MAX_PIXELS)} are read, ` +
        `and ${count(MAX_SIDE)} on a side. Make it smaller first.`,
    );
  }
  try {
    return await createImageBitmap(file, { colorSpaceConversion: "none" });
  } catch {
    throw new PictureError(`${name} could not be read: it is damaged, or of a kind that this browser does not read.`);
  }
}

/** Width and height as a file's header has them; null for a kind of file that is not read. */
async function headerSize(file) {
  const view = async (start, length) => new DataView(await file.slice(start, start + length).arrayBuffer());
  const text = (start, length) => String.fromCharCode(...new Uint8Array(head.buffer, start, length));
  const head = await view(0, 32);
  try {
    if (text(0, 8) === "\x89PNG\r\n\x1a\n") return [head.getUint32(16), head.getUint32(20)];
    if (/^GIF8[79]a/.test(text(0, 6))) return [head.getUint16(6, true), head.getUint16(8, true)];
    if (text(0, 2) === "BM") {
      if (head.getUint32(14, true) === 12) return [head.getUint16(18, true), head.getUint16(20, true)];
      return [Math.abs(head.getInt32(18, true)), Math.abs(head.getInt32(22, true))];
    }
    if (text(0, 4) === "RIFF" && text(8, 4) === "WEBP") {
      const kind = text(12, 4);
      if (kind === "VP8 ") return [head.getUint16(26, true) & 0x3fff, head.getUint16(28, true) & 0x3fff];
      if (kind === "VP8L") {
        const bits = head.getUint32(21, true);
        return [(bits & 0x3fff) + 1, ((bits >>> 14) & 0x3fff) + 1];
      }
      const three = (at) => head.getUint16(at, true) + head.getUint8(at + 2) * 65536 + 1;
      return kind === "VP8X" ? [three(24), three(27)] : null;
    }
    if (head.getUint16(0) === 0xffd8) return await jpegSize(view, file.size);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error; // the file ends in its header
  }
  return null;
}

/** From segment to segment up to the frame header (SOF); thumbnails inside of segments are passed over. */
async function jpegSize(view, length) {
  for (let at = 2; at < length; ) {
    const segment = await view(at, 9);
    const marker = segment.getUint8(1);
    if (segment.getUint8(0) !== 0xff) return null;
    if (marker === 0xff) at += 1; // padding
    else if (marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker)) {
      return [segment.getUint16(7), segment.getUint16(5)];
    } else if (marker === 0xd9 || marker === 0xda) return null; // the end, or pixels without a header
    else at += marker === 0x01 || (marker >= 0xd0 && marker <= 0xd8) ? 2 : 2 + segment.getUint16(2);
  }
  return null;
}

/**
 * Shrink or enlarge a picture as Pillow's `resize(..., BICUBIC)` does: across, then down, in integers of 8 bits.
 *
 * A canvas would do it in its browser's way, and the net would see other pixels.
 *
 * @param {CanvasImageSource} source transparent parts are laid over white
 * @param {number} width of the source
 * @param {number} height of the source
 * @param {[number, number]} size (height, width) of the result
 * @returns {Uint8Array} RGB, (height, width, 3)
 */
export function resize(source, width, height, [outHeight, outWidth]) {
  const canvas = document.createElement("canvas");
  const stripHeight = Math.min(height, Math.max(1, Math.floor(STRIP / width)));
  [canvas.width, canvas.height] = [width, stripHeight];
  // Kept in memory: a graphics card may round otherwise, and reading back from it is slow.
  const context = canvas.getContext("2d", { willReadFrequently: true });
  if (!context) throw new PictureError("This browser could not draw the picture: it has no memory left for it.");
  context.imageSmoothingEnabled = false;
  context.fillStyle = "white";
  const across = weights(width, outWidth);
  const narrow = new Uint8ClampedArray(height * outWidth * 3);
  for (let top = 0; top < height; top += stripHeight) {
    const rows = Math.min(stripHeight, height - top);
    context.fillRect(0, 0, width, rows);
    context.drawImage(source, 0, top, width, rows, 0, 0, width, rows);
    const { data } = context.getImageData(0, 0, width, rows);
    for (let y = 0; y < rows; y++) {
      resample(data, y * width * 4, 4, across, narrow, (top + y) * outWidth * 3, 3);
    }
  }
  const down = weights(height, outHeight);
  const result = new Uint8ClampedArray(outHeight * outWidth * 3);
  for (let x = 0; x < outWidth; x++) {
    resample(narrow, x * 3, outWidth * 3, down, result, x * 3, outWidth * 3);
  }
  return new Uint8Array(result.buffer);
}

/** For each pixel of the result the first pixel that it is made of, and their weights: Pillow's precompute_coeffs. */
function weights(from, to) {
  const scale = from / to;
  const widened = Math.max(scale, 1); // shrinking, the filter widens: no aliasing
  const made = [];
  for (let k = 0; k < to; k++) {
    const center = (k + 0.5) * scale;
    const first = Math.max(0, Math.trunc(center - 2 * widened + 0.5));
    const end = Math.min(from, Math.trunc(center + 2 * widened + 0.5));
    const values = [];
    for (let x = first; x < end; x++) values.push(bicubic((x - center + 0.5) * (1 / widened)));
    const sum = values.reduce((a, b) => a + b, 0);
    const whole = values.map((value) => {
      const scaled = (value / (sum || 1)) * 2 ** PRECISION_BITS;
      return Math.trunc(scaled + (scaled < 0 ? -0.5 : 0.5));
    });
    made.push({ first, values: Int32Array.from(whole) });
  }
  return made;
}

function bicubic(x) {
  const a = -0.5;
  x = Math.abs(x);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
  return 0;
}

/** One row or column of three channels; `step` and `outStep` are from pixel to pixel. */
function resample(data, start, step, made, out, outStart, outStep) {
  for (const { first, values } of made) {
    let at = start + first * step;
    let red = 2 ** (PRECISION_BITS - 1); // rounds
    let green = red;
    let blue = red;
    for (const weight of values) {
      red += data[at] * weight;
      green += data[at + 1] * weight;
      blue += data[at + 2] * weight;
      at += step;
    }
    out[outStart] = red >> PRECISION_BITS; // the array clips to 0..255
    out[outStart + 1] = green >> PRECISION_BITS;
    out[outStart + 2] = blue >> PRECISION_BITS;
    outStart += outStep;
  }
}

function count(number) {
  return number.toLocaleString("en-US");
}
