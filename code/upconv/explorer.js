// The explorer: an interactive figure of one upsampling layer. No framework, no network, no build step.
//
// First comes arithmetic on one axis, pure functions of one object of settings with the conventions of the Python
// package; then what draws. `render({ model, el })` follows anywidget's contract: it asks `model.get(name)` for
// PyTorch's names (kernel_size, stride, ...) and fills the element `el`.

const { abs, ceil, floor, max, min, round } = Math;
const range = (count, make = (index) => index) => Array.from({ length: count }, (_, index) => make(index));
const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);
const mod = (number, divisor) => ((number % divisor) + divisor) % divisor;
const gcd = (a, b) => (b ? gcd(b, a % b) : a);
const fail = (message) => { throw new RangeError(message); };

// Settings under the letters of the book's formulas, with PyTorch's defaults; K is what the kernel spans.
const axis = ({ inputSize: n, kernelSize: k, stride: s = 1, padding: p = 0, outputPadding: o = 0, dilation: d = 1, operator = "conv_transpose", mode, ...more }) =>
  ({ n, k, s, p, o, d, K: d * (k - 1) + 1, transposed: operator === "conv_transpose", shuffled: operator === "pixel_shuffle", smooth: mode === "bilinear" && s > 1, ...more });

// Sizes

export function convSize(settings) {
  const { n, s, p, K } = axis(settings);
  if (n + 2 * p < K) fail(`the kernel spans ${K} pixels, its input with padding=${p} only ${n + 2 * p}`);
  return floor((n + 2 * p - K) / s) + 1;
}

export function convTransposeSize(settings) {
  const { n, s, p, o, d, K } = axis(settings), full = (n - 1) * s + K + o;
  if (o >= max(s, d)) fail(`output_padding=${o} must be smaller than stride=${s} or dilation=${d}`);
  if (full <= 2 * p) fail(`padding=${p} crops all ${full} pixels away; ${floor((full - 1) / 2)} would leave some`);
  return full - 2 * p;
}

// How many products of an input pixel and a tap each output pixel of a transposed convolution sums.
export function overlapCounts(settings) {
  const { n, k, s, p, d } = axis(settings), counts = Array(convTransposeSize(settings)).fill(0);
  for (const i of range(n)) for (const a of range(k)) if (i * s - p + a * d in counts) counts[i * s - p + a * d] += 1;
  return counts;
}

const isEven = ({ k, s, d }) => k % s === 0 && gcd(d, s) === 1;

// The layers that make outputSize pixels of inputSize, best first: those that reach every pixel, then those of even
// overlap, then the least output_padding, the smallest kernel, stride and padding.
export function solveConvTranspose({ inputSize, outputSize, maxKernelSize = 7, maxStride = 4, dilation = 1 }) {
  const found = [], reached = [];
  for (let kernelSize = 1; kernelSize <= maxKernelSize; kernelSize++)
    for (let stride = 1; stride <= maxStride; stride++)
      for (let padding = 0, K = dilation * (kernelSize - 1) + 1; padding < K; padding++) {
        const least = (inputSize - 1) * stride + K - 2 * padding, most = least + max(stride, dilation) - 1;
        reached.push(least, most);
        if (outputSize < least || outputSize > most) continue;
        const layer = { kernelSize, stride, padding, outputPadding: outputSize - least, dilation };
        const reachesAll = overlapCounts({ inputSize, ...layer }).every(Boolean);
        found.push({ ...layer, evenOverlap: isEven(axis(layer)), reachesAll, inPlace: K === stride + 2 * padding });
      }
  const near = [max(...reached.filter((size) => size < outputSize)), min(...reached.filter((size) => size > outputSize))];
  if (!found.length) fail(`no kernel up to ${maxKernelSize} with a stride up to ${maxStride} makes ${outputSize} of ${inputSize}; nearest: ${near.filter((size) => size > 0 && size < Infinity).join(" and ")}`);
  const order = (layer) => [!layer.reachesAll, !layer.evenOverlap, layer.outputPadding, layer.kernelSize, layer.stride, layer.padding];
  return found.sort((a, b) => order(a).map((value, place) => value - order(b)[place]).find(Boolean));
}

// Kernels

// What each phase of a transposed convolution makes of a constant 1: the sum of its taps.
export const phaseGains = ({ taps, stride = 1, dilation = 1 }) =>
  range(stride, (phase) => sum(taps.filter((_, a) => (a * dilation) % stride === phase)));

// The one transposed convolution that a layer is away from the border: what its kernel spans, its padding, and which of
// its taps, with which factors, tap a (of the filter of phase r) becomes.
function composed(settings) {
  const { s, p, d, K, transposed, shuffled, smooth } = axis(settings), half = floor(s / 2), flipped = (a) => K - 1 - d * a;
  if (transposed) return { span: K, crop: p, stamp: (a) => [[d * a, 1]] };
  if (shuffled) return { span: s * K, crop: s * (K - 1 - p), stamp: (a, r) => [[flipped(a) * s + r, 1]] };
  const line = smooth ? range(2 * s - (s % 2), (t) => 1 - abs((t - half + 0.5) / s - 0.5)) : range(s, () => 1);
  return { span: K + line.length - 1, crop: K - 1 - p + smooth * half, stamp: (a) => line.map((factor, t) => [flipped(a) + t, factor]) };
}

// Its kernel, span or span * span numbers. Taps are in the order of filters, each row by row.
function kernelOf(settings, taps, axes = 1) {
  const { s, k, shuffled } = axis(settings), { span, stamp } = composed(settings), filters = shuffled ? s : 1;
  const kernel = range(span ** axes, () => 0), stamps = range(filters * k, (t) => stamp(t % k, floor(t / k)));
  taps.forEach((tap, t) => {
    const filter = floor(t / k ** axes), row = floor(filter / filters) * k + (floor(t / k) % k), column = (filter % filters) * k + (t % k);
    for (const [y, one] of axes === 2 ? stamps[row] : [[0, 1]])
      for (const [x, two] of stamps[column]) kernel[y * span + x] += tap * one * two;
  });
  return kernel;
}

// Forms: objects of settings. What comes before and after the layer is in `pads`, a list of [kind, pixels before, pixels
// after], and `crop`, [pixels before, pixels after].

const form = (operator, kernelSize, stride, padding, taps, more) =>
  ({ operator, mode: "nearest", kernelSize, stride, padding, outputPadding: 0, dilation: 1, pads: [], crop: [0, 0], ...more, ...(taps && { taps }) });

function toConvTranspose(settings) {
  const { s, p, K, shuffled, smooth, taps } = axis(settings), { span, crop } = composed(settings), wide = smooth && !shuffled;
  if (wide && p) fail(`padding=${p} after a bilinear Upsample makes a frame ${p} deep differ; padding=0 has one`);
  const pad = wide ? 1 : ceil(max(0, p - K + 1) / (shuffled ? 1 : s)), pads = pad ? [[wide ? "Replication" : "Zero", pad, pad]] : [];
  return form("conv_transpose", span, s, crop + s * pad, taps && kernelOf(settings, taps), { pads });
}

// Upsample + Conv2d as one transposed convolution, equal at every pixel; where there is none, a RangeError.
export const composeUpsampleConv = (settings) => toConvTranspose({ ...settings, operator: "upsample_conv" });

function toShuffle(settings) {
  const { s, p, o, K, pads = [], taps } = axis(settings), last = K - 1 - p + o, size = ceil(K / s), kernel = taps && kernelOf(settings, taps);
  const before = size - 1 - floor(p / s), after = floor(last / s), even = before === after && before >= 0;
  const filters = kernel && range(s * size, (t) => kernel[(size - 1 - (t % size)) * s + floor(t / size)] ?? 0);
  return form("pixel_shuffle", size, s, even ? before : 0, filters, { pads: even ? pads : [...pads, ["Zero", before, after]], crop: [mod(p, s), s - 1 - mod(last, s)] });
}

function toPair(settings) {
  const { s, p, o, K, pads = [], taps } = axis(settings), size = max(1, K - s + 1), quotient = [];
  const before = size - 1 - p, after = K - s - p + o, most = max(0, before, after);
  if (taps) kernelOf(settings, taps).forEach((value, t, kernel) => // divided by the box of s ones, as polynomials are
    quotient.push(value - (kernel[t - 1] ?? 0) + (quotient[t - s] ?? 0)));
  return form("upsample_conv", size, s, most, taps && quotient.slice(0, size).reverse(), { pads, crop: [most - before, most - after] });
}

const spread = (numbers) => max(...numbers) - min(...numbers);

// The layer's other forms on one axis; where there is none, the object has a `reason` instead of settings. In two
// dimensions `gains` are those of the row or column of the kernel where they differ most.
export function forms(settings) {
  const { s, taps, transposed, shuffled, gains = taps && phaseGains({ taps: kernelOf(settings, taps), stride: s }) } = axis(settings), found = [];
  let layer = settings;
  try {
    if (!transposed) found.push((layer = toConvTranspose(settings)));
    if (!shuffled) found.push(toShuffle(layer));
  } catch ({ message: reason }) {
    found.push({ operator: "conv_transpose", reason }, { operator: "pixel_shuffle", reason });
  }
  if (!transposed && !shuffled) return found;
  const reason = gains ? `the phases' gains differ: ${gains.map(short).join(", ")}` : "that depends on the taps";
  return [...found, gains && spread(gains) <= 1e-6 * max(...(taps ?? gains).map(abs)) ? toPair(layer) : { operator: "upsample_conv", reason }];
}

// The products that make output pixel j: input pixel i, tap a (of the filter of phase r), and a factor.
function reads(settings, j) {
  const { n, k, s, p, d, transposed, shuffled, smooth } = axis(settings), found = [];
  const add = (i, a, factor = 1) => i >= 0 && i < n && factor && found.push({ i, a, r: shuffled ? j % s : 0, factor });
  for (const a of range(k)) {
    const u = j - p + d * a, at = min(max((u + 0.5) / s - 0.5, 0), n - 1), i = floor(at); // u is in the upsampled image
    if (transposed) { if ((j + p - d * a) % s === 0) add((j + p - d * a) / s, a); }
    else if (shuffled) add(floor(j / s) - p + d * a, a);
    else if (u < 0 || u >= n * s) continue;
    else if (!smooth) add(floor(u / s), a);
    else { add(i, a, 1 - at + i); add(i + 1, a, at - i); }
  }
  return found.sort((one, two) => one.i - two.i);
}

function sizeOf(settings) {
  const { n, s, transposed, shuffled } = axis(settings), more = { ...settings, stride: 1 };
  return transposed ? convTransposeSize(settings) : shuffled ? convSize(more) * s : convSize({ ...more, inputSize: n * s });
}

// The state of the figure, and its words

const DEFAULTS = {
  operator: "conv_transpose", mode: "nearest", axes: 1, inputSize: 4, kernelSize: 3, stride: 2, padding: 0, outputPadding: 0, dilation: 1,
  taps: "ones", inChannels: 64, outChannels: 32, outputSize: 8, view: "stamps", colour: "phase", open: "taps",
};
// Of numbers the least, the greatest, and where a slider ends as long as that suffices; of others all that are allowed.
const ALLOWED = {
  inputSize: [1, 32, 10], kernelSize: [1, 32, 7], stride: [1, 16, 4], padding: [0, 32, 5], outputPadding: [0, 15, 3], dilation: [1, 8, 3],
  axes: [1, 2], outputSize: [1, 512], inChannels: [1, 65536], outChannels: [1, 65536],
  operator: ["conv_transpose", "upsample_conv", "pixel_shuffle"], mode: ["nearest", "bilinear"],
  view: ["stamps", "windows"], colour: ["phase", "overlap"], open: ["taps", "pictures", "frequencies", "forms", "sizes", ""],
};
const SLIDERS = Object.keys(ALLOWED).slice(0, 6);
const SCALES = { conv_transpose: "stride", upsample_conv: "scale_factor", pixel_shuffle: "upscale_factor" };
const NAMES = { conv_transpose: "ConvTranspose2d", upsample_conv: "Upsample + Conv2d", pixel_shuffle: "Conv2d + PixelShuffle" };
const snake = (name) => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
const short = (number) => String(round(number * 100) / 100 + 0).replace("-", "−");
const isAllowed = (key, value, [least, most] = ALLOWED[key]) =>
  typeof least === "number" ? Number.isInteger(value) && value >= least && value <= most : ALLOWED[key].includes(value);

// A state from `get`, which gives a value, text or nothing for each of PyTorch's names; what is not allowed is left out.
function stateOf(get) {
  const state = { ...DEFAULTS };
  for (const key of Object.keys(ALLOWED)) {
    const given = get(snake(key)) ?? state[key], value = typeof state[key] === "number" ? Number(given) : given;
    if (isAllowed(key, value)) state[key] = value;
  }
  const taps = String(get("taps") ?? "ones"), numbers = taps.split(",").map(Number);
  return { ...state, taps: numbers.every(Number.isFinite) ? numbers : /^(tent|(random|icnr):\d+)$/.test(taps) ? taps : "ones" };
}

const filtersOf = ({ operator, stride, axes }) => (operator === "pixel_shuffle" ? stride ** axes : 1);
const countOf = (state) => filtersOf(state) * state.kernelSize ** state.axes;

// The numbers of the kernel.
function tapsOf(state) {
  const { taps, kernelSize: k, axes } = state, size = k ** axes, count = countOf(state);
  if (Array.isArray(taps)) return taps.length === count ? taps : range(count, () => 1);
  const [kind, seed] = taps.split(":"), tent = (t) => 1 - abs(t - (k - 1) / 2) / floor((k + 1) / 2);
  let last = seed * 2654435761; // of a linear congruential generator
  const drawn = range(count + 4, () => round(((last = (Math.imul(last, 1664525) + 1013904223) >>> 0) / 2 ** 31 - 1) * 100) / 100).slice(4);
  const ways = { ones: () => 1, tent: (t) => tent(t % k) * (axes === 2 ? tent(floor((t % size) / k)) : 1), random: (t) => drawn[t], icnr: (t) => drawn[t % size] };
  return range(count, ways[kind]);
}

// The line of PyTorch for a state or a form.
function codeOf({ operator, mode, kernelSize, stride, padding, outputPadding, dilation, pads = [], crop = [0, 0] }, { inChannels, outChannels }) {
  const layer = (kind, out, settings) => `nn.${kind}2d(${[inChannels, out, kernelSize, ...Object.entries(settings)
    .filter(([name, value]) => value !== Number(/stride|dilation/.test(name))).map((entry) => entry.join("="))].join(", ")})`;
  const pad = ([kind, before, after]) => `nn.${kind}Pad2d(${before === after ? before : `(${before}, ${after}, ${before}, ${after})`})`;
  const middle = {
    conv_transpose: [layer("ConvTranspose", outChannels, { stride, padding, output_padding: outputPadding, dilation })],
    upsample_conv: [`nn.Upsample(scale_factor=${stride}${mode === "bilinear" ? ', mode="bilinear"' : ""})`, layer("Conv", outChannels, { padding, dilation })],
    pixel_shuffle: [layer("Conv", outChannels * stride ** 2, { padding, dilation }), `nn.PixelShuffle(${stride})`],
  }[operator];
  const steps = [...pads.map(pad), ...middle, ...(crop[0] || crop[1] ? [pad(["Zero", -crop[0], -crop[1]])] : [])];
  return steps.length > 1 ? `nn.Sequential(${steps.join(", ")})` : steps[0];
}

const ARGUMENTS = {
  ConvTranspose: "in_channels out_channels kernel_size stride padding output_padding groups bias dilation".split(" "),
  Conv: "in_channels out_channels kernel_size stride padding dilation".split(" "),
  Upsample: "size scale_factor mode align_corners".split(" "),
  PixelShuffle: ["upscale_factor"],
};

// The changes that a line of PyTorch makes; a line that the figure cannot show is an error that says why.
function read(line) {
  const found = {};
  for (const [, kind, inside] of line.matchAll(/\b(ConvTranspose|Conv|Upsample|PixelShuffle)(?:\dd)?\s*\(((?:[^()]|\([^()]*\))*)\)/g)) {
    found[kind] = {};
    (inside.match(/(?:[^,()]|\([^()]*\))+/g) ?? []).forEach((argument, place) => {
      const [, name = ARGUMENTS[kind][place], text] = argument.trim().match(/^(?:(\w+)\s*=)?\s*(.*)$/s), [value, ...more] = new Set(text.match(/[\w.-]+/g));
      if (more.length) fail(`${name}=${text} differs between the axes; here both have one`);
      found[kind][name] = Number.isNaN(Number(value)) ? value : Number(value);
    });
  }
  const { ConvTranspose: transposed, Conv: conv, Upsample: up, PixelShuffle: shuffle } = found, layer = transposed ?? conv;
  if (!layer || !(transposed ?? up ?? shuffle)) fail("no layer found; write nn.ConvTranspose2d(...), or nn.Conv2d(...) with nn.Upsample(...) or nn.PixelShuffle(...)");
  if (!transposed && conv.stride > 1) fail(`a convolution with stride=${conv.stride} is not shown here`);
  if (up?.align_corners === "True") fail("align_corners=True, which changes from pixel to pixel, is not shown here");
  const operator = transposed ? "conv_transpose" : up ? "upsample_conv" : "pixel_shuffle", { kernel_size: kernelSize, dilation = 1, padding = 0 } = layer;
  const stride = (transposed ?? up ?? shuffle)[SCALES[operator]] ?? 1;
  const changes = {
    operator, mode: (up?.mode ?? "nearest").replace(/^linear/, "bilinear").replace("-exact", ""), stride, kernelSize, dilation,
    padding: { same: (dilation * (kernelSize - 1)) / 2, valid: 0 }[padding] ?? padding, outputPadding: layer.output_padding ?? 0,
    inChannels: layer.in_channels, outChannels: layer.out_channels / (transposed || up ? 1 : stride ** 2),
  };
  for (const [key, value] of Object.entries(changes)) if (!isAllowed(key, value)) fail(`${snake(key)}=${value} is not shown here`);
  return changes;
}

// All that is shown of a state: what its output pixels read, where their middles lie in input pixels from the left edge
// of the first, their phases, ...
function sceneOf(state) {
  const { axes, stride: s } = state, m = sizeOf(state), taps = tapsOf(state), { span, crop } = composed(state);
  return {
    ...axis(state), state, m, taps, span, crop, both: axes === 2, kernel: kernelOf(state, taps, axes), lines: range(m, (j) => reads(state, j)),
    place: (j) => (j + crop - (span - 1) / 2) / s + 0.5, phase: (j) => mod(j + crop, s),
  };
}

const meets = (line, i) => line?.some((product) => product.i === i);

// The size formula, then with the numbers put in; then what the layer does to sizes and places, and how even it is.
function formula({ state, n, k, s, o, d, m, span, crop, transposed }) {
  const shift = (span - s) / 2 - crop;
  const words = {
    conv_transpose: "(input_size − 1) · stride − 2 · padding + dilation · (kernel_size − 1) + output_padding + 1",
    upsample_conv: "input_size · stride + 2 · padding − dilation · (kernel_size − 1)",
    pixel_shuffle: "(input_size + 2 · padding − dilation · (kernel_size − 1)) · stride",
  }[state.operator];
  const numbers = words.replace(/[a-z_]+/g, (name) => state[SLIDERS.find((key) => snake(key) === name)]);
  const facts = [
    `${span + transposed * o === s + 2 * crop ? "multiplies" : "does not multiply"} every size by ${s}`,
    shift ? `moves the picture by ${short(abs(shift))} output pixels towards the ${shift < 0 ? "start" : "end"}` : "leaves the picture in place",
    transposed && !isEven({ k, s, d }) ? "overlaps unevenly" : `puts ${transposed ? k / s : k} taps an axis on every output pixel`,
  ];
  return `<b>${n} → ${m}</b> = <code>${numbers}</code><br><code>${words.replace("stride", SCALES[state.operator])}</code><br>It ${facts.join(", ")}.`;
}

const listed = (at) => (at.length > 1 ? `[${at.join(", ")}]` : at[0]);

// What an output pixel is made of, or where an input pixel goes; `at` has an index for each axis.
function sentence({ lines, place, phase, shuffled }, { kind, at }) {
  if (kind === "input") {
    const where = at.map((i) => [...lines.keys()].filter((j) => meets(lines[j], i)).join(", "));
    return `Input pixel ${listed(at)} ${where.includes("") ? "reaches no output pixel: its stamp is cropped"
      : `is scattered to output ${where.length > 1 ? `rows ${where[0]} and columns ${where[1]}` : `pixels ${where[0]}`}`}.`;
  }
  const [one, two = [{ factor: 1 }]] = at.map((j) => lines[j]), index = (y, x) => (at.length > 1 ? `[${y}, ${x}]` : y);
  const products = one.flatMap((y) => two.map((x) => [`x${index(y.i, x.i)}`, `w${index(y.a, x.a)}`, y.factor * x.factor]));
  const terms = [...Map.groupBy(products, ([pixel]) => pixel)].map(([pixel, group]) => {
    const taps = group.map(([, tap, factor]) => (factor === 1 ? tap : `${short(factor)}·${tap}`)).join(" + ");
    return `${pixel}·${group.length > 1 ? `(${taps})` : taps}`;
  });
  if (terms.length > 4) terms.splice(3, terms.length, `… (${terms.length} input pixels in all)`);
  return `Output pixel ${listed(at)}, phase ${listed(at.map(phase))}, centred at ${listed(at.map((j) => short(place(j))))} on the ruler: ` +
    `${terms.join(" + ") || "no tap reaches it, so it is the bias alone"}${shuffled ? ", with the filter of this phase" : ""}.`;
}

// Drawing

const COLOURS = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#808080"];
const colourOf = ([row, column], s) => COLOURS[(row * s + column) % 8];

function cell(x, y, width, height, { fill = "currentColor", opacity = 0, text = "", more = "" }) {
  const label = width > 7 * String(text).length + 1 ? `<text x="${x + width / 2}" y="${y + height / 2 + 4}">${text}</text>` : "";
  return `<g ${more}><rect x="${x + 0.5}" y="${y + 0.5}" width="${max(0.5, width - 1)}" height="${height - 1}" fill="${fill}" fill-opacity="${opacity}"/>${label}</g>`;
}

// One axis: ruler, input, stamps or windows, output. `moment` is how far a motion has come, null if there is none.
function drawAxis({ state, n, k, s, p, d, m, span, crop, kernel, lines, place, phase, transposed, shuffled, smooth }, { kind, at: [at] = [] }, moment, width) {
  const first = min(0, place(min(0, -crop)) - 0.5 / s), last = max(n, place(max(m, (n - 1) * s - crop + span)) - 0.5 / s);
  const unit = min(130, (width - 6) / (last - first)), small = unit / s, x = (at) => (at - first) * unit + 3;
  const middle = (j) => x(place(j)), left = (j) => middle(j) - small / 2, fillOf = (j) => COLOURS[phase(j) % 8], stamps = state.view === "stamps";
  let y = 20, svg = range(2 * n + 1, (half) => `<path class="tick" d="M${x(half / 2)} ${half % 2 ? "14v5" : "11V999"}"/>` +
    (half % 2 || unit < 16 ? "" : `<text x="${x(half / 2)}" y="9">${half / 2}</text>`)).join("");
  const row = (cells, height) => { svg += cells.join(""); y += height; };
  const input = { x: x(0), y, width: n * unit, height: 26 };
  row(range(n, (i) => cell(x(i), y, unit, 26, { opacity: (kind === "input" ? i === at : meets(lines[at], i)) ? 0.35 : 0.08, text: `x${i}` })), 32);
  if (stamps) for (const i of range(n)) row(moment !== null && i > moment ? [] : range(span, (t) => {
    const j = i * s - crop + t, inside = j >= 0 && j < m;
    return (inside ? !meets(lines[j], i) : !kernel[t]) ? "" : cell(left(j), y, small, 18, {
      fill: inside ? fillOf(j) : "none", opacity: !kind || (kind === "input" ? i : j) === at ? 0.6 : 0.15,
      text: transposed ? `w${t / d}` : short(kernel[t]),
      more: `class="${inside ? "" : "cropped"}" ${i === moment ? `data-from="${x(i + 0.5) - middle(j)},${20 - y}"` : ""}`,
    });
  }), 20);
  else {
    // the input with zeros stuffed in, or upsampled; a motion begins with the zeros still out
    if (!shuffled) row(range(transposed ? (n - 1) * s + 1 : n * s, (u) => {
      const zero = transposed && u % s, there = transposed ? x(u / s + 0.5) - small / 2 : x(u / s), bunched = x(n / 2) + (u / s - n / 2) * small;
      return zero && moment === -1 ? "" : cell(moment === -1 ? bunched : there, y, small, 24, {
        opacity: zero ? 0 : 0.08, text: zero ? 0 : smooth ? "" : `x${floor(u / s)}`, more: transposed && moment === 0 ? `data-from="${bunched - there},0"` : "",
      });
    }), 28);
    if (kind === "output") { // what its window reads
      const step = shuffled ? unit : small, centre = shuffled ? x(floor(at / s) - p + (d * (k - 1) + 1) / 2) : middle(at);
      svg += `<path class="line" d="M${centre} ${y + 20}L${middle(at)} ${y + 34}"/>` + range(k, (a) => {
        const tap = transposed ? k - 1 - a : a, isRead = lines[at].some((product) => product.a === tap);
        return cell(centre + (d * (a - (k - 1) / 2) - 0.5) * step, y, step, 20, { fill: fillOf(at), opacity: isRead ? 0.6 : 0.12, text: `w${tap}` });
      }).join("");
    }
    y += 34;
  }
  const output = { x: left(0), y, width: m * small, height: 26 }, most = max(...lines.map((line) => line.length)), heat = state.colour === "overlap";
  row(lines.map((line, j) => {
    const count = moment === null ? line.length : stamps ? line.filter(({ i }) => i <= moment).length : line.length * (j <= moment);
    return cell(left(j), y, small, 26, { fill: heat ? COLOURS[0] : fillOf(j), text: heat ? count : j,
      opacity: count && (heat ? 0.1 + (0.6 * count) / most : 0.5), more: (kind === "input" ? meets(lines[j], at) : j === at) ? 'class="lit"' : "" });
  }), 28);
  return { svg, height: y, zones: { input, output } };
}

// Two axes: input, stamp and output on one scale; the dashed frame is where the input lies.
function drawImage({ state, n, s, m, span, crop, lines, place, phase }, { kind, at = [] }, moment, width) {
  const heat = state.colour === "overlap", edge = place(0) - 0.5 / s, first = min(0, edge), size = max(n, edge + m / s) - first, wide = width > 560;
  const unit = min(44, wide ? (width - 40) / (n + span / s + size) : (width - 24) / max(size, n + span / s)), small = unit / s;
  const side = n * unit, stamp = side + 17, [left, top] = wide ? [stamp + span * small + 16, 20] : [1, 46 + max(side, span * small)];
  const input = { x: 1, y: 20, width: side, height: side };
  const output = { x: left + (edge - first) * unit, y: top + (edge - first) * unit, width: m * small, height: m * small };
  let svg = [["input", 1, 14], ["stamp", stamp, 14], ["output", left, top - 6]].map(([word, x, y]) => `<text class="name" x="${x}" y="${y}">${word}</text>`).join("");
  const paths = {}; // cells of one look are one path, so that a large image stays fast
  const put = (grid, wide, [y, x], fill, opacity, text) => {
    const look = `fill="${fill}" fill-opacity="${opacity.toFixed(2)}"`, length = max(0.5, wide - 1), [X, Y] = [grid.x + x * wide, grid.y + y * wide];
    paths[look] = `${paths[look] ?? ""}M${(X + 0.5).toFixed(1)} ${(Y + 0.5).toFixed(1)}h${length}v${length}h${-length}z`;
    return wide > 7 * String(text).length + 2 ? `<text x="${X + wide / 2}" y="${Y + wide / 2 + 4}">${text}</text>` : "";
  };
  const square = (count, make) => range(count ** 2, (place) => make([floor(place / count), place % count], place)).join("");
  const whole = (j, t) => (j + crop - t) / s, most = max(...lines.map((line) => line.length)) ** 2, late = (place) => moment !== null && place > moment;
  const texts = square(n, (here) => put(input, unit, here, "currentColor", kind && here.every((i, axis) => (kind === "input" ? i === at[axis] : meets(lines[at[axis]], i))) ? 0.4 : 0.08, here.join())) +
    square(span, (here) => {
      const phases = here.map((t) => t % s), used = here.every((t, axis) => Number.isInteger(whole(at[axis], t)) && meets(lines[at[axis]], whole(at[axis], t)));
      return put({ x: stamp, y: 20 }, small, here, colourOf(phases, s), kind !== "output" ? 0.45 : used ? 0.9 : 0.15, phases.join(""));
    }) + square(m, ([y, x], place) => {
      const done = state.view === "windows" ? !late(place) : lines[y].some((one) => lines[x].some((two) => !late(one.i * n + two.i)));
      const count = done * lines[y].length * lines[x].length, lit = !kind || [y, x].every((j, axis) => (kind === "input" ? meets(lines[j], at[axis]) : j === at[axis]));
      return put(output, small, [y, x], heat ? COLOURS[0] : colourOf([phase(y), phase(x)], s), count && (heat ? 0.08 + (0.7 * count) / most : lit ? 0.7 : 0.3), heat ? count : "");
    });
  for (const [look, path] of Object.entries(paths)) svg += `<path ${look} d="${path}"/>`;
  const box = (name, x, y, length) => `<rect class="${name}" x="${x}" y="${y}" width="${length}" height="${length}"/>`, [hit, reach] = kind === "output" ? [at, 1] : [at.map((i) => i * s - crop), span];
  svg += texts + box("frame", left - first * unit, top - first * unit, side) + (kind ? box("mark", output.x + hit[1] * small, output.y + hit[0] * small, reach * small) : "");
  return { svg, height: max(top + size * unit, 20 + max(side, span * small)) + 3, zones: { input, output } };
}

// The panels below the picture. Each gives what it says, anew with every change, and before that its inputs.

const button = (changes, text, label = text) => `<button type="button" aria-label="${label}" data-set='${JSON.stringify(changes)}'>${text}</button>`;
const image = (values, text) => `<figure><canvas role="img" aria-label="${text}" data-values="${values.map((value) => +value.toFixed(4))}"></canvas><figcaption>${text}</figcaption></figure>`;
const PANELS = {
  taps: ["Taps and gains", ({ s, span, kernel, both }) => {
    const gains = range(both ? s * s : s, (phase) => sum(kernel.filter((_, t) => (t % span) % s === phase % s && floor(t / span) % s === floor(phase / s))));
    const chips = gains.map((gain, phase) => cell((phase % s) * 50, floor(phase / s) * 26, 50, 26, { fill: COLOURS[phase % 8], opacity: 0.5, text: short(gain) }));
    return `<p>The phases' gains, what each makes of a constant 1, ${spread(gains) <= 1e-6 * max(...kernel.map(abs)) ? "are equal: a flat image stays flat" : `differ: a flat image gets a pattern that repeats every ${s} pixels`}.</p>
      <svg role="img" aria-label="gains ${gains.map(short).join(", ")}" width="${50 * s}" height="${26 * (both ? s : 1)}">${chips.join("")}</svg>`;
  }, ({ k, taps, both, shuffled }) => {
    const size = both ? k * k : k, name = (t) => `${both ? `${floor((t % size) / k)}, ` : ""}${t % k} of filter ${floor(t / size)}`;
    const grid = (filter) => `<div class="ux-taps" style="grid-template-columns: repeat(${k}, 3.2em)">${range(size, (t) => `<input data-tap="${filter * size + t}" inputmode="decimal" aria-label="tap ${name(filter * size + t)}">`).join("")}</div>`;
    return `<div class="ux-row">${["ones", "random", "tent", ...(shuffled ? ["icnr"] : [])].map((kind) => button({ taps: kind }, kind)).join("")}</div>${taps.length > 256 ? "Too many taps to show." : range(taps.length / size, grid).join("")}`;
  }],
  pictures: ["Pictures", ({ state, s, k, taps, both, shuffled }) => {
    const filters = shuffled ? s : 1, bytes = atob(PHOTOGRAPH), side = max(8, min(32, floor(96 / s)));
    const tap = (r, q, a, b) => both ? taps[((r * filters + q) * k + a) * k + b] : taps[r * k + a] * taps[q * k + b];
    const photograph = range(side ** 2, (place) => bytes.charCodeAt(floor(place / side) * 32 + (place % side)) / 255);
    return `<p>From the least value (black) to the greatest (white)${both ? "" : ", with these taps on both axes"}.</p>` + [["a flat image", range(64, () => 1), 8], ["a photograph", photograph, side]].map(([name, given, n]) => {
      const settings = { ...state, inputSize: n }, lines = range(sizeOf(settings), (j) => reads(settings, j)), made = [];
      for (const above of lines) for (const across of lines) {
        let total = 0;
        for (const y of above) for (const x of across) total += given[y.i * n + x.i] * y.factor * x.factor * tap(y.r, x.r, y.a, x.a);
        made.push(total);
      }
      return image(given, name) + image(made, `made of it: ${short(min(...made))} to ${short(max(...made))}`);
    }).join("");
  }],
  frequencies: ["Frequencies", ({ s, span, kernel, both }) => {
    const total = sum(kernel.map(abs));
    const wave = (line, f) => ["cos", "sin"].map((part) => sum(line.map((value, t) => value * Math[part](2 * Math.PI * f * t))));
    const along = (f) => { // |V| at the frequency f along the rows, as a function of that along the columns
      const columns = range(kernel.length / span, (y) => wave(kernel.slice(y * span, (y + 1) * span), f));
      return (g) => { const [[a, b], [c, d]] = [0, 1].map((part) => wave(columns.map((column) => column[part]), g)); return Math.hypot(a - d, b + c); };
    };
    const isZero = ([f, g]) => along(f)(g) < 1e-6 * total, points = range((both ? s * s : s) - 1, (place) => [((place + 1) % s) / s, floor((place + 1) / s) / s]), zeros = points.filter(isZero);
    const whole = both && s > 1 && isZero([1 / s, 0.23]) && isZero([0.23, 1 / s]), grid = range(both ? 48 : 121, (x) => along(x / (both ? 48 : 120)));
    const dots = (place) => points.map((at) => `<circle class="${isZero(at) ? "ring" : "dot"}" cx="${place(at)[0]}" cy="${place(at)[1]}" r="5"/>`).join(""), height = (value) => 100 - (90 * value) / total;
    return `<p>Upsampling puts copies of the spectrum at the multiples of 1/${s} cycle a pixel; |V(f)| is what the kernel leaves of them. Of these ${points.length} points, V is zero (ring) at ${zeros.length}` +
      `${whole ? ", and on the whole lines through them, as of every nearest pair" : ""}: ${zeros.length < points.length ? "the others draw a pattern on a flat image" : "a flat image stays flat"}.</p>` +
      (both ? `<div class="ux-map">${image(range(48 ** 2, (place) => grid[place % 48](floor(place / 48) / 48)), "|V|, both frequencies from 0 to 1")}<svg aria-hidden="true" viewBox="0 0 192 192">${dots((at) => at.map((f) => 192 * f))}</svg></div>`
        : `<svg role="img" aria-label="|V(f)| from 0 to 1 cycle a pixel" viewBox="0 0 320 124" style="max-width: 480px"><path class="line" d="M${grid.map((value, x) => `${10 + 2.5 * x} ${height(value(0))}`).join("L")}"/>
          ${dots(([f]) => [10 + 300 * f, height(along(f)(0))])}${range(s + 1, (j) => `<text x="${10 + (300 * j) / s}" y="120">${j % s ? `${j}/${s}` : j / s}</text>`).join("")}</svg>`);
  }],
  forms: ["Other forms", ({ state, span, kernel, both, taps }) => {
    const lines = range(2 * span, (line) => range(span, (t) => kernel[line < span ? line * span + t : t * span + line - span]));
    const gains = both ? lines.map((line) => phaseGains({ ...state, taps: line, dilation: 1 })).sort((a, b) => spread(b) - spread(a))[0] : undefined;
    return `<ul>${forms({ ...state, taps: gains ? undefined : taps, gains }).map((other) => `<li>${NAMES[other.operator]}: ${other.reason ? `none, for ${other.reason}` : `<code>${codeOf(other, state)}</code>`}</li>`).join("")}</ul>`;
  }],
  sizes: ["From n to m", ({ state: { inputSize, outputSize, dilation } }) => {
    try {
      const found = solveConvTranspose({ inputSize, outputSize, dilation });
      return `<p>ConvTranspose2d, the best of ${found.length} first:</p><ol>${found.slice(0, 8).map(({ evenOverlap, reachesAll, inPlace, ...layer }) =>
        `<li>${button({ ...layer, operator: "conv_transpose" }, Object.entries(layer).slice(0, 4).map(([key, value]) => `${snake(key)}=${value}`).join(", "))} ${evenOverlap ? "even" : "uneven"}${inPlace ? ", in place" : ""}${reachesAll ? "" : ", some pixels reached by no tap"}</li>`).join("")}</ol>`;
    } catch ({ message }) { return `<p>${message}.</p>`; }
  }, () => `<div class="ux-row">${["inputSize", "outputSize"].map((key) => `<label>${snake(key)} <input type="number" data-key="${key}" min="1" max="${ALLOWED[key][1]}"></label>`).join("")}</div>`],
};

// A photograph of 32 x 32 grey values, scikit-image's chelsea by Stefan van der Walt (CC0).
const PHOTOGRAPH = "7+XRsKCopJ6Lk4WBmJm5uF1JpWtNYlwdXoiLoLLF3+THubGwsJOKd4aVjpSLi6KxkIK8aGFlVFJld22Qv9Tn4p63v6WGho6el4x5bZiLkaV/V6qqf09Of3Z1b3yv4Ozfnb2hioKXoZuBcWp+qKevp5mHgraYZXmgiXJ9fJrD49m3sp6NmqyXdHp9bICmuriBiMB9g4xbdaFaX4WTs8/azLCVmJ6rpoRveXdjc6a5sWh5zK9ulXF2m1KimrTPydXFuJygr7uvnZSQnnR2pMK1aoLT1luZgo2VWsmdstLGx96lm7axwbzb16y8noO0yq9flOroaaR0hKdv36iXy9S117W0sL7W5OfaxLi3vcLUpmW3++mPq4eVy5Divo3J6MbJTW6Lsc23ck5NPEJkpNasdMnu5cu2ocfyyOnhiMvw08hqlLrMwVwiZmtBAAAcj7ir1NfX3NPF4ffw8O+UzOrX0oOeyvTrX2ifmkMLABofjNLe0b7J1djk8+za36fU4+LvrI6z4vdudpqFAAAOSCEwy+jZvsC82PHx28fUmHFfU6DEnpe56qNflGQAACBgMgm68ua/ubjR9O3U0ZUaFFE5Ybahhoys02KAgiAQUnU3C5799ce6sNLw5c+2JgoRbWd4rJ19fXaktm6DfXmBQx0AfP3/1sa0yu3d1ooVABWGha/EqpiLiXyauYFQNRkMBwBh7v/hzL/D28DSgzgAP5tx2turoJmQiZGcusSpnpFWIEXW+d3MwsDPvNeBaVmBXIn/w6Z6mJ6VnZGUqM7dtWhBM6DO0sbM0NC5v1Q/QkBz192Bbl5qdJGVl5qgnKCZfFY1V5u1v9DV7MWNY6apxNu6kFRYaIKHj4iLkZ6jqqSRbEFXhqC6y9n/4YBbvMG5r5GOnZKLiYWAbH2KjKK+uZ98WlNliaq71//slGCZk5mak5jIvrqut6uUlJupo7Ctm3poQkJpkKfG/+iWZZeakZGRsbm6x9be2s3Fvrits66nioJiPkl4nLv12npZi5WFgLPql7zL2eDj4uPjzLqqqrCxnG9HPmqSruzidV5/jYyhzP+Ors3g7/Pw5s28s6+OgaujfkY1XIijzcR5aoaTuMvF4IN1ms/n6+/67Lqeg4Sat8CXMB8vT3Wil2t1h5HNw7azvZ6Psdbn9f7x6N/CpHyw2ddpGipCR1VFQ4uBj8zGv6rTuIx0pdj47Mu+tKWqqMnp//J/CAgzMj2Rsouo09TXyOzj0rmqsN/w49C7n56aueb//+VYGSEzlN28qsfe1MzD//3pzbe4xtPKuaWYprjV6u3y7JUIGIPUzJaPwNjLs6//+PTw5Me/09O/s5+jqbS3ub25kxJetr2rl5vD1sisoA==";

const STYLE = `.ux { font: 15px/1.45 system-ui, sans-serif; margin: 1em 0 } .ux p { margin: 6px 0 }
.ux :is(button, select, input, textarea) { font: inherit; color: inherit } .ux :is(code, textarea) { font: 13px/1.5 monospace; color: inherit; background: none; border: 0; padding: 0; overflow-wrap: anywhere }
.ux :is(button, select, textarea, input:not([type=range])) { background: none; border: 1px solid #808080; border-radius: 4px; padding: 2px 8px } .ux option { background: Canvas; color: CanvasText }
.ux [aria-pressed=true] { background: #8886; box-shadow: inset 0 -3px } .ux :focus-visible { outline: 3px solid #08d } .ux summary { padding: 5px 0; border-top: 1px solid #8888 } .ux details div { overflow-x: auto; padding: 2px }
.ux-row { display: flex; flex-wrap: wrap; gap: 6px; align-items: center } .ux-sliders { display: grid; grid-template-columns: repeat(auto-fill, minmax(145px, 1fr)); gap: 4px 18px; margin: 8px 0 }
.ux-sliders label { display: flex; flex-wrap: wrap; justify-content: space-between } .ux [hidden] { display: none } .ux-sliders input { width: 100%; margin: 0 } .ux textarea { width: 100%; box-sizing: border-box }
.ux :is(.ux-box, .ux-map) { position: relative; padding: 8px 0 } .ux svg { max-width: 100% } .ux-zone { position: absolute; touch-action: pan-y; cursor: crosshair }
.ux svg :is(rect, path) { stroke: currentColor; stroke-opacity: .45; stroke-width: .8 } .ux text { font-size: 11px; text-anchor: middle; fill: currentColor } .ux .name { text-anchor: start }
.ux .tick { stroke-dasharray: 2 3 } .ux .cropped { stroke-dasharray: 2 2; opacity: .6 } .ux svg :is(.lit rect, .mark, .frame, .line) { stroke-width: 2; stroke-opacity: 1 } .ux :is(.mark, .frame, .line) { fill: none } .ux .frame { stroke-dasharray: 5 3 }
.ux circle { stroke-width: 2.5; stroke: #0a7; fill: none } .ux .dot { stroke: #d50; fill: #d50 } .ux-taps { display: inline-grid; gap: 2px; margin: 4px 12px 4px 0 } .ux .ux-taps input { padding: 2px; text-align: center }
.ux figure { display: inline-block; margin: 4px 12px 4px 0 } .ux canvas { image-rendering: pixelated; width: 144px } .ux-map canvas { width: 192px } .ux-map svg { position: absolute; left: 2px; top: 12px; width: 192px; overflow: visible }
.ux-said { position: absolute; clip-path: inset(50%) } .ux-wrong { border-left: 4px solid #d50; padding-left: 8px }`;

export function render({ model, el }) {
  const name = model.get("name"), page = el.ownerDocument, view = page.defaultView, calm = view.matchMedia("(prefers-reduced-motion: reduce)").matches;
  let state = stateOf((key) => model.get(key)), pixel = null, moment = null, timer, telling, scene;
  const layers = ["conv_transpose nearest", "upsample_conv nearest", "upsample_conv bilinear", "pixel_shuffle nearest"], kinds = ["input", "output"];
  el.innerHTML = `<style>${STYLE}</style><div class="ux" role="group" aria-label="Explorer of an upsampling layer">
    <div class="ux-row"><label>Layer <select>${layers.map((layer) => `<option value="${layer}">${NAMES[layer.split(" ")[0]].replace("Upsample", `Upsample (${layer.split(" ")[1]})`)}</option>`).join("")}</select></label>${button({ axes: 1 }, "one axis")}${button({ axes: 2 }, "both axes")}</div>
    <div class="ux-sliders">${SLIDERS.map((key) => `<label><span></span><output></output><input type="range" data-key="${key}" min="${ALLOWED[key][0]}"></label>`).join("")}</div><p data-part="size"></p>
    <div class="ux-box"><svg aria-hidden="true"></svg>${kinds.map((kind) => `<div class="ux-zone" role="slider" tabindex="0" aria-label="${kind} pixel" aria-valuemin="0"></div>`).join("")}</div><p data-part="pixel"></p>
    <div class="ux-row">${button({ move: -1 }, "◀", "step back")}${button({ move: 0 }, "▶ play")}${button({ move: 1 }, "▶|", "step")}${button({ view: "stamps" }, "stamps")}${button({ view: "windows" }, "windows")}${button({ colour: "phase" }, "phases")}${button({ colour: "overlap" }, "overlap")}</div>
    <p><label>PyTorch, to copy or to paste a layer<textarea rows="2" spellcheck="false"></textarea></label></p><div class="ux-row">${button({ copy: 1 }, "Copy")}<span data-part="note"></span></div>
    ${Object.entries(PANELS).map(([key, [title]]) => `<details data-open="${key}"><summary>${title}</summary><div></div><div></div></details>`).join("")}<p class="ux-said" role="status"></p></div>`;
  const root = el.querySelector(".ux"), one = (selector) => root.querySelector(selector), every = (selector) => [...root.querySelectorAll(selector)];
  const line = one("textarea"), zones = every(".ux-zone"), sizeFor = (kind) => (kind === "input" ? state.inputSize : scene.m);
  const tell = (text) => { clearTimeout(telling); telling = setTimeout(() => { one(".ux-said").textContent = text; }, 300); }; // once it has stopped changing
  const write = (part, html) => { const place = one(`[data-part=${part}]`); place.innerHTML = html; tell(place.textContent); };
  const draft = (change) => { try { change(); return true; } catch ({ message }) { return message; } };

  function change(changes) {
    const { axes, taps } = state, { taps: kind } = changes, count = countOf({ ...state, ...changes });
    state = { ...state, ...changes };
    if (kind === "random" || kind === "icnr") state.taps = `${kind}:${floor(Math.random() * 1e4)}`;
    else if (Array.isArray(state.taps) && state.taps.length !== count) // a line of taps goes on both axes
      state.taps = axes < state.axes && filtersOf(state) === 1 ? taps.flatMap((y) => taps.map((x) => x * y)) : "ones";
    if (!("open" in changes || "taps" in changes || "colour" in changes)) stop(null);
    update();
  }

  function update() {
    every(".ux-sliders label").forEach((label, place) => {
      const key = SLIDERS[place], [text, number, input] = label.children;
      label.hidden = key === "outputPadding" && state.operator !== "conv_transpose";
      input.max = max(ALLOWED[key][2], state[key]);
      text.textContent = key === "stride" ? SCALES[state.operator] : snake(key);
      number.textContent = state[key];
    });
    one("select").value = `${state.operator} ${state.mode}`;
    line.value = codeOf(state, state);
    scene = null;
    const wrong = draft(() => { scene = sceneOf(state); });
    write("size", scene ? formula(scene) : `<span class="ux-wrong">PyTorch refuses this: ${wrong}.</span>`);
    draw();
    for (const part of every("details")) {
      const { open } = part.dataset, [, words, inputs] = PANELS[open], [, top, bottom] = part.children;
      if (state.open === open) part.open = true;
      if (!part.open || !(scene || open === "sizes")) continue;
      const html = inputs?.(scene);
      if (part.shown !== html) top.innerHTML = part.shown = html;
      bottom.innerHTML = words(scene ?? { state });
    }
    for (const canvas of every("[data-values]")) {
      const values = canvas.dataset.values.split(",").map(Number), least = min(...values), range_ = max(...values) - least, size = Math.sqrt(values.length), pixels = new ImageData(size, size);
      values.forEach((value, place) => { const grey = range_ > 1e-3 ? (255 * (value - least)) / range_ : 160; pixels.data.set([grey, grey, grey, 255], 4 * place); });
      canvas.width = canvas.height = size;
      canvas.getContext("2d").putImageData(pixels, 0, 0);
      delete canvas.dataset.values;
    }
    for (const input of every("input")) if (input.type === "range" || input !== page.activeElement) input.value = state[input.dataset.key] ?? scene?.taps[input.dataset.tap];
    for (const set of every("[data-set]")) {
      const changes = Object.entries(JSON.parse(set.dataset.set));
      if (changes[0][0] in state) set.setAttribute("aria-pressed", changes.every(([key, value]) => String(state[key]).split(":")[0] === String(value)));
    }
    const parts = Object.keys(state).filter((key) => String(state[key]) !== String(DEFAULTS[key])).map((key) => `${snake(key)}=${state[key]}`);
    if (name) view.history.replaceState(view.history.state, "", `#${name}?${parts.join("&")}`);
  }

  function draw() {
    const svg = one("svg"), width = max(300, root.clientWidth);
    one(".ux-box").hidden = !scene;
    if (!scene) return;
    if (pixel) pixel.at = range(state.axes, (place) => min(pixel.at[place] ?? pixel.at[0], sizeFor(pixel.kind) - 1));
    const picture = (scene.both ? drawImage : drawAxis)(scene, pixel ?? {}, moment, width);
    svg.innerHTML = picture.svg;
    svg.setAttribute("width", width);
    svg.setAttribute("height", picture.height);
    zones.forEach((zone, place) => {
      const kind = kinds[place], { x, y, width: wide, height } = picture.zones[kind], size = sizeFor(kind), at = pixel?.kind === kind ? pixel.at : [0];
      zone.style.cssText = `left: ${x}px; top: ${y + 8}px; width: ${wide}px; height: ${height}px`;
      const values = { max: size ** state.axes - 1, now: at.reduce((number, index) => number * size + index, 0), text: listed(at) };
      for (const [key, value] of Object.entries(values)) zone.setAttribute(`aria-value${key}`, value);
    });
    if (!calm) for (const moving of every("[data-from]")) moving.animate([{ transform: `translate(${moving.dataset.from.replace(",", "px,")}px)` }, { transform: "none" }], 450);
    if (pixel) write("pixel", sentence(scene, pixel)); else one("[data-part=pixel]").textContent = "Point at a pixel, or choose one with Tab and the arrow keys.";
  }

  const look = (kind, at) => { stop(null); pixel = { kind, at }; draw(); };

  // Motion goes from pixel to pixel, as stamps are put down or windows gather; zeros are stuffed in first.
  function stop(at) {
    clearInterval(timer);
    [timer, moment] = [null, at];
    one("[aria-label='▶ play']").textContent = "▶ play";
  }
  function move(by) {
    const kind = state.view === "stamps" ? "input" : "output", size = sizeFor(kind), count = size ** state.axes;
    const first = kind === "output" && scene.transposed && !scene.both ? -1 : 0, next = moment === null ? (by > 0 ? first : count - 1) : moment + by;
    if (next < first || next >= count) stop(null);
    else [moment, pixel] = [next, next < 0 ? null : { kind, at: scene.both ? [floor(next / size), next % size] : [next] }];
    draw();
  }

  function recall() {
    if (!name || !view.location.hash.startsWith(`#${name}?`)) return update();
    const given = new URLSearchParams(view.location.hash.slice(name.length + 2));
    state = stateOf((key) => given.get(key));
    stop(null);
    update();
    el.scrollIntoView();
  }
  const follow = () => { const wrong = draft(() => change(read(line.value))); write("note", wrong === true ? "The controls follow." : wrong.replaceAll("<", "&lt;")); };

  root.addEventListener("input", ({ target: { dataset: { key, tap }, value, tagName } }) => {
    const [operator, mode] = value.split(" "), number = Number(value);
    if (tagName === "SELECT") change({ operator, mode });
    if (key && isAllowed(key, number)) change({ [key]: number });
    if (tap && value.trim() && Number.isFinite(number)) change({ taps: scene.taps.with(tap, number) });
  });
  line.addEventListener("change", follow);
  line.addEventListener("paste", () => setTimeout(follow));
  root.addEventListener("click", ({ target }) => {
    const { move: by, copy, ...changes } = JSON.parse(target.dataset.set ?? "{}"), paused = !timer;
    if (Object.keys(changes).length) change(changes);
    if (copy) { line.select(); view.navigator.clipboard?.writeText(line.value).then(() => write("note", "Copied."), () => write("note", "Selected; copy it with Ctrl+C.")); }
    if (by === undefined || !scene) return;
    stop(moment);
    if (by || paused) move(by || 1);
    if (!by && paused) { timer = setInterval(move, 800, 1); target.textContent = "❚❚ pause"; }
  });
  root.addEventListener("toggle", ({ target: { dataset, open } }) => { if (open !== (state.open === dataset.open)) change({ open: open ? dataset.open : "" }); }, true);
  root.addEventListener("keydown", (event) => {
    const { target, key } = event, by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -1e9, End: 1e9 }[key], kind = kinds[zones.indexOf(target)];
    if (target === line && key === "Enter") { event.preventDefault(); follow(); }
    if (!kind || !by) return;
    event.preventDefault();
    const along = /Up|Down/.test(key) ? 0 : state.axes - 1, at = pixel?.kind === kind ? pixel.at : range(state.axes, () => 0);
    look(kind, at.map((index, place) => max(0, min(sizeFor(kind) - 1, index + (place === along || abs(by) > 1 ? by : 0)))));
  });
  zones.forEach((zone, place) => ["pointermove", "pointerdown"].forEach((event) => zone.addEventListener(event, ({ type, clientX, clientY }) => {
    const box = zone.getBoundingClientRect(), kind = kinds[place], parts = [(clientY - box.top) / box.height, (clientX - box.left) / box.width].slice(2 - state.axes);
    const at = parts.map((part) => max(0, min(sizeFor(kind) - 1, floor(part * sizeFor(kind)))));
    if ((!timer || type === "pointerdown") && `${pixel?.kind}${pixel?.at}` !== `${kind}${at}`) look(kind, at);
  })));
  const sizes = new view.ResizeObserver(draw);
  view.addEventListener("hashchange", recall);
  recall();
  sizes.observe(root);
  return () => { stop(null); sizes.disconnect(); view.removeEventListener("hashchange", recall); };
}

// Fill every figure that `upconv.explorer.explore` made and that is not filled yet; if `linked`, addresses tell states.
export function mount(linked) {
  for (const el of document.querySelectorAll("[data-settings].upconv-explorer")) {
    const settings = JSON.parse(el.dataset.settings);
    el.removeAttribute("data-settings");
    render({ model: { get: (name) => (linked || name !== "name" ? settings[name] : undefined) }, el });
  }
}

export default { render };
