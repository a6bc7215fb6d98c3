"""If nodes whose condition is a constant: PyTorch's old exporter writes one for each squeeze of a dimension it does not know."""

import onnx_ir as ir

from emca_deploy.canonical.edit import constant_of, take_over

__all__ = ["inline_branches"]


def inline_branches(model: ir.Model) -> bool:
    """Put the branch that is taken in the place of each If with a constant condition; return whether there was one."""
    graph = model.graph
    changed = False
    for node in list(graph):
        condition = constant_of(node.inputs[0]) if node.op_type == "If" and node.inputs else None
        if condition is None or condition.size != 1 or node.domain != "":
            continue
        branch = node.attributes["then_branch" if bool(condition.ravel()[0]) else "else_branch"].as_graph()
        _inline(graph, node, branch)
        changed = True
    return changed


def _inline(graph: ir.Graph, node: ir.Node, branch: ir.Graph) -> None:
    results = list(branch.outputs)
    for name, value in list(branch.initializers.items()):
        branch.initializers.pop(name)
        value.name = f"{node.name}/{name}"
        graph.register_initializer(value)
    members = list(branch)
    branch.remove(members)
    for member in members:
        member.name = f"{node.name}/{member.name or member.op_type}"
        for value in member.outputs:
            value.name = f"{node.name}/{value.name}"
    branch.outputs.clear()
    graph.insert_before(node, members)
    for old, new in zip(node.outputs, results, strict=True):
        new.shape = None  # both branches' shapes were merged into the If's; the next inference finds this one's
        take_over(graph, old, new)
    graph.remove(node, safe=True)
