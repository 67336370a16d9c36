// An interactive figure of one upsampling layer. First arithmetic on one axis as in the Python package, then the figure,
// by anywidget's contract: `render({ model, el })` asks `model.get` for PyTorch's names.

const { abs, ceil, floor, max, min, round } = Math, { entries, fromEntries } = Object;
const range = (count, make = (index) => index) => Array.from({ length: count }, (_, index) => make(index));
const spread = (numbers) => max(...numbers) - min(...numbers);
const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);
const mod = (number, divisor) => ((number % divisor) + divisor) % divisor;
const each = (items, make) => items.map(make).join("");
const split = (index, size) => [floor(index / size), index % size]; // row and column
const gcd = (a, b) => (b ? gcd(b, a % b) : a);
const fail = (message) => { throw new RangeError(message); };

const [TRANSPOSED, PAIR, SHUFFLE] = ["conv_transpose", "upsample_conv", "pixel_shuffle"];

// Settings under the book's letters; the kernel spans K. Away from the border the layer is one transposed convolution, with
// kernel size `span` and padding `crop`; `stamp` gives the taps, with factors, that tap a becomes there.
function axis({ inputSize: n, kernelSize: k, stride: s = 1, padding: p = 0, outputPadding: o = 0, dilation: d = 1, operator = TRANSPOSED, mode, ...more }) {
	const K = d * (k - 1) + 1, half = floor(s / 2), transposed = operator === TRANSPOSED, shuffled = operator === SHUFFLE, smooth = operator === PAIR && mode === "bilinear" && s > 1;
	const tent = smooth ? range(2 * s - (s % 2), (t) => 1 - abs((t - half + 0.5) / s - 0.5)) : range(s, () => 1), flipped = (a) => K - 1 - d * a;
	const one = transposed ? { span: K, crop: p, stamp: (a) => [[d * a, 1]] }
		: shuffled ? { span: s * K, crop: s * (K - 1 - p), stamp: (a, r) => [[flipped(a) * s + r, 1]] }
		: { span: K + tent.length - 1, crop: K - 1 - p + smooth * half, stamp: (a) => tent.map((factor, t) => [flipped(a) + t, factor]) };
	return { n, k, s, p, o, d, K, transposed, shuffled, smooth, filters: shuffled ? s : 1, ...one, ...more };
}

export function convSize(given) {
	const { n, s, p, K } = axis(given);
	if (n + 2 * p < K) fail(`the kernel spans ${K} pixels, its input with padding=${p} only ${n + 2 * p}`);
	return floor((n + 2 * p - K) / s) + 1;
}

export function convTransposeSize(given) {
	const { n, s, p, o, d, K } = axis(given), full = (n - 1) * s + K + o;
	if (o >= max(s, d)) fail(`output_padding=${o} must be smaller than stride=${s} or dilation=${d}`);
	if (full <= 2 * p) fail(`padding=${p} a side crops all ${full} pixels; at most ${floor((full - 1) / 2)} fits`);
	return full - 2 * p;
}

// How many products an output pixel sums.
export const overlapCounts = (given) => range(convTransposeSize(given), (j) => reads(given, j).length);

const isEven = ({ k, s, d }) => k % s === 0 && gcd(d, s) === 1;

// Best first.
export function solveConvTranspose({ inputSize, outputSize, maxKernelSize = 7, maxStride = 4, dilation = 1 }) {
	const found = [], reached = [];
	for (let kernelSize = 1; kernelSize <= maxKernelSize; kernelSize++)
		for (let stride = 1; stride <= maxStride; stride++)
			for (let padding = 0, K = dilation * (kernelSize - 1) + 1; padding < K; padding++) {
				const least = (inputSize - 1) * stride + K - 2 * padding, most = least + max(stride, dilation) - 1;
				reached.push(least, most);
				if (outputSize < least || outputSize > most) continue;
				const layer = { kernelSize, stride, padding, outputPadding: outputSize - least, dilation };
				const reachesAll = overlapCounts({ inputSize: min(inputSize, 2 * K), ...layer }).every(Boolean);
				found.push({ ...layer, evenOverlap: isEven(axis(layer)), reachesAll, inPlace: K === stride + 2 * padding });
			}
	const near = [max(...reached.filter((size) => size < outputSize)), min(...reached.filter((size) => size > outputSize))];
	if (!found.length) fail(`out of reach; nearest: ${near.filter((size) => size > 0 && size < 1 / 0).join(" and ")}`);
	const order = ["reachesAll", "evenOverlap", "outputPadding", "kernelSize", "stride", "padding"];
	return found.sort((a, b) => order.map((key, place) => (place < 2 ? b[key] - a[key] : a[key] - b[key])).find(Boolean));
}

// What each phase makes of a constant 1: the sum of its taps.
export const phaseGains = ({ taps, stride = 1, dilation = 1 }) =>
	range(stride, (phase) => sum(taps.filter((_, a) => (a * dilation) % stride === phase)));

// Taps are filter by filter, row by row. Row and column of tap t's filter and of the tap; on one axis rows are 0.
const placeOf = ({ k, filters, axes = 1 }, t) => [...split(floor(t / k ** axes), filters), ...split(t % k ** axes, k)];

// The kernel of that one transposed convolution, span ** axes numbers.
function kernelOf(given, taps) {
	const layer = axis(given), { span, stamp, axes = 1 } = layer, kernel = range(span ** axes, () => 0);
	taps.forEach((tap, t) => {
		const [r, q, a, b] = placeOf(layer, t);
		for (const [y, one] of axes > 1 ? stamp(a, r) : [[0, 1]])
			for (const [x, two] of stamp(b, q)) kernel[y * span + x] += tap * one * two;
	});
	return kernel;
}

const countOf = (given) => { const { k, filters, axes } = axis(given); return (k * filters) ** axes; };

// Taps for other settings: those that both kernels have; new ones are 0, or as all are.
function refit(taps, was, now) {
	const layer = axis(now), { k, filters, axes } = axis(was);
	return range(countOf(now), (t) => {
		const [r, q, a, b] = placeOf(layer, t), row = r % filters, column = q % filters;
		if (max(a, b) >= k) return spread(taps) ? 0 : taps[0];
		return axes > 1 ? taps[((row * filters + column) * k + a) * k + b] : taps[column * k + b] * (layer.axes > 1 ? taps[row * k + a] : 1);
	});
}

// A form has settings, `pads` of [kind, pixels before, after], and a `crop`, [before, after].
const form = (operator, kernelSize, stride, padding, taps, more) =>
	({ operator, mode: "nearest", kernelSize, stride, padding, outputPadding: 0, dilation: 1, pads: [], crop: [0, 0], ...more, ...(taps && { taps }) });

function toConvTranspose(given) {
	const { s, p, K, shuffled, smooth, taps, span, crop } = axis(given);
	if (smooth && p) fail(`padding=${p} after a bilinear Upsample makes a frame ${p} deep differ; padding=0 has one`);
	const pad = smooth ? 1 : ceil(max(0, p - K + 1) / (shuffled ? 1 : s)), pads = pad ? [[smooth ? "Replication" : "Zero", pad, pad]] : [];
	return form(TRANSPOSED, span, s, crop + s * pad, taps && kernelOf(given, taps), { pads });
}

// Upsample + Conv2d as one transposed convolution, equal at every pixel, or a RangeError.
export const composeUpsampleConv = (given) => toConvTranspose({ ...given, operator: PAIR });

function toShuffle(given) {
	const { s, p, o, K, pads = [], taps } = axis(given), last = K - 1 - p + o, size = ceil(K / s), kernel = taps && kernelOf(given, taps);
	const before = size - 1 - floor(p / s), after = floor(last / s), even = before === after && before >= 0;
	const filters = kernel && range(s * size, (t) => kernel[(size - 1 - (t % size)) * s + floor(t / size)] ?? 0);
	return form(SHUFFLE, size, s, even ? before : 0, filters, { pads: even ? pads : [...pads, ["Zero", before, after]], crop: [mod(p, s), s - 1 - mod(last, s)] });
}

function toPair(given) {
	const { s, p, o, K, pads = [], taps } = axis(given), size = max(1, K - s + 1), quotient = [];
	const before = size - 1 - p, after = K - s - p + o, most = max(0, before, after);
	if (taps) kernelOf(given, taps).forEach((value, t, kernel) => // divided by the box of s ones, as polynomials are
		quotient.push(value - (kernel[t - 1] ?? 0) + (quotient[t - s] ?? 0)));
	return form(PAIR, size, s, most, taps && quotient.slice(0, size).reverse(), { pads, crop: [most - before, most - after] });
}

const areEqual = (gains, taps) => spread(gains) <= 1e-6 * sum(taps.map(abs));

// The layer's other forms, or a `reason`. On two axes `gains` are those of the kernel's row or column where they differ most.
export function forms(given) {
	const { s, taps, transposed, shuffled, gains = taps && phaseGains({ taps: kernelOf(given, taps), stride: s }) } = axis(given), found = [];
	let layer = given;
	try {
		if (!transposed) found.push((layer = toConvTranspose(given)));
		if (!shuffled) found.push(toShuffle(layer));
	} catch ({ message: reason }) {
		found.push({ operator: TRANSPOSED, reason }, { operator: SHUFFLE, reason });
	}
	if (!transposed && !shuffled) return found;
	const reason = gains ? `the phases' gains differ: ${gains.map(short).join(", ")}` : "that depends on the taps";
	return [...found, gains && areEqual(gains, taps ?? gains) ? toPair(layer) : { operator: PAIR, reason }];
}

// The products that make output pixel j: input pixel i, tap a (of the filter of phase r), and a factor.
function reads(given, j) {
	const { n, k, s, p, d, crop, shuffled, smooth, stamp } = axis(given), found = [], r = shuffled ? j % s : 0;
	for (const a of range(k)) for (const [t, factor] of stamp(a, r)) {
		const at = (j + crop - t) / s, u = smooth ? j - p + d * a : at * s; // in the upsampled image
		if (at % 1 === 0 && u >= 0 && u < n * s) found.push({ i: max(0, min(n - 1, at)), a, r, factor });
	}
	return found.sort((one, two) => one.i - two.i);
}

function sizeOf(given) {
	const { n, s, transposed, shuffled } = axis(given), [before, after] = shuffled ? [1, s] : [s, 1];
	return transposed ? convTransposeSize(given) : convSize({ ...given, inputSize: n * before, stride: 1 }) * after;
}

// Of numbers the default, the least and the greatest; else all, the default first.
const ALLOWED = {
	inputSize: [4, 1, 256], kernelSize: [3, 1, 32], stride: [2, 1, 16], padding: [0, 0, 32], outputPadding: [0, 0, 15], dilation: [1, 1, 8],
	axes: [1, 1, 2], outputSize: [0, 1, 512], operator: [TRANSPOSED, PAIR, SHUFFLE], mode: ["nearest", "bilinear"],
	view: ["stamps", "windows"], colour: ["phase", "overlap"],
};
const DEFAULTS = { taps: "ones", open: "taps", channels: [64, 32], ...fromEntries(entries(ALLOWED).map(([key, [first]]) => [key, first])) };
const SCALES = { [TRANSPOSED]: "stride", [PAIR]: "scale_factor", [SHUFFLE]: "upscale_factor" };
const LAYERS = {
	"conv_transpose nearest": "ConvTranspose2d", "upsample_conv nearest": "Upsample (nearest) + Conv2d",
	"upsample_conv bilinear": "Upsample (bilinear) + Conv2d", "pixel_shuffle nearest": "Conv2d + PixelShuffle",
};
const snake = (name) => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
const named = ([key, value]) => `${snake(key)}=${value}`;
const short = (number) => `${round(number * 100) / 100 + 0}`;
const nameOf = (key, operator) => (key === "stride" ? SCALES[operator] : snake(key));

function check(key, value, name = snake(key)) {
	const [first, least, most] = ALLOWED[key], isNumber = typeof first === "number";
	if (isNumber ? value % 1 || !(value >= least && value <= most) : !ALLOWED[key].includes(value))
		fail(`${name}=${value ?? "?"} is not shown${isNumber ? `: one whole number, ${least} to ${most}` : ""}`);
	return isNumber ? Number(value) : value;
}
const draft = (make) => { try { make(); } catch ({ message }) { return message; } };

// A state from what `get` gives for PyTorch's names. What is not allowed is left out.
function stateOf(get) {
	const state = { ...DEFAULTS, open: get("open") ?? "taps" };
	for (const key in ALLOWED) draft(() => { state[key] = check(key, get(snake(key)) ?? state[key]); });
	for (const [key, count] of [["taps", countOf(state)], ["channels", 2]]) {
		const numbers = `${get(key)}`.split(",").map(Number);
		if (numbers.length === count && numbers.every(isFinite)) state[key] = numbers;
	}
	return state;
}

function codeOf({ operator, mode, kernelSize, stride, padding, outputPadding, dilation, pads = [], crop = [0, 0] }, [inside, outside]) {
	const layer = (kind, out, given) => `nn.${kind}2d(${[inside, out, kernelSize, ...entries(given)
		.filter(([name, value]) => value !== Number(/stride|dilation/.test(name))).map(named)].join(", ")})`;
	const pad = ([kind, before, after]) => `nn.${kind}Pad2d(${before === after ? before : `(${before}, ${after}, ${before}, ${after})`})`;
	const middle = {
		[TRANSPOSED]: [layer("ConvTranspose", outside, { stride, padding, outputPadding, dilation })],
		[PAIR]: [`nn.Upsample(scale_factor=${stride}${mode === "bilinear" ? ', mode="bilinear"' : ""})`, layer("Conv", outside, { padding, dilation })],
		[SHUFFLE]: [layer("Conv", outside * stride ** 2, { padding, dilation }), `nn.PixelShuffle(${stride})`],
	}[operator];
	const steps = [...pads.map(pad), ...middle];
	if (crop.some(Boolean)) steps.push(pad(["Zero", -crop[0], -crop[1]]));
	return steps.length > 1 ? `nn.Sequential(${steps.join(", ")})` : steps[0];
}

const COMMON = "in_channels out_channels kernel_size stride padding", REST = "padding_mode device dtype";
const ARGUMENTS = {
	ConvTranspose: `${COMMON} output_padding groups bias dilation ${REST}`, Conv: `${COMMON} dilation groups bias ${REST}`,
	Upsample: "size scale_factor mode align_corners", PixelShuffle: "upscale_factor",
};

// What a line of PyTorch changes, and what it loses.
function read(line) {
	let without = "";
	const found = {}, flat = line.replace(/['"\s]/g, "")
		.replace(/(?<!\w)\(([^()]+)\)/g, (_, inside) => [...new Set(inside.split(",").filter(Boolean))].join("x")); // (3, 3) is 3, (3, 5) 3x5
	for (const [, kind, inside] of flat.matchAll(/\b(ConvTranspose|Conv|Upsample|PixelShuffle)(?:\dd)?\(([^()]*)\)/g))
		found[kind] = fromEntries(inside.split(",").filter(Boolean).map((argument, place) => {
			const names = ARGUMENTS[kind].split(" "), [value, name = names[place]] = argument.split("=").reverse();
			if (!names.includes(name)) fail(`${kind} has no argument ${name ?? value}`);
			if (/groups|bias|padding_mode|device|dtype|align/.test(name)) without += `, without ${name}=${value}`;
			return [name, isNaN(value) ? value : Number(value)];
		}));
	if (/[13]d\(/.test(flat)) without += ", as 2d";
	const { ConvTranspose: transposed, Conv: conv, Upsample: up, PixelShuffle: shuffle } = found, layer = transposed ?? conv, first = transposed ?? up ?? shuffle;
	if (!layer || !first) fail(flat.split("(").length > flat.split(")").length ? "a ) is missing" : "no ConvTranspose2d found, nor Conv2d with Upsample or PixelShuffle");
	const { kernel_size: kernelSize, dilation = 1, padding = 0, output_padding: outputPadding = 0 } = layer, operator = transposed ? TRANSPOSED : up ? PAIR : SHUFFLE;
	const stride = first[SCALES[operator]] ?? (transposed && 1), mode = up?.mode ?? "nearest";
	const changes = {
		operator, mode: { linear: "bilinear", "nearest-exact": "nearest" }[mode] ?? mode, stride, kernelSize, dilation,
		padding: (transposed ? {} : { same: (dilation * (kernelSize - 1)) / 2, valid: 0 })[padding] ?? padding, outputPadding,
	};
	for (const [key, value] of entries(changes)) check(key, value, nameOf(key, operator));
	if (!transposed && conv.stride > 1) fail("a strided Conv2d is not shown");
	const channels = [layer.in_channels, layer.out_channels / (operator === SHUFFLE ? stride ** 2 : 1)];
	return [{ ...changes, ...(channels.every(isFinite) && { channels }) }, without];
}

// What is shown; `place` is where an output pixel's middle lies on the input's ruler.
function sceneOf(state) {
	const layer = axis(state), { n, s, axes, span, crop } = layer, m = sizeOf(state), both = axes === 2;
	const taps = state.taps === "ones" ? range(countOf(state), () => 1) : state.taps, kernel = kernelOf(state, taps), gains = range(s ** axes, () => 0);
	kernel.forEach((value, t) => { gains[(floor(t / span) % s) * s + ((t % span) % s)] += value; });
	const lines = range(m, (j) => reads(state, j)), isFlat = areEqual(gains, kernel);
	return {
		...layer, state, m, taps, lines, both, kernel, gains, isFlat, heat: state.colour === "overlap", isDrawn: (both ? m : n) <= 80,
		flatness: `away from the border a flat image ${isFlat ? "stays flat" : `gets a pattern with period ${s}`}`,
		most: max(...lines.map((line) => line.length)), place: (j) => (j + crop - (span - 1) / 2) / s + 0.5, phase: (j) => mod(j + crop, s),
	};
}

const meets = (line, i) => line?.some((one) => one.i === i);
const reaches = (lines, input, output) => input.every((i, axis) => meets(lines[output[axis]], i));
const isLit = (lines, { kind, at }, zone, here) =>
	kind === zone ? `${here}` === `${at}` : kind === "input" ? reaches(lines, at, here) : kind && reaches(lines, here, at);

function formula({ state, n, k, s, o, d, m, span, crop, transposed, shuffled }) {
	const shift = (span - s) / 2 - crop, count = transposed ? k / s : k;
	const reach = "dilation * (kernelSize - 1)", words = transposed ? `(inputSize - 1) * stride - 2 * padding + ${reach} + outputPadding + 1`
		: shuffled ? `(inputSize + 2 * padding - ${reach}) * stride` : `inputSize * stride + 2 * padding - ${reach}`, numbers = words.replace(/\w{2,}/g, (key) => state[key]);
	const facts = [
		`${span + transposed * o === s + 2 * crop ? "multiplies" : "does not multiply"} sizes by ${s}`,
		shift ? `shifts the picture by ${short(shift)} output pixels` : "does not shift the picture",
		transposed && !isEven({ k, s, d }) ? "overlaps unevenly" : `puts ${count} tap${count > 1 ? "s" : ""} an axis on each pixel away from the border`,
	];
	return `<b>${n} → ${m}</b> = <code>${numbers}</code><br><code>${snake(words).replace("stride", SCALES[state.operator])}</code><br>It ${facts.join(", ")}.`;
}

const listed = (at) => (at.length > 1 ? `[${at.join(", ")}]` : at[0]);

function sentence({ lines, place, phase }, { kind, at }) {
	if (kind === "input") {
		const where = at.map((i) => [...lines.keys()].filter((j) => meets(lines[j], i)).join(", "));
		return `Input pixel ${listed(at)} ${where.includes("") ? "reaches no output"
			: `is scattered to output ${where.length > 1 ? `rows ${where.join(" and columns ")}` : `pixels ${where}`}`}.`;
	}
	const [one, two = [{ factor: 1 }]] = at.map((j) => lines[j]), index = (y, x) => (at.length > 1 ? `[${y}, ${x}]` : y);
	const terms = one.flatMap((y) => two.map((x) => `${y.factor * x.factor === 1 ? "" : `${short(y.factor * x.factor)}·`}x${index(y.i, x.i)}·w${index(y.a, x.a)}`));
	return `Output pixel ${listed(at)}, phase ${listed(at.map(phase))}, at ${listed(at.map((j) => short(place(j))))} on the ruler: ` +
		`${terms.slice(0, 9).join(" + ") || "no tap reaches it"}${terms.length > 9 ? " + …" : ""}.`;
}

const colourOf = (phase) => `var(--c${phase % 16})`;

const label = (x, y, width, height, text, look) =>
	(text !== "" && height > 12 && width > 7 * `${text}`.length ? `<text class="${look}" x="${x + width / 2}" y="${y + height / 2}">${text}</text>` : "");

const cell = (x, y, width, height, opacity, text = "", fill = "currentColor", look = "") =>
	`<rect class="${look}" x="${x}" y="${y}" width="${width}" height="${height}" fill="${fill}" fill-opacity="${opacity}"/>` +
	label(x, y, width, height, text, look);

const heatOf = (count, most, light = 0.7) => [(light * count) / most, count, colourOf(0)];

// `moment` is how far a motion has come.
function drawAxis({ n, k, s, p, d, m, view, heat, span, crop, kernel, lines, most, place, phase, transposed, shuffled, smooth }, pixel, moment, width) {
	const first = min(0, place(min(0, -crop) - 0.5)), last = max(n, place(max(m, (n - 1) * s - crop + span) - 0.5));
	const unit = min(130, (width - 6) / (last - first)), small = unit / s, x = (at) => (at - first) * unit + 3, middle = (j) => x(place(j)), left = (j) => middle(j) - small / 2;
	const stamps = view === "stamps", fillOf = (j) => colourOf(phase(j)), { kind, at: [at] = [] } = pixel;
	const step = min(20, 640 / n), isOn = (zone, j) => isLit(lines, pixel, zone, [j]);
	let y = 20, svg = range(2 * n + 1, (half) => `<path class="tick" d="M${x(half / 2)} ${half % 2 ? "14v5" : "11V999"}"/>${half % 2 || unit < 16 ? "" : `<text x="${x(half / 2)}" y="9">${half / 2}</text>`}`).join("");
	const row = (cells, height) => { svg += cells.join(""); y += height; };
	const input = { x: x(0), y, width: n * unit, height: 26 };
	row(range(n, (i) => cell(x(i), y, unit, 26, isOn("input", i) ? 0.35 : 0.08, `x${i}`)), 32);
	if (stamps) for (const i of range(n)) row(i > moment ? [] : range(span, (t) => {
		const j = i * s - crop + t, inside = lines[j];
		return (inside ? !meets(lines[j], i) : !kernel[t]) ? "" : cell(left(j), y, small, step * 0.9, !inside ? 0 : !kind || (kind === "input" ? i : j) === at ? 0.6 : 0.15,
			transposed ? `w${t / d}` : short(kernel[t]), fillOf(j), `${inside ? "" : "cropped"} ${i === moment ? "new" : ""}`);
	}), step);
	else {
		if (!shuffled) row(range(transposed ? (n - 1) * s + 1 : n * s, (u) => { // zeros stuffed in, or upsampled
			const zero = transposed && u % s, at = x(u / s) + transposed * (unit - small) / 2;
			return zero && moment < 0 ? "" : cell(at, y, small, 24, zero ? 0 : 0.08, zero ? 0 : smooth ? "" : `x${floor(u / s)}`);
		}), 28);
		if (kind === "output") { // what its window reads
			const step = shuffled ? unit : small, centre = shuffled ? x(floor(at / s) - p + (d * (k - 1) + 1) / 2) : middle(at);
			svg += range(k, (a) => {
				const tap = transposed ? k - 1 - a : a;
				return cell(centre + (d * (a - (k - 1) / 2) - 0.5) * step, y, step, 20, lines[at].some((one) => one.a === tap) ? 0.6 : 0.12, `w${tap}`, fillOf(at));
			}).join("");
		}
		y += 34;
	}
	const output = { x: left(0), y, width: m * small, height: 26 };
	row(lines.map((line, j) => {
		const count = stamps ? line.filter(({ i }) => i <= moment).length : line.length * (j <= moment);
		return cell(left(j), y, small, 26, ...(heat ? heatOf(count, most) : [count && 0.5, j, fillOf(j)]), isOn("output", j) ? "lit" : "");
	}), 28);
	return { svg, height: y, zones: { input, output } };
}

function drawImage({ n, s, m, view, heat, span, crop, lines, most, phase }, pixel, moment, width) {
	const size = m / s, wide = width > 560, { kind, at = [] } = pixel;
	const unit = min(44, wide ? (width - 40) / (n + span / s + size) : (width - 24) / max(size, n + span / s)), small = unit / s;
	const side = n * unit, stamp = side + 17, [left, top] = wide ? [stamp + span * small + 16, 20] : [1, 46 + max(side, span * small)];
	const input = { x: 1, y: 20, width: side, height: side }, output = { x: left, y: top, width: m * small, height: m * small };
	const grid = ({ x, y }, count, step, look) => { // one path for all that look alike
		const paths = {}, words = each(range(count ** 2), (number) => {
			const here = split(number, count), [top, left] = here.map((at) => at * step), [opacity, text = "", fill = "currentColor"] = look(here, number);
			(paths[`fill="${fill}" fill-opacity="${opacity}"`] ??= []).push(`M${x + left} ${y + top}h${step}v${step}h${-step}z`);
			return label(x + left, y + top, step, step, text);
		});
		return each(entries(paths), ([key, squares]) => `<path ${key} d="${squares.join("")}"/>`) + words;
	};
	const fillOf = ([r, q]) => colourOf(r * s + q);
	const svg = each([["input", 1, 20], ["stamp", stamp, 20], ["output", left, top]], ([word, x, y]) => `<text class="name" x="${x}" y="${y - 8}">${word}</text>`) +
		grid(input, n, unit, (here) => [isLit(lines, pixel, "input", here) ? 0.4 : 0.08, here.join()]) +
		grid({ x: stamp, y: 20 }, span, small, (here) => {
			const read = here.map((t, axis) => (at[axis] + crop - t) / s), used = reaches(lines, read, at), phases = here.map((t) => t % s);
			return [kind !== "output" ? 0.45 : used ? 0.9 : 0.15, phases.join(""), fillOf(phases)];
		}) +
		grid(output, m, small, ([y, x], number) => {
			const done = view === "windows" ? number <= moment : lines[y][0]?.i * n + lines[x][0]?.i <= moment, count = done * lines[y].length * lines[x].length;
			const light = !kind || isLit(lines, pixel, "output", [y, x]) ? 0.7 : 0.3;
			return heat ? heatOf(count, most ** 2, light) : [count && light, "", fillOf([phase(y), phase(x)])];
		});
	return { svg, height: max(top + size * unit, 20 + side, 20 + span * small) + 3, zones: { input, output } };
}

const button = (changes, text, more = "") => `<button data-set='${JSON.stringify(changes)}' ${more}>${text}</button>`;
const field = (key, type, least, more = "") => `<input type="${type}" data-key="${key}" min="${least}" ${more}>`;
const images = [];
const image = (values, text) => (images.push(values), `<figure><canvas></canvas><figcaption>${text}</figcaption></figure>`);

function paint(canvas, values) {
	const least = min(...values), scale = 255 / (max(...values) - least), size = canvas.width = canvas.height = values.length ** 0.5;
	const pixels = new ImageData(size, size);
	new Uint32Array(pixels.data.buffer).set(values.map((value) => 0xff000000 + 0x010101 * (scale < 1e6 ? round((value - least) * scale) : 160)));
	canvas.getContext("2d").putImageData(pixels, 0, 0);
}

const PANELS = [ // title, what it says, inputs before that
	["taps", "Taps and gains", ({ s, gains, isFlat, flatness }) => {
		const chips = each(gains, (gain, phase) => cell((phase % s) * 50, floor(phase / s) * 26, 50, 26, 0.5, short(gain), colourOf(phase)));
		return `<p>The gains, sums of taps by phase, ${isFlat ? "are equal" : "differ"}: ${flatness}.</p>
			<svg role="img" aria-label="gains ${gains.map(short).join(", ")}" width="${50 * s}" height="${(26 * gains.length) / s}">${chips}</svg>`;
	}, ({ k, taps, both }) => {
		const size = both ? k * k : k, grid = (filter) => `<div class="ux-taps" style="--k: ${k}">${range(size, (t) => `<input inputmode="decimal" data-key="${filter * size + t}" aria-label="tap ${both ? split(t, k) : t} of filter ${filter}">`).join("")}</div>`;
		return `<div class="ux-row">${button({ taps: "ones" }, "ones")}${button({ taps: "random" }, "random")}</div>${taps.length > 256 ? "Too many taps." : range(taps.length / size, grid).join("")}`;
	}],
	["pictures", "Pictures", ({ state, s, k, taps, both, filters, flatness }) => {
		const square = refit(taps, state, { ...state, axes: 2 }), bytes = atob(PHOTOGRAPH), side = min(32, 4 * floor(16 / s)), edge = (33 * (32 - side)) / 4;
		const photograph = range(side ** 2, (place) => bytes.charCodeAt(floor(place / side) * 32 + (place % side) + edge) / 255);
		return `<p>From black, the least value, to white${both ? "" : ", with these taps on both axes"}; ${flatness}.</p>` + each([["a flat image", range(64, () => 1), 8], ["a photograph", photograph, side]], ([name, given, n]) => {
			const layer = { ...state, inputSize: n }, lines = range(sizeOf(layer), (j) => reads(layer, j));
			const made = lines.flatMap((above) => lines.map((across) => sum(above.flatMap((y) => across.map((x) =>
				given[y.i * n + x.i] * y.factor * x.factor * square[((y.r * filters + x.r) * k + y.a) * k + x.a])))));
			return image(given, name) + image(made, `made of it: ${short(min(...made))} to ${short(max(...made))}`);
		});
	}],
	["frequencies", "Frequencies", ({ state, s, span, kernel, both, flatness }) => {
		const total = sum(kernel.map(abs)), magnitude = (parts) => { // at frequencies in parts of a cycle a pixel
			const waves = ["cos", "sin"].map((wave) => range(parts, (part) => Math[wave]((2 * Math.PI * part) / parts)));
			return ([g, f]) => Math.hypot(...waves.map((wave) => {
				let part = 0;
				for (let t = 0; t < kernel.length; t++) part += kernel[t] * wave[(f * (t % span) + g * floor(t / span)) % parts];
				return part / total;
			}));
		}, height = (value) => 100 - 90 * value, width = both ? 192 : 300, fine = magnitude(both ? 24 : 120);
		const points = range(s ** state.axes, (place) => split(place, s)).slice(1), heights = points.map(magnitude(s)), isZero = (value) => value < 1e-6;
		const dots = each(points, ([g, f], number) => `<circle class="${isZero(heights[number]) ? "ring" : "dot"}" cx="${(width * f) / s}" cy="${both ? (width * g) / s : height(heights[number])}" r="5"/>`);
		return `<p>The spectrum repeats at multiples of 1/${s} cycle a pixel; of it the kernel leaves |V(f)|, f from 0 to 1, which is zero (rings) at ${heights.filter(isZero).length} of ${points.length} points: ${flatness}.</p>` +
			(both ? `<div class="ux-map">${image(range(576, (place) => fine(split(place, 24))), "|V|")}<svg aria-hidden="true" viewBox="0 0 192 192">${dots}</svg></div>`
				: `<svg aria-hidden="true" viewBox="0 0 300 110"><path class="line" d="M${range(121, (x) => `${2.5 * x} ${height(fine([0, x]))}`).join("L")}"/>${dots}</svg>`);
	}],
	["forms", "Other forms", ({ state, s, span, kernel, both, taps, shuffled }) => {
		const lines = range(both ? 2 * span : 1, (line) => range(span, (t) => kernel[line < span ? line * span + t : t * span + line - span]));
		const [gains] = lines.map((line) => phaseGains({ taps: line, stride: s })).sort((a, b) => spread(b) - spread(a));
		return `<p>Each makes the same output of every input, at the border too, with weights that the function of upconv computes.</p><ul>${each(forms({ ...state, taps: both ? undefined : taps, gains }), ({ reason, pads, crop, ...other }) => {
			const { operator } = other, from = shuffled && operator === PAIR ? TRANSPOSED : state.operator;
			return `<li>${LAYERS[`${operator} nearest`]}: ${reason ? `none, for ${reason}` : `<code>${codeOf({ ...other, pads, crop }, state.channels)}</code> by <code>${from}_to_${operator.replace(SHUFFLE, "subpixel")}</code> `}${
				reason || both || pads[0] || crop.some(Boolean) ? "" : button(other, "Show it")}</li>`;
		})}</ul>`;
	}],
	["sizes", "From n to m", ({ state: { inputSize, dilation } }, outputSize) => {
		try {
			const found = solveConvTranspose({ inputSize, outputSize, dilation });
			return `<p>ConvTranspose2d from ${inputSize} to ${outputSize}, the best first, kernel_size to 7, stride to 4:</p><ol>${each(found, ({ evenOverlap, reachesAll, inPlace, ...layer }) =>
				`<li>${button({ ...layer, operator: TRANSPOSED }, entries(layer).slice(0, 4).map(named).join(", "))} ${evenOverlap ? "even" : "uneven"} overlap${inPlace ? ", no shift" : ""}${reachesAll ? "" : ", some pixels get no tap"}</li>`)}</ol>`;
		} catch ({ message }) { return `<p>${message}.</p>`; }
	}, () => `<label>to output_size ${field("outputSize", "number", 1)}</label>`],
];

// 32 x 32 grey values of scikit-image's chelsea, by Stefan van der Walt (CC0).
const PHOTOGRAPH = "7+XRsKCopJ6Lk4WBmJm5uF1JpWtNYlwdXoiLoLLF3+THubGwsJOKd4aVjpSLi6KxkIK8aGFlVFJld22Qv9Tn4p63v6WGho6el4x5bZiLkaV/V6qqf09Of3Z1b3yv4Ozfnb2hioKXoZuBcWp+qKevp5mHgraYZXmgiXJ9fJrD49m3sp6NmqyXdHp9bICmuriBiMB9g4xbdaFaX4WTs8/azLCVmJ6rpoRveXdjc6a5sWh5zK9ulXF2m1KimrTPydXFuJygr7uvnZSQnnR2pMK1aoLT1luZgo2VWsmdstLGx96lm7axwbzb16y8noO0yq9flOroaaR0hKdv36iXy9S117W0sL7W5OfaxLi3vcLUpmW3++mPq4eVy5Divo3J6MbJTW6Lsc23ck5NPEJkpNasdMnu5cu2ocfyyOnhiMvw08hqlLrMwVwiZmtBAAAcj7ir1NfX3NPF4ffw8O+UzOrX0oOeyvTrX2ifmkMLABofjNLe0b7J1djk8+za36fU4+LvrI6z4vdudpqFAAAOSCEwy+jZvsC82PHx28fUmHFfU6DEnpe56qNflGQAACBgMgm68ua/ubjR9O3U0ZUaFFE5Ybahhoys02KAgiAQUnU3C5799ce6sNLw5c+2JgoRbWd4rJ19fXaktm6DfXmBQx0AfP3/1sa0yu3d1ooVABWGha/EqpiLiXyauYFQNRkMBwBh7v/hzL/D28DSgzgAP5tx2turoJmQiZGcusSpnpFWIEXW+d3MwsDPvNeBaVmBXIn/w6Z6mJ6VnZGUqM7dtWhBM6DO0sbM0NC5v1Q/QkBz192Bbl5qdJGVl5qgnKCZfFY1V5u1v9DV7MWNY6apxNu6kFRYaIKHj4iLkZ6jqqSRbEFXhqC6y9n/4YBbvMG5r5GOnZKLiYWAbH2KjKK+uZ98WlNliaq71//slGCZk5mak5jIvrqut6uUlJupo7Ctm3poQkJpkKfG/+iWZZeakZGRsbm6x9be2s3Fvrits66nioJiPkl4nLv12npZi5WFgLPql7zL2eDj4uPjzLqqqrCxnG9HPmqSruzidV5/jYyhzP+Ors3g7/Pw5s28s6+OgaujfkY1XIijzcR5aoaTuMvF4IN1ms/n6+/67Lqeg4Sat8CXMB8vT3Wil2t1h5HNw7azvZ6Psdbn9f7x6N/CpHyw2ddpGipCR1VFQ4uBj8zGv6rTuIx0pdj47Mu+tKWqqMnp//J/CAgzMj2Rsouo09TXyOzj0rmqsN/w49C7n56aueb//+VYGSEzlN28qsfe1MzD//3pzbe4xtPKuaWYprjV6u3y7JUIGIPUzJaPwNjLs6//+PTw5Me/09O/s5+jqbS3ub25kxJetr2rl5vD1sisoA==";

export function render({ model, el, linked }) {
	const name = linked && model.get("name"), hash = `#${name}?`;
	let state = stateOf((key) => model.get(key)), note = "", pixel, moment, timer, telling, scene;
	el.innerHTML = `<div class="ux" role="group" aria-label="An upsampling layer">
		<div class="ux-row"><label>Layer <select>${each(entries(LAYERS), ([value, text]) => `<option value="${value}">${text}</option>`)}</select></label>${button({ axes: 1 }, "one axis")}${button({ axes: 2 }, "both axes")}</div>
		<div class="ux-sliders">${each(entries(ALLOWED).slice(0, 6), ([key, [, least]]) => `<label><span></span>${field(key, "number", least)}${field(key, "range", least, 'tabindex="-1"')}</label>`)}</div><p class="ux-text"></p>
		<div class="ux-box"><div></div>${each(["input", "output"], (kind) => `<div class="ux-zone" data-kind="${kind}" role="slider" tabindex="0" aria-label="${kind} pixel"></div>`)}</div><p class="ux-text"></p>
		<div class="ux-row">${button({ move: 0 }, "", "data-play")}${button({ move: 1 }, "step")}${each(["view", "colour"], (key) => `<span>${key} ${each(ALLOWED[key], (word) => button({ [key]: word }, word))}</span>`)}</div>
		<p><label>PyTorch, to copy or to paste a layer<textarea></textarea></label></p><div class="ux-row">${button({ copy: 1 }, "Copy")}${name ? button({ copy: 2 }, "Copy link") : ""}<span class="ux-text"></span></div>
		${each(PANELS, ([open, title]) => `<details data-open="${open}"><summary>${title}</summary><div></div><div></div></details>`)}<p class="ux-said" role="status"></p></div>`;
	const root = el.firstChild, one = (css) => root.querySelector(css), every = (css) => [...root.querySelectorAll(css)];
	const on = (type, does) => root.addEventListener(type, does, true), line = one("textarea"), texts = every(".ux-text"), sizeFor = (kind) => (kind === "input" ? scene.n : scene.m), within = (kind, index) => max(0, min(sizeFor(kind) - 1, index));
	const tell = (place) => { clearTimeout(telling); telling = setTimeout(() => { one(".ux-said").textContent = texts[place].textContent; }, 300); };
	const say = (words) => { texts[2].textContent = words; tell(2); };
	const fragment = () => hash + entries(state).filter(([key, value]) => `${value}` !== `${DEFAULTS[key]}`).map(named).join("&");

	function change(changes) {
		const was = state, { taps } = (state = { ...was, ...changes });
		if (taps === "random") state.taps = range(countOf(state), () => round(Math.random() * 200 - 100) / 100);
		else if (taps === was.taps && taps !== "ones") {
			state.taps = refit(taps, was, state);
			if (spread(taps) && taps.length !== state.taps.length) note = "Taps that fit are kept, new ones are 0.";
		}
		update();
		if (name) history.replaceState(null, "", fragment());
	}

	function update() {
		stop();
		for (const { children: [text, , slider] } of every(".ux-sliders label")) {
			const { key } = slider.dataset;
			slider.max = max(8, state[key]);
			slider.ariaLabel = text.textContent = nameOf(key, state.operator);
		}
		one("select").value = `${state.operator} ${state.operator === PAIR ? state.mode : "nearest"}`;
		line.defaultValue = line.value = codeOf(state, state.channels);
		scene = null;
		const wrong = draft(() => { scene = sceneOf(state); });
		const shown = { ...scene?.taps, ...state, outputSize: state.outputSize || scene?.m };
		texts[0].innerHTML = scene ? formula(scene) : `<span class="ux-wrong">PyTorch refuses this: ${wrong}.</span>`;
		texts[0].append(" ", note);
		note = texts[2].textContent = "";
		tell(0);
		draw();
		every("details").forEach((part, place) => {
			const [open, , words, inputs] = PANELS[place], [, top, bottom] = part.children;
			part.open = state.open.includes(open);
			const isFull = part.open && scene, html = isFull && inputs?.(scene);
			if (part.shown !== html) top.innerHTML = part.shown = html || "";
			bottom.innerHTML = isFull ? words(scene, shown.outputSize) : "";
		});
		for (const canvas of every("canvas")) paint(canvas, images.shift());
		for (const input of every("input")) if (input !== document.activeElement) input.value = shown[input.dataset.key];
		for (const set of every("[data-set]")) {
			const changes = entries(JSON.parse(set.dataset.set));
			if (changes[0][0] in state) set.ariaPressed = changes.every(([key, value]) => state[key] === value);
		}
	}

	function draw() {
		const width = max(280, root.clientWidth);
		one(".ux-box").hidden = !scene?.isDrawn;
		if (!scene?.isDrawn) return texts[1].textContent = scene ? "Too large to draw." : "";
		if (pixel) pixel.at = range(state.axes, (place) => within(pixel.kind, pixel.at[place] ?? pixel.at[0]));
		const picture = (scene.both ? drawImage : drawAxis)(scene, pixel ?? {}, moment, width);
		one(".ux-box div").innerHTML = `<svg aria-hidden="true" width="${width}" height="${picture.height}">${picture.svg}</svg>`;
		every(".ux-zone").forEach((zone) => {
			const { kind } = zone.dataset, { x, y, width: wide, height } = picture.zones[kind], at = pixel?.kind === kind ? pixel.at : [0];
			zone.style.cssText = `left: ${x}px; top: ${y + 8}px; width: ${wide}px; height: ${height}px`;
			Object.assign(zone, { ariaValueMax: sizeFor(kind) - 1, ariaValueNow: at[0], ariaValueText: listed(at) });
		});
		texts[1].textContent = pixel ? sentence(scene, pixel) : `${state.view === "windows" ? "Output pixels gather through windows" : `Input pixels add stamps${scene.transposed ? "" : " (the kernel of the one ConvTranspose2d that this is)"}`}. Output pixel j has phase (j + ${scene.phase(0)}) mod ${state.stride}. Point at one (a click holds it), or use Tab and arrow keys.`;
	}

	const look = (chosen) => { stop(); pixel = chosen; draw(); tell(1); };

	// After output pixel -1 zeros are stuffed in.
	function stop(at = Infinity) {
		clearInterval(timer);
		timer = 0;
		moment = at;
		one("[data-play]").textContent = "play";
	}
	function move() {
		const kind = state.view === "stamps" ? "input" : "output", size = sizeFor(kind), count = size ** state.axes;
		const next = moment < Infinity ? moment + 1 : kind === "output" ? -1 : 0;
		if (next >= count) stop();
		else [moment, pixel] = [next, next < 0 ? null : { kind, at: scene.both ? split(next, size) : [next] }];
		draw();
		tell(1);
	}

	function recall() {
		if (!location.hash.startsWith(hash)) return update();
		const given = new URLSearchParams(location.hash.slice(hash.length));
		state = stateOf((key) => given.get(key));
		const wrong = [...given].map(named).filter((word) => !entries(state).map(named).includes(word));
		if (wrong.length) note = `Left out of the link: ${wrong.join(", ")}.`;
		update();
		el.scrollIntoView();
	}
	const follow = () => {
		if (line.value === line.defaultValue) return;
		const wrong = draft(() => { const [changes, without] = read(line.value); change(changes); say(`The controls follow${without}.`); });
		if (wrong) say(`${wrong}.`);
	};

	on("input", ({ target: { dataset: { key }, value, tagName }, inputType }) => {
		const [operator, mode] = value.split(" "), number = Number(value.replace(",", "."));
		if (tagName === "TEXTAREA" && inputType === "insertFromPaste") follow();
		if (tagName === "SELECT") change({ operator, mode });
		if (!key || !value) return;
		const wrong = draft(() => change(key in state ? { [key]: check(key, number) } : { taps: scene.taps.with(key, isFinite(number) ? number : fail(`${value} is not a number`)) }));
		if (wrong) { note = `${wrong}.`; update(); }
	});
	line.addEventListener("change", follow);
	on("click", ({ target }) => {
		const { move: by, copy, ...changes } = JSON.parse(target.dataset.set ?? "{}"), paused = !timer;
		if (Object.keys(changes).length) change(changes);
		if (copy) { // navigator.clipboard needs https
			if (copy > 1) line.value = new URL(fragment(), location);
			line.select();
			say(document.execCommand("copy") ? "Copied." : "Not copied.");
			line.value = line.defaultValue;
			target.focus();
		}
		if (by === undefined || !scene?.isDrawn) return;
		stop(moment);
		if (by || paused) move();
		if (!by && paused) { timer = setInterval(move, 800); target.textContent = "pause"; }
	});
	on("toggle", () => {
		const open = every("[open]").map((part) => part.dataset.open).join();
		if (open !== state.open) change({ open });
	});
	on("keydown", (event) => {
		const { target, target: { dataset: { kind } }, key } = event, by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -1e9, End: 1e9 }[key];
		if (target === line && key === "Enter") { event.preventDefault(); follow(); }
		if (key === "Escape") look();
		if (!kind || !by) return;
		event.preventDefault();
		const along = /Up|Down/.test(key) ? 0 : state.axes - 1, at = pixel?.kind === kind ? pixel.at : range(state.axes, () => 0);
		look({ kind, at: at.map((index, place) => within(kind, index + (place === along || abs(by) > 1 ? by : 0))) });
	});
	// Pointing at a pixel shows it, a click holds it, the next one lets go.
	for (const event of ["pointermove", "pointerleave", "click"]) on(event, ({ type, target, offsetX, offsetY }) => {
		const { kind } = target.dataset, isHeld = pixel?.isHeld, isClick = type === "click";
		if (!kind || !scene || timer || (isHeld && !isClick)) return;
		const at = [offsetY / target.clientHeight, offsetX / target.clientWidth].slice(2 - state.axes).map((part) => within(kind, floor(part * sizeFor(kind))));
		const isSame = `${pixel?.kind}${pixel?.at}` === `${kind}${at}`;
		if (type === "pointerleave" || (isHeld && isSame)) look();
		else if (isClick || !isSame) look({ kind, at, isHeld: isClick });
	});
	addEventListener("hashchange", recall);
	if (state.open !== "sizes") state.outputSize = 0; // the layer's own
	recall();
	new ResizeObserver(draw).observe(root);
}

// Fill the figures that `explore` left; if `linked`, the address has their states.
export function mount(linked) {
	for (const el of document.querySelectorAll("[data-settings].upconv-explorer")) {
		render({ model: new Map(entries(JSON.parse(el.dataset.settings))), el, linked });
		el.removeAttribute("data-settings");
	}
}

export default { render };
