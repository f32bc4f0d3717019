// Chosen tiles as one zip: their pictures, and a table of where they came from. Pictures are stored as they are: they are
// compressed already. The format is that of PKWARE's APPNOTE 6.3, sections 4.3.7, 4.3.12 and 4.3.16.

import { Unreachable } from "./api.js";
import { picturesOf } from "./tile.js";

const COLUMNS = [
  "file",
  "id",
  "model",
  "version",
  "prompt",
  "seed",
  "created_at",
  "completed_at",
  "predict_time",
  "color_error",
  "composition",
  "provenance",
];

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
  return value >>> 0;
});

function crc32(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = CRC_TABLE[(crc ^ byte) & 0xff] ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}

/** Pack `[{name, bytes}]` into a zip. */
export function zip(files) {
  const parts = [];
  const directory = [];
  let offset = 0;
  for (const { name, bytes } of files) {
    const title = new TextEncoder().encode(name);
    const crc = crc32(bytes);
    parts.push(header(0x04034b50, crc, bytes.length, title.length, null), title, bytes);
    directory.push(header(0x02014b50, crc, bytes.length, title.length, offset), title);
    offset += 30 + title.length + bytes.length;
  }
  const size = directory.reduce((sum, part) => sum + part.length, 0);
  const end = new DataView(new ArrayBuffer(22));
  end.setUint32(0, 0x06054b50, true);
  end.setUint16(8, files.length, true);
  end.setUint16(10, files.length, true);
  end.setUint32(12, size, true);
  end.setUint32(16, offset, true);
  return new Blob([...parts, ...directory, new Uint8Array(end.buffer)], { type: "application/zip" });
}

/** A local header, or with an offset an entry of the directory. UTF-8 names, no compression, 1 January 1980. */
function header(signature, crc, size, nameLength, offset) {
  const isEntry = offset !== null;
  const view = new DataView(new ArrayBuffer(isEntry ? 46 : 30));
  view.setUint32(0, signature, true);
  const at = isEntry ? 6 : 4;
  if (isEntry) view.setUint16(4, 20, true);
  view.setUint16(at, 20, true);
  view.setUint16(at + 2, 0x0800, true);
  view.setUint16(at + 8, 0x21, true);
  view.setUint32(at + 10, crc, true);
  view.setUint32(at + 14, size, true);
  view.setUint32(at + 18, size, true);
  view.setUint16(at + 22, nameLength, true);
  if (isEntry) view.setUint32(42, offset, true);
  return new Uint8Array(view.buffer);
}

function cell(value) {
  let text = value === null || value === undefined ? "" : typeof value === "object" ? JSON.stringify(value) : String(value);
  // A table program would take these for the start of a formula.
  if (/^[=+\-@\t\r]/.test(text) && Number.isNaN(Number(text))) text = `'${text}`;
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** Fetch the pictures of finished predictions and pack them. `onProgress(done)` is called after each. */
export async function exportTiles(predictions, onProgress) {
  const files = [];
  const rows = [COLUMNS];
  const taken = new Set();
  for (const prediction of predictions) {
    for (const address of picturesOf(prediction)) {
      const name = unused(decodeURIComponent(new URL(address).pathname.split("/").at(-1)), taken);
      files.push({ name, bytes: await fetchBytes(address) });
      const values = { ...prediction, ...prediction.metrics, file: name, prompt: prediction.input.prompt };
      rows.push(COLUMNS.map((column) => values[column]));
    }
    onProgress(files.length);
  }
  const table = rows.map((row) => row.map(cell).join(",")).join("\r\n");
  // The mark tells table programs that this is UTF-8.
  files.push({ name: "tiles.csv", bytes: new TextEncoder().encode(`\ufeff${table}\r\n`) });
  return zip(files);
}

function unused(name, taken) {
  let free = name;
  for (let count = 2; taken.has(free); count++) free = name.replace(/(\.[^.]*)?$/, `-${count}$1`);
  taken.add(free);
  return free;
}

async function fetchBytes(address) {
  const response = await fetch(address).catch((error) => {
    throw new Unreachable(String(error), { cause: error });
  });
  if (!response.ok) throw new Error(`${response.status} ${address}`);
  return new Uint8Array(await response.arrayBuffer());
}

/** Hand a file to the reader. */
export function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
