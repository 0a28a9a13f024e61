/** Unpack the texts that `lightning_cka/view/packing.py` makes. */

/** Stands for an undefined number among unpacked integers. */
export const UNDEFINED = -(2 ** 31);

/** An error in the payload, with a message for the user. */
export class PayloadError extends Error {}

/** Decode base64 and zlib into bytes, of which there may be `most`. */
async function unpacked(text, most) {
  const parts = [];
  let size = 0;
  try {
    const packed = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const reader = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate")).getReader();
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      size += part.value.length;
      if (size > most) throw new RangeError("too long");
      parts.push(part.value);
    }
  } catch (error) {
    throw new PayloadError(`its numbers are damaged and cannot be unpacked (${error.message})`);
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

/** Unpack `count` integers, of which `stride` belong to one step of time. */
export async function unpackIntegers(text, count, stride) {
  const planes = await unpacked(text.slice(1), 4 * count);
  if (planes.length !== 4 * count) throw new PayloadError(`expected ${count} numbers, but it has ${planes.length / 4}`);
  const found = new Int32Array(count);
  const areDifferences = text[0] === "d";
  for (let i = 0; i < count; i++) {
    const folded = planes[i] | (planes[i + count] << 8) | (planes[i + 2 * count] << 16) | (planes[i + 3 * count] << 24);
    const value = (folded >>> 1) ^ -(folded & 1);
    found[i] = areDifferences && i >= stride ? found[i - stride] + value : value;
  }
  return found;
}

/** Join arrays of integers. */
export function joinedIntegers(parts) {
  const found = new Int32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let place = 0;
  for (const part of parts) {
    found.set(part, place);
    place += part.length;
  }
  return found;
}

/** Unpack plain values. */
export async function unpackJson(text) {
  const bytes = await unpacked(text, 2 ** 28);
  try {
    return JSON.parse(new TextDecoder().decode(bytes));
  } catch (error) {
    throw new PayloadError(`its flags are damaged (${error.message})`);
  }
}
