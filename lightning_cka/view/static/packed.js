/** Unpack the texts that `lightning_cka/view/packing.py` makes. */

/** Stands for an undefined number among unpacked integers. */
export const UNDEFINED = -(2 ** 31);

/** Decode base64 and zlib into bytes. */
async function unpacked(text) {
  const letters = atob(text);
  const packed = new Uint8Array(letters.length);
  for (let place = 0; place < packed.length; place++) packed[place] = letters.charCodeAt(place);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** Unpack `count` integers, of which `stride` belong to one step of time. */
export async function unpackIntegers(text, count, stride) {
  const planes = await unpacked(text.slice(1));
  if (planes.length !== 4 * count) throw new Error(`expected ${count} numbers, but there are ${planes.length / 4}`);
  const found = new Int32Array(count);
  const areDifferences = text[0] === "d";
  for (let i = 0; i < count; i++) {
    const folded = planes[i] | (planes[i + count] << 8) | (planes[i + 2 * count] << 16) | (planes[i + 3 * count] << 24);
    const value = (folded >>> 1) ^ -(folded & 1);
    found[i] = areDifferences && i >= stride ? found[i - stride] + value : value;
  }
  return found;
}

/** Unpack plain values. */
export const unpackJson = async (text) => JSON.parse(new TextDecoder().decode(await unpacked(text)));
