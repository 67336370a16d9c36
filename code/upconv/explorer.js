// An interactive figure of one upsampling layer. First arithmetic on one axis as in the Python package: pure
// functions of settings. Then the figure, by anywidget's contract: `render({ model, el })` asks `model.get`
// for PyTorch's names.

const { abs, ceil, floor, max, min, round } = Math, { entries } = Object;
const range = (count, make = (index) => index) => Array.from({ length: count }, (_, index) => make(index));
const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);
const mod = (number, divisor) => ((number % divisor) + divisor) % divisor;
const each = (items, make) => items.map(make).join("");
const split = (index, size) => [floor(index / size), index % size]; // row and column
const gcd = (a, b) => (b ? gcd(b, a % b) : a);
const fail = (message) => { throw new RangeError(message); };

// Settings under the book's letters; K is what the kernel spans. `span` and `crop` are kernel size and padding of the one
// transposed convolution that the layer is away from the border; `stamp` gives the taps, with factors, that tap a becomes.
function axis({ inputSize: n, kernelSize: k, stride: s = 1, padding: p = 0, outputPadding: o = 0, dilation: d = 1, operator = "conv_transpose", mode, ...more }) {
	const K = d * (k - 1) + 1, half = floor(s / 2), transposed = operator === "conv_transpose", shuffled = operator === "pixel_shuffle", smooth = !transposed && !shuffled && mode === "bilinear" && s > 1;
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

// How many products of pixel and tap an output pixel of a transposed convolution sums.
export const overlapCounts = (given) => range(convTransposeSize(given), (j) => reads(given, j).length);

const isEven = ({ k, s, d }) => k % s === 0 && gcd(d, s) === 1;

// The layers that make outputSize pixels of inputSize, best first.
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
	if (!found.length) fail(`out of reach; nearest: ${near.filter((size) => size > 0 && size < 1 / 0).join(" and ")}`);
	const order = ["reachesAll", "evenOverlap", "outputPadding", "kernelSize", "stride", "padding"];
	return found.sort((a, b) => order.map((key, place) => (place < 2 ? b[key] - a[key] : a[key] - b[key])).find(Boolean));
}

// What each phase of a transposed convolution makes of a constant 1: the sum of its taps.
export const phaseGains = ({ taps, stride = 1, dilation = 1 }) =>
	range(stride, (phase) => sum(taps.filter((_, a) => (a * dilation) % stride === phase)));

// The kernel of that one transposed convolution, span ** axes numbers. Taps are filter by filter, row by row.
function kernelOf(given, taps, axes = 1) {
	const { s, k, shuffled, span, stamp } = axis(given), filters = shuffled ? s : 1;
	const kernel = range(span ** axes, () => 0), stamps = range(filters * k, (t) => stamp(t % k, floor(t / k)));
	taps.forEach((tap, t) => {
		const [r, q] = split(floor(t / k ** axes), filters), [a, b] = split(t % k ** axes, k);
		for (const [y, one] of axes === 2 ? stamps[r * k + a] : [[0, 1]])
			for (const [x, two] of stamps[q * k + b]) kernel[y * span + x] += tap * one * two;
	});
	return kernel;
}

// Forms: objects of settings, with a list `pads` of [kind, pixels before, pixels after] and `crop`, [pixels before, after].

const form = (operator, kernelSize, stride, padding, taps, more) =>
	({ operator, mode: "nearest", kernelSize, stride, padding, outputPadding: 0, dilation: 1, pads: [], crop: [0, 0], ...more, ...(taps && { taps }) });

function toConvTranspose(given) {
	const { s, p, K, shuffled, smooth, taps, span, crop } = axis(given);
	if (smooth && p) fail(`padding=${p} after a bilinear Upsample makes a frame ${p} deep differ; padding=0 has one`);
	const pad = smooth ? 1 : ceil(max(0, p - K + 1) / (shuffled ? 1 : s)), pads = pad ? [[smooth ? "Replication" : "Zero", pad, pad]] : [];
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
const areEqual = (gains, taps) => spread(gains) <= 1e-6 * max(...taps.map(abs));

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
	return [...found, gains && areEqual(gains, taps ?? gains) ? toPair(layer) : { operator: "upsample_conv", reason }];
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

// Of numbers the default, the least, the greatest, and where sliders end if that suffices; else all, the default first.
const ALLOWED = {
	inputSize: [4, 1, 32, 10], kernelSize: [3, 1, 32, 7], stride: [2, 1, 16, 4], padding: [0, 0, 32, 5], outputPadding: [0, 0, 15, 3], dilation: [1, 1, 8, 3],
	axes: [1, 1, 2], outputSize: [8, 1, 512], operator: ["conv_transpose", "upsample_conv", "pixel_shuffle"], mode: ["nearest", "bilinear"],
	view: ["stamps", "windows"], colour: ["phase", "overlap"], open: ["taps", "pictures", "frequencies", "forms", "sizes", ""],
};
const DEFAULTS = { taps: "ones", channels: [64, 32], ...Object.fromEntries(entries(ALLOWED).map(([key, [first]]) => [key, first])) };
const SCALES = { conv_transpose: "stride", upsample_conv: "scale_factor", pixel_shuffle: "upscale_factor" };
const LAYERS = {
	"conv_transpose nearest": "ConvTranspose2d", "upsample_conv nearest": "Upsample (nearest) + Conv2d",
	"upsample_conv bilinear": "Upsample (bilinear) + Conv2d", "pixel_shuffle nearest": "Conv2d + PixelShuffle",
};
const snake = (name) => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
const named = ([key, value]) => `${snake(key)}=${value}`;
const short = (number) => `${round(number * 100) / 100 + 0}`.replace("-", "−");
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

// Taps of one axis on both.
const outer = (taps, k) => range(taps.length ** 2, (t) => {
	const [r, q] = split(floor(t / k ** 2), taps.length / k), [a, b] = split(t % k ** 2, k);
	return taps[r * k + a] * taps[q * k + b];
});

const countOf = ({ operator, stride, kernelSize, axes }) => (kernelSize * (operator === "pixel_shuffle" ? stride : 1)) ** axes;

// The line of PyTorch for a state or a form.
function codeOf({ operator, mode, kernelSize, stride, padding, outputPadding, dilation, pads = [], crop = [0, 0] }, [inside, outside]) {
	const layer = (kind, out, given) => `nn.${kind}2d(${[inside, out, kernelSize, ...entries(given)
		.filter(([name, value]) => value !== Number(/stride|dilation/.test(name))).map(named)].join(", ")})`;
	const pad = ([kind, before, after]) => `nn.${kind}Pad2d(${before === after ? before : `(${before}, ${after}, ${before}, ${after})`})`;
	const middle = {
		conv_transpose: [layer("ConvTranspose", outside, { stride, padding, outputPadding, dilation })],
		upsample_conv: [`nn.Upsample(scale_factor=${stride}${mode === "bilinear" ? ', mode="bilinear"' : ""})`, layer("Conv", outside, { padding, dilation })],
		pixel_shuffle: [layer("Conv", outside * stride ** 2, { padding, dilation }), `nn.PixelShuffle(${stride})`],
	}[operator];
	const steps = [...pads.map(pad), ...middle];
	if (crop.some(Boolean)) steps.push(pad(["Zero", -crop[0], -crop[1]]));
	return steps.length > 1 ? `nn.Sequential(${steps.join(", ")})` : steps[0];
}

const COMMON = "in_channels out_channels kernel_size stride padding";
const ARGUMENTS = {
	ConvTranspose: `${COMMON} output_padding groups bias dilation`, Conv: `${COMMON} dilation`,
	Upsample: "size scale_factor mode align_corners", PixelShuffle: "upscale_factor",
};

// What a line of PyTorch changes, or an error.
function read(line) {
	const found = {}, flat = line.replace(/['"\s]/g, "").replace(/(?<!\w)\((\d+),(?:\1,?)*\)/g, "$1"); // (3, 3) is 3
	for (const [, kind, inside] of flat.matchAll(/\b(ConvTranspose|Conv|Upsample|PixelShuffle)(?:\dd)?\(([^()]*)\)/g))
		found[kind] = Object.fromEntries(inside.split(",").map((argument, place) => {
			const [value, name = ARGUMENTS[kind].split(" ")[place]] = argument.split("=").reverse();
			return [name, isNaN(value) ? value : Number(value)];
		}));
	const { ConvTranspose: transposed, Conv: conv, Upsample: up, PixelShuffle: shuffle } = found, layer = transposed ?? conv, first = transposed ?? up ?? shuffle;
	if (!layer || !first) fail("no nn.ConvTranspose2d found, nor nn.Conv2d with Upsample or PixelShuffle, alike on both axes");
	const { kernel_size: kernelSize, dilation = 1, padding = 0, output_padding: outputPadding = 0 } = layer, operator = transposed ? "conv_transpose" : up ? "upsample_conv" : "pixel_shuffle";
	const stride = first[SCALES[operator]] ?? (transposed ? 1 : "?"), mode = up?.mode ?? "nearest";
	const changes = {
		operator, mode: { linear: "bilinear", "nearest-exact": "nearest" }[mode] ?? mode, stride, kernelSize, dilation,
		padding: { same: (dilation * (kernelSize - 1)) / 2, valid: 0 }[padding] ?? padding, outputPadding,
	};
	for (const entry of entries(changes)) if (!isAllowed(...entry)) fail(`${named(entry)} is not shown here`);
	if ((!transposed && conv.stride > 1) || up?.align_corners === "True") fail("a strided Conv2d or align_corners=True is not shown here");
	const channels = [layer.in_channels, layer.out_channels / (operator === "pixel_shuffle" ? stride ** 2 : 1)];
	return { ...changes, ...(channels.every(isFinite) && { channels }) };
}

// What is shown; `place` is where an output pixel's middle lies on the input's ruler.
function sceneOf(state) {
	const { axes, stride: s } = state, m = sizeOf(state), layer = axis(state), { span, crop } = layer;
	const taps = state.taps === "ones" ? range(countOf(state), () => 1) : state.taps;
	const lines = range(m, (j) => reads(state, j));
	return {
		...layer, state, m, taps, lines, both: axes === 2, kernel: kernelOf(state, taps, axes), heat: state.colour === "overlap",
		most: max(...lines.map((line) => line.length)), place: (j) => (j + crop - (span - 1) / 2) / s + 0.5, phase: (j) => mod(j + crop, s),
	};
}

const meets = (line, i) => line?.some((one) => one.i === i);
const reaches = (lines, input, output) => input.every((i, axis) => meets(lines[output[axis]], i));
// Whether a pixel has to do with the chosen one.
const isLit = (lines, { kind, at }, zone, here) =>
	kind === zone ? `${here}` === `${at}` : kind === "input" ? reaches(lines, at, here) : kind && reaches(lines, here, at);

function formula({ state, n, k, s, o, d, m, span, crop, transposed }) {
	const shift = (span - s) / 2 - crop;
	const words = {
		conv_transpose: "(inputSize − 1) · stride − 2 · padding + dilation · (kernelSize − 1) + outputPadding + 1",
		upsample_conv: "inputSize · stride + 2 · padding − dilation · (kernelSize − 1)",
		pixel_shuffle: "(inputSize + 2 · padding − dilation · (kernelSize − 1)) · stride",
	}[state.operator], numbers = words.replace(/\w{2,}/g, (key) => state[key]);
	const facts = [
		`${span + transposed * o === s + 2 * crop ? "multiplies" : "does not multiply"} sizes by ${s}`,
		shift ? `moves the picture by ${short(shift)} output pixels` : "leaves the picture in place",
		transposed && !isEven({ k, s, d }) ? "overlaps unevenly" : `puts ${transposed ? k / s : k} taps an axis on each pixel`,
	];
	return `<b>${n} → ${m}</b> = <code>${numbers}</code><br><code>${snake(words).replace("stride", SCALES[state.operator])}</code><br>It ${facts.join(", ")}.`;
}

const listed = (at) => (at.length > 1 ? `[${at.join(", ")}]` : at[0]);

// What an output pixel is made of, or where an input pixel goes.
function sentence({ lines, place, phase, shuffled }, { kind, at }) {
	if (kind === "input") {
		const where = at.map((i) => [...lines.keys()].filter((j) => meets(lines[j], i)).join(", "));
		return `Input pixel ${listed(at)} ${where.includes("") ? "reaches no output: its stamp is cropped"
			: `is scattered to output ${where.length > 1 ? `rows ${where[0]} and columns ${where[1]}` : `pixels ${where[0]}`}`}.`;
	}
	const [one, two = [{ factor: 1 }]] = at.map((j) => lines[j]), index = (y, x) => (at.length > 1 ? `[${y}, ${x}]` : y);
	const terms = one.flatMap((y) => two.map((x) => `${y.factor * x.factor === 1 ? "" : `${short(y.factor * x.factor)}·`}x${index(y.i, x.i)}·w${index(y.a, x.a)}`));
	return `Output pixel ${listed(at)}, phase ${listed(at.map(phase))}, at ${listed(at.map((j) => short(place(j))))} on the ruler: ` +
		`${terms.slice(0, 9).join(" + ") || "no tap reaches it: the bias alone"}${terms.length > 9 ? " + …" : ""}${shuffled ? ", with the filter of this phase" : ""}.`;
}

const COLOURS = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#808080"];
const colourOf = (phase, count) => (count > 8 ? `hsl(${137 * phase} 60% 50%)` : COLOURS[phase]);

const label = (text, x, y, width) => (text !== "" && width > 7 * `${text}`.length + 1 ? `<text x="${x + width / 2}" y="${y + 4}">${text}</text>` : "");

const cell = (x, y, width, height, { fill = "currentColor", opacity = 0, text = "", more = "" }) =>
	`<g ${more}><rect x="${x + 0.5}" y="${y + 0.5}" width="${max(0.5, width - 1)}" height="${height - 1}" fill="${fill}" fill-opacity="${opacity}"/>${label(text, x, y + height / 2, width)}</g>`;

// One axis: ruler, input, stamps or windows, output. `moment` is how far a motion has come.
function drawAxis({ n, k, s, p, d, m, view, heat, span, crop, kernel, lines, most, place, phase, transposed, shuffled, smooth }, pixel, moment, width) {
	const first = min(0, place(min(0, -crop) - 0.5)), last = max(n, place(max(m, (n - 1) * s - crop + span) - 0.5));
	const unit = min(130, (width - 6) / (last - first)), small = unit / s, x = (at) => (at - first) * unit + 3, middle = (j) => x(place(j)), left = (j) => middle(j) - small / 2;
	const stamps = view === "stamps", fillOf = (j) => colourOf(phase(j), s), { kind, at: [at] = [] } = pixel;
	let y = 20, svg = range(2 * n + 1, (half) => `<path class="tick" d="M${x(half / 2)} ${half % 2 ? "14v5" : "11V999"}"/>${half % 2 || unit < 16 ? "" : `<text x="${x(half / 2)}" y="9">${half / 2}</text>`}`).join("");
	const row = (cells, height) => { svg += cells.join(""); y += height; };
	const input = { x: x(0), y, width: n * unit, height: 26 };
	row(range(n, (i) => cell(x(i), y, unit, 26, { opacity: isLit(lines, pixel, "input", [i]) ? 0.35 : 0.08, text: `x${i}` })), 32);
	if (stamps) for (const i of range(n)) row(i > moment ? [] : range(span, (t) => {
		const j = i * s - crop + t, inside = lines[j];
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
				const tap = transposed ? k - 1 - a : a, opacity = lines[at].some((one) => one.a === tap) ? 0.6 : 0.12;
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
	const edge = place(-0.5), first = min(0, edge), size = max(n, edge + m / s) - first, wide = width > 560, { kind, at = [] } = pixel;
	const unit = min(44, wide ? (width - 40) / (n + span / s + size) : (width - 24) / max(size, n + span / s)), small = unit / s;
	const side = n * unit, stamp = side + 17, [left, top] = wide ? [stamp + span * small + 16, 20] : [1, 46 + max(side, span * small)];
	const from = (edge - first) * unit, input = { x: 1, y: 20, width: side, height: side }, output = { x: left + from, y: top + from, width: m * small, height: m * small };
	const title = (word, x, y) => `<text class="name" x="${x}" y="${y}">${word}</text>`, box = (name, x, y, length) => `<rect class="${name}" x="${x}" y="${y}" width="${length}" height="${length}"/>`;
	const grid = ({ x, y }, count, step, look) => { // one path for all squares that look alike, since there may be thousands
		const paths = {}, side = max(0.5, step - 1), words = range(count ** 2, (number) => {
			const here = split(number, count), left = x + here[1] * step, top = y + here[0] * step;
			const { fill = "currentColor", opacity, text = "" } = look(here, number), key = `fill="${fill}" fill-opacity="${opacity}"`;
			paths[key] = `${paths[key] ?? ""}M${left + 0.5} ${top + 0.5}h${side}v${side}h${-side}z`;
			return label(text, left, top + step / 2, step);
		});
		return entries(paths).map(([key, d]) => `<path class="${step < 12 ? "bare" : ""}" ${key} d="${d}"/>`).concat(words).join("");
	};
	const fillOf = ([r, q]) => colourOf(r * s + q, s * s);
	const svg = title("input", 1, 14) + title("stamp", stamp, 14) + title("output (dashed: the input)", left, top - 6) +
		grid(input, n, unit, (here) => ({ opacity: isLit(lines, pixel, "input", here) ? 0.4 : 0.08, text: here.join() })) +
		grid({ x: stamp, y: 20 }, span, small, (here) => {
			const read = here.map((t, axis) => (at[axis] + crop - t) / s), used = reaches(lines, read, at), phases = here.map((t) => t % s);
			return { fill: fillOf(phases), opacity: kind !== "output" ? 0.45 : used ? 0.9 : 0.15, text: phases.join("") };
		}) +
		box("frame", left - first * unit, top - first * unit, side) + grid(output, m, small, ([y, x], number) => {
			const done = view === "windows" ? number <= moment : lines[y][0]?.i * n + lines[x][0]?.i <= moment, count = done * lines[y].length * lines[x].length;
			return heat ? { fill: COLOURS[0], text: count, opacity: (0.75 * count) / most ** 2 } : { fill: fillOf([phase(y), phase(x)]), opacity: count && (!kind || isLit(lines, pixel, "output", [y, x]) ? 0.7 : 0.3) };
		});
	const hit = kind === "output" ? at : at.map((i) => i * s - crop), mark = kind ? box("mark", output.x + hit[1] * small, output.y + hit[0] * small, small * (kind === "output" || span)) : "";
	return { svg: svg + mark, height: max(top + size * unit, 20 + side, 20 + span * small) + 3, zones: { input, output } };
}

// The panels below the picture: title, what it says, and inputs before that.

const button = (changes, text, more = "") => `<button data-set='${JSON.stringify(changes)}' ${more}>${text}</button>`;
const images = [];
const image = (values, text) => (images.push(values), `<figure><canvas></canvas><figcaption>${text}</figcaption></figure>`);

// Numbers as grey squares.
function paint(canvas, values) {
	const least = min(...values), scale = 255 / (max(...values) - least), size = canvas.width = canvas.height = values.length ** 0.5;
	const pixels = new ImageData(size, size), greys = values.map((value) => (scale < 1e6 ? round((value - least) * scale) : 160));
	new Uint32Array(pixels.data.buffer).set(greys.map((grey) => 0xff000000 + 0x010101 * grey));
	canvas.getContext("2d").putImageData(pixels, 0, 0);
}

const PANELS = [
	["taps", "Taps and gains", ({ s, span, kernel, both }) => {
		const gains = range(both ? s * s : s, (phase) => sum(kernel.filter((_, t) => split(t, span).every((at, axis) => at % s === split(phase, s)[axis]))));
		const chips = each(gains, (gain, phase) => cell((phase % s) * 50, floor(phase / s) * 26, 50, 26, { fill: colourOf(phase, gains.length), opacity: 0.5, text: short(gain) }));
		return `<p>Gains, what each phase makes of a constant 1, ${areEqual(gains, kernel) ? "are equal: a flat image stays flat" : `differ: a flat image gets a pattern with period ${s}`}.</p>
			<svg role="img" aria-label="gains ${gains.map(short).join(", ")}" width="${50 * s}" height="${(26 * gains.length) / s}">${chips}</svg>`;
	}, ({ k, taps, both }) => {
		const size = both ? k * k : k, grid = (filter) => `<div class="ux-taps" style="--k: ${k}">${range(size, (t) => `<input data-tap="${filter * size + t}" aria-label="tap ${both ? split(t, k) : t} of filter ${filter}">`).join("")}</div>`;
		return `<div class="ux-row">${button({ taps: "ones" }, "ones")}${button({ taps: "random" }, "random")}</div>${taps.length > 256 ? "Too many taps." : range(taps.length / size, grid).join("")}`;
	}],
	["pictures", "Pictures", ({ state, s, k, taps, both, shuffled }) => {
		const filters = shuffled ? s : 1, square = both ? taps : outer(taps, k), bytes = atob(PHOTOGRAPH), side = s > 4 ? 8 : s > 2 ? 16 : 32, edge = (33 * (32 - side)) / 4;
		const photograph = range(side ** 2, (place) => bytes.charCodeAt(floor(place / side) * 32 + (place % side) + edge) / 255);
		return `<p>The least value is black, the greatest white${both ? "" : "; these taps on both axes"}.</p>` + each([["a flat image", range(64, () => 1), 8], ["a photograph", photograph, side]], ([name, given, n]) => {
			const layer = { ...state, inputSize: n }, lines = range(sizeOf(layer), (j) => reads(layer, j)), made = [];
			for (const above of lines) for (const across of lines) {
				let total = 0;
				for (const y of above) for (const x of across) total += given[y.i * n + x.i] * y.factor * x.factor * square[((y.r * filters + x.r) * k + y.a) * k + x.a];
				made.push(total);
			}
			return image(given, name) + image(made, `made of it: ${short(min(...made))} to ${short(max(...made))}`);
		});
	}],
	["frequencies", "Frequencies", ({ s, span, kernel, both }) => {
		const magnitude = (parts) => { // at frequencies in parts of a cycle a pixel
			const waves = ["cos", "sin"].map((wave) => range(parts, (part) => Math[wave]((2 * Math.PI * part) / parts)));
			return ([g, f]) => Math.hypot(...waves.map((wave) => {
				let total = 0;
				for (let t = 0; t < kernel.length; t++) total += kernel[t] * wave[(f * (t % span) + g * floor(t / span)) % parts];
				return total;
			}));
		};
		const total = sum(kernel.map(abs)), alias = magnitude(s), isZero = (at) => alias(at) < 1e-6 * total, points = range(both ? s * s : s, (place) => split(place, s)).slice(1), zeros = points.filter(isZero);
		const dots = (place) => each(points, (at) => `<circle class="${isZero(at) ? "ring" : "dot"}" cx="${place(at)[1]}" cy="${place(at)[0]}" r="5"/>`), height = (value) => 100 - (90 * value) / total, fine = magnitude(both ? 24 : 120);
		return `<p>Upsampling repeats the spectrum at multiples of 1/${s} cycle a pixel; |V(f)| is what the kernel leaves of it. It is zero (rings) at ${zeros.length} of these ${points.length} points: a flat image ${zeros.length < points.length ? "gets a pattern" : "stays flat"}.</p>` +
			(both ? `<div class="ux-map">${image(range(576, (place) => fine(split(place, 24))), "|V|, frequencies from 0 to 1")}<svg aria-hidden="true" viewBox="0 0 192 192">${dots((at) => at.map((f) => (192 * f) / s))}</svg></div>`
				: `<svg aria-hidden="true" viewBox="0 0 320 124"><path class="line" d="M${range(121, (x) => `${10 + 2.5 * x} ${height(fine([0, x]))}`).join("L")}"/>
					${dots((at) => [height(alias(at)), 10 + (300 * at[1]) / s])}${range(s + 1, (j) => `<text x="${10 + (300 * j) / s}" y="120">${j % s ? `${j}/${s}` : j / s}</text>`).join("")}</svg>`);
	}],
	["forms", "Other forms", ({ state, s, span, kernel, both, taps }) => {
		const lines = range(both ? 2 * span : 1, (line) => range(span, (t) => kernel[line < span ? line * span + t : t * span + line - span]));
		const [gains] = lines.map((line) => phaseGains({ taps: line, stride: s })).sort((a, b) => spread(b) - spread(a));
		return `<ul>${each(forms({ ...state, taps: both ? undefined : taps, gains }), (other) => `<li>${LAYERS[`${other.operator} nearest`]}: ${other.reason ? `none, for ${other.reason}` : `<code>${codeOf(other, state.channels)}</code>`}</li>`)}</ul>`;
	}],
	["sizes", "From n to m", ({ state: { inputSize, outputSize, dilation } }) => {
		try {
			const found = solveConvTranspose({ inputSize, outputSize, dilation });
			return `<p>ConvTranspose2d, the best of ${found.length} first:</p><ol>${each(found.slice(0, 8), ({ evenOverlap, reachesAll, inPlace, ...layer }) =>
				`<li>${button({ ...layer, operator: "conv_transpose" }, entries(layer).slice(0, 4).map(named).join(", "))} ${evenOverlap ? "even" : "uneven"}${inPlace ? ", in place" : ""}${reachesAll ? "" : ", some pixels get no tap"}</li>`)}</ol>`;
		} catch ({ message }) { return `<p>${message}.</p>`; }
	}, () => `<div class="ux-row"><label>to output_size <input type="number" data-key="outputSize" min="1" max="512"></label></div>`],
];

// 32 x 32 grey values of scikit-image's chelsea, by Stefan van der Walt (CC0).
const PHOTOGRAPH = "7+XRsKCopJ6Lk4WBmJm5uF1JpWtNYlwdXoiLoLLF3+THubGwsJOKd4aVjpSLi6KxkIK8aGFlVFJld22Qv9Tn4p63v6WGho6el4x5bZiLkaV/V6qqf09Of3Z1b3yv4Ozfnb2hioKXoZuBcWp+qKevp5mHgraYZXmgiXJ9fJrD49m3sp6NmqyXdHp9bICmuriBiMB9g4xbdaFaX4WTs8/azLCVmJ6rpoRveXdjc6a5sWh5zK9ulXF2m1KimrTPydXFuJygr7uvnZSQnnR2pMK1aoLT1luZgo2VWsmdstLGx96lm7axwbzb16y8noO0yq9flOroaaR0hKdv36iXy9S117W0sL7W5OfaxLi3vcLUpmW3++mPq4eVy5Divo3J6MbJTW6Lsc23ck5NPEJkpNasdMnu5cu2ocfyyOnhiMvw08hqlLrMwVwiZmtBAAAcj7ir1NfX3NPF4ffw8O+UzOrX0oOeyvTrX2ifmkMLABofjNLe0b7J1djk8+za36fU4+LvrI6z4vdudpqFAAAOSCEwy+jZvsC82PHx28fUmHFfU6DEnpe56qNflGQAACBgMgm68ua/ubjR9O3U0ZUaFFE5Ybahhoys02KAgiAQUnU3C5799ce6sNLw5c+2JgoRbWd4rJ19fXaktm6DfXmBQx0AfP3/1sa0yu3d1ooVABWGha/EqpiLiXyauYFQNRkMBwBh7v/hzL/D28DSgzgAP5tx2turoJmQiZGcusSpnpFWIEXW+d3MwsDPvNeBaVmBXIn/w6Z6mJ6VnZGUqM7dtWhBM6DO0sbM0NC5v1Q/QkBz192Bbl5qdJGVl5qgnKCZfFY1V5u1v9DV7MWNY6apxNu6kFRYaIKHj4iLkZ6jqqSRbEFXhqC6y9n/4YBbvMG5r5GOnZKLiYWAbH2KjKK+uZ98WlNliaq71//slGCZk5mak5jIvrqut6uUlJupo7Ctm3poQkJpkKfG/+iWZZeakZGRsbm6x9be2s3Fvrits66nioJiPkl4nLv12npZi5WFgLPql7zL2eDj4uPjzLqqqrCxnG9HPmqSruzidV5/jYyhzP+Ors3g7/Pw5s28s6+OgaujfkY1XIijzcR5aoaTuMvF4IN1ms/n6+/67Lqeg4Sat8CXMB8vT3Wil2t1h5HNw7azvZ6Psdbn9f7x6N/CpHyw2ddpGipCR1VFQ4uBj8zGv6rTuIx0pdj47Mu+tKWqqMnp//J/CAgzMj2Rsouo09TXyOzj0rmqsN/w49C7n56aueb//+VYGSEzlN28qsfe1MzD//3pzbe4xtPKuaWYprjV6u3y7JUIGIPUzJaPwNjLs6//+PTw5Me/09O/s5+jqbS3ub25kxJetr2rl5vD1sisoA==";

export function render({ model, el, linked }) {
	const name = linked && model.get("name"), hash = `#${name}?`;
	let state = stateOf((key) => model.get(key)), pixel, moment, timer, telling, scene;
	el.innerHTML = `<div class="ux" role="group" aria-label="An upsampling layer">
		<div class="ux-row"><label>Layer <select>${each(entries(LAYERS), ([value, text]) => `<option value="${value}">${text}</option>`)}</select></label>${button({ axes: 1 }, "one axis")}${button({ axes: 2 }, "both axes")}</div>
		<div class="ux-sliders">${each(Object.keys(ALLOWED).slice(0, 6), (key) => `<label><span></span><input type="range" data-key="${key}" min="${ALLOWED[key][1]}"></label>`)}</div><p class="ux-text"></p>
		<div class="ux-box"><div></div>${each(["input", "output"], (kind) => `<div class="ux-zone" data-kind="${kind}" role="slider" tabindex="0" aria-label="${kind} pixel"></div>`)}</div><p class="ux-text"></p>
		<div class="ux-row">${button({ move: -1 }, "◀", 'aria-label="step back"')}${button({ move: 0 }, "▶ play", "data-play")}${button({ move: 1 }, "▶|", 'aria-label="step"')}<span>Show ${button({ view: "stamps" }, "stamps")} ${button({ view: "windows" }, "windows")}</span><span>Colour ${button({ colour: "phase" }, "phases")} ${button({ colour: "overlap" }, "overlap")}</span></div>
		<p><label>PyTorch, to copy or to paste a layer<textarea></textarea></label></p><div class="ux-row">${button({ copy: 1 }, "Copy")}<span class="ux-text"></span></div>
		${each(PANELS, ([open, title]) => `<details data-open="${open}"><summary>${title}</summary><div></div><div></div></details>`)}<p class="ux-said" role="status"></p></div>`;
	const root = el.firstChild, one = (css) => root.querySelector(css), every = (css) => [...root.querySelectorAll(css)];
	const on = (type, does) => root.addEventListener(type, does, true), line = one("textarea"), texts = every(".ux-text"), sizeFor = (kind) => (kind === "input" ? scene.n : scene.m), within = (kind, index) => max(0, min(sizeFor(kind) - 1, index));
	const tell = (place) => { clearTimeout(telling); telling = setTimeout(() => { one(".ux-said").textContent = texts[place].textContent; }, 300); };
	const draft = (make) => { try { make(); } catch ({ message }) { return message; } };

	function change(changes) {
		const { axes, taps } = state;
		state = { ...state, ...changes };
		const count = countOf(state), along = axes < state.axes && taps.length ** 2 === count; // a line of taps goes on both axes
		if (state.taps !== "ones" && (state.taps === "random" || state.taps.length !== count)) state.taps = along ? outer(taps, state.kernelSize) : range(count, () => round(Math.random() * 200 - 100) / 100);
		update();
		if (name) history.replaceState(null, "", hash + entries(state).filter(([key, value]) => value !== DEFAULTS[key]).map(named).join("&"));
	}

	function update() {
		stop();
		for (const label of every(".ux-sliders label")) {
			const [text, input] = label.children, { key } = input.dataset;
			label.hidden = key === "outputPadding" && state.operator !== "conv_transpose";
			input.max = max(ALLOWED[key][3], state[key]);
			text.innerHTML = `${key === "stride" ? SCALES[state.operator] : snake(key)} <b>${state[key]}</b>`;
		}
		one("select").value = `${state.operator} ${state.operator === "upsample_conv" ? state.mode : "nearest"}`;
		line.value = codeOf(state, state.channels);
		scene = null;
		const wrong = draft(() => { scene = sceneOf(state); });
		texts[0].innerHTML = scene ? formula(scene) : `<span class="ux-wrong">PyTorch refuses this: ${wrong}.</span>`;
		tell(0);
		draw();
		every("details").forEach((part, place) => {
			const [open, , words, inputs] = PANELS[place], [, top, bottom] = part.children;
			part.open ||= state.open === open;
			const shown = part.open && (scene || open === "sizes"), html = shown && inputs?.(scene);
			if (part.shown !== html) top.innerHTML = part.shown = html || "";
			bottom.innerHTML = shown ? words(scene ?? { state }) : "";
		});
		for (const canvas of every("canvas")) paint(canvas, images.shift());
		for (const input of every("input")) if (input !== document.activeElement) input.value = state[input.dataset.key] ?? scene?.taps[input.dataset.tap];
		for (const set of every("[data-set]")) {
			const changes = entries(JSON.parse(set.dataset.set));
			if (changes[0][0] in state) set.ariaPressed = changes.every(([key, value]) => state[key] === value);
		}
	}

	function draw() {
		const width = max(280, root.clientWidth);
		one(".ux-box").hidden = !scene;
		if (!scene) return;
		if (pixel) pixel.at = range(state.axes, (place) => within(pixel.kind, pixel.at[place] ?? pixel.at[0]));
		const picture = (scene.both ? drawImage : drawAxis)(scene, pixel ?? {}, moment, width);
		one(".ux-box div").innerHTML = `<svg aria-hidden="true" width="${width}" height="${picture.height}">${picture.svg}</svg>`;
		every(".ux-zone").forEach((zone) => {
			const { kind } = zone.dataset, { x, y, width: wide, height } = picture.zones[kind], size = sizeFor(kind), at = pixel?.kind === kind ? pixel.at : [0];
			zone.style.cssText = `left: ${x}px; top: ${y + 8}px; width: ${wide}px; height: ${height}px`;
			Object.assign(zone, { ariaValueMax: size ** state.axes - 1, ariaValueNow: at.reduce((number, index) => number * size + index), ariaValueText: listed(at) });
		});
		texts[1].textContent = pixel ? sentence(scene, pixel) : `${state.view === "stamps" ? "Input pixels add stamps to the output" : "Output pixels gather through windows"}. Point at one, or use Tab and arrow keys.`;
	}

	const look = (kind, at) => { stop(); pixel = { kind, at }; draw(); tell(1); };

	// Motion goes from pixel to pixel; zeros are stuffed in first.
	function stop(at = Infinity) {
		clearInterval(timer);
		timer = 0;
		moment = at;
		one("[data-play]").textContent = "▶ play";
	}
	function move(by) {
		const kind = state.view === "stamps" ? "input" : "output", size = sizeFor(kind), count = size ** state.axes;
		const first = kind === "output" && scene.transposed && !scene.both ? -1 : 0, next = moment < Infinity ? moment + by : by > 0 ? first : count - 1;
		if (next < first || next >= count) stop();
		else [moment, pixel] = [next, next < 0 ? null : { kind, at: scene.both ? split(next, size) : [next] }];
		draw();
		tell(1);
	}

	function recall() {
		if (!location.hash.startsWith(hash)) return update();
		const given = new URLSearchParams(location.hash.slice(hash.length));
		state = stateOf((key) => given.get(key));
		update();
		el.scrollIntoView();
	}
	const follow = () => {
		const wrong = draft(() => change(read(line.value)));
		texts[2].textContent = wrong ?? "The controls follow.";
		if (wrong) tell(2);
	};

	on("input", ({ target: { dataset: { key, tap }, value, tagName }, inputType }) => {
		const [operator, mode] = value.split(" "), number = Number(value);
		if (tagName === "TEXTAREA" && inputType === "insertFromPaste") follow();
		if (tagName === "SELECT") change({ operator, mode });
		if (key && isAllowed(key, number)) change({ [key]: number });
		if (tap && value && isFinite(number)) change({ taps: scene.taps.with(tap, number) });
	});
	line.addEventListener("change", follow);
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
		const { target, target: { dataset: { kind } }, key } = event, by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -1e9, End: 1e9 }[key];
		if (target === line && key === "Enter") { event.preventDefault(); follow(); }
		if (!kind || !by) return;
		event.preventDefault();
		const along = /Up|Down/.test(key) ? 0 : state.axes - 1, at = pixel?.kind === kind ? pixel.at : range(state.axes, () => 0);
		look(kind, at.map((index, place) => within(kind, index + (place === along || abs(by) > 1 ? by : 0))));
	});
	for (const event of ["pointermove", "pointerdown"]) on(event, ({ target, offsetX, offsetY }) => {
		const { kind } = target.dataset;
		if (!kind || timer) return;
		const at = [offsetY / target.clientHeight, offsetX / target.clientWidth].slice(2 - state.axes).map((part) => within(kind, floor(part * sizeFor(kind))));
		if (`${pixel?.kind}${pixel?.at}` !== `${kind}${at}`) look(kind, at);
	});
	addEventListener("hashchange", recall);
	recall();
	new ResizeObserver(draw).observe(root);
	return () => { stop(); removeEventListener("hashchange", recall); };
}

// Fill every figure that `explore` left in the page; if `linked`, the state is part of the address.
export function mount(linked) {
	for (const el of document.querySelectorAll("[data-settings].upconv-explorer")) {
		const model = new Map(entries(JSON.parse(el.dataset.settings)));
		el.removeAttribute("data-settings");
		render({ model, el, linked });
	}
}

export default { render };
