// The explorer: an interactive figure of one upsampling layer. No framework, no network, no build step.
//
// The first half is arithmetic on one axis, pure functions of one object of settings with the conventions of the Python
// package. The second half draws: `render({ model, el })` follows anywidget's contract. It asks `model.get(name)` for
// PyTorch's names (kernel_size, stride, ...) and fills the element `el`.

const { abs, ceil, floor, max, min, round } = Math;
const range = (count) => Array.from({ length: count }, (_, index) => index);
const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);
const mod = (number, divisor) => ((number % divisor) + divisor) % divisor;
const gcd = (a, b) => (b ? gcd(b, a % b) : a);
const fail = (message) => { throw new RangeError(message); };

// Settings under the letters of the book's formulas, with PyTorch's defaults; K is what the kernel spans.
const axis = ({ inputSize: n, kernelSize: k, stride: s = 1, padding: p = 0, outputPadding: o = 0, dilation: d = 1, ...more }) =>
  ({ n, k, s, p, o, d, K: d * (k - 1) + 1, operator: "conv_transpose", mode: "nearest", ...more });

// Sizes

export function convSize(settings) {
  const { n, s, p, K } = axis(settings);
  if (n + 2 * p < K) fail(`the kernel spans ${K} pixels, its input with padding=${p} only ${n + 2 * p}`);
  return floor((n + 2 * p - K) / s) + 1;
}

export function convTransposeSize(settings) {
  const { n, s, p, o, d, K } = axis(settings), full = (n - 1) * s + K + o, most = max(s, d) - 1;
  if (o > most) fail(`output_padding=${o} must be smaller than stride=${s} or dilation=${d}: at most ${most}`);
  if (full <= 2 * p) fail(`padding=${p} crops all ${full} pixels away: at most ${floor((full - 1) / 2)} leaves one`);
  return full - 2 * p;
}

// How many products of an input pixel and a tap each output pixel of a transposed convolution sums.
export function overlapCounts(settings) {
  const { n, k, s, p, d } = axis(settings), counts = Array(convTransposeSize(settings)).fill(0);
  for (const i of range(n)) for (const a of range(k)) if (i * s - p + a * d in counts) counts[i * s - p + a * d] += 1;
  return counts;
}

// The layers that make outputSize pixels of inputSize, best first: those that reach every pixel, then those of even
// overlap, then the least output_padding, the smallest kernel, stride and padding.
export function solveConvTranspose({ inputSize, outputSize, maxKernelSize = 7, maxStride = 4, dilation = 1 }) {
  const found = [], missed = [];
  for (const kernelSize of range(maxKernelSize + 1).slice(1))
    for (const stride of range(maxStride + 1).slice(1)) {
      const { K } = axis({ kernelSize, dilation });
      for (const padding of range(K)) {
        const least = (inputSize - 1) * stride + K - 2 * padding, outputPadding = outputSize - least;
        const layer = { kernelSize, stride, padding, outputPadding, dilation };
        if (outputPadding < 0 || outputPadding >= max(stride, dilation)) {
          missed.push(outputPadding < 0 ? least : least + max(stride, dilation) - 1);
          continue;
        }
        const evenOverlap = kernelSize % stride === 0 && gcd(dilation, stride) === 1;
        const reachesAll = overlapCounts({ inputSize, ...layer }).every(Boolean);
        found.push({ ...layer, evenOverlap, reachesAll, inPlace: K === stride + 2 * padding });
      }
    }
  const below = max(...missed.filter((size) => size < outputSize)), above = min(...missed.filter((size) => size > outputSize));
  const near = [below, above].filter((size) => size > 0 && size < Infinity).join(" and ");
  if (!found.length) fail(`no layer with kernels up to ${maxKernelSize} and strides up to ${maxStride} makes ${outputSize} of ${inputSize}; the nearest are ${near}`);
  const order = (layer) => [!layer.reachesAll, !layer.evenOverlap, layer.outputPadding, layer.kernelSize, layer.stride, layer.padding];
  return found.sort((a, b) => order(a).map((value, place) => value - order(b)[place]).find(Boolean));
}

// Kernels

// What each phase of a transposed convolution makes of a constant 1: the sum of its taps.
export function phaseGains({ taps, stride = 1, dilation = 1 }) {
  return range(stride).map((phase) => sum(taps.filter((_, a) => (a * dilation) % stride === phase)));
}

// The interpolation's taps; they begin floor(length / 4) pixels before an input pixel's block.
const tent = (mode, s) => mode !== "bilinear" || s === 1 ? Array(s).fill(1)
  : range(2 * s - (s % 2)).map((t) => 1 - abs((t - floor(s / 2) + 0.5) / s - 0.5));

// The one transposed convolution that a layer is away from the border: what its kernel spans, its padding, and which of
// its taps, with which factors, tap a (of the filter of phase r) becomes.
function composed(settings) {
  const { s, p, d, k, K, operator, mode } = axis(settings), flipped = (a) => K - 1 - d * a;
  if (operator === "conv_transpose") return { span: K, crop: p, stamp: (a) => [[d * a, 1]] };
  if (operator === "pixel_shuffle") return { span: s * K, crop: s * (K - 1 - p), stamp: (a, r) => [[flipped(a) * s + r, 1]] };
  const line = tent(mode, s), crop = K - 1 - p + (line.length > s ? floor(s / 2) : 0);
  return { span: K + line.length - 1, crop, stamp: (a) => line.map((factor, t) => [flipped(a) + t, factor]) };
}

// Its kernel: span numbers, or span * span.
function kernelOf(settings, taps, axes = 1) {
  const { s, k, operator } = axis(settings), { span, stamp } = composed(settings), kernel = Array(span ** axes).fill(0);
  const stamps = range(operator === "pixel_shuffle" ? s : 1).map((r) => range(k).map((a) => stamp(a, r)));
  const rows = axes === 2 ? stamps : [[[[0, 1]]]];
  rows.forEach((row, r) => row.forEach((above, a) => stamps.forEach((column, q) => column.forEach((beside, b) => {
    const tap = taps[((r * stamps.length + q) * row.length + a) * k + b];
    for (const [y, one] of above) for (const [x, two] of beside) kernel[y * span + x] += tap * one * two;
  }))));
  return kernel;
}

// Forms: objects of settings. What comes before and after the layer is in `pads`, a list of [kind, pixels before, pixels
// after], and `crop`, [pixels before, pixels after].

const form = (operator, kernelSize, stride, padding, more) =>
  ({ operator, mode: "nearest", kernelSize, stride, padding, outputPadding: 0, dilation: 1, pads: [], crop: [0, 0], ...more });

function toConvTranspose(settings) {
  const { s, p, K, operator, mode, taps } = axis(settings), { span, crop } = composed(settings);
  const wide = operator === "upsample_conv" && tent(mode, s).length > s;
  if (wide && p) fail(`after bilinear upsampling padding=${p} makes a frame ${p} deep differ from any transposed convolution; with padding=0 there is one`);
  const pad = wide ? 1 : ceil(max(0, p - K + 1) / (operator === "upsample_conv" ? s : 1));
  const pads = pad ? [[wide ? "Replication" : "Zero", pad, pad]] : [];
  return form("conv_transpose", span, s, crop + s * pad, { pads, ...(taps && { taps: kernelOf(settings, taps) }) });
}

// Upsample + Conv2d as one transposed convolution, equal at every pixel; where there is none, a RangeError.
export const composeUpsampleConv = (settings) => toConvTranspose({ ...settings, operator: "upsample_conv" });

function toShuffle(settings) {
  const { s, p, o, K, pads = [], taps } = axis(settings), last = K - 1 - p + o, size = ceil(K / s);
  const before = size - 1 - floor(p / s), after = floor(last / s), even = before === after && before >= 0;
  const kernel = taps && kernelOf(settings, taps);
  return form("pixel_shuffle", size, s, even ? before : 0, {
    pads: even ? pads : [...pads, ["Zero", before, after]], crop: [mod(p, s), s - 1 - mod(last, s)],
    ...(taps && { taps: range(s * size).map((t) => kernel[(size - 1 - (t % size)) * s + floor(t / size)] ?? 0) }),
  });
}

function toPair(settings) {
  const { s, p, o, K, pads = [], taps } = axis(settings), size = max(1, K - s + 1);
  const before = size - 1 - p, after = K - s - p + o, most = max(0, before, after), quotient = [];
  if (taps) kernelOf(settings, taps).forEach((value, t, kernel) => // divided by the box of s ones, as polynomials are
    quotient.push(value - (kernel[t - 1] ?? 0) + (quotient[t - s] ?? 0)));
  return form("upsample_conv", size, s, most, { pads, crop: [most - before, most - after], ...(taps && { taps: quotient.slice(0, size).reverse() }) });
}

const alike = (numbers, scale) => max(...numbers) - min(...numbers) <= 1e-6 * scale;

// The layer's other forms on one axis; where there is none, the object has a `reason` instead of settings. In two
// dimensions `gains` are those of the row or column of the kernel where they differ most.
export function forms(settings) {
  const { operator, s, taps } = axis(settings), kernel = taps && kernelOf(settings, taps);
  const gains = settings.gains ?? (taps && phaseGains({ taps: kernel, stride: s })), found = [];
  let layer = settings;
  try {
    if (operator !== "conv_transpose") found.push((layer = toConvTranspose(settings)));
    if (operator !== "pixel_shuffle") found.push(toShuffle(layer));
  } catch ({ message }) {
    found.push({ operator: "conv_transpose", reason: message }, { operator: "pixel_shuffle", reason: message });
  }
  if (operator === "upsample_conv") return found;
  const pair = gains && alike(gains, max(...(kernel ?? gains).map(abs)));
  const reason = gains ? `the phases' gains differ: ${gains.map(short).join(", ")}` : "whether there is one depends on the taps";
  return [...found, pair ? toPair(layer) : { operator: "upsample_conv", reason }];
}

// The products that make output pixel j: input pixel i, tap a (of the filter of phase r), and a factor.
function reads(settings, j) {
  const { n, k, s, p, d, operator, mode } = axis(settings), found = [], r = operator === "pixel_shuffle" ? j % s : 0;
  const add = (i, a, factor = 1) => i >= 0 && i < n && factor && found.push({ i, a, r, factor });
  for (const a of range(k)) {
    const u = j - p + d * a; // in the upsampled image
    if (operator === "conv_transpose") { if ((j + p - d * a) % s === 0) add((j + p - d * a) / s, a); }
    else if (operator === "pixel_shuffle") add(floor(j / s) - p + d * a, a);
    else if (u < 0 || u >= n * s) continue;
    else if (mode === "nearest") add(floor(u / s), a);
    else {
      const at = min(max((u + 0.5) / s - 0.5, 0), n - 1), i = floor(at);
      add(i, a, 1 - at + i);
      add(i + 1, a, at - i);
    }
  }
  return found.sort((one, two) => one.i - two.i);
}

function sizeOf(settings) {
  const { n, s, operator } = axis(settings), more = { ...settings, stride: 1 };
  if (operator === "conv_transpose") return convTransposeSize(settings);
  return operator === "pixel_shuffle" ? convSize(more) * s : convSize({ ...more, inputSize: n * s });
}

// Where the middle of output pixel j lies, in input pixels from the left edge of the first; and its phase.
const placeOf = (settings, j) => (j + composed(settings).crop - (composed(settings).span - 1) / 2) / settings.stride + 0.5;
const phaseOf = (settings, j) => mod(j + composed(settings).crop, settings.stride);

// The state of the figure, and its words

const DEFAULTS = {
  operator: "conv_transpose", mode: "nearest", axes: 1, inputSize: 4, kernelSize: 3, stride: 2, padding: 0, outputPadding: 0,
  dilation: 1, taps: "ones", inChannels: 64, outChannels: 32, outputSize: 8, view: "stamps", colour: "phase", open: "taps",
};
// Allowed values; of numbers the least, the greatest, and where a slider ends as long as that suffices.
const ALLOWED = {
  operator: ["conv_transpose", "upsample_conv", "pixel_shuffle"], mode: ["nearest", "bilinear"], axes: [1, 2],
  inputSize: [1, 32, 10], kernelSize: [1, 32, 7], stride: [1, 16, 4], padding: [0, 32, 5], outputPadding: [0, 15, 3], dilation: [1, 8, 3],
  outputSize: [1, 512], inChannels: [1, 65536], outChannels: [1, 65536], view: ["stamps", "windows"], colour: ["phase", "overlap"],
  open: ["taps", "pictures", "frequencies", "forms", "sizes", ""],
};
const SLIDERS = ["inputSize", "kernelSize", "stride", "padding", "outputPadding", "dilation"];
const NAMES = { conv_transpose: ["ConvTranspose2d", "stride"], upsample_conv: ["Upsample + Conv2d", "scale_factor"], pixel_shuffle: ["Conv2d + PixelShuffle", "upscale_factor"] };
const snake = (name) => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
const short = (number) => String(round(number * 100) / 100 + 0).replace("-", "−");
const isNumber = (key) => typeof DEFAULTS[key] === "number";
const isAllowed = (key, value, [least, most] = ALLOWED[key]) =>
  isNumber(key) && key !== "axes" ? Number.isInteger(value) && value >= least && value <= most : ALLOWED[key].includes(value);

// A state from `get`, which gives a value, text or nothing for each of PyTorch's names; what is not allowed is left out.
function stateOf(get) {
  const state = { ...DEFAULTS };
  for (const key of Object.keys(state)) {
    const given = get(snake(key)) ?? undefined, value = isNumber(key) && given !== undefined ? Number(given) : given;
    if (key !== "taps") { if (isAllowed(key, value)) state[key] = value; continue; }
    const numbers = String(value).split(",").map(Number);
    if (numbers.every(Number.isFinite)) state.taps = numbers;
    else if (/^(ones|tent|(random|icnr):\d+)$/.test(value)) state.taps = value;
  }
  return state;
}

const filtersOf = ({ operator, stride, axes }) => (operator === "pixel_shuffle" ? stride ** axes : 1);
const countOf = (state) => filtersOf(state) * state.kernelSize ** state.axes;

// The numbers of the kernel: filter by filter, row by row.
function tapsOf(state) {
  const { taps, kernelSize: k, axes } = state, size = k ** axes, count = countOf(state);
  if (Array.isArray(taps) && taps.length === count) return taps;
  const [kind, seed] = String(taps).split(":"), line = range(k).map((t) => 1 - abs(t - (k - 1) / 2) / floor((k + 1) / 2));
  let last = Number(seed) * 2654435761; // of a linear congruential generator
  const next = () => round(((last = (Math.imul(last, 1664525) + 1013904223) >>> 0) / 2 ** 31 - 1) * 100) / 100;
  const drawn = range(count + 4).map(next).slice(4);
  return range(count).map((t) => {
    if (kind === "tent") return axes === 2 ? line[floor((t % size) / k)] * line[t % k] : line[t % k];
    return kind === "random" ? drawn[t] : kind === "icnr" ? drawn[t % size] : 1;
  });
}

// The line of PyTorch for a state or a form.
function codeOf({ operator, mode, kernelSize, stride, padding, outputPadding, dilation, pads = [], crop = [0, 0] }, { inChannels, outChannels }) {
  const layer = (kind, out, settings) => `nn.${kind}2d(${[inChannels, out, kernelSize, ...Object.entries(settings)
    .filter(([name, value]) => value !== Number(/stride|dilation/.test(name))).map(([name, value]) => `${name}=${value}`)].join(", ")})`;
  const pad = ([kind, before, after]) => `nn.${kind}Pad2d(${before === after ? before : `(${before}, ${after}, ${before}, ${after})`})`;
  const scaled = `${stride}${mode === "bilinear" ? ', mode="bilinear"' : ""}`, more = { padding, dilation };
  const middle = {
    conv_transpose: () => [layer("ConvTranspose", outChannels, { stride, padding, output_padding: outputPadding, dilation })],
    upsample_conv: () => [`nn.Upsample(scale_factor=${scaled})`, layer("Conv", outChannels, more)],
    pixel_shuffle: () => [layer("Conv", outChannels * stride ** 2, more), `nn.PixelShuffle(${stride})`],
  };
  const steps = [...pads.map(pad), ...middle[operator](), ...(crop[0] || crop[1] ? [pad(["Zero", -crop[0], -crop[1]])] : [])];
  return steps.length > 1 ? `nn.Sequential(${steps.join(", ")})` : steps[0];
}

const ARGUMENTS = {
  ConvTranspose: ["in_channels", "out_channels", "kernel_size", "stride", "padding", "output_padding", "groups", "bias", "dilation"],
  Conv: ["in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation"],
  Upsample: ["size", "scale_factor", "mode", "align_corners"],
  PixelShuffle: ["upscale_factor"],
};

// The changes that a line of PyTorch makes; a line that the figure cannot show is an error that says why.
function read(line) {
  const found = {};
  for (const [, kind, inside] of line.matchAll(/\b(ConvTranspose|Conv|Upsample|PixelShuffle)(?:\dd)?\s*\(((?:[^()]|\([^()]*\))*)\)/g)) {
    found[kind] = {};
    (inside.match(/(?:[^,()]|\([^()]*\))+/g) ?? []).forEach((argument, place) => {
      const [, name = ARGUMENTS[kind][place], text] = argument.trim().match(/^(?:(\w+)\s*=)?\s*(.*)$/s);
      const values = [...new Set(text.match(/[\w.-]+/g))];
      if (values.length > 1) fail(`${name}=${text} differs between the axes; here both have one`);
      found[kind][name] = Number.isNaN(Number(values[0])) ? values[0] : Number(values[0]);
    });
  }
  const { ConvTranspose: transposed, Conv: conv, Upsample: up, PixelShuffle: shuffle } = found, layer = transposed ?? conv;
  if (!layer || !(transposed ?? up ?? shuffle)) fail("no layer found; write nn.ConvTranspose2d(...), or nn.Conv2d(...) with nn.Upsample(...) or nn.PixelShuffle(...)");
  if (!transposed && (conv.stride ?? 1) !== 1) fail(`stride=${conv.stride} after an Upsample is not shown here`);
  if (up?.align_corners === "True") fail("align_corners=True changes from pixel to pixel and is not shown here");
  const operator = transposed ? "conv_transpose" : up ? "upsample_conv" : "pixel_shuffle", { kernel_size: kernelSize, dilation = 1 } = layer;
  const stride = (transposed ? transposed.stride : up ? up.scale_factor : shuffle.upscale_factor) ?? 1;
  const padding = { same: (dilation * (kernelSize - 1)) / 2, valid: 0 }[layer.padding] ?? layer.padding ?? 0;
  const changes = {
    operator, mode: (up?.mode ?? "nearest").replace(/^linear/, "bilinear").replace("-exact", ""), stride, padding, kernelSize, dilation,
    outputPadding: layer.output_padding ?? 0, inChannels: layer.in_channels, outChannels: layer.out_channels / (shuffle ? stride ** 2 : 1),
  };
  for (const [key, value] of Object.entries(changes)) if (!isAllowed(key, value)) fail(`${snake(key)}=${value} is not shown here`);
  return changes;
}

// The size formula and the numbers put in; then what the layer does to sizes and places, and how even it is.
function formula(state, m) {
  const { n, k, s, p, o, d, K, operator } = axis(state), { span, crop } = composed(state), shift = (span - s) / 2 - crop;
  const [words, numbers] = {
    conv_transpose: ["(input_size − 1) · stride − 2 · padding + dilation · (kernel_size − 1) + output_padding + 1", `(${n} − 1) · ${s} − 2 · ${p} + ${d} · (${k} − 1) + ${o} + 1`],
    upsample_conv: ["input_size · scale_factor + 2 · padding − dilation · (kernel_size − 1)", `${n} · ${s} + 2 · ${p} − ${d} · (${k} − 1)`],
    pixel_shuffle: ["(input_size + 2 · padding − dilation · (kernel_size − 1)) · upscale_factor", `(${n} + 2 · ${p} − ${d} · (${k} − 1)) · ${s}`],
  }[operator];
  const transposed = operator === "conv_transpose", even = k % s === 0 && gcd(d, s) === 1;
  const facts = [
    span + (transposed ? o : 0) === s + 2 * crop ? `multiplies every size by ${s}` : `does not multiply sizes by ${s} exactly`,
    shift ? `moves the picture by ${short(abs(shift))} output pixels towards the ${shift < 0 ? "start" : "end"}` : "leaves the picture in place",
    transposed && !even ? "overlaps unevenly" : `puts ${transposed ? k / s : k} taps an axis on every output pixel`,
  ];
  return `<b>${n} → ${m}</b> = <code>${numbers}</code><br><code class="ux-faint">${words}</code><br>It ${facts.join(", ")}.`;
}

const listed = (at) => (at.length > 1 ? `[${at.join(", ")}]` : at[0]);

// What an output pixel is made of, or where an input pixel goes; `at` has an index for each axis.
function sentence(state, m, { kind, at }) {
  const lines = at.map((j) => reads(state, j)), name = listed(at);
  if (kind === "input") {
    const where = at.map((i) => range(m).filter((j) => reads(state, j).some((product) => product.i === i)).join(", "));
    return where.includes("") ? `Input pixel ${name} reaches no output pixel: its stamp is cropped.`
      : `Input pixel ${name} is scattered to output ${where.length > 1 ? `rows ${where[0]} and columns ${where[1]}` : `pixels ${where[0]}`}.`;
  }
  const products = lines.length === 1 ? lines[0].map(({ i, a, factor }) => [`x${i}`, `w${a}`, factor])
    : lines[0].flatMap((y) => lines[1].map((x) => [`x[${y.i}, ${x.i}]`, `w[${y.a}, ${x.a}]`, y.factor * x.factor]));
  const inputs = Map.groupBy(products, ([pixel]) => pixel);
  const terms = [...inputs].map(([pixel, group]) => {
    const taps = group.map(([, tap, factor]) => (factor === 1 ? tap : `${short(factor)}·${tap}`)).join(" + ");
    return `${pixel}·${group.length > 1 ? `(${taps})` : taps}`;
  });
  const made = terms.length > 4 ? [...terms.slice(0, 3), `… (${terms.length} input pixels in all)`] : terms;
  return `Output pixel ${name}, phase ${listed(at.map((j) => phaseOf(state, j)))}, centred at ${listed(at.map((j) => short(placeOf(state, j))))} on the ruler: ` +
    (made.length ? `${made.join(" + ")}${state.operator === "pixel_shuffle" ? ", with the filter of this phase" : ""}.` : "no tap reaches it, so it is the bias alone.");
}

// Drawing

const COLOURS = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#808080"];
const colourOf = (phases, s) => COLOURS[phases.reduce((number, phase) => number * s + phase, 0) % 8];

function cell(x, y, width, height, { fill = "currentColor", opacity = 0, text = "", more = "" }) {
  const label = width >= 7 * String(text).length + 2 && height > 12 ? `<text x="${x + width / 2}" y="${y + height / 2 + 4}">${text}</text>` : "";
  return `<g ${more}><rect x="${x + 0.5}" y="${y + 0.5}" width="${max(0.5, width - 1)}" height="${max(0.5, height - 1)}" fill="${fill}" fill-opacity="${opacity}"/>${label}</g>`;
}

// One axis: ruler, input, stamps or windows, output. `moment` is how far a motion has come, null if there is none.
function drawAxis({ state, taps, m, pixel, moment }, width) {
  const { n, k, s, p, d, operator, mode } = axis(state), { span, crop, stamp } = composed(state), kernel = kernelOf(state, taps);
  const transposed = operator === "conv_transpose", shuffled = operator === "pixel_shuffle", lines = range(m).map((j) => reads(state, j));
  const most = max(...lines.map((line) => line.length)), { kind, at: [at] = [] } = pixel ?? {};
  const first = min(0, placeOf(state, min(0, -crop)) - 0.5 / s), last = max(n, placeOf(state, max(m, (n - 1) * s - crop + span)) - 0.5 / s);
  const unit = min(100, (width - 6) / (last - first)), small = unit / s, x = (place) => (place - first) * unit + 3;
  const left = (j) => x(placeOf(state, j)) - small / 2, meets = (j, i) => lines[j]?.some((product) => product.i === i);
  const stamps = state.view === "stamps", fillOf = (j) => colourOf([phaseOf(state, j)], s);
  let y = 20, svg = range(2 * n + 1).map((half) => `<path class="tick" d="M${x(half / 2)} ${half % 2 ? "14v5" : "11V999"}"/>` +
    (half % 2 || unit < 16 ? "" : `<text x="${x(half / 2)}" y="9">${half / 2}</text>`)).join("");
  const row = (cells, height) => { svg += cells.join(""); y += height; };
  const input = { x: x(0), y, width: n * unit, height: 26 };
  row(range(n).map((i) => cell(x(i), y, unit, 26, { opacity: (kind === "input" ? i === at : kind && meets(at, i)) ? 0.35 : 0.08, text: `x${i}` })), 32);
  if (stamps) for (const i of range(n)) row(moment !== null && i > moment ? [] : range(span).map((t) => {
    const j = i * s - crop + t, inside = j >= 0 && j < m, tap = shuffled ? k - 1 - floor(t / s) / d : t / d;
    if (inside ? !meets(j, i) : kernel[t] === 0) return "";
    return cell(left(j), y, small, 18, {
      fill: inside ? fillOf(j) : "none", opacity: !kind || (kind === "input" ? i : j) === at ? 0.6 : 0.15,
      text: operator === "upsample_conv" ? short(kernel[t]) : `w${tap}`,
      more: `class="${inside ? "" : "cropped"}" ${i === moment ? `data-from="${x(i + 0.5) - left(j) - small / 2},${20 - y}"` : ""}`,
    });
  }), 20);
  else {
    const bunched = (u) => x(n / 2) + (u / s - n / 2) * small; // before the zeros are stuffed in
    row(range(shuffled ? 0 : transposed ? (n - 1) * s + 1 : n * s).map((u) => {
      const zero = transposed && u % s, there = transposed ? x(u / s + 0.5) - small / 2 : x(u / s), early = transposed && moment === -1;
      return zero && early ? "" : cell(early ? bunched(u) : there, y, small, 24, {
        opacity: zero ? 0 : 0.08, text: zero ? 0 : transposed ? `x${u / s}` : mode === "nearest" ? `x${floor(u / s)}` : "",
        more: transposed && moment === 0 ? `data-from="${bunched(u) - there},0"` : "",
      });
    }), shuffled ? 0 : 28);
    if (kind === "output") { // what its window reads
      const step = shuffled ? unit : small, middle = x(shuffled ? floor(at / s) - p + (d * (k - 1)) / 2 + 0.5 : placeOf(state, at));
      svg += `<path class="line" d="M${middle} ${y + 20}L${left(at) + small / 2} ${y + 34}"/>` + range(k).map((a) => {
        const tap = transposed ? k - 1 - a : a, read = lines[at].some((product) => product.a === tap);
        return cell(middle + (d * (a - (k - 1) / 2) - 0.5) * step, y, step, 20, { fill: fillOf(at), opacity: read ? 0.6 : 0.12, text: `w${tap}` });
      }).join("");
    }
    y += 34;
  }
  const output = { x: left(0), y, width: m * small, height: 26 };
  row(lines.map((line, j) => {
    const count = moment === null || (stamps ? false : j <= moment) ? line.length : stamps ? line.filter(({ i }) => i <= moment).length : 0;
    const heat = state.colour === "overlap", lit = kind === "input" ? meets(j, at) : kind && j === at;
    return cell(left(j), y, small, 26, { fill: heat ? COLOURS[0] : fillOf(j), text: heat ? count : j,
      opacity: count && (heat ? 0.1 + (0.6 * count) / most : 0.5), more: lit ? 'class="lit"' : "" });
  }), 28);
  return { svg, height: y, zones: { input, output } };
}

// Two axes: input, stamp and output on one scale; the dashed frame is where the input lies.
function drawImage({ state, m, pixel, moment }, width) {
  const { n, s } = axis(state), { span, crop } = composed(state), { kind, at } = pixel ?? {}, heat = state.colour === "overlap";
  const lines = range(m).map((j) => reads(state, j)), meets = (j, i) => lines[j].some((product) => product.i === i);
  const edge = placeOf(state, 0) - 0.5 / s, first = min(0, edge), size = max(n, edge + m / s) - first, wide = width > 560;
  const unit = min(40, wide ? (width - 40) / (n + span / s + size) : (width - 24) / max(size, n + span / s)), small = unit / s;
  const beside = n * unit + 17, corner = wide ? [beside + span * small + 16, 20] : [1, 46 + max(n * unit, span * small)];
  const [X, Y] = corner.map((start) => start - first * unit), input = { x: 1, y: 20, width: n * unit, height: n * unit };
  const output = { x: X + edge * unit, y: Y + edge * unit, width: m * small, height: m * small };
  let svg = [["input", 1, 14], ["stamp", beside, 14], ["output", corner[0], corner[1] - 6]].map(([word, x, y]) => `<text class="name" x="${x}" y="${y}">${word}</text>`).join("");
  range(n * n).forEach((place) => {
    const here = [floor(place / n), place % n], used = kind && here.every((i, axis) => (kind === "input" ? i === at[axis] : meets(at[axis], i)));
    svg += cell(1 + here[1] * unit, 20 + here[0] * unit, unit, unit, { opacity: used ? 0.4 : 0.08, text: here.join() });
  });
  const paths = {}, texts = []; // cells of one look are one path, so that a large image stays fast
  const put = (x, y, phases, opacity, text, fill = colourOf(phases, s)) => {
    const look = `fill="${fill}" fill-opacity="${opacity.toFixed(2)}"`, side = max(0.5, small - 1);
    paths[look] = `${paths[look] ?? ""}M${(x + 0.5).toFixed(1)} ${(y + 0.5).toFixed(1)}h${side}v${side}h${-side}z`;
    if (small > 7 * String(text).length + 2) texts.push(`<text x="${x + small / 2}" y="${y + small / 2 + 4}">${text}</text>`);
  };
  range(span ** 2).forEach((place) => {
    const taps = [floor(place / span), place % span], phases = taps.map((t) => t % s), whole = (j, t) => (j + crop - t) / s;
    const used = kind === "output" && taps.every((t, axis) => Number.isInteger(whole(at[axis], t)) && meets(at[axis], whole(at[axis], t)));
    put(beside + taps[1] * small, 20 + taps[0] * small, phases, used ? 0.9 : kind === "output" ? 0.15 : 0.45, phases.join(""));
  });
  const most = max(...lines.map((line) => line.length)) ** 2, late = (number) => moment !== null && number > moment;
  lines.forEach((above, y) => lines.forEach((across, x) => {
    const done = state.view === "windows" ? !late(y * m + x) : above.some((one) => across.some((two) => !late(one.i * n + two.i)));
    const count = done ? above.length * across.length : 0, lit = kind && [y, x].every((j, axis) => (kind === "input" ? meets(j, at[axis]) : j === at[axis]));
    put(output.x + x * small, output.y + y * small, [y, x].map((j) => phaseOf(state, j)), count && (heat ? 0.08 + (0.7 * count) / most : lit || !kind ? 0.7 : 0.3), heat ? count : "", heat ? COLOURS[0] : undefined);
  }));
  for (const [look, path] of Object.entries(paths)) svg += `<path ${look} d="${path}"/>`;
  const box = (name, x, y, side) => `<rect class="${name}" x="${x}" y="${y}" width="${side}" height="${side}"/>`;
  const [hit, reach] = kind === "output" ? [at, 1] : kind ? [at.map((i) => i * s - crop), span] : [];
  svg += texts.join("") + box("frame", X, Y, n * unit) + (hit ? box("mark", output.x + hit[1] * small, output.y + hit[0] * small, reach * small) : "");
  return { svg, height: max(corner[1] + size * unit, 20 + max(n * unit, span * small)) + 3, zones: { input, output } };
}

// The panels below the picture. Each gives its inputs and, anew with every change, what it says.

const button = (changes, text) => `<button type="button" data-set='${JSON.stringify(changes)}'>${text}</button>`;
const image = (values, text) => `<figure><canvas role="img" aria-label="${text}" data-values="${values.map((value) => +value.toFixed(4))}"></canvas><figcaption>${text}</figcaption></figure>`;
const PANELS = {
  taps: ["Taps and gains", ({ state, taps }) => {
    const { kernelSize: k, axes, operator } = state, size = k ** axes, presets = ["ones", "random", "tent", ...(operator === "pixel_shuffle" ? ["icnr"] : [])];
    const field = (t) => `<input data-tap="${t}" inputmode="decimal" aria-label="tap ${axes === 2 ? `${floor((t % size) / k)}, ` : ""}${t % k}${taps.length > size ? ` of filter ${floor(t / size)}` : ""}">`;
    const grid = (filter) => `<div class="ux-taps" style="grid-template-columns: repeat(${k}, 3.2em)">${range(size).map((t) => field(filter * size + t)).join("")}</div>`;
    return `<div class="ux-row">${presets.map((kind) => button({ taps: kind }, kind)).join("")}</div>` + (taps.length > 256 ? `${taps.length} taps are too many to show.` : range(taps.length / size).map(grid).join(""));
  }, ({ state, taps }) => {
    const { s } = axis(state), { span } = composed(state), kernel = kernelOf(state, taps, state.axes);
    const rows = range(state.axes === 2 ? s : 1), gains = rows.map((r) => range(s).map((q) => sum(kernel.filter((_, t) => (t % span) % s === q && floor(t / span) % s === r))));
    const even = alike(gains.flat(), max(...kernel.map(abs)));
    const chips = rows.flatMap((r) => gains[r].map((gain, q) => cell(q * 50, r * 26, 50, 26, { fill: colourOf(state.axes === 2 ? [r, q] : [q], s), opacity: 0.5, text: short(gain) })));
    return `<p>The phases' gains: what each makes of a constant 1. They ${even ? "are equal: a flat image stays flat" : `differ: a flat image gets a pattern that repeats every ${s} pixels`}.</p>
      <svg role="img" aria-label="gains ${gains.flat().map(short).join(", ")}" width="${50 * s}" height="${26 * rows.length}">${chips.join("")}</svg>`;
  }],
  pictures: ["Pictures", () => "", ({ state, taps }) => {
    const { s, k, operator } = axis(state), filters = operator === "pixel_shuffle" ? s : 1, large = state.axes === 2;
    const tap = (r, q, a, b) => large ? taps[((r * filters + q) * k + a) * k + b] : taps[r * k + a] * taps[q * k + b];
    const bytes = atob(PHOTOGRAPH), side = max(8, min(32, floor(96 / s)));
    const photo = range(side ** 2).map((place) => bytes.charCodeAt(floor(place / side) * 32 + (place % side)));
    return `<p>From the least value (black) to the greatest (white)${large ? "" : ", with these taps on both axes"}.</p>` + [["a flat image", range(64).map(() => 1), 8], ["a photograph", photo, side]].map(([name, given, n]) => {
      const settings = { ...state, inputSize: n }, lines = range(sizeOf(settings)).map((j) => reads(settings, j)), made = [];
      for (const above of lines) for (const across of lines) {
        let total = 0;
        for (const { i, a, r, factor } of above) for (const x of across) total += given[i * n + x.i] * factor * x.factor * tap(r, x.r, a, x.a);
        made.push(total);
      }
      return image(given, name) + image(made, `made of it: ${short(min(...made))} to ${short(max(...made))}`);
    }).join("");
  }],
  frequencies: ["Frequencies", () => "", ({ state, taps }) => {
    const { s } = axis(state), { span } = composed(state), large = state.axes === 2, kernel = kernelOf(state, taps, state.axes);
    const wave = (f, part) => range(span).map((t) => Math[part](2 * Math.PI * f * t));
    const times = (line, f) => ["cos", "sin"].map((part) => { const one = wave(f, part); return sum(line.map((value, t) => value * one[t])); });
    const rows = range(kernel.length / span).map((y) => kernel.slice(y * span, (y + 1) * span));
    const from = (f) => { // |V| at the frequency f along the rows, as a function of that along the columns
      const columns = rows.map((row) => times(row, f)), [re, im] = [0, 1].map((part) => columns.map((column) => column[part]));
      return (g) => { const [a, b] = times(re, g), [c, d] = times(im, g); return Math.hypot(a - d, b + c); };
    };
    const scale = sum(kernel.map(abs)), isZero = (f, g = 0) => from(f)(g) < 1e-6 * scale;
    const points = range(s ** state.axes).slice(1).map((place) => [(place % s) / s, floor(place / s) / s]), zeros = points.filter((at) => isZero(...at));
    const whole = large && s > 1 && [0.1, 0.23].every((f) => isZero(1 / s, f) && isZero(f, 1 / s));
    const words = `Upsampling puts copies of the spectrum at the multiples of 1/${s} cycle a pixel; |V(f)| is what the kernel leaves of them. Of these ${points.length} points, V is zero (ring) at ${zeros.length}` +
      `${whole ? ", and on the whole lines through them, as of every nearest pair" : ""}: ${zeros.length < points.length ? "the others draw a pattern on a flat image" : "a flat image stays flat"}.`;
    const dot = ([f, g], x, y) => `<circle class="${isZero(f, g) ? "ring" : "dot"}" cx="${x}" cy="${y}" r="5"/>`;
    if (!large) {
      const height = (f) => 100 - (90 * from(f)(0)) / scale;
      return `<p>${words}</p><svg role="img" aria-label="|V(f)| from 0 to 1 cycle a pixel" viewBox="0 0 320 124" style="max-width: 480px"><path class="line" d="M${range(121).map((t) => `${10 + 2.5 * t} ${height(t / 120)}`).join("L")}"/>
        ${points.map((at) => dot(at, 10 + 300 * at[0], height(at[0]))).join("")}${range(s + 1).map((j) => `<text x="${10 + (300 * j) / s}" y="120">${j % s ? `${j}/${s}` : j / s}</text>`).join("")}</svg>`;
    }
    const grid = range(48).map((x) => from(x / 48));
    return `<p>${words}</p><div class="ux-map">${image(range(48 ** 2).map((place) => grid[place % 48](floor(place / 48) / 48)), "|V|, both frequencies from 0 to 1")}
      <svg aria-hidden="true" viewBox="0 0 192 192">${points.map((at) => dot(at, 192 * at[0], 192 * at[1])).join("")}</svg></div>`;
  }],
  forms: ["Other forms", () => "", ({ state, taps }) => {
    let given = { ...state, taps };
    if (state.axes === 2) { // the row or column of the kernel whose phases differ most
      const { span } = composed(state), kernel = kernelOf(state, taps, 2), spread = (gains) => max(...gains) - min(...gains);
      const lines = range(2 * span).map((line) => phaseGains({ stride: state.stride, taps: range(span).map((t) => kernel[line < span ? line * span + t : t * span + line - span]) }));
      given = { ...state, taps: undefined, gains: lines.reduce((a, b) => (spread(b) > spread(a) ? b : a)) };
    }
    return `<ul>${forms(given).map((other) => `<li>${NAMES[other.operator][0]}: ${other.reason ? `none, for ${other.reason}` : `<code>${codeOf(other, state)}</code>`}</li>`).join("")}</ul>`;
  }],
  sizes: ["From n to m", () => `<div class="ux-row">${["inputSize", "outputSize"].map((key) => `<label>${snake(key)} <input type="number" data-key="${key}" min="1" max="${ALLOWED[key][1]}"></label>`).join("")}</div>`,
    ({ state: { inputSize, outputSize, dilation } }) => {
      try {
        const found = solveConvTranspose({ inputSize, outputSize, dilation });
        return `<p>ConvTranspose2d, the best of ${found.length} first:</p><ol>${found.slice(0, 8).map(({ evenOverlap, reachesAll, inPlace, ...layer }) =>
          `<li>${button({ operator: "conv_transpose", ...layer }, `kernel_size=${layer.kernelSize}, stride=${layer.stride}, padding=${layer.padding}, output_padding=${layer.outputPadding}`)}
          ${evenOverlap ? "even" : "uneven"}${inPlace ? ", in place" : ""}${reachesAll ? "" : ", some pixels reached by no tap"}</li>`).join("")}</ol>`;
      } catch ({ message }) { return `<p>${message}.</p>`; }
    }],
};

// A photograph of 32 x 32 grey values, scikit-image's chelsea by Stefan van der Walt (CC0).
const PHOTOGRAPH = "7+XRsKCopJ6Lk4WBmJm5uF1JpWtNYlwdXoiLoLLF3+THubGwsJOKd4aVjpSLi6KxkIK8aGFlVFJld22Qv9Tn4p63v6WGho6el4x5bZiLkaV/V6qqf09Of3Z1b3yv4Ozfnb2hioKXoZuBcWp+qKevp5mHgraYZXmgiXJ9fJrD49m3sp6NmqyXdHp9bICmuriBiMB9g4xbdaFaX4WTs8/azLCVmJ6rpoRveXdjc6a5sWh5zK9ulXF2m1KimrTPydXFuJygr7uvnZSQnnR2pMK1aoLT1luZgo2VWsmdstLGx96lm7axwbzb16y8noO0yq9flOroaaR0hKdv36iXy9S117W0sL7W5OfaxLi3vcLUpmW3++mPq4eVy5Divo3J6MbJTW6Lsc23ck5NPEJkpNasdMnu5cu2ocfyyOnhiMvw08hqlLrMwVwiZmtBAAAcj7ir1NfX3NPF4ffw8O+UzOrX0oOeyvTrX2ifmkMLABofjNLe0b7J1djk8+za36fU4+LvrI6z4vdudpqFAAAOSCEwy+jZvsC82PHx28fUmHFfU6DEnpe56qNflGQAACBgMgm68ua/ubjR9O3U0ZUaFFE5Ybahhoys02KAgiAQUnU3C5799ce6sNLw5c+2JgoRbWd4rJ19fXaktm6DfXmBQx0AfP3/1sa0yu3d1ooVABWGha/EqpiLiXyauYFQNRkMBwBh7v/hzL/D28DSgzgAP5tx2turoJmQiZGcusSpnpFWIEXW+d3MwsDPvNeBaVmBXIn/w6Z6mJ6VnZGUqM7dtWhBM6DO0sbM0NC5v1Q/QkBz192Bbl5qdJGVl5qgnKCZfFY1V5u1v9DV7MWNY6apxNu6kFRYaIKHj4iLkZ6jqqSRbEFXhqC6y9n/4YBbvMG5r5GOnZKLiYWAbH2KjKK+uZ98WlNliaq71//slGCZk5mak5jIvrqut6uUlJupo7Ctm3poQkJpkKfG/+iWZZeakZGRsbm6x9be2s3Fvrits66nioJiPkl4nLv12npZi5WFgLPql7zL2eDj4uPjzLqqqrCxnG9HPmqSruzidV5/jYyhzP+Ors3g7/Pw5s28s6+OgaujfkY1XIijzcR5aoaTuMvF4IN1ms/n6+/67Lqeg4Sat8CXMB8vT3Wil2t1h5HNw7azvZ6Psdbn9f7x6N/CpHyw2ddpGipCR1VFQ4uBj8zGv6rTuIx0pdj47Mu+tKWqqMnp//J/CAgzMj2Rsouo09TXyOzj0rmqsN/w49C7n56aueb//+VYGSEzlN28qsfe1MzD//3pzbe4xtPKuaWYprjV6u3y7JUIGIPUzJaPwNjLs6//+PTw5Me/09O/s5+jqbS3ub25kxJetr2rl5vD1sisoA==";

const STYLE = `.ux { font: 15px/1.45 system-ui, sans-serif; margin: 1em 0 } .ux p { margin: 6px 0 }
.ux :is(button, select, input, textarea, summary) { font: inherit; color: inherit } .ux code, .ux textarea { font: 13px/1.5 monospace; color: inherit; background: none; border: 0; padding: 0; overflow-wrap: anywhere }
.ux :is(button, select, textarea, input:not([type=range])) { background: none; border: 1px solid #808080; border-radius: 4px; padding: 2px 8px; box-sizing: border-box } .ux option { background: Canvas; color: CanvasText }
.ux [aria-pressed=true] { background: #8886; box-shadow: inset 0 -3px } .ux :focus-visible { outline: 3px solid #08d } .ux summary { cursor: pointer; padding: 5px 0; border-top: 1px solid #8888 }
.ux-row { display: flex; flex-wrap: wrap; gap: 6px; align-items: center; margin: 6px 0 } .ux-sliders { display: grid; grid-template-columns: repeat(auto-fill, minmax(145px, 1fr)); gap: 4px 18px }
.ux-sliders label { display: grid; grid-template-columns: 1fr auto } .ux [hidden] { display: none } .ux-sliders input { grid-column: 1 / 3; width: 100%; margin: 0 }
.ux-box { position: relative; margin: 10px 0 } .ux svg { max-width: 100%; color: inherit } .ux-zone { position: absolute; touch-action: pan-y; cursor: crosshair } .ux textarea { width: 100% }
.ux svg :is(rect, path) { stroke: currentColor; stroke-opacity: .45; stroke-width: .8 } .ux text { font-size: 11px; text-anchor: middle; fill: currentColor } .ux .name { text-anchor: start }
.ux .tick { stroke-dasharray: 2 3 } .ux svg .line { stroke-opacity: 1; fill: none } .ux .cropped { stroke-dasharray: 2 2; opacity: .6 } .ux svg :is(.lit rect, .mark, .frame) { stroke-width: 2; stroke-opacity: 1 }
.ux :is(.mark, .frame) { fill: none } .ux .frame { stroke-dasharray: 5 3 } .ux circle { stroke-width: 2.5; stroke: #0a7; fill: none } .ux .dot { stroke: #d50; fill: #d50 }
.ux-taps { display: inline-grid; gap: 2px; margin: 4px 12px 4px 0 } .ux .ux-taps input { padding: 2px; text-align: center } .ux details > div { overflow-x: auto; padding: 3px }
.ux figure { display: inline-block; margin: 4px 12px 4px 0 } .ux canvas { image-rendering: pixelated; width: 144px } .ux-map { position: relative } .ux-map canvas { width: 192px } .ux-map svg { position: absolute; left: 0; top: 4px; width: 192px; overflow: visible }
.ux-said { position: absolute; clip-path: inset(50%) } .ux-wrong { border-left: 4px solid #d50; padding-left: 8px }`;

export function render({ model, el }) {
  const name = model.get("name"), page = el.ownerDocument, view = page.defaultView, calm = view.matchMedia("(prefers-reduced-motion: reduce)");
  let state = stateOf((key) => model.get(key)), pixel = null, moment = null, timer, telling, scene;
  const layers = [["conv_transpose nearest", "ConvTranspose2d"], ["upsample_conv nearest", "Upsample (nearest) + Conv2d"], ["upsample_conv bilinear", "Upsample (bilinear) + Conv2d"], ["pixel_shuffle nearest", "Conv2d + PixelShuffle"]];
  el.innerHTML = `<style>${STYLE}</style><div class="ux" role="group" aria-label="Explorer of an upsampling layer">
    <div class="ux-row"><label>Layer <select>${layers.map(([value, text]) => `<option value="${value}">${text}</option>`).join("")}</select></label>${button({ axes: 1 }, "one axis")}${button({ axes: 2 }, "both axes")}</div>
    <div class="ux-sliders">${SLIDERS.map((key) => `<label><span></span><output></output><input type="range" data-key="${key}"></label>`).join("")}</div>
    <p data-part="size"></p>
    <div class="ux-box"><svg aria-hidden="true"></svg>${["input", "output"].map((kind) => `<div class="ux-zone" role="slider" tabindex="0" aria-label="${kind} pixel" aria-valuemin="0"></div>`).join("")}</div>
    <p data-part="pixel"></p>
    <div class="ux-row"><button type="button" data-move="-1" aria-label="step back">◀</button><button type="button" data-move="0">▶ play</button><button type="button" data-move="1" aria-label="step">▶|</button>
    ${button({ view: "stamps" }, "stamps")}${button({ view: "windows" }, "windows")}${button({ colour: "phase" }, "phases")}${button({ colour: "overlap" }, "overlap")}</div>
    <label>PyTorch: copy it, or paste a layer<textarea rows="2" spellcheck="false"></textarea></label><div class="ux-row"><button type="button" data-copy>Copy</button><span data-part="note"></span></div>
    ${Object.entries(PANELS).map(([key, [title]]) => `<details data-open="${key}"><summary>${title}</summary><div><div></div><div></div></div></details>`).join("")}<p class="ux-said" role="status"></p></div>`;
  const root = el.querySelector(".ux"), one = (selector) => root.querySelector(selector), every = (selector) => [...root.querySelectorAll(selector)];
  const line = one("textarea"), zones = every(".ux-zone").map((zone, place) => [zone, ["input", "output"][place]]);
  const write = (part, html) => { one(`[data-part=${part}]`).innerHTML = html; return one(`[data-part=${part}]`).textContent; };
  const tell = (text) => { clearTimeout(telling); telling = setTimeout(() => { one(".ux-said").textContent = text; }, 300); }; // once it has stopped changing
  const sizeFor = (kind) => (kind === "input" ? state.inputSize : scene.m);

  function change(changes) {
    const before = state, { taps } = changes;
    state = { ...state, ...changes };
    if (taps === "random" || taps === "icnr") state.taps = `${taps}:${floor(Math.random() * 1e4)}`;
    else if (Array.isArray(state.taps) && state.taps.length !== countOf(state)) // one line of taps on both axes, if there is one
      state.taps = state.taps.length ** 2 === countOf(state) && before.axes < state.axes && filtersOf(state) === 1 ? state.taps.flatMap((y) => state.taps.map((x) => x * y)) : "ones";
    if (!("open" in changes || "taps" in changes || "colour" in changes)) stop(null);
    update();
  }

  function update() {
    SLIDERS.forEach((key, place) => {
      const label = every(".ux-sliders label")[place], [text, number, input] = label.children, [least, , usual] = ALLOWED[key];
      label.hidden = key === "outputPadding" && state.operator !== "conv_transpose";
      Object.assign(input, { min: least, max: max(usual, state[key]) });
      text.textContent = key === "stride" ? NAMES[state.operator][1] : snake(key);
      number.textContent = state[key];
    });
    one("select").value = `${state.operator} ${state.mode}`;
    line.value = codeOf(state, state);
    try {
      scene = { state, m: sizeOf(state), taps: tapsOf(state) };
      tell(write("size", formula(state, scene.m)));
    } catch ({ message }) {
      scene = null;
      tell(write("size", `<span class="ux-wrong">PyTorch refuses this: ${message}.</span>`));
    }
    draw();
    for (const part of every("details")) {
      const { open } = part.dataset, [, controls, words] = PANELS[open], [top, bottom] = part.lastElementChild.children;
      if (state.open === open) part.open = true;
      if (!part.open || !(scene || open === "sizes")) continue;
      const html = controls(scene);
      if (part.shown !== html) top.innerHTML = part.shown = html;
      bottom.innerHTML = words({ ...scene, state });
    }
    for (const canvas of every("canvas[data-values]")) {
      const values = canvas.dataset.values.split(",").map(Number), least = min(...values), most = max(...values), size = round(Math.sqrt(values.length));
      const pixels = new ImageData(size, size), grey = (value) => (most - least > 1e-3 ? (255 * (value - least)) / (most - least) : 160);
      values.forEach((value, place) => pixels.data.set([grey(value), grey(value), grey(value), 255], 4 * place));
      Object.assign(canvas, { width: size, height: size }).getContext("2d").putImageData(pixels, 0, 0);
      delete canvas.dataset.values;
    }
    for (const input of every("input")) if (input.type === "range" || input !== page.activeElement) input.value = state[input.dataset.key] ?? scene?.taps[input.dataset.tap];
    for (const set of every("[data-set]")) set.setAttribute("aria-pressed", Object.entries(JSON.parse(set.dataset.set)).every(([key, value]) => String(state[key]).split(":")[0] === String(value)));
    const parts = Object.keys(state).filter((key) => String(state[key]) !== String(DEFAULTS[key])).map((key) => `${snake(key)}=${state[key]}`);
    if (name) view.history.replaceState(view.history.state, "", `#${name}?${parts.join("&")}`);
  }

  function draw() {
    one(".ux-box").hidden = !scene;
    if (!scene) return void write("pixel", "");
    const width = max(300, root.clientWidth), svg = one("svg");
    if (pixel) pixel.at = range(state.axes).map((place) => min(pixel.at[place] ?? pixel.at[0], sizeFor(pixel.kind) - 1));
    const picture = (state.axes === 2 ? drawImage : drawAxis)({ ...scene, pixel, moment }, width);
    svg.innerHTML = picture.svg;
    for (const [key, value] of Object.entries({ width, height: picture.height })) svg.setAttribute(key, value);
    for (const [zone, kind] of zones) {
      const { x, y, width: wide, height } = picture.zones[kind], size = sizeFor(kind), at = pixel?.kind === kind ? pixel.at : [0];
      zone.style.cssText = `left: ${x}px; top: ${y}px; width: ${wide}px; height: ${height}px`;
      const values = { max: size ** state.axes - 1, now: at.reduce((number, index) => number * size + index, 0), text: listed(at) };
      for (const [key, value] of Object.entries(values)) zone.setAttribute(`aria-value${key}`, value);
    }
    if (!calm.matches) for (const moving of svg.querySelectorAll("[data-from]")) {
      const [dx, dy] = moving.dataset.from.split(",");
      moving.animate([{ transform: `translate(${dx}px, ${dy}px)` }, { transform: "none" }], 450);
    }
    const words = write("pixel", pixel ? sentence(state, scene.m, pixel) : "Point at a pixel, or choose one with Tab and the arrow keys.");
    if (pixel && !timer) tell(words);
  }

  const look = (kind, at) => { stop(null); pixel = { kind, at }; draw(); };

  // Motion goes from pixel to pixel, as stamps are put down or windows gather; the zeros are stuffed in first.
  function stop(at) {
    clearInterval(timer);
    [timer, moment] = [null, at];
    one("[data-move='0']").textContent = "▶ play";
  }
  function move(by) {
    if (!scene) return;
    const kind = state.view === "stamps" ? "input" : "output", size = sizeFor(kind), count = size ** state.axes;
    const first = kind === "output" && state.axes === 1 && state.operator === "conv_transpose" ? -1 : 0;
    const next = moment === null ? (by > 0 ? first : count - 1) : moment + by;
    if (next < first || next >= count) stop(null);
    else {
      moment = next;
      pixel = next < 0 ? null : { kind, at: state.axes === 2 ? [floor(next / size), next % size] : [next] };
    }
    draw();
  }

  function recall() {
    if (!name || !view.location.hash.startsWith(`#${name}?`)) return false;
    const given = new URLSearchParams(view.location.hash.slice(name.length + 2));
    state = stateOf((key) => given.get(key));
    stop(null);
    update();
    el.scrollIntoView();
    return true;
  }
  function follow() {
    try { change(read(line.value)); tell(write("note", "The controls follow.")); } catch ({ message }) { write("note", ""); one("[data-part=note]").textContent = message; tell(message); }
  }

  root.addEventListener("input", ({ target: { dataset: { key, tap }, value, tagName } }) => {
    if (tagName === "SELECT") { const [operator, mode] = value.split(" "); change({ operator, mode }); }
    if (key && isAllowed(key, Number(value))) change({ [key]: Number(value) });
    if (tap && value.trim() && Number.isFinite(Number(value))) change({ taps: scene.taps.map((old, place) => (place === Number(tap) ? Number(value) : old)) });
  });
  line.addEventListener("change", follow);
  line.addEventListener("paste", () => setTimeout(follow));
  root.addEventListener("click", ({ target }) => {
    const { set, move: by, copy } = target.dataset;
    if (set) change(JSON.parse(set));
    if (copy !== undefined) { line.select(); view.navigator.clipboard?.writeText(line.value).then(() => tell(write("note", "Copied.")), () => write("note", "Selected; copy it with Ctrl+C.")); }
    if (by === "0" && !timer) { move(1); timer = setInterval(move, 800, 1); target.textContent = "❚❚ pause"; }
    else if (by) { stop(moment); if (by !== "0") move(Number(by)); }
  });
  root.addEventListener("toggle", ({ target }) => {
    const { open } = target.dataset;
    if (target.open && state.open !== open) change({ open });
    if (!target.open && state.open === open) change({ open: "" });
  }, true);
  root.addEventListener("keydown", (event) => {
    const { target, key } = event, by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[key], kind = zones.find(([zone]) => zone === target)?.[1];
    if (target === line && key === "Enter") { event.preventDefault(); follow(); }
    if (!kind || !(by || key === "Home" || key === "End")) return;
    event.preventDefault();
    const along = /Up|Down/.test(key) ? 0 : state.axes - 1, last = sizeFor(kind) - 1, at = pixel?.kind === kind ? pixel.at : range(state.axes).map(() => by ? -by * (by < 0) : 0);
    look(kind, at.map((index, place) => (key === "Home" ? 0 : key === "End" ? last : min(last, max(0, index + (place === along ? by : 0))))));
  });
  for (const [zone, kind] of zones) for (const event of ["pointermove", "pointerdown"]) zone.addEventListener(event, ({ clientX, clientY }) => {
    const box = zone.getBoundingClientRect(), parts = [(clientY - box.top) / box.height, (clientX - box.left) / box.width].slice(2 - state.axes);
    const at = parts.map((part) => min(sizeFor(kind) - 1, max(0, floor(part * sizeFor(kind)))));
    if (timer === null || event === "pointerdown") if (pixel?.kind !== kind || String(pixel.at) !== String(at)) look(kind, at);
  });
  const sizes = new view.ResizeObserver(draw);
  view.addEventListener("hashchange", recall);
  if (!recall()) update();
  sizes.observe(root);
  return () => { stop(null); sizes.disconnect(); view.removeEventListener("hashchange", recall); };
}

// Fill every figure of the page that `upconv.explorer.explore` made and that is not filled yet; with `linked` its state
// is part of the address.
export function mount(linked) {
  for (const el of document.querySelectorAll(".upconv-explorer[data-settings]")) {
    const settings = JSON.parse(el.dataset.settings);
    el.removeAttribute("data-settings");
    render({ model: { get: (name) => (linked || name !== "name" ? settings[name] : undefined) }, el });
  }
}

export default { render };
