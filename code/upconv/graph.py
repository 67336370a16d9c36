"""Functional code: upsampling folded into the convolutions that read it, in a graph that PyTorch has captured.

`torch.compile(model, backend="upconv")` does it whatever Python wrote the graph, in training too; `fold_exported` does
it to an exported program.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import ExportGraphSignature, InputKind, InputSpec, TensorArgument

from upconv._folding import Folding, Kernel, Site

__all__ = ["backend", "fold_exported", "folded_copy"]

logger = logging.getLogger("upconv")


def backend(
    gm: fx.GraphModule, example_inputs: list[Any], *, options: dict[str, Any] | None = None, mode: str | None = None
) -> Callable[..., Any]:
    """Compile a captured graph with its upsampling folded; for `torch.compile(model, backend=upconv.backend)`.

    An installed package is found by its name, too: `torch.compile(model, backend="upconv")`.

    Parameters
    ----------
    gm : torch.fx.GraphModule
    example_inputs : list
        Both as `torch.compile` gives them.
    options : dict, optional
        `inner`: what compiles the folded graph, "inductor" (the default), "aot_eager" or "eager". `to`: the form,
        "conv_transpose" (the default), or "fastest": for each upsampling the one that the rule of
        `upconv.fastest.fastest` chooses. `everything`: whether upsampling that no convolution reads, and a convolution
        with a pixel shuffle after it, become transposed convolutions, too, which gains nothing by itself; False by
        default. All others are inductor's own.
    mode : str, optional
        Inductor's own, as in `torch.compile`.

    Returns
    -------
    callable

    Raises
    ------
    ValueError
        If an option has a value that is not accepted, or is not known.

    See Also
    --------
    fold_exported : The same for an exported program.
    upconv.models.rewrite : Layers, in eager mode; other forms, too.
    upconv.audit.audit : What would be folded, and why the rest would not.

    Notes
    -----
    Folded are nearest upsampling by whole numbers, and linear and cubic where it is exact at the border too, before a
    convolution with stride 1, in one to three dimensions (a transposed one with stride 1 is one, too): through `cat`
    and sums with other tensors, pads, casts that change nothing, and, where it is nearest, pointwise functions and
    normalisation; for several readers at once. A 1x1 convolution is moved before any interpolation that enlarges.
    Gradients, inference mode, autocast and dynamic sizes are PyTorch's own. What was folded, and why the rest was not,
    is told to the logger "upconv" at level INFO, and by `upconv.audit`.

    While a weight needs no gradient, its kernel is composed once, in float64, and again when the weight has changed. On
    a CPU its values are compared at each call. On other devices that would make the call wait, so storage and version
    are: they tell of optimizers, `load_state_dict`, `copy_` and a new parameter, but not of a write through
    `weight.data`; call `torch.compiler.reset()` after one. With a gradient, or of a weight that the model computes (a
    parametrization), the kernel is composed at each call: for many channels and few pixels that can cost more than the
    fold saves, and `upconv.rewrite` does not do it. An infinite pixel or weight can give NaN at other places than
    before, and an upsampled tensor that a model returns as well is no longer what its convolutions read: it gets no
    gradient through them.

    Examples
    --------
    >>> from torch import nn
    >>> model = torch.compile(nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(4, 4, 3)), backend=backend)
    """
    options = dict(options or {})
    inner, to = options.pop("inner", "inductor"), options.pop("to", "conv_transpose")
    everything = options.pop("everything", False)
    for name, value, accepted in (
        ("inner", inner, ("inductor", "aot_eager", "eager")),
        ("to", to, ("conv_transpose", "fastest")),
        ("everything", everything, (True, False)),
    ):
        if value not in accepted:
            raise ValueError(f"options: {name}={value!r} must be one of {', '.join(map(str, accepted))}")
    if inner != "inductor" and (options or mode):
        raise ValueError(f"options: {', '.join(options) or 'mode'} is not known with inner={inner!r}")
    settings = {}
    gm, sites, kernels = folded_copy(gm, example_inputs, everything, inner == "inductor" if to == "fastest" else None)
    for site in sites:
        logger.info("%s", site)
    if options or mode:
        from torch._inductor import list_mode_options  # noqa: PLC0415 - seconds to import

        settings["config_patches"] = {**(list_mode_options(mode) if mode else {}), **options}
    compiled = torch._dynamo.lookup_backend(inner)(gm, example_inputs, **settings)
    if not kernels:
        return compiled

    def call(*inputs):
        for kernel in kernels:
            kernel.refresh(inputs)
        return compiled(*inputs)

    return call


def fold_exported(program: ExportedProgram, *, everything: bool = False) -> ExportedProgram:
    """Fold the upsampling of an exported program, with the composed kernels as constants.

    Parameters
    ----------
    program : torch.export.ExportedProgram
        As `torch.export.export` gives it. It is left as it is.
    everything : bool
        Whether upsampling that no convolution reads becomes a transposed convolution of its own, too, with a group for
        each channel, and a convolution with a pixel shuffle after it one: for a runtime that has no other upsampling.

    Returns
    -------
    torch.export.ExportedProgram
        It computes the same, for the same sizes; `torch.onnx.export` takes it. Weights that only the folded
        convolutions read are gone from its `state_dict`, and the kernels are there as buffers, named after them.

    Raises
    ------
    TypeError
        If `program` is no exported program.

    See Also
    --------
    backend : The same while `torch.compile` compiles.
    upconv.models.rewrite : Layers, before the export.

    Notes
    -----
    What is folded: see `upconv.backend`. A scale that only the sizes of two tensors tell (`size=`) is folded if these
    are fixed, or known to be multiples.

    Examples
    --------
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(4, 4, 3, padding=1)).eval()
    >>> program = fold_exported(torch.export.export(model, (torch.zeros(1, 4, 8, 8),)))
    >>> sorted(program.state_dict)
    ['1.bias', '1.weight_folded']
    """
    if not isinstance(program, ExportedProgram):
        raise TypeError(f"program must be a torch.export.ExportedProgram, not {type(program).__name__}")
    gm, signature, state = copy.deepcopy(program.graph_module), program.graph_signature, {}
    for new, old in zip(gm.graph.nodes, program.graph.nodes, strict=True):
        new.name = old.name  # which a copy changes if it is one of Python's, too
    constants, specs = {**program.constants, **program.state_dict}, {s.arg.name: s for s in signature.input_specs}
    changed = {spec.target for spec in signature.output_specs if spec.target}  # buffers that a call changes
    fixed = {name: constants.get(spec.target) for name, spec in specs.items() if spec.target not in changed}
    unread, folding = [node for node in gm.graph.nodes if not node.users], Folding(gm, None, fixed, everything)
    for site in folding.run():
        logger.info("%s", site)
    for name, (weight, kernel) in folding.kernels.items():
        target = f"{specs[weight].target if weight in specs else 'kernel'}_folded"
        target = next(name for name in (target, *(f"{target}{i}" for i in range(1, 10**6))) if name not in constants)
        specs[name] = InputSpec(InputKind.BUFFER, TensorArgument(name), target, persistent=True)
        constants[target] = state[target] = kernel
    for node in gm.graph.find_nodes(op="placeholder"):
        if not node.users and node not in unread and specs[node.name].kind is not InputKind.USER_INPUT:
            gm.graph.erase_node(node)
    gm.recompile()
    inputs = [specs[node.name] for node in gm.graph.find_nodes(op="placeholder")]
    state |= {spec.target: program.state_dict[spec.target] for spec in inputs if spec.target in program.state_dict}
    outputs = [
        replace(spec, arg=replace(spec.arg, name=node.name)) if isinstance(node, fx.Node) else spec
        for spec, node in zip(signature.output_specs, gm.graph.output_node().args[0], strict=True)
    ]
    settings = {name: getattr(program, name) for name in "range_constraints module_call_graph example_inputs".split()}
    signature = ExportGraphSignature(inputs, outputs)
    settings |= dict(constants=program.constants, verifiers=program.verifiers)
    return ExportedProgram(gm, gm.graph, signature, state_dict=state, **settings)


def folded_copy(
    gm: fx.GraphModule,
    example_inputs: list[Any] | None = None,
    everything: bool = False,
    compiled: bool | None = None,
) -> tuple[fx.GraphModule, list[Site], list[Kernel]]:
    """Fold a copy of Dynamo's graph (which it reads again itself), and say what became of each upsampling.

    Parameters
    ----------
    gm : torch.fx.GraphModule
        As a backend of `torch.compile` gets it. It is left as it is.
    example_inputs : list, optional
        As it gets them, too. Without them, and where a weight needs a gradient, is computed, or changed in the graph,
        the graph composes the kernels; the others are buffers of the copy.
    everything : bool
        As in `backend`.
    compiled : bool, optional
        For the fastest of all forms: whether inductor compiles the copy.

    Returns
    -------
    torch.fx.GraphModule
    list of Site
        For each upsampling that enlarges: `module` and `line` (of the code that calls it), `what`, `sizes`, what its
        convolutions `became`, the `reasons` why others are as they were, and their multiply-accumulates before and
        after, `macs`.
    list of Kernel
        Of those that are buffers: `refresh(inputs)` composes one again if its weight has changed.
    """
    meta, gm = gm.meta, fx.GraphModule(gm, copy.deepcopy(gm.graph))
    gm.meta.update(meta)
    sites = []
    for name, child in gm.named_children():  # the bodies of checkpoints and the like
        if isinstance(child, fx.GraphModule):
            body, inside, _ = folded_copy(child, None, everything, compiled)
            gm.add_module(name, body)
            sites += inside
    folding = Folding(gm, example_inputs, None, everything, compiled)
    return gm, sites + folding.run(), folding.kernels
