/** What is seen as SVG, PNG and CSV. */

import { FONT, h, label, s } from "./elements.js";

/** Return all titles and figures of a view as one. A figure has a `node` in the view, and `draw` returns its SVG. */
export function wholeFigure(root, figures) {
  const origin = root.getBoundingClientRect();
  let [right, bottom] = [0, 0];
  const placeOf = (node) => {
    const box = node.getBoundingClientRect();
    [right, bottom] = [Math.max(right, box.right - origin.left), Math.max(bottom, box.bottom - origin.top)];
    return { x: box.left - origin.left, y: box.top - origin.top, height: box.height };
  };
  const titles = [...root.querySelectorAll("[data-title]")].filter((node) => node.offsetParent);
  const parts = titles.map((node) => {
    const { x, y, height } = placeOf(node);
    const { fontSize, fontWeight, color } = getComputedStyle(node);
    const look = { "font-size": fontSize, "font-weight": fontWeight, fill: color };
    return label(node.textContent, x, y + height * 0.75, look);
  });
  for (const { node, draw } of figures) {
    const { x, y } = placeOf(node);
    parts.push(s("g", { transform: `translate(${x} ${y})` }, draw()));
  }
  const size = { width: Math.ceil(right + 16), height: Math.ceil(bottom + 16) };
  const back = s("rect", { ...size, fill: "var(--paper)" });
  return s("svg", { ...size, viewBox: `0 0 ${size.width} ${size.height}`, "font-family": FONT }, back, ...parts);
}

/** Save a blob from the page as a file. */
export function save(content, name) {
  const address = URL.createObjectURL(content);
  h("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}

/** Return a figure as the content of an SVG file, in the colours that an element has now. */
export function svgFile(figure, root) {
  const style = getComputedStyle(root);
  const text = new XMLSerializer().serializeToString(figure);
  const coloured = text.replace(/="var\((--\w+)\)"/g, (_, name) => `="${style.getPropertyValue(name)}"`);
  return new Blob([coloured], { type: "image/svg+xml" });
}

/** Return the content of an SVG file as that of a PNG file, at twice the size. */
export async function pngFile(svg) {
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(await svg.text())}`;
  await image.decode();
  const canvas = h("canvas", { width: 2 * image.naturalWidth, height: 2 * image.naturalHeight });
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  return new Promise((done) => canvas.toBlob(done, "image/png"));
}

/** Return rows, objects with values by column, as the content of a CSV file. */
export function csvFile(rows) {
  const cell = (value) => (/[",\r\n]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : (value ?? ""));
  const lines = [Object.keys(rows[0]), ...rows.map((row) => Object.values(row))];
  return new Blob([lines.map((line) => `${line.map(cell).join(",")}\n`).join("")], { type: "text/csv" });
}
