/** What is seen as SVG, PNG and CSV. */

import { FONT, h, label, s } from "./elements.js";

/**
 * Return all figures and titles of a view as one figure.
 * @param {HTMLElement} root The view.
 * @param {{node: Element, draw: () => SVGElement}[]} figures What is drawn, and how to draw it as SVG.
 * @param {string} paper Colour of the background.
 * @returns {SVGElement} The figure.
 */
export function wholeFigure(root, figures, paper) {
  const origin = root.getBoundingClientRect();
  const parts = [];
  let [right, bottom] = [0, 0];
  const place = (node) => {
    const box = node.getBoundingClientRect();
    [right, bottom] = [Math.max(right, box.right - origin.left), Math.max(bottom, box.bottom - origin.top)];
    return [box.left - origin.left, box.top - origin.top, box];
  };
  for (const node of root.querySelectorAll("[data-title]")) {
    if (!node.offsetParent) continue;
    const [x, y, box] = place(node);
    const { fontSize, fontWeight, color } = getComputedStyle(node);
    const look = { "font-size": fontSize, "font-weight": fontWeight, fill: color };
    parts.push(label(node.textContent, x, y + box.height * 0.75, look));
  }
  for (const { node, draw } of figures) {
    const [x, y] = place(node);
    const figure = draw();
    fillIn(figure, { x, y });
    parts.push(figure);
  }
  const size = { width: Math.ceil(right + 16), height: Math.ceil(bottom + 16) };
  const back = s("rect", { ...size, fill: paper });
  return s("svg", { ...size, viewBox: `0 0 ${size.width} ${size.height}`, "font-family": FONT }, back, ...parts);
}

const fillIn = (node, properties) => Object.entries(properties).forEach((pair) => node.setAttribute(...pair));

/**
 * Save a file from the page.
 * @param {Blob} content The content.
 * @param {string} name Name of the file.
 */
export function save(content, name) {
  const address = URL.createObjectURL(content);
  h("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}

/**
 * Return a figure as the content of an SVG file.
 * @param {SVGElement} figure The figure.
 * @returns {Blob} The content.
 */
export const svgFile = (figure) => new Blob([new XMLSerializer().serializeToString(figure)], { type: "image/svg+xml" });

/**
 * Return a figure as the content of a PNG file, at twice the size.
 * @param {SVGElement} figure The figure.
 * @returns {Promise<Blob>} The content.
 */
export async function pngFile(figure) {
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(await svgFile(figure).text())}`;
  await image.decode();
  const canvas = h("canvas", { width: 2 * image.naturalWidth, height: 2 * image.naturalHeight });
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  return new Promise((done) => canvas.toBlob(done, "image/png"));
}

/**
 * Return rows as the content of a CSV file.
 * @param {object[]} rows At least one row: values by column.
 * @returns {Blob} The content.
 */
export function csvFile(rows) {
  const cell = (value) => (/[",\r\n]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : (value ?? ""));
  const lines = [Object.keys(rows[0]), ...rows.map((row) => Object.values(row))];
  return new Blob([lines.map((line) => `${line.map(cell).join(",")}\n`).join("")], { type: "text/csv" });
}
