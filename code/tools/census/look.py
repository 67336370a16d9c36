"""Look at one model: its upsampling steps as PyTorch's operators show them, and what the module does with each."""

import collections
import contextlib
import datetime
import importlib.metadata

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.weak import WeakIdKeyDictionary

import upconv
from tools.census.make import inputs_of, made

__all__ = ["COLUMNS", "FORMS", "KINDS", "Steps", "called", "examine", "fold", "published", "row"]

FORMS = (
    *("transposed_2_2", "transposed_4_2", "transposed_3_2", "transposed_other"),
    *("nearest_conv_3", "nearest_conv_other", "nearest_read_otherwise"),
    *("linear", "linear_corners", "cubic", "pixel_shuffle", "other"),
)
KINDS = ("transposed_1d", "transposed_2d", "transposed_3d", "strided", "divisible", "not_counted")
EXACT = ("exact_by_rewrite", "exact_by_backend", "shuffles_by_rewrite")
COUNTS = ("macs", "macs_rewritten", "macs_folded", "parameters")
COLUMNS = (
    *("package", "version", "model", "task", "steps", *FORMS, *KINDS, *EXACT, *COUNTS),
    *("published_input", "published_macs", "published_saved", "torch", "date"),
)
KEEP = ("aten.cat.", "aten.constant_pad", "aten.reflection_pad", "aten.replication_pad", "aten.clone", "aten.alias")
KEEP = (*KEEP, "aten.detach", "aten._to_copy", "aten.view.", "aten._unsafe_view", "aten.contiguous", "aten.split")


class Steps(TorchDispatchMode):
    """Counts the operators that enlarge, by form; for nearest upsampling, by what reads it through pads and `cat`."""

    def __init__(self):
        super().__init__()
        self.counts, self.readers = collections.Counter(), []
        self.made = WeakIdKeyDictionary()  # the upsampled tensors, and what only copies them: numbers of `readers`

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output, name = func(*args, **kwargs or {}), str(func)
        tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, torch.Tensor)]
        sources = {number for tensor in tensors for number in self.made.get(tensor, ())}
        if name.startswith(KEEP):
            for value in tree_leaves(output) if sources else ():
                self.made[value] = sources
            return output
        convolution = name.startswith("aten.convolution.")
        for number in sources:
            self.readers[number].append(set(args[1].shape[2:]) if convolution and not args[6] else None)
        x = args[0] if args and isinstance(args[0], torch.Tensor) else None
        if convolution and args[6]:
            self._transposed(x, output, args[1].shape[2:], args[3])
        elif "upsample_nearest" in name and _grows(x, output):
            self.made[output] = {len(self.readers)}
            self.readers.append([])
        elif "upsample_" in name and _grows(x, output):
            self.counts["cubic" if "cubic" in name else "linear_corners" if args[2] else "linear"] += 1
        elif name.startswith("aten.pixel_shuffle") and _grows(x, output):
            self.counts["pixel_shuffle"] += 1
        return output

    def _transposed(self, x, output, kernel, stride):
        if not _grows(x, output):
            return
        own = f"transposed_{kernel[0]}_{stride[0]}" if len({*kernel}) == len({*stride}) == 1 else ""
        divisible = all(k % s == 0 for k, s in zip(kernel, stride, strict=True))
        self.counts[own if own in FORMS else "transposed_other"] += 1
        self.counts[f"transposed_{len(kernel)}d"] += 1
        self.counts["strided"] += max(stride) > 1
        self.counts["divisible"] += max(stride) > 1 and divisible

    def forms(self):
        """Give the counts, nearest upsampling included."""
        found = collections.Counter(self.counts)
        for readers in self.readers:
            plain = bool(readers) and None not in readers
            found["nearest_read_otherwise" if not plain else _nearest(readers)] += 1
        return found


def _of_a_picture(line):
    """Whether what has grown is a picture: a table of attention and a sentence also have axes that become longer."""
    small, large = line["sizes"]
    return len(small) > 1 and large[-2] * small[-1] == large[-1] * small[-2]


def _nearest(readers):
    return "nearest_conv_3" if all(kernel == {3} for kernel in readers) else "nearest_conv_other"


def _grows(x, output):
    small, large = x.shape[2:], output.shape[2:]
    return small != large and all(b >= a for a, b in zip(small, large, strict=True))


def row(model):
    """Make the row of a model: the columns `COLUMNS`, as a dict."""
    about = dict(package=model.package, version=importlib.metadata.version(model.package), model=model.name)
    torch.manual_seed(0)
    found = examine(made(model.make, model.part), *inputs_of(model.inputs))
    if model.published:
        found |= published(model)
    release, date = torch.__version__.partition("+")[0], datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
    return dict.fromkeys(COLUMNS, "") | about | dict(task=model.task) | found | dict(torch=release, date=date)


def examine(model, args, kwargs):
    """Count the steps, and let the module audit, exchange and fold them; what these change must be nothing."""
    expected, forms = called(model, args, kwargs, steps := Steps()), steps.forms()
    audit = upconv.audit(model, args, example_kwargs=kwargs)
    others = [line for line in audit if line["kind"].startswith("enlarged by")]
    if sum(forms[form] for form in FORMS) != len(audit) - len(others):
        raise AssertionError(f"audit and the operators that enlarge disagree:\n{audit}\n{forms}")
    forms["other"] = sum(map(_of_a_picture, others))
    exact = [line for line in audit if "conv_transpose" in line["exact_targets"]]
    shuffles = sum(line["kind"] == "PixelShuffle" for line in exact)
    folded = sum("backend=" in line["verdict"] for line in exact)
    rewritten = upconv.rewrite(model, "conv_transpose", args, example_kwargs=kwargs)
    if rewritten.counts["rewritten"] != len({line["name"] for line in exact if "backend=" not in line["verdict"]}):
        raise AssertionError(f"rewrite and audit disagree:\n{rewritten}\n{audit}")
    macs = upconv.macs(rewritten.model, args, example_kwargs=kwargs)
    saved, outputs = fold(rewritten.model, args, kwargs)
    worst = max((_distance(one, two) for one, two in zip(expected, outputs, strict=True)), default=1.0)
    if not worst < 1e-3:
        raise AssertionError(f"the folded model differs from the given one: {worst:.2g}")
    return dict(
        steps=sum(forms[form] for form in FORMS), **{name: forms[name] for name in (*FORMS, *KINDS[:-1])},
        not_counted=len(others) - forms["other"],
        exact_by_rewrite=len(exact) - shuffles - folded, exact_by_backend=folded, shuffles_by_rewrite=shuffles,
        macs=upconv.macs(model, args, example_kwargs=kwargs), macs_rewritten=macs, macs_folded=macs - saved,
        parameters=upconv.parameters(model),
    )  # fmt: skip


def fold(model, args, kwargs):
    """Run a model with the backend; give the multiply-accumulates that it saves, and the outputs."""
    saved = 0

    def counting(gm, example_inputs):
        folded = upconv.backend(gm, example_inputs, options=dict(inner="eager"))

        def run(*inputs):
            nonlocal saved
            with torch.random.fork_rng():
                before, _ = counted(gm, *map(_copy, inputs))
            after, output = counted(folded, *inputs)
            saved += before - after
            return output

        return run

    torch._dynamo.reset()
    with torch._dynamo.config.patch(recompile_limit=2**20, accumulated_recompile_limit=2**20):
        outputs = called(torch.compile(model, backend=counting, dynamic=False), args, kwargs)
    return saved // 2, outputs


def counted(function, *inputs):
    """Call a function; give its floating point operations, and its result."""
    with FlopCounterMode(display=False) as counter:
        output = function(*inputs)
    return counter.get_total_flops(), output


def called(model, args, kwargs, *modes):
    """Call a model; give the tensors of floating point among its outputs."""
    torch.manual_seed(0)
    with contextlib.ExitStack() as stack:
        for mode in (torch.no_grad(), *modes):
            stack.enter_context(mode)
        outputs = model(*tree_map(_copy, args), **tree_map(_copy, kwargs))
    leaves = tree_leaves(vars(outputs) if hasattr(outputs, "__dataclass_fields__") else outputs)
    return [value for value in leaves if isinstance(value, torch.Tensor) and value.is_floating_point()]


def _copy(value):
    return value.clone() if isinstance(value, torch.Tensor) else value


def _distance(one, two):
    if one.shape != two.shape or not torch.equal(one.isfinite(), two.isfinite()):
        return float("inf")
    one, two = (value.nan_to_num(0, 0, 0).double() for value in (one, two))
    return ((one - two).abs().amax() / one.abs().amax().clamp(min=1e-30)).item() if one.numel() else 0.0


def published(model):
    """Count the published size on the device "meta", where tensors have no values and nothing is computed."""
    make, sizes = model.published
    args, kwargs = inputs_of(sizes, "meta")
    with torch.device("meta"):
        big = made(make, model.part).to("meta")
        macs, saved = upconv.macs(big, args, example_kwargs=kwargs), fold(big, args, kwargs)[0]
    first = next(iter(sizes.values() if isinstance(sizes, dict) else sizes))
    return dict(published_input="x".join(map(str, first)), published_macs=macs, published_saved=f"{saved / macs:.4f}")
