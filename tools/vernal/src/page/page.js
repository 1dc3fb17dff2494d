"use strict";
// The pool: sorted columns in typed arrays, read once. Nothing is made per object until it is looked at.
const $ = id => document.getElementById(id);
const meta = JSON.parse($("meta").textContent);
const KIND = { PTR: 1, FN: 2, VPTR: 3, INT: 4, FLOAT: 5, BOOL: 6, ENUM: 7, BYTES: 8, REFUSED: 9, PART: 11 };
const FLEX = 1;
const hex = n => "0x" + n.toString(16);
const count = n => n.toLocaleString("en-US");
const size = n => {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let i = 0;
  while (n >= 1024 && i < 4) { n /= 1024; i++; }
  return (i ? n.toFixed(n < 10 ? 1 : 0) : n) + " " + units[i];
};
const el = (tag, cls, text) => {
  const e = document.createElement(tag);
  if (cls) e.className = cls;
  if (text !== undefined) e.textContent = text;
  return e;
};

let addrs, sizes, types, starts, stored, bytes, view;

async function unpack() {
  const text = $("columns").textContent;
  $("columns").remove();
  // Piece by piece: one call would need the whole text twice more.
  const step = 1 << 20, parts = [];
  for (let at = 0; at < text.length; at += step) {
    const raw = atob(text.slice(at, at + step)), part = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i++) part[i] = raw.charCodeAt(i);
    parts.push(part);
  }
  const stream = new Blob(parts).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  const all = new Uint8Array(await new Response(stream).arrayBuffer());
  let at = 0;
  const column = array => {
    for (let i = 0; i < meta.objects; i++) {
      let value = 0, scale = 1, byte;
      do { byte = all[at++]; value += (byte & 127) * scale; scale *= 128; } while (byte & 128);
      array[i] = value;
    }
    return array;
  };
  addrs = column(new Float64Array(meta.objects));
  for (let i = 0, last = 0; i < meta.objects; i++) addrs[i] = last += addrs[i] * 8;
  sizes = column(new Float64Array(meta.objects));
  for (let i = 0; i < meta.objects; i++) sizes[i] *= 8;
  types = column(new Uint32Array(meta.objects));
  stored = column(new Uint32Array(meta.objects));
  starts = new Float64Array(meta.objects);
  for (let i = 0, sum = 0; i < meta.objects; i++) { stored[i] *= 8; starts[i] = sum; sum += stored[i]; }
  bytes = all.subarray(at);
  view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/// The object that holds `addr`, or -1.
function find(addr) {
  let low = 0, high = meta.objects;
  while (low < high) {
    const mid = (low + high) >>> 1;
    if (addrs[mid] <= addr) low = mid + 1; else high = mid;
  }
  const i = low - 1;
  return i >= 0 && addr < addrs[i] + sizes[i] ? i : -1;
}

const typeOf = i => meta.types[types[i]];
const pointerAt = at => view.getUint32(at, true) + view.getUint32(at + 4, true) * 4294967296;

/// Elements of an array object: its whole layout repeats.
function elements(i) {
  const t = typeOf(i);
  if (!t.size || !t.fields.length) return 1;
  return t.fields.some(f => f.flags & FLEX) ? 1 : Math.max(1, Math.floor(sizes[i] / t.size));
}

function fieldCount(i, f) {
  if (!(f.flags & FLEX)) return f.count;
  return f.stride ? Math.max(0, Math.floor((sizes[i] - f.offset - f.size) / f.stride) + 1) : f.count;
}

const elementName = (f, n, many) => !many ? f.name : f.name.includes("[]") ? f.name.replace("[]", `[${n}]`) : `${f.name}[${n}]`;

/// What one element of a field holds: {text, cls, target} (target: an address to follow).
function read(i, f, offset) {
  const left = stored[i] - offset;
  if (left < Math.min(f.size, 1)) return { text: "(not in this page: see --content)", cls: "of" };
  const at = starts[i] + offset;
  switch (f.kind) {
    case KIND.PTR: {
      const p = pointerAt(at);
      if (!p) return { text: "null", cls: "of" };
      const to = find(p);
      if (to < 0) return { text: `${hex(p)} outside the pool`, cls: "bad" };
      const inside = p - addrs[to];
      return { text: `→ ${typeOf(to).name} ${hex(p)}${inside ? ` (+${inside})` : ""}`, cls: "ptr", target: p };
    }
    case KIND.FN: case KIND.VPTR: { const p = pointerAt(at); return { text: p ? hex(p) : "null", cls: "of" }; }
    case KIND.FLOAT: if (f.size === 4 || f.size === 8) return { text: String(number(i, f, offset)), cls: "num" }; break;
    case KIND.BOOL: return { text: bytes[at] ? "true" : "false", cls: "num" };
    case KIND.INT: case KIND.ENUM: if (f.size <= 8) return { text: String(number(i, f, offset, true)), cls: "num" }; break;
  }
  const have = bytes.subarray(at, at + Math.min(f.size, left, 64));
  const end = have.indexOf(0), body = end < 0 ? have : have.subarray(0, end);
  if (body.length && body.every(b => b >= 32 && b < 127)) return { text: JSON.stringify(String.fromCharCode(...body)), cls: "txt" };
  let text = "";
  for (const b of have) text += b.toString(16).padStart(2, "0");
  return { text: /^(00)*$/.test(text) ? "0" : text + (f.size > have.length ? "…" : ""), cls: "of" };
}

function number(i, f, offset, exact) {
  if (stored[i] - offset < f.size) return NaN;
  const at = starts[i] + offset;
  if (f.kind === KIND.FLOAT) return f.size === 4 ? view.getFloat32(at, true) : f.size === 8 ? view.getFloat64(at, true) : NaN;
  if (f.kind === KIND.PTR || f.kind === KIND.FN || f.kind === KIND.VPTR) return pointerAt(at);
  switch (f.size) {
    case 1: return f.kind === KIND.BOOL ? view.getUint8(at) : view.getInt8(at);
    case 2: return view.getInt16(at, true);
    case 4: return view.getInt32(at, true);
    case 8: return exact ? view.getBigInt64(at, true) : view.getInt32(at + 4, true) * 4294967296 + view.getUint32(at, true);
  }
  return NaN;
}

// A list that only has the rows that can be seen. Beyond what browsers can lay out, scrolling is scaled.
const ROW = 24, TALLEST = 12e6;
class List {
  constructor(box, draw) {
    this.box = box; this.draw = draw; this.total = 0; this.floor = box.firstElementChild;
    box.addEventListener("scroll", () => this.paint());
    new ResizeObserver(() => this.paint()).observe(box);
  }
  show(total, top) {
    this.total = total;
    this.floor.style.height = Math.min(total * ROW, TALLEST) + "px";
    if (top !== undefined) this.box.scrollTop = top;
    this.paint();
  }
  paint() {
    const top = this.box.scrollTop, high = this.box.clientHeight, tall = this.total * ROW;
    const scale = tall > TALLEST ? (tall - high) / (TALLEST - high) : 1;
    const first = Math.max(0, Math.floor(top * scale / ROW)), last = Math.min(this.total, first + Math.ceil(high / ROW) + 1);
    const shift = scale > 1 ? top - Math.floor(top * scale) : 0;
    const rows = [];
    for (let i = first; i < last; i++) {
      const row = this.draw(i);
      row.classList.add("row");
      row.style.top = i * ROW + shift + "px";
      rows.push(row);
    }
    this.floor.replaceChildren(...rows);
  }
}

// The explorer: a flat list of visible rows. A row is expanded by inserting its children behind it.
const PAGE = 100;
let tree = [], focused = -1, trail = [];
const treeList = new List($("tree"), n => {
  const r = tree[n], row = el("div");
  row.style.paddingLeft = 6 + r.depth * 18 + "px";
  row.dataset.row = n;
  const twist = el("span", "twist", r.open ? "▾" : r.opens ? "▸" : "");
  twist.onclick = () => toggle(n);
  row.append(twist);
  if (r.label) row.append(el("span", "", r.label + " "));
  if (r.value) {
    const value = el("span", r.value.cls, r.value.text);
    if (r.value.target !== undefined) value.onclick = () => focus(find(r.value.target), true);
    row.append(value);
  }
  if (r.note) row.append(el("span", "of", "  " + r.note));
  if (r.opens) row.ondblclick = () => toggle(n);
  return row;
});

const describe = i => `${typeOf(i).name} ${hex(addrs[i])}`;

function objectRow(i, depth) {
  const n = elements(i);
  return { kind: "object", i, depth, opens: true, value: { text: describe(i), cls: "ptr", target: addrs[i] }, note: `${n > 1 ? `${count(n)} elements, ` : ""}${size(sizes[i])}` };
}

/// Rows below `r`, from its child number `from` on; never more than a page of them.
function childrenOf(r, from) {
  const rows = [], depth = r.depth + 1;
  const more = (next, total) => rows.push({ kind: "more", depth, opens: true, of: r, from: next, label: `${count(total - next)} more…` });
  if (r.kind === "pointer") { const i = find(r.value.target); return i < 0 ? [] : childrenOf({ ...objectRow(i, r.depth) }, 0); }
  const i = r.i, t = typeOf(i);
  if (r.kind === "object" && elements(i) > 1) {
    const total = elements(i), end = Math.min(total, from + PAGE);
    for (let n = from; n < end; n++) rows.push({ kind: "element", i, depth, opens: true, base: n * t.size, label: `[${n}]`, note: hex(addrs[i] + n * t.size) });
    if (end < total) more(end, total);
    return rows;
  }
  if (r.kind === "field") {
    const total = fieldCount(i, r.f), end = Math.min(total, from + PAGE);
    for (let n = from; n < end; n++) rows.push(leaf(i, r.f, r.base + r.f.offset + n * r.f.stride, elementName(r.f, n, true), depth));
    if (end < total) more(end, total);
    return rows;
  }
  const base = r.base || 0;
  if (!t.fields.length) {
    // No layout: the words as they are, pointers recognised by where they point.
    const words = Math.floor(stored[i] / 8), end = Math.min(words, from + PAGE);
    for (let n = from; n < end; n++) {
      const f = { kind: KIND.BYTES, size: 8, offset: n * 8 };
      rows.push({ kind: "leaf", depth, label: `+${n * 8}`, value: read(i, f, n * 8) });
    }
    if (end < words) more(end, words);
    return rows;
  }
  for (const f of t.fields) {
    if (f.kind === KIND.PART) continue;
    const n = fieldCount(i, f);
    const chars = f.size === 1 && n > 1 && (f.kind === KIND.BYTES || f.kind === KIND.INT) ? textAt(i, f, base + f.offset) : "";
    if (/^[ -~]+$/.test(chars)) rows.push({ kind: "field", i, f, base, depth, opens: true, label: f.name, value: { text: JSON.stringify(chars), cls: "txt" } });
    else if (n > 1 || f.flags & FLEX) rows.push({ kind: "field", i, f, base, depth, opens: n > 0, label: f.name, note: `${count(n)} × ${f.target || kindName(f)}` });
    else rows.push(leaf(i, f, base + f.offset, f.name, depth));
  }
  return rows;
}

function leaf(i, f, offset, label, depth) {
  const value = read(i, f, offset);
  return value.target !== undefined ? { kind: "pointer", depth, opens: true, label, value } : { kind: "leaf", depth, label, value, note: f.kind === KIND.REFUSED ? f.target : "" };
}

const kindName = f => ["", "pointer", "function", "vtable", "int", "float", "bool", "enum", "bytes", "refused", "", "part"][f.kind] + f.size * 8;

function toggle(n) {
  const r = tree[n];
  if (!r || !r.opens) return;
  if (r.kind === "more") {
    tree.splice(n, 1, ...childrenOf(r.of, r.from));
  } else if (r.open) {
    let end = n + 1;
    while (end < tree.length && tree[end].depth > r.depth) end++;
    tree.splice(n + 1, end - n - 1);
    r.open = false;
  } else {
    tree.splice(n + 1, 0, ...childrenOf(r, 0));
    r.open = true;
  }
  treeList.show(tree.length);
}

function focus(i, remember) {
  if (i < 0 || i >= meta.objects) return;
  if (remember && focused >= 0 && focused !== i) trail.push(focused);
  focused = i;
  tree = [objectRow(i, 0)];
  $("treetitle").textContent = (addrs[i] === rootAddr() ? "Root: " : "") + describe(i);
  toggle(0);
  $("tree").scrollTop = 0;
  hitList.paint();
  show("objects");
}

const rootAddr = () => { const i = meta.root ? find(meta.root) : -1; return i < 0 ? -1 : addrs[i]; };

// Hits: indices of objects, or all objects.
let hits = null;
const hitCount = () => hits ? hits.length : meta.objects;
const hitAt = n => hits ? hits[n] : n;
const hitList = new List($("hits"), n => {
  const i = hitAt(n), row = el("div", i === focused ? "on" : "");
  row.dataset.object = i;
  row.style.paddingLeft = "14px";
  row.append(el("span", "ptr", hex(addrs[i])), el("span", "", "  " + typeOf(i).name), el("span", "of", "  " + size(sizes[i])));
  row.onclick = () => focus(i, true);
  return row;
});

function setHits(list, title) {
  hits = list;
  $("hitstitle").textContent = title;
  hitList.show(hitCount(), 0);
}

const MOST = 1000000;
/// Objects for which `test` holds.
function scan(test) {
  const out = [];
  for (let i = 0; i < meta.objects && out.length < MOST; i++) if (test(i)) out.push(i);
  return out;
}

/// Calls `f` for each stored element of the fields `fields` of object `i` until it returns true.
function some(i, fields, f) {
  const t = typeOf(i), n = elements(i);
  for (let e = 0; e < n; e++) {
    for (const field of fields) {
      const many = fieldCount(i, field);
      for (let k = 0; k < many; k++) {
        const offset = e * t.size + field.offset + k * field.stride;
        if (offset + 1 > stored[i]) break;
        if (f(field, offset)) return true;
      }
    }
    if ((e + 1) * t.size >= stored[i]) break;
  }
  return false;
}

const COMPARE = {
  "=": (a, b) => a === b, "!=": (a, b) => a !== b, "<": (a, b) => a < b, ">": (a, b) => a > b, "<=": (a, b) => a <= b, ">=": (a, b) => a >= b,
};
const numeric = f => f.kind === KIND.INT || f.kind === KIND.FLOAT || f.kind === KIND.BOOL || f.kind === KIND.ENUM;
const literal = text => text === "true" ? 1 : text === "false" ? 0 : text === "null" ? 0 : text.trim() === "" ? NaN : Number(text);

function search(query) {
  query = query.trim();
  const began = performance.now();
  let found, what;
  const compare = /^([^=<>!"]+?)\s*(=|!=|<=|>=|<|>)\s*(.+)$/.exec(query);
  if (!query) { found = null; what = "all objects"; }
  else if (/^0x[0-9a-f]+$/i.test(query)) { const i = find(Number(query)); found = i < 0 ? [] : [i]; what = `at ${query}`; }
  else if (query[0] === '"') { found = searchText(query.replace(/^"|"$/g, "")); what = `with ${query}`; }
  else if (compare) { found = searchField(compare[1].trim(), compare[2], compare[3]); what = `with ${query}`; }
  else {
    const wanted = query.toLowerCase(), match = meta.types.map(t => t.name.toLowerCase().includes(wanted));
    found = match.includes(true) ? scan(i => match[types[i]]) : [];
    what = `of a type like “${query}”`;
    if (!found.length && !Number.isNaN(literal(query))) { found = searchField("", "=", query); what = `with a field that is ${query}`; }
  }
  const n = found ? found.length : meta.objects;
  setHits(found, `${count(n)} object${n === 1 ? "" : "s"} ${what}`);
  $("status").textContent = `Searched ${count(meta.objects)} objects in ${Math.round(performance.now() - began)} ms.`;
  show("objects");
  if (found && found.length === 1) focus(found[0], true);
  return n;
}

function searchField(name, op, text) {
  const quoted = /^"(.*)"$/.exec(text), value = quoted ? NaN : literal(text), test = COMPARE[op];
  const last = n => n.slice(Math.max(n.lastIndexOf("."), n.lastIndexOf("::") + 1) + 1).replace(/\[\]/g, "");
  const named = f => !name || f.name === name || last(f.name) === name || f.name.replace(/\[\]/g, "") === name;
  const byType = meta.types.map(t => t.fields.filter(f => named(f) && (quoted ? f.kind === KIND.BYTES || f.kind === KIND.INT : numeric(f) || (name && f.kind === KIND.PTR))));
  if (quoted) return scan(i => byType[types[i]].length && some(i, byType[types[i]], (f, offset) => textAt(i, f, offset) === quoted[1]));
  if (Number.isNaN(value)) return [];
  return scan(i => byType[types[i]].length && some(i, byType[types[i]], (f, offset) => test(number(i, f, offset), value)));
}

function textAt(i, f, offset) {
  // Character arrays are arrays of bytes as well as fields of many bytes.
  const long = f.size > 1 ? f.size : fieldCount(i, f);
  const part = bytes.subarray(starts[i] + offset, starts[i] + Math.min(stored[i], offset + long)), end = part.indexOf(0);
  return String.fromCharCode(...part.subarray(0, Math.min(end < 0 ? part.length : end, 4096)));
}

function searchText(text) {
  const want = new TextEncoder().encode(text);
  if (!want.length) return [];
  const out = [];
  let i = 0;
  for (let at = bytes.indexOf(want[0]); at >= 0 && out.length < MOST; at = bytes.indexOf(want[0], at + 1)) {
    let k = 1;
    while (k < want.length && bytes[at + k] === want[k]) k++;
    if (k < want.length) continue;
    while (i + 1 < meta.objects && starts[i + 1] <= at) i++;
    if (at + k <= starts[i] + stored[i] && out[out.length - 1] !== i) out.push(i);
  }
  return out;
}

function whoPointsTo(i) {
  const from = addrs[i], to = from + sizes[i], began = performance.now();
  const pointers = meta.types.map(t => t.fields.filter(f => f.kind === KIND.PTR));
  const found = scan(j => pointers[types[j]].length && some(j, pointers[types[j]], (f, offset) => {
    if (offset + 8 > stored[j]) return false;
    const p = pointerAt(starts[j] + offset);
    return p >= from && p < to;
  }));
  setHits(found, `${count(found.length)} pointing to ${describe(i)}`);
  $("status").textContent = `Searched ${count(meta.objects)} objects in ${Math.round(performance.now() - began)} ms.`;
}

function show(name) {
  for (const s of document.querySelectorAll("section")) s.classList.toggle("shown", s.id === name);
  for (const b of document.querySelectorAll("nav button")) b.setAttribute("aria-selected", String(b.dataset.view === name));
  if (name === "objects") { hitList.paint(); treeList.paint(); }
}

function overview() {
  const facts = [[count(meta.objects), "objects"], [size(meta.used), "used"], [size(meta.total), `in ${meta.puddles.length} puddle${meta.puddles.length === 1 ? "" : "s"}`],
    [meta.total ? Math.round(100 * meta.used / meta.total) + " %" : "–", "fill"], [count(meta.types.filter(t => t.fields.length).length), "types"], [meta.mode, "mode"], [meta.root ? hex(meta.root) : "none", "root object"]];
  for (const [value, name] of facts) { const f = el("div", "fact"); f.append(el("b", "", value), el("span", "", name)); $("facts").append(f); }
  if (meta.cut) $("status").textContent = `${count(meta.cut)} bytes of objects are not in this page: see vernal inspect --content.`;
  for (const p of meta.puddles) {
    const row = el("div", "puddle"), about = el("div"), canvas = el("canvas");
    about.append(el("div", "mono", hex(p.addr)), el("div", "quiet", `${size(p.size)}, ${Math.round(100 * p.used / p.size)} % used`), el("div", "quiet mono", p.uuid));
    const fill = atob(p.fill), wide = 128, tall = Math.max(1, Math.ceil(fill.length / wide));
    canvas.width = wide; canvas.height = tall;
    const context = canvas.getContext("2d"), image = context.createImageData(wide, tall), css = getComputedStyle(document.documentElement);
    const [empty, full] = ["--empty", "--full"].map(v => css.getPropertyValue(v).split(",").map(Number));
    for (let i = 0; i < wide * tall; i++) {
      const share = i < fill.length ? fill.charCodeAt(i) / 255 : 0;
      for (let c = 0; c < 3; c++) image.data[i * 4 + c] = empty[c] + (full[c] - empty[c]) * share;
      image.data[i * 4 + 3] = i < fill.length ? 255 : 0;
    }
    context.putImageData(image, 0, 0);
    canvas.title = `${size(p.size / fill.length)} a cell`;
    canvas.onclick = event => {
      const cell = Math.floor(event.offsetY / canvas.clientHeight * tall) * wide + Math.floor(event.offsetX / canvas.clientWidth * wide);
      let i = find(p.addr + cell * p.size / fill.length);
      for (let a = p.addr + cell * p.size / fill.length, low = 0, high = meta.objects; i < 0 && low <= high;) {
        while (low < high) { const mid = (low + high) >>> 1; if (addrs[mid] < a) low = mid + 1; else high = mid; }
        i = Math.min(low, meta.objects - 1);
      }
      focus(i, true);
    };
    row.append(about, canvas);
    $("puddles").append(row);
  }
}

function typeTable() {
  const order = meta.types.map((_, n) => n).sort((a, b) => meta.types[b].bytes - meta.types[a].bytes);
  for (const n of order) {
    const t = meta.types[n], row = el("tr", "click");
    row.dataset.type = t.name;
    const name = el("td", "mono");
    const twist = el("span", "of", t.fields.length ? "▸ " : "  ");
    name.append(twist, document.createTextNode(t.name));
    const list = el("button", "plain", count(t.objects)), cell = el("td", "n");
    list.onclick = event => { event.stopPropagation(); setHits(scan(i => types[i] === n), `${count(t.objects)} × ${t.name}`); show("objects"); };
    cell.append(list);
    row.append(name, cell, el("td", "n", size(t.bytes)), el("td", "n", t.size ? count(t.size) : ""), el("td", "mono quiet", t.id));
    let layout = null;
    row.onclick = () => {
      if (!t.fields.length) return;
      if (layout) { layout.remove(); layout = null; twist.textContent = "▸ "; return; }
      layout = el("tr"); twist.textContent = "▾ ";
      const inner = el("td"), table = el("table", "mono layout");
      inner.colSpan = 5;
      for (const f of t.fields) {
        const line = el("tr");
        line.append(el("td", "n quiet", "+" + f.offset), el("td", "", f.name || "·"), el("td", "quiet", kindName(f) + (f.count > 1 ? ` × ${f.count}` : f.flags & FLEX ? " × …" : "")), el("td", "", f.target));
        table.append(line);
      }
      inner.append(table); layout.append(inner); row.after(layout);
    };
    $("typerows").append(row);
  }
}

function keys() {
  $("search").onsubmit = event => { event.preventDefault(); location.hash = $("query").value ? "q=" + encodeURIComponent($("query").value) : ""; search($("query").value); };
  for (const b of document.querySelectorAll("nav button")) b.onclick = () => show(b.dataset.view);
  $("back").onclick = () => { if (trail.length) focus(trail.pop(), false); };
  $("toroot").onclick = () => { if (meta.root) focus(find(meta.root), true); };
  $("who").onclick = () => { if (focused >= 0) whoPointsTo(focused); };
  addEventListener("keydown", event => { if (event.key === "/" && document.activeElement !== $("query")) { event.preventDefault(); $("query").focus(); } });
}

async function start() {
  $("name").textContent = document.title = meta.name;
  try { await unpack(); } catch (error) { $("busy").textContent = "This page is damaged: " + error.message; return; }
  overview(); typeTable(); keys();
  setHits(null, `${count(meta.objects)} objects`);
  const query = /^#q=(.*)$/.exec(location.hash);
  if (meta.root && find(meta.root) >= 0) focus(find(meta.root), false);
  else $("treetitle").textContent = "The pool has no root object";
  if (query) { $("query").value = decodeURIComponent(query[1]); search($("query").value); }
  else show("overview");
  $("busy").remove();
  document.body.dataset.ready = "1";
}
start();
