/** Colour maps that colour-blind people can read: those of matplotlib at 33 points, as hexadecimal digits. */

const MAPS = {
  magma:
    "0000040303120a0822130d341d114729115a36106b440f7651127c5d177f6a1c81762181832681902a819c2e7faa337db73779" +
    "c43c75d0416fdc4869e75263ef5d5ef56b5cf9795dfc8961fd9869fea772feb67cfec488fed395fde2a3fcf0b2fcfdbf",
  viridis:
    "440154470d6048186a482374472d7b4537814240863e49893b528b375b8d33638d2f6b8e2c728e297a8e26828e23898e21918c" +
    "1f988b1fa08822a78528ae8032b67a3fbc734ec36b5ec96270cf5784d44b98d83eaddc30c2df23d8e219ece51bfde725",
  cividis:
    "00224e00285b002e6a0533711a386f273e6e32436d3b496c434e6c4b546c535a6d5a5f6e61656f686a716f70737676767d7c78" +
    "8482798c8878938e789b9476a39a74aba072b4a76fbcae6cc4b468cdbb63d5c25edec958e7d150f0d846f9e03afee838",
  change:
    "0530610e41791752901f63a82a71b23480b93f8ec0529dc86bacd184bcd99bc9e0aed3e6c2ddecd4e6f1e0ecf3ecf2f5f7f6f6" +
    "f9eee7fbe5d8fddcc9fbccb4f8bb9ef5aa89ee9677e48066db6b55d05548c53e3dba2832ab162a930e267c072267001f",
};

/** Maps for values; "change" is for changes. */
export const MAP_NAMES = ["magma", "viridis", "cividis"];

const SIZE = 1024;
const tables = new Map();

/** Return the parts of hexadecimal digits, and the number that stands for red, green and blue in an image. */
const partsOf = (digits) => digits.match(/\w\w/g).map((part) => parseInt(part, 16));
const packed = (parts) => parts.reduce((sum, part, place) => sum | (Math.round(part) << (8 * place)), 0xff000000);

/** Return the 1024 colours of a map, as numbers. */
function coloursOf(name) {
  if (tables.has(name)) return tables.get(name);
  const points = MAPS[name].match(/.{6}/g).map(partsOf);
  const last = points.length - 1;
  const table = Array.from({ length: SIZE }, (_, place) => {
    const exact = (place / (SIZE - 1)) * last;
    const below = Math.min(Math.floor(exact), last - 1);
    return packed(points[below].map((one, part) => one + (exact - below) * (points[below + 1][part] - one)));
  });
  tables.set(name, table);
  return table;
}

/** Return the colour of a value in a range: a map, the values at its ends, and the colour of `nan`. */
export function colourOf(value, { map, low, high, nan }) {
  if (Number.isNaN(value)) return packed(partsOf(nan));
  const part = Math.min(1, Math.max(0, (value - low) / (high - low)));
  return coloursOf(map)[Math.round(part * (SIZE - 1))];
}

/** Return a colour as text, such as `#b73779`. */
export function hexOf(colour) {
  const parts = [0, 8, 16].map((shift) => (colour >> shift) & 255);
  return `#${parts.map((part) => part.toString(16).padStart(2, "0")).join("")}`;
}
