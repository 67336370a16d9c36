// The explorer: an interactive figure of one upsampling layer, without framework, network or build step. First comes
// arithmetic on one axis with the Python package's conventions, pure functions of one object of settings; then the figure
// by anywidget's contract: `render({ model, el })` asks `model.get` for PyTorch's names and fills the element.

const { abs, ceil, floor, max, min, round } = Math;
const range = (count, make = (index) => index) => Array.from({ length: count }, (_, index) => make(index));
const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);
const mod = (number, divisor) => ((number % divisor) + divisor) % divisor;
const gcd = (a, b) => (b ? gcd(b, a % b) : a);
const fail = (message) => { throw new RangeError(message); };

// Settings under the book's letters; K is what the kernel spans. `span` and `crop` are kernel size and padding of the one
// transposed convolution that the layer is away from the border; `stamp` gives the taps, with factors, that tap a becomes.
function axis({ inputSize: n, kernelSize: k, stride: s = 1, padding: p = 0, outputPadding: o = 0, dilation: d = 1, operator = "conv_transpose", mode, ...more }) {
	const K = d * (k - 1) + 1, half = floor(s / 2), transposed = operator === "conv_transpose", shuffled = operator === "pixel_shuffle", smooth = mode === "bilinear" && s > 1;
	const tent = smooth ? range(2 * s - (s % 2), (t) => 1 - abs((t - half + 0.5) / s - 0.5)) : range(s, () => 1), flipped = (a) => K - 1 - d * a;
	const one = transposed ? { span: K, crop: p, stamp: (a) => [[d * a, 1]] }
		: shuffled ? { span: s * K, crop: s * (K - 1 - p), stamp: (a, r) => [[flipped(a) * s + r, 1]] }
		: { span: K + tent.length - 1, crop: K - 1 - p + smooth * half, stamp: (a) => tent.map((factor, t) => [flipped(a) + t, factor]) };
	return { n, k, s, p, o, d, K, transposed, shuffled, smooth, ...one, ...more };
}

export function convSize(given) {
	const { n, s, p, K } = axis(given);
	if (n + 2 * p < K) fail(`the kernel spans ${K} pixels, its input with padding=${p} only ${n + 2 * p}`);
	return floor((n + 2 * p - K) / s) + 1;
}

export function convTransposeSize(given) {
	const { n, s, p, o, d, K } = axis(given), full = (n - 1) * s + K + o;
	if (o >= max(s, d)) fail(`output_padding=${o} must be smaller than stride=${s} or dilation=${d}`);
	if (full <= 2 * p) fail(`padding=${p} crops all ${full} pixels; at most ${floor((full - 1) / 2)} leaves one`);
	return full - 2 * p;
}

// How many products of an input pixel and a tap each output pixel of a transposed convolution sums.
export function overlapCounts(given) {
	const { n, k, s, p, d } = axis(given), counts = Array(convTransposeSize(given)).fill(0);
	for (const i of range(n)) for (const a of range(k)) if (i * s - p + a * d in counts) counts[i * s - p + a * d] += 1;
	return counts;
}

const isEven = ({ k, s, d }) => k % s === 0 && gcd(d, s) === 1;

// The layers that make outputSize pixels of inputSize, best first: those that reach every pixel, of even overlap, then
// with the least output_padding, kernel, stride and padding.
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
	const near = [max(0, ...reached.filter((size) => size < outputSize)), min(...reached.filter((size) => size > outputSize))];
	if (!found.length) fail(`out of reach; nearest: ${near.filter((size) => size && size < 1 / 0).join(" and ")}`);
	const order = ["outputPadding", "kernelSize", "stride", "padding"], compare = (a, b) => b.reachesAll - a.reachesAll || b.evenOverlap - a.evenOverlap;
	return found.sort((a, b) => compare(a, b) || order.map((key) => a[key] - b[key]).find(Boolean));
}

// What each phase of a transposed convolution makes of a constant 1: the sum of its taps.
export const phaseGains = ({ taps, stride = 1, dilation = 1 }) =>
	range(stride, (phase) => sum(taps.filter((_, a) => (a * dilation) % stride === phase)));

// The kernel of that one transposed convolution, span or span * span numbers. Taps are filter by filter, row by row.
function kernelOf(given, taps, axes = 1) {
	const { s, k, shuffled, span, stamp } = axis(given), filters = shuffled ? s : 1;
	const kernel = range(span ** axes, () => 0), stamps = range(filters * k, (t) => stamp(t % k, floor(t / k)));
	taps.forEach((tap, t) => {
		const filter = floor(t / k ** axes), row = floor(filter / filters) * k + (floor(t / k) % k), column = (filter % filters) * k + (t % k);
		for (const [y, one] of axes === 2 ? stamps[row] : [[0, 1]])
			for (const [x, two] of stamps[column]) kernel[y * span + x] += tap * one * two;
	});
	return kernel;
}

// Forms: objects of settings, with a list `pads` of [kind, pixels before, pixels after] and `crop`, [pixels before, after].

const form = (operator, kernelSize, stride, padding, taps, more) =>
	({ operator, mode: "nearest", kernelSize, stride, padding, outputPadding: 0, dilation: 1, pads: [], crop: [0, 0], ...more, ...(taps && { taps }) });

function toConvTranspose(given) {
	const { s, p, K, shuffled, smooth, taps, span, crop } = axis(given), wide = smooth && !shuffled;
	if (wide && p) fail(`padding=${p} after a bilinear Upsample makes a frame ${p} deep differ; padding=0 has one`);
	const pad = wide ? 1 : ceil(max(0, p - K + 1) / (shuffled ? 1 : s)), pads = pad ? [[wide ? "Replication" : "Zero", pad, pad]] : [];
	return form("conv_transpose", span, s, crop + s * pad, taps && kernelOf(given, taps), { pads });
}

// Upsample + Conv2d as one transposed convolution, equal at every pixel; where there is none, a RangeError.
export const composeUpsampleConv = (given) => toConvTranspose({ ...given, operator: "upsample_conv" });

function toShuffle(given) {
	const { s, p, o, K, pads = [], taps } = axis(given), last = K - 1 - p + o, size = ceil(K / s), kernel = taps && kernelOf(given, taps);
	const before = size - 1 - floor(p / s), after = floor(last / s), even = before === after && before >= 0;
	const filters = kernel && range(s * size, (t) => kernel[(size - 1 - (t % size)) * s + floor(t / size)] ?? 0);
	return form("pixel_shuffle", size, s, even ? before : 0, filters, { pads: even ? pads : [...pads, ["Zero", before, after]], crop: [mod(p, s), s - 1 - mod(last, s)] });
}

function toPair(given) {
	const { s, p, o, K, pads = [], taps } = axis(given), size = max(1, K - s + 1), quotient = [];
	const before = size - 1 - p, after = K - s - p + o, most = max(0, before, after);
	if (taps) kernelOf(given, taps).forEach((value, t, kernel) => // divided by the box of s ones, as polynomials are
		quotient.push(value - (kernel[t - 1] ?? 0) + (quotient[t - s] ?? 0)));
	return form("upsample_conv", size, s, most, taps && quotient.slice(0, size).reverse(), { pads, crop: [most - before, most - after] });
}

const spread = (numbers) => max(...numbers) - min(...numbers);

// The layer's other forms; one that it does not have has a `reason`. On two axes `gains` are those of the row or column
// of the kernel where they differ most.
export function forms(given) {
	const { s, taps, transposed, shuffled, gains = taps && phaseGains({ taps: kernelOf(given, taps), stride: s }) } = axis(given), found = [];
	let layer = given;
	try {
		if (!transposed) found.push((layer = toConvTranspose(given)));
		if (!shuffled) found.push(toShuffle(layer));
	} catch ({ message: reason }) {
		found.push({ operator: "conv_transpose", reason }, { operator: "pixel_shuffle", reason });
	}
	if (!transposed && !shuffled) return found;
	const reason = gains ? `the phases' gains differ: ${gains.map(short).join(", ")}` : "that depends on the taps";
	return [...found, gains && spread(gains) <= 1e-6 * max(...(taps ?? gains).map(abs)) ? toPair(layer) : { operator: "upsample_conv", reason }];
}

// The products that make output pixel j: input pixel i, tap a (of the filter of phase r), and a factor.
function reads(given, j) {
	const { n, k, s, p, d, crop, shuffled, smooth, stamp } = axis(given), found = [], r = shuffled ? j % s : 0;
	for (const a of range(k)) for (const [t, factor] of stamp(a, r)) {
		const at = (j + crop - t) / s, i = smooth ? max(0, min(n - 1, at)) : at, u = j - p + d * a; // in the upsampled image
		if (at % 1 === 0 && i >= 0 && i < n && !(smooth && (u < 0 || u >= n * s))) found.push({ i, a, r, factor });
	}
	return found.sort((one, two) => one.i - two.i);
}

function sizeOf(given) {
	const { n, s, transposed, shuffled } = axis(given), more = { ...given, stride: 1 };
	return transposed ? convTransposeSize(given) : shuffled ? convSize(more) * s : convSize({ ...more, inputSize: n * s });
}

// Of numbers the default, the least, the greatest, and where sliders end while that suffices; else all, the default first.
const ALLOWED = {
	inputSize: [4, 1, 32, 10], kernelSize: [3, 1, 32, 7], stride: [2, 1, 16, 4], padding: [0, 0, 32, 5], outputPadding: [0, 0, 15, 3], dilation: [1, 1, 8, 3],
	axes: [1, 1, 2], outputSize: [8, 1, 512], operator: ["conv_transpose", "upsample_conv", "pixel_shuffle"], mode: ["nearest", "bilinear"],
	view: ["stamps", "windows"], colour: ["phase", "overlap"], open: ["taps", "pictures", "frequencies", "forms", "sizes", ""],
};
const DEFAULTS = { taps: "ones", channels: [64, 32], ...Object.fromEntries(Object.entries(ALLOWED).map(([key, [first]]) => [key, first])) };
const SLIDERS = Object.keys(ALLOWED).slice(0, 6);
const SCALES = { conv_transpose: "stride", upsample_conv: "scale_factor", pixel_shuffle: "upscale_factor" };
const LAYERS = {
	"conv_transpose nearest": "ConvTranspose2d", "upsample_conv nearest": "Upsample (nearest) + Conv2d",
	"upsample_conv bilinear": "Upsample (bilinear) + Conv2d", "pixel_shuffle nearest": "Conv2d + PixelShuffle",
};
const snake = (name) => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
const short = (number) => String(round(number * 100) / 100 + 0).replace("-", "−");
const isAllowed = (key, value, [first, least, most] = ALLOWED[key]) => typeof first === "number" ? value % 1 === 0 && value >= least && value <= most : ALLOWED[key].includes(value);

// A state from what `get` gives for PyTorch's names: values, text or nothing. What is not allowed is left out.
function stateOf(get) {
	const state = { ...DEFAULTS };
	for (const key of Object.keys(ALLOWED)) {
		const given = get(snake(key)) ?? state[key], value = typeof state[key] === "number" ? Number(given) : given;
		if (isAllowed(key, value)) state[key] = value;
	}
	const taps = String(get("taps")).split(",").map(Number);
	return taps.length === countOf(state) && taps.every(Number.isFinite) ? { ...state, taps } : state;
}

const filtersOf = ({ operator, stride, axes }) => (operator === "pixel_shuffle" ? stride ** axes : 1);
const countOf = (state) => filtersOf(state) * state.kernelSize ** state.axes;

// The line of PyTorch for a state or a form.
function codeOf({ operator, mode, kernelSize, stride, padding, outputPadding, dilation, pads = [], crop = [0, 0] }, [inside, outside]) {
	const layer = (kind, out, given) => `nn.${kind}2d(${[inside, out, kernelSize, ...Object.entries(given)
		.filter(([name, value]) => value !== Number(/stride|dilation/.test(name))).map((entry) => entry.join("="))].join(", ")})`;
	const pad = ([kind, before, after]) => `nn.${kind}Pad2d(${before === after ? before : `(${before}, ${after}, ${before}, ${after})`})`;
	const middle = {
		conv_transpose: [layer("ConvTranspose", outside, { stride, padding, output_padding: outputPadding, dilation })],
		upsample_conv: [`nn.Upsample(scale_factor=${stride}${mode === "bilinear" ? ', mode="bilinear"' : ""})`, layer("Conv", outside, { padding, dilation })],
		pixel_shuffle: [layer("Conv", outside * stride ** 2, { padding, dilation }), `nn.PixelShuffle(${stride})`],
	}[operator];
	const steps = [...pads, ...(crop.some(Boolean) ? [["Zero", -crop[0], -crop[1]]] : [])].map(pad);
	steps.splice(pads.length, 0, ...middle);
	return steps.length > 1 ? `nn.Sequential(${steps.join(", ")})` : steps[0];
}

const ARGUMENTS = {
	ConvTranspose: "in_channels out_channels kernel_size stride padding output_padding groups bias dilation",
	Conv: "in_channels out_channels kernel_size stride padding dilation", Upsample: "size scale_factor mode align_corners", PixelShuffle: "upscale_factor",
};

// The changes that a line of PyTorch makes, or an error.
function read(line) {
	const found = {}, flat = line.replace(/(?<!\w)\(\s*(\d+),(?:\s*\1,?)*\s*\)/g, "$1"); // (3, 3) is 3
	for (const [, kind, inside] of flat.matchAll(/\b(ConvTranspose|Conv|Upsample|PixelShuffle)(?:\dd)?\(([^()]*)\)/g))
		found[kind] = Object.fromEntries(inside.split(",").map((argument, place) => {
			const [value, name = ARGUMENTS[kind].split(" ")[place]] = argument.split("=").map((word) => word.replace(/['"\s]/g, "")).reverse();
			return [name, isNaN(value) ? value : Number(value)];
		}));
	const { ConvTranspose: transposed, Conv: conv, Upsample: up, PixelShuffle: shuffle } = found, layer = transposed ?? conv, first = transposed ?? up ?? shuffle;
	if (!layer || !first) fail("no nn.ConvTranspose2d found, and no nn.Conv2d with nn.Upsample or nn.PixelShuffle, alike on both axes");
	const { kernel_size: kernelSize, dilation = 1, padding = 0, output_padding: outputPadding = 0 } = layer, operator = transposed ? "conv_transpose" : up ? "upsample_conv" : "pixel_shuffle";
	const stride = first[SCALES[operator]] ?? 1, mode = up?.mode ?? "nearest";
	const changes = {
		operator, mode: { linear: "bilinear", "nearest-exact": "nearest" }[mode] ?? mode, stride, kernelSize, dilation,
		padding: { same: (dilation * (kernelSize - 1)) / 2, valid: 0 }[padding] ?? padding, outputPadding,
	};
	for (const [key, value] of Object.entries(changes)) if (!isAllowed(key, value)) fail(`${snake(key)}=${value} is not shown here`);
	if ((!transposed && conv.stride > 1) || up?.align_corners === "True") fail("a strided convolution, or align_corners=True, is not shown here");
	return { ...changes, channels: [layer.in_channels, layer.out_channels / (operator === "pixel_shuffle" ? stride ** 2 : 1)] };
}

// All that is shown of a state; `place` is where an output pixel's middle lies on the input's ruler.
function sceneOf(state) {
	const { axes, stride: s } = state, m = sizeOf(state), layer = axis(state), { span, crop } = layer;
	const taps = state.taps === "ones" ? range(countOf(state), () => 1) : state.taps;
	const lines = range(m, (j) => reads(state, j));
	return {
		...layer, state, m, taps, lines, both: axes === 2, kernel: kernelOf(state, taps, axes), heat: state.colour === "overlap",
		most: max(...lines.map((line) => line.length)), place: (j) => (j + crop - (span - 1) / 2) / s + 0.5, phase: (j) => mod(j + crop, s),
	};
}

const meets = (line, i) => line?.some((product) => product.i === i);
const reaches = (lines, input, output) => input.every((i, axis) => meets(lines[output[axis]], i));
// Whether a pixel of a zone has to do with the chosen one.
const isLit = (lines, { kind, at }, zone, here) =>
	kind === zone ? `${here}` === `${at}` : kind === "input" ? reaches(lines, at, here) : kind && reaches(lines, here, at);

function formula({ state, n, k, s, o, d, m, span, crop, transposed }) {
	const shift = (span - s) / 2 - crop;
	const words = {
		conv_transpose: "(input_size − 1) · stride − 2 · padding + dilation · (kernel_size − 1) + output_padding + 1",
		upsample_conv: "input_size · stride + 2 · padding − dilation · (kernel_size − 1)",
		pixel_shuffle: "(input_size + 2 · padding − dilation · (kernel_size − 1)) · stride",
	}[state.operator];
	const numbers = words.replace(/[a-z_]+/g, (name) => state[SLIDERS.find((key) => snake(key) === name)]);
	const facts = [
		`${span + transposed * o === s + 2 * crop ? "multiplies" : "does not multiply"} sizes by ${s}`,
		shift ? `moves the picture by ${short(shift)} output pixels` : "leaves the picture in place",
		transposed && !isEven({ k, s, d }) ? "overlaps unevenly" : `puts ${transposed ? k / s : k} taps an axis on each pixel`,
	];
	return `<b>${n} → ${m}</b> = <code>${numbers}</code><br><code>${words.replace("stride", SCALES[state.operator])}</code><br>It ${facts.join(", ")}.`;
}

const listed = (at) => (at.length > 1 ? `[${at.join(", ")}]` : at[0]);

// What an output pixel is made of, or where an input pixel goes.
function sentence({ lines, place, phase, shuffled }, { kind, at }) {
	if (kind === "input") {
		const where = at.map((i) => range(lines.length).filter((j) => meets(lines[j], i)).join(", "));
		return `Input pixel ${listed(at)} ${where.includes("") ? "reaches no output pixel: its stamp is cropped"
			: `is scattered to output ${where.length > 1 ? `rows ${where[0]} and columns ${where[1]}` : `pixels ${where[0]}`}`}.`;
	}
	const [one, two = [{ factor: 1 }]] = at.map((j) => lines[j]), index = (y, x) => (at.length > 1 ? `[${y}, ${x}]` : y);
	const terms = one.flatMap((y) => two.map((x) => `${y.factor * x.factor === 1 ? "" : `${short(y.factor * x.factor)}·`}x${index(y.i, x.i)}·w${index(y.a, x.a)}`));
	return `Output pixel ${listed(at)}, phase ${listed(at.map(phase))}, centred at ${listed(at.map((j) => short(place(j))))} on the ruler: ` +
		`${terms.slice(0, 9).join(" + ") || "no tap reaches it: the bias alone"}${terms.length > 9 ? " + …" : ""}${shuffled ? ", with the filter of this phase" : ""}.`;
}

const COLOURS = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#808080"];

function cell(x, y, width, height, { fill = "currentColor", opacity = 0, text = "", more = "" }) {
	const label = width > 7 * `${text}`.length + 1 ? `<text x="${x + width / 2}" y="${y + height / 2 + 4}">${text}</text>` : "";
	return `<g ${more}><rect x="${x + 0.5}" y="${y + 0.5}" width="${max(0.5, width - 1)}" height="${height - 1}" fill="${fill}" fill-opacity="${opacity}"/>${label}</g>`;
}

// One axis: ruler, input, stamps or windows, output. `moment` is how far a motion has come.
function drawAxis({ n, k, s, p, d, m, view, heat, span, crop, kernel, lines, most, place, phase, transposed, shuffled, smooth }, pixel, moment, width) {
	const first = min(0, place(min(0, -crop)) - 0.5 / s), last = max(n, place(max(m, (n - 1) * s - crop + span)) - 0.5 / s);
	const unit = min(130, (width - 6) / (last - first)), small = unit / s, x = (at) => (at - first) * unit + 3, middle = (j) => x(place(j)), left = (j) => middle(j) - small / 2;
	const stamps = view === "stamps", fillOf = (j) => COLOURS[phase(j) % 8], { kind, at: [at] = [] } = pixel;
	let y = 20, svg = range(2 * n + 1, (half) => `<path class="tick" d="M${x(half / 2)} ${half % 2 ? "14v5" : "11V999"}"/>${half % 2 || unit < 16 ? "" : `<text x="${x(half / 2)}" y="9">${half / 2}</text>`}`).join("");
	const row = (cells, height) => { svg += cells.join(""); y += height; };
	const input = { x: x(0), y, width: n * unit, height: 26 };
	row(range(n, (i) => cell(x(i), y, unit, 26, { opacity: isLit(lines, pixel, "input", [i]) ? 0.35 : 0.08, text: `x${i}` })), 32);
	if (stamps) for (const i of range(n)) row(i > moment ? [] : range(span, (t) => {
		const j = i * s - crop + t, inside = j >= 0 && j < m;
		return (inside ? !meets(lines[j], i) : !kernel[t]) ? "" : cell(left(j), y, small, 18, {
			fill: inside ? fillOf(j) : "none", opacity: !kind || (kind === "input" ? i : j) === at ? 0.6 : 0.15, text: transposed ? `w${t / d}` : short(kernel[t]),
			more: `class="${inside ? "" : "cropped"}" ${i === moment ? `style="--from: translate(${x(i + 0.5) - middle(j)}px, ${20 - y}px)"` : ""}`,
		});
	}), 20);
	else {
		if (!shuffled) row(range(transposed ? (n - 1) * s + 1 : n * s, (u) => { // zeros stuffed in, or upsampled
			const zero = transposed && u % s, text = zero ? 0 : smooth ? "" : `x${floor(u / s)}`, more = zero && moment === 0 ? 'style="--from: translate(0, -30px)"' : "";
			return zero && moment === -1 ? "" : cell(x((u + transposed * s / 2) / s) - (transposed * small) / 2, y, small, 24, { opacity: zero ? 0 : 0.08, text, more });
		}), 28);
		if (kind === "output") { // what its window reads
			const step = shuffled ? unit : small, centre = shuffled ? x(floor(at / s) - p + (d * (k - 1) + 1) / 2) : middle(at);
			svg += `<path class="line" d="M${centre} ${y + 20}L${middle(at)} ${y + 34}"/>` + range(k, (a) => {
				const tap = transposed ? k - 1 - a : a, opacity = lines[at].some((product) => product.a === tap) ? 0.6 : 0.12;
				return cell(centre + (d * (a - (k - 1) / 2) - 0.5) * step, y, step, 20, { fill: fillOf(at), opacity, text: `w${tap}` });
			}).join("");
		}
		y += 34;
	}
	const output = { x: left(0), y, width: m * small, height: 26 };
	row(lines.map((line, j) => {
		const count = stamps ? line.filter(({ i }) => i <= moment).length : line.length * (j <= moment);
		return cell(left(j), y, small, 26, { ...(heat ? { fill: COLOURS[0], text: count, opacity: (0.7 * count) / most } : { fill: fillOf(j), text: j, opacity: count && 0.5 }), more: isLit(lines, pixel, "output", [j]) ? 'class="lit"' : "" });
	}), 28);
	return { svg, height: y, zones: { input, output } };
}

// Two axes: input, stamp and output on one scale; the dashed frame is where the input lies.
function drawImage({ n, s, m, view, heat, span, crop, lines, most, place, phase }, pixel, moment, width) {
	const edge = place(0) - 0.5 / s, first = min(0, edge), size = max(n, edge + m / s) - first, wide = width > 560, { kind, at = [] } = pixel;
	const unit = min(44, wide ? (width - 40) / (n + span / s + size) : (width - 24) / max(size, n + span / s)), small = unit / s;
	const side = n * unit, stamp = side + 17, [left, top] = wide ? [stamp + span * small + 16, 20] : [1, 46 + max(side, span * small)];
	const input = { x: 1, y: 20, width: side, height: side }, output = { x: left + (edge - first) * unit, y: top + (edge - first) * unit, width: m * small, height: m * small };
	const label = (word, x, y) => `<text class="name" x="${x}" y="${y}">${word}</text>`, box = (name, x, y, length) => `<rect class="${name}" x="${x}" y="${y}" width="${length}" height="${length}"/>`;
	const grid = ({ x, y }, count, step, look) => range(count ** 2, (number) => {
		const here = [floor(number / count), number % count];
		return cell(x + here[1] * step, y + here[0] * step, step, step, look(here, number));
	}).join("");
	const fillOf = ([r, q]) => COLOURS[(r * s + q) % 8];
	const svg = label("input", 1, 14) + label("stamp", stamp, 14) + label("output", left, top - 6) +
		grid(input, n, unit, (here) => ({ opacity: isLit(lines, pixel, "input", here) ? 0.4 : 0.08, text: here.join() })) +
		grid({ x: stamp, y: 20 }, span, small, (here) => {
			const from = here.map((t, axis) => (at[axis] + crop - t) / s), used = from.every(Number.isInteger) && reaches(lines, from, at), phases = here.map((t) => t % s);
			return { fill: fillOf(phases), opacity: kind !== "output" ? 0.45 : used ? 0.9 : 0.15, text: phases.join("") };
		}) +
		grid(output, m, small, ([y, x], number) => {
			const done = view === "windows" ? number <= moment : lines[y].some((one) => lines[x].some((two) => one.i * n + two.i <= moment)), count = done * lines[y].length * lines[x].length;
			return heat ? { fill: COLOURS[0], text: count, opacity: (0.75 * count) / most ** 2 } : { fill: fillOf([phase(y), phase(x)]), opacity: count && (!kind || isLit(lines, pixel, "output", [y, x]) ? 0.7 : 0.3) };
		}) + box("frame", left - first * unit, top - first * unit, side);
	const hit = kind === "output" ? at : at.map((i) => i * s - crop), mark = kind ? box("mark", output.x + hit[1] * small, output.y + hit[0] * small, small * (kind === "output" || span)) : "";
	return { svg: svg + mark, height: max(top + size * unit, 20 + side, 20 + span * small) + 3, zones: { input, output } };
}

// The panels below the picture: title, what it says, and inputs before that.

const button = (changes, text, more = "") => `<button type="button" data-set='${JSON.stringify(changes)}' ${more}>${text}</button>`;
const images = [];
const image = (values, text) => `<figure><canvas data-image="${images.push(values) - 1}" role="img" aria-label="${text}"></canvas><figcaption>${text}</figcaption></figure>`;

// Numbers as grey squares, the least black, the greatest white.
function paint(canvas, values) {
	const least = min(...values), scale = 255 / (max(...values) - least), size = canvas.width = canvas.height = Math.sqrt(values.length);
	const pixels = new ImageData(size, size), greys = values.map((value) => (scale < 1e6 ? (value - least) * scale : 160));
	pixels.data.set(greys.flatMap((grey) => [grey, grey, grey, 255]));
	canvas.getContext("2d").putImageData(pixels, 0, 0);
}

const PANELS = [
	["taps", "Taps and gains", ({ s, span, kernel, both }) => {
		const gains = range(both ? s * s : s, (phase) => sum(kernel.filter((_, t) => (t % span) % s === phase % s && floor(t / span) % s === floor(phase / s))));
		const chips = gains.map((gain, phase) => cell((phase % s) * 50, floor(phase / s) * 26, 50, 26, { fill: COLOURS[phase % 8], opacity: 0.5, text: short(gain) }));
		return `<p>Gains, what each phase makes of a constant 1, ${spread(gains) <= 1e-6 * max(...kernel.map(abs)) ? "are equal: a flat image stays flat" : `differ: a flat image gets a pattern with period ${s}`}.</p>
			<svg role="img" aria-label="gains ${gains.map(short).join(", ")}" width="${50 * s}" height="${26 * (both ? s : 1)}">${chips.join("")}</svg>`;
	}, ({ k, taps, both }) => {
		const size = both ? k * k : k, grid = (filter) => `<div class="ux-taps" style="--k: ${k}">${range(size, (t) => `<input data-tap="${filter * size + t}" aria-label="tap ${both ? [floor(t / k), t % k] : t} of filter ${filter}">`).join("")}</div>`;
		return `<div class="ux-row">${button({ taps: "ones" }, "ones")}${button({ taps: "random" }, "random")}</div>${taps.length > 256 ? "Too many taps to show." : range(taps.length / size, grid).join("")}`;
	}],
	["pictures", "Pictures", ({ state, s, k, taps, both, shuffled }) => {
		const filters = shuffled ? s : 1, bytes = atob(PHOTOGRAPH), side = s > 4 ? 8 : 32;
		const tap = (y, x) => (both ? taps[((y.r * filters + x.r) * k + y.a) * k + x.a] : taps[y.r * k + y.a] * taps[x.r * k + x.a]) * y.factor * x.factor;
		const photograph = range(side ** 2, (place) => bytes.charCodeAt(floor(place / side) * 32 + (place % side)) / 255);
		return `<p>The least value is black, the greatest white${both ? "" : "; these taps on both axes"}.</p>` + [["a flat image", range(64, () => 1), 8], ["a photograph", photograph, side]].map(([name, given, n]) => {
			const layer = { ...state, inputSize: n }, lines = range(sizeOf(layer), (j) => reads(layer, j)), made = [];
			for (const above of lines) for (const across of lines) {
				let total = 0;
				for (const y of above) for (const x of across) total += given[y.i * n + x.i] * tap(y, x);
				made.push(total);
			}
			return image(given, name) + image(made, `made of it: ${short(min(...made))} to ${short(max(...made))}`);
		}).join("");
	}],
	["frequencies", "Frequencies", ({ s, span, kernel, both }) => {
		const magnitude = ([f, g]) => Math.hypot(...["cos", "sin"].map((part) => sum(kernel.map((value, t) => value * Math[part](2 * Math.PI * (f * (t % span) + g * floor(t / span)))))));
		const total = sum(kernel.map(abs)), isZero = (at) => magnitude(at) < 1e-6 * total, points = range(both ? s * s : s, (place) => [(place % s) / s, floor(place / s) / s]).slice(1), zeros = points.filter(isZero);
		const dots = (place) => points.map((at) => `<circle class="${isZero(at) ? "ring" : "dot"}" cx="${place(at)[0]}" cy="${place(at)[1]}" r="5"/>`).join(""), height = (at) => 100 - (90 * magnitude(at)) / total;
		return `<p>Upsampling repeats the spectrum at multiples of 1/${s} cycle a pixel; |V(f)| is what the kernel leaves of it. It is zero (rings) at ${zeros.length} of these ${points.length} points: a flat image ${zeros.length < points.length ? "gets a pattern" : "stays flat"}.</p>` +
			(both ? `<div class="ux-map">${image(range(1024, (place) => magnitude([(place % 32) / 32, floor(place / 32) / 32])), "|V|, both frequencies from 0 to 1")}<svg aria-hidden="true" viewBox="0 0 192 192">${dots((at) => at.map((f) => 192 * f))}</svg></div>`
				: `<svg aria-hidden="true" viewBox="0 0 320 124"><path class="line" d="M${range(121, (x) => `${10 + 2.5 * x} ${height([x / 120, 0])}`).join("L")}"/>
					${dots((at) => [10 + 300 * at[0], height(at)])}${range(s + 1, (j) => `<text x="${10 + (300 * j) / s}" y="120">${j % s ? `${j}/${s}` : j / s}</text>`).join("")}</svg>`);
	}],
	["forms", "Other forms", ({ state, span, kernel, both, taps }) => {
		const lines = range(2 * span, (line) => range(span, (t) => kernel[line < span ? line * span + t : t * span + line - span]));
		const gains = both ? lines.map((line) => phaseGains({ ...state, taps: line, dilation: 1 })).sort((a, b) => spread(b) - spread(a))[0] : undefined;
		return `<ul>${forms({ ...state, taps: gains ? undefined : taps, gains }).map((other) => `<li>${LAYERS[`${other.operator} nearest`]}: ${other.reason ? `none, for ${other.reason}` : `<code>${codeOf(other, state.channels)}</code>`}</li>`).join("")}</ul>`;
	}],
	["sizes", "From n to m", ({ state: { inputSize, outputSize, dilation } }) => {
		try {
			const found = solveConvTranspose({ inputSize, outputSize, dilation });
			return `<p>ConvTranspose2d, the best of ${found.length} first:</p><ol>${found.slice(0, 8).map(({ evenOverlap, reachesAll, inPlace, ...layer }) =>
				`<li>${button({ ...layer, operator: "conv_transpose" }, Object.entries(layer).slice(0, 4).map(([key, value]) => `${snake(key)}=${value}`).join(", "))} ${evenOverlap ? "even" : "uneven"}${inPlace ? ", in place" : ""}${reachesAll ? "" : ", some pixels reached by no tap"}</li>`).join("")}</ol>`;
		} catch ({ message }) { return `<p>${message}.</p>`; }
	}, () => `<div class="ux-row"><label>to output_size <input type="number" data-key="outputSize" min="1" max="512"></label></div>`],
];

// 32 x 32 grey values of scikit-image's chelsea, by Stefan van der Walt (CC0).
const PHOTOGRAPH = "7+XRsKCopJ6Lk4WBmJm5uF1JpWtNYlwdXoiLoLLF3+THubGwsJOKd4aVjpSLi6KxkIK8aGFlVFJld22Qv9Tn4p63v6WGho6el4x5bZiLkaV/V6qqf09Of3Z1b3yv4Ozfnb2hioKXoZuBcWp+qKevp5mHgraYZXmgiXJ9fJrD49m3sp6NmqyXdHp9bICmuriBiMB9g4xbdaFaX4WTs8/azLCVmJ6rpoRveXdjc6a5sWh5zK9ulXF2m1KimrTPydXFuJygr7uvnZSQnnR2pMK1aoLT1luZgo2VWsmdstLGx96lm7axwbzb16y8noO0yq9flOroaaR0hKdv36iXy9S117W0sL7W5OfaxLi3vcLUpmW3++mPq4eVy5Divo3J6MbJTW6Lsc23ck5NPEJkpNasdMnu5cu2ocfyyOnhiMvw08hqlLrMwVwiZmtBAAAcj7ir1NfX3NPF4ffw8O+UzOrX0oOeyvTrX2ifmkMLABofjNLe0b7J1djk8+za36fU4+LvrI6z4vdudpqFAAAOSCEwy+jZvsC82PHx28fUmHFfU6DEnpe56qNflGQAACBgMgm68ua/ubjR9O3U0ZUaFFE5Ybahhoys02KAgiAQUnU3C5799ce6sNLw5c+2JgoRbWd4rJ19fXaktm6DfXmBQx0AfP3/1sa0yu3d1ooVABWGha/EqpiLiXyauYFQNRkMBwBh7v/hzL/D28DSgzgAP5tx2turoJmQiZGcusSpnpFWIEXW+d3MwsDPvNeBaVmBXIn/w6Z6mJ6VnZGUqM7dtWhBM6DO0sbM0NC5v1Q/QkBz192Bbl5qdJGVl5qgnKCZfFY1V5u1v9DV7MWNY6apxNu6kFRYaIKHj4iLkZ6jqqSRbEFXhqC6y9n/4YBbvMG5r5GOnZKLiYWAbH2KjKK+uZ98WlNliaq71//slGCZk5mak5jIvrqut6uUlJupo7Ctm3poQkJpkKfG/+iWZZeakZGRsbm6x9be2s3Fvrits66nioJiPkl4nLv12npZi5WFgLPql7zL2eDj4uPjzLqqqrCxnG9HPmqSruzidV5/jYyhzP+Ors3g7/Pw5s28s6+OgaujfkY1XIijzcR5aoaTuMvF4IN1ms/n6+/67Lqeg4Sat8CXMB8vT3Wil2t1h5HNw7azvZ6Psdbn9f7x6N/CpHyw2ddpGipCR1VFQ4uBj8zGv6rTuIx0pdj47Mu+tKWqqMnp//J/CAgzMj2Rsouo09TXyOzj0rmqsN/w49C7n56aueb//+VYGSEzlN28qsfe1MzD//3pzbe4xtPKuaWYprjV6u3y7JUIGIPUzJaPwNjLs6//+PTw5Me/09O/s5+jqbS3ub25kxJetr2rl5vD1sisoA==";

export function render({ model, el, linked }) {
	const name = linked && model.get("name"), hash = `#${name}?`, kinds = ["input", "output"];
	let state = stateOf((key) => model.get(key)), pixel, moment = Infinity, timer, telling, scene;
	el.innerHTML = `<div class="ux" role="group" aria-label="Explorer of an upsampling layer">
		<div class="ux-row"><label>Layer <select>${Object.entries(LAYERS).map(([value, text]) => `<option value="${value}">${text}</option>`).join("")}</select></label>${button({ axes: 1 }, "one axis")}${button({ axes: 2 }, "both axes")}</div>
		<div class="ux-sliders">${SLIDERS.map((key) => `<label><span></span><output></output><input type="range" data-key="${key}" min="${ALLOWED[key][1]}"></label>`).join("")}</div><p class="ux-text"></p>
		<div class="ux-box"><div></div>${kinds.map((kind) => `<div class="ux-zone" role="slider" tabindex="0" aria-label="${kind} pixel"></div>`).join("")}</div><p class="ux-text"></p>
		<div class="ux-row">${button({ move: -1 }, "◀", 'aria-label="step back"')}${button({ move: 0 }, "▶ play", "data-play")}${button({ move: 1 }, "▶|", 'aria-label="step"')}${button({ view: "stamps" }, "stamps")}${button({ view: "windows" }, "windows")}${button({ colour: "phase" }, "phases")}${button({ colour: "overlap" }, "overlap")}</div>
		<p><label>PyTorch, to copy or to paste a layer<textarea rows="2"></textarea></label></p><div class="ux-row">${button({ copy: 1 }, "Copy")}<span class="ux-text"></span></div>
		${PANELS.map(([open, title]) => `<details data-open="${open}"><summary>${title}</summary><div></div><div></div></details>`).join("")}<p class="ux-said" role="status"></p></div>`;
	const root = el.querySelector(".ux"), one = (selector) => root.querySelector(selector), every = (selector) => [...root.querySelectorAll(selector)];
	const on = (type, does) => root.addEventListener(type, does, true), line = one("textarea"), zones = every(".ux-zone"), sizeFor = (kind) => (kind === "input" ? scene.n : scene.m), within = (kind, index) => max(0, min(sizeFor(kind) - 1, index));
	const tell = (text) => { clearTimeout(telling); telling = setTimeout(() => { one(".ux-said").textContent = text; }, 300); }; // once it has stopped changing
	const write = (place, text, as = "textContent") => { const part = every(".ux-text")[place]; part[as] = text; tell(part.textContent); };
	const draft = (make) => { try { make(); } catch ({ message }) { return message; } };

	function change(changes) {
		const { axes, taps } = state;
		state = { ...state, ...changes };
		const count = countOf(state), along = axes < state.axes && taps.length ** 2 === count; // a line of taps goes on both axes
		if (state.taps !== "ones" && (state.taps === "random" || state.taps.length !== count)) state.taps = along ? taps.flatMap((y) => taps.map((x) => x * y)) : range(count, () => round(Math.random() * 200 - 100) / 100);
		stop();
		update();
		const parts = Object.keys(ALLOWED).concat("taps").filter((key) => state[key] !== DEFAULTS[key]).map((key) => `${snake(key)}=${state[key]}`);
		if (name) history.replaceState(history.state, "", hash + parts.join("&"));
	}

	function update() {
		every(".ux-sliders label").forEach((label, place) => {
			const key = SLIDERS[place], [text, number, input] = label.children;
			label.hidden = key === "outputPadding" && state.operator !== "conv_transpose";
			input.max = max(ALLOWED[key][3], state[key]);
			text.textContent = key === "stride" ? SCALES[state.operator] : snake(key);
			number.textContent = state[key];
		});
		one("select").value = `${state.operator} ${state.mode}`;
		line.value = codeOf(state, state.channels);
		scene = null;
		const wrong = draft(() => { scene = sceneOf(state); });
		write(0, scene ? formula(scene) : `<span class="ux-wrong">PyTorch refuses this: ${wrong}.</span>`, "innerHTML");
		draw();
		every("details").forEach((part, place) => {
			const [open, , words, inputs] = PANELS[place], [, top, bottom] = part.children;
			part.open ||= state.open === open;
			const shown = part.open && (scene || open === "sizes"), html = shown && inputs?.(scene);
			if (part.shown !== html) top.innerHTML = part.shown = html ?? "";
			bottom.innerHTML = shown ? words(scene ?? { state }) : "";
		});
		for (const canvas of every("[data-image]")) if (images[canvas.dataset.image]) paint(canvas, images[canvas.dataset.image]);
		images.length = 0;
		for (const input of every("input")) if (input !== document.activeElement) input.value = state[input.dataset.key] ?? scene?.taps[input.dataset.tap];
		for (const set of every("[data-set]")) {
			const changes = Object.entries(JSON.parse(set.dataset.set));
			if (changes[0][0] in state) set.setAttribute("aria-pressed", changes.every(([key, value]) => state[key] === value));
		}
	}

	function draw() {
		const width = max(300, root.clientWidth);
		one(".ux-box").hidden = !scene;
		if (!scene) return;
		if (pixel) pixel.at = range(state.axes, (place) => within(pixel.kind, pixel.at[place] ?? pixel.at[0]));
		const picture = (scene.both ? drawImage : drawAxis)(scene, pixel ?? {}, moment, width);
		one(".ux-box div").innerHTML = `<svg aria-hidden="true" width="${width}" height="${picture.height}">${picture.svg}</svg>`;
		zones.forEach((zone, place) => {
			const kind = kinds[place], { x, y, width: wide, height } = picture.zones[kind], size = sizeFor(kind), at = pixel?.kind === kind ? pixel.at : [0];
			zone.style.cssText = `left: ${x}px; top: ${y + 8}px; width: ${wide}px; height: ${height}px`;
			Object.assign(zone, { ariaValueMax: size ** state.axes - 1, ariaValueNow: at.reduce((number, index) => number * size + index), ariaValueText: listed(at) });
		});
		if (pixel) write(1, sentence(scene, pixel)); else every(".ux-text")[1].textContent = "Point at a pixel, or use Tab and arrow keys.";
	}

	const look = (kind, at) => { stop(); pixel = { kind, at }; draw(); };

	// Motion goes from pixel to pixel; zeros are stuffed in first.
	function stop(at = Infinity) {
		clearInterval(timer);
		[timer, moment] = [0, at];
		one("[data-play]").textContent = "▶ play";
	}
	function move(by) {
		const kind = state.view === "stamps" ? "input" : "output", size = sizeFor(kind), count = size ** state.axes;
		const first = kind === "output" && scene.transposed && !scene.both ? -1 : 0, next = moment < Infinity ? moment + by : by > 0 ? first : count - 1;
		if (next < first || next >= count) stop();
		else [moment, pixel] = [next, next < 0 ? null : { kind, at: scene.both ? [floor(next / size), next % size] : [next] }];
		draw();
	}

	function recall() {
		if (!location.hash.startsWith(hash)) return update();
		const given = new URLSearchParams(location.hash.slice(hash.length));
		state = stateOf((key) => given.get(key));
		stop();
		update();
		el.scrollIntoView();
	}
	const follow = () => write(2, draft(() => change(read(line.value))) ?? "The controls follow.");

	on("input", ({ target: { dataset: { key, tap }, value, tagName } }) => {
		const [operator, mode] = value.split(" "), number = Number(value);
		if (tagName === "SELECT") change({ operator, mode });
		if (key && isAllowed(key, number)) change({ [key]: number });
		if (tap && value && isFinite(number)) change({ taps: scene.taps.with(tap, number) });
	});
	line.addEventListener("change", follow);
	line.addEventListener("paste", () => setTimeout(follow));
	on("click", ({ target }) => {
		const { move: by, copy, ...changes } = JSON.parse(target.dataset.set ?? "{}"), paused = !timer;
		if (Object.keys(changes).length) change(changes);
		if (copy) { line.select(); document.execCommand("copy"); } // a page from the disk has no navigator.clipboard
		if (by === undefined || !scene) return;
		stop(moment);
		if (by || paused) move(by || 1);
		if (!by && paused) { timer = setInterval(move, 800, 1); target.textContent = "❚❚ pause"; }
	});
	on("toggle", ({ target: { dataset, open } }) => { if (open !== (state.open === dataset.open)) change({ open: open ? dataset.open : "" }); });
	on("keydown", (event) => {
		const { target, key } = event, by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -1e9, End: 1e9 }[key], kind = kinds[zones.indexOf(target)];
		if (target === line && key === "Enter") { event.preventDefault(); follow(); }
		if (!kind || !by) return;
		event.preventDefault();
		const along = /Up|Down/.test(key) ? 0 : state.axes - 1, at = pixel?.kind === kind ? pixel.at : range(state.axes, () => 0);
		look(kind, at.map((index, place) => within(kind, index + (place === along || abs(by) > 1 ? by : 0))));
	});
	for (const event of ["pointermove", "pointerdown"]) on(event, ({ target, clientX, clientY }) => {
		const kind = kinds[zones.indexOf(target)], box = target.getBoundingClientRect();
		if (!kind || timer) return;
		const at = [(clientY - box.top) / box.height, (clientX - box.left) / box.width].slice(2 - state.axes).map((part) => within(kind, floor(part * sizeFor(kind))));
		if (`${pixel?.kind}${pixel?.at}` !== `${kind}${at}`) look(kind, at);
	});
	const sizes = new ResizeObserver(draw);
	addEventListener("hashchange", recall);
	recall();
	sizes.observe(root);
	return () => { stop(); sizes.disconnect(); removeEventListener("hashchange", recall); };
}

// Fill every figure that `explore` left in the page; if `linked`, the state is part of the address.
export function mount(linked) {
	for (const el of document.querySelectorAll("[data-settings].upconv-explorer")) {
		const model = new Map(Object.entries(JSON.parse(el.dataset.settings)));
		el.removeAttribute("data-settings");
		render({ model, el, linked });
	}
}

export default { render };
