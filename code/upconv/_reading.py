"""Reading a captured graph: F.relu, Tensor.relu_ and aten.relu.default are one thing. Not for users."""

from __future__ import annotations

import inspect
import operator
import os
import re

import torch
from torch import fx
from torch._ops import HigherOrderOperator, OpOverload, OpOverloadPacket
from torch.utils._pytree import tree_leaves

__all__ = [
    "CASTS",
    "CATS",
    "CHANNELWISE",
    "DROPOUTS",
    "INTERPOLATE",
    "INTERPOLATIONS",
    "NEW_MEMORY",
    "POINTWISE",
    "arguments_of",
    "axes_of",
    "base_name",
    "changed_by",
    "has_memory",
    "is_fixed_norm",
    "is_image",
    "is_tensor",
    "name_of",
    "origin_of",
    "out_of_place",
    "value_of",
    "without_inplace",
]

aten = torch.ops.aten

CASTS = set("to float half double bfloat16 type type_as _to_copy".split())
CATS = {"cat", "concat", "concatenate"}
DROPOUTS = set("dropout dropout1d dropout2d dropout3d feature_dropout alpha_dropout feature_alpha_dropout".split())
POINTWISE = CASTS | set(
    "relu relu6 leaky_relu elu selu celu gelu silu mish sigmoid tanh hardtanh hardswish hardsigmoid softplus softsign "
    "logsigmoid log_sigmoid clamp clip clamp_min clamp_max neg abs exp log sqrt rsqrt square sin cos pow add sub mul "
    "div truediv".split()
)
INTERPOLATE = "input size scale_factor mode align_corners recompute_scale_factor antialias".split()
CHANNELWISE = {"batch_norm", "group_norm", "prelu"}  # of their tensors only the first is an image
INTERPOLATIONS = re.compile(
    r"(interpolate|upsample)$|_?upsample_(nearest|nearest_exact|linear|bilinear|trilinear|bicubic)[123]d(_aa)?$"
)
NEW_MEMORY = re.compile(  # operations that give no view of what they are given
    f"({'|'.join(CATS | CHANNELWISE | POINTWISE - CASTS)}|conv.*|.*interpolate|.*upsample.*|.*pool.*|.*norm|linear|"
    "clone|matmul|bmm|softmax|scaled_dot_product_attention|sum|mean|pixel_shuffle|stack)$"
)
IN_PLACE = {name for name in dir(operator) if name[0] == "i" and {name[1:], name[1:] + "_"} & set(dir(operator))}


def value_of(node):
    return node.meta.get("example_value", node.meta.get("val")) if isinstance(node, fx.Node) else node


def is_tensor(node):
    return isinstance(node, fx.Node) and isinstance(value_of(node), torch.Tensor)


def is_image(node):
    return is_tensor(node) and value_of(node).dim() in (3, 4, 5)


def axes_of(node):
    """Count the axes of an image, beside batch and channels."""
    return value_of(node).dim() - 2


def has_memory(node):
    value = value_of(node)
    return value is None or any(isinstance(leaf, torch.Tensor) for leaf in tree_leaves(value))


def name_of(node):
    """Name the operation, in place or not; another namespace's with that."""
    if node.op == "call_method":
        return node.target
    if isinstance(node.target, (OpOverload, OpOverloadPacket)):
        name = node.target.name() if isinstance(node.target, OpOverload) else node.target._qualified_op_name
        return name.partition(".")[0].removeprefix("aten::")
    module = (getattr(node.target, "__module__", None) or "").partition(".")[0]
    return node.target.__name__ if node.op == "call_function" and module in ("torch", "_operator") else ""


def base_name(node):
    """Name what it computes."""
    name = name_of(node)
    if name in IN_PLACE:
        return name[1:]
    return name if name.endswith("__") else name.rstrip("_")


def arguments_of(node, **defaults):
    """Give the values of arguments by their names in `defaults`, which are in PyTorch's order."""
    given = dict(zip(defaults, node.args, strict=False)) | node.kwargs
    return [given.get(name, default) for name, default in defaults.items()]


def is_fixed_norm(node):
    """Whether a batch norm does not train: argument number 5, in both of torch's languages."""
    return arguments_of(node, **dict.fromkeys("abcdef"))[5] is False


def without_inplace(node):
    """Give the arguments by name of a Python function that has an option `inplace`, and it is on; otherwise None."""
    try:
        arguments = dict(inspect.signature(node.target).bind(*node.args, **node.kwargs).arguments)
    except (TypeError, ValueError):
        return None
    return arguments if arguments.pop("inplace", False) is True else None


def changed_by(node):
    """List the nodes whose tensors an operation changes in place."""
    if isinstance(node.target, OpOverload):
        written = [a for a in enumerate(node.target._schema.arguments) if a[1].alias_info and a[1].alias_info.is_write]
        given = [node.args[i] if i < len(node.args) else node.kwargs.get(a.name) for i, a in written]
    elif isinstance(node.target, (HigherOrderOperator, OpOverloadPacket)):
        bodies = [getattr(node.graph.owning_module, one.target) for one in node.all_input_nodes if one.op == "get_attr"]
        steps = [step for body in bodies if isinstance(body, fx.GraphModule) for step in body.graph.nodes]
        given = node.all_input_nodes if not steps or any(map(changed_by, steps)) else []
    else:
        name, given = name_of(node), tree_leaves(node.kwargs.get("out"))
        if (
            name in ("setitem", "delitem")
            or name != base_name(node)
            or (node.op == "call_function" and without_inplace(node))
        ):
            given += node.all_input_nodes[:1]
        if name.startswith("embedding") or (name == "batch_norm" and not is_fixed_norm(node)):
            given += node.all_input_nodes[1:]  # max_norm, and running statistics
    return [value for value in given if isinstance(value, fx.Node)]


def origin_of(node):
    """Name the module that a node is in, and the line of code that calls it."""
    path = next((path for path, _ in reversed(node.meta.get("nn_module_stack", {}).values())), "")
    path = re.sub(r"(__dict__)?\[?'?_modules'?\]?\['(\w+)'\]|\[(\d+)\]", r".\2\3", re.sub(r"^L\['\w+'\]", "", path))
    path = ".".join(filter(None, path.split(".")))
    lines = re.findall(r'File "(.+?)", line (\d+)', node.meta.get("stack_trace") or "")
    file, line = ([line for line in lines if "/torch/" not in line[0]] or lines or [("?", "?")])[-1]
    return path or "(the model itself)", f"{os.path.basename(file)}:{line}"


def out_of_place(node, base):
    """Give target and arguments of the same operation that leaves its input as it is."""
    if base in CASTS:
        return aten.to.dtype, (node.all_input_nodes[0], value_of(node).dtype), {}
    if node.op == "call_method":
        return getattr(torch.Tensor, base), node.args, node.kwargs
    if base == "group_norm" and not isinstance(node.target, OpOverload):  # the function refuses single pixels
        names = dict(input=None, num_groups=None, weight=None, bias=None, eps=1e-5)
        return aten.group_norm.default, tuple(arguments_of(node, **names)), {}
    if isinstance(node.target, OpOverload):
        return getattr(getattr(aten, base), node.target._overloadname), node.args, node.kwargs
    if (arguments := without_inplace(node)) is not None:
        return node.target, (), arguments
    target = node.target if base == name_of(node) else getattr(operator if hasattr(operator, base) else torch, base)
    return target, node.args, node.kwargs
