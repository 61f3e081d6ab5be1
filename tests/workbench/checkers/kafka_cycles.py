"""Cycles in a directed graph. A graph lists, for each node, the nodes that its edges lead to."""

from __future__ import annotations


def components(edges: list[list[int]]) -> list[list[int]]:
    """Returns the strongly connected components with two nodes or more (Tarjan's algorithm)."""
    index: dict[int, int] = {}
    low: dict[int, int] = {}
    stack: list[int] = []
    on_stack: set[int] = set()
    found: list[list[int]] = []
    for root in range(len(edges)):
        if root in index:
            continue
        work = [(root, iter(edges[root]))]
        index[root] = low[root] = len(index)
        stack.append(root)
        on_stack.add(root)
        while work:
            node, after = work[-1]
            following = next(after, None)
            if following is None:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    component = [stack.pop()]
                    while component[-1] != node:
                        component.append(stack.pop())
                    on_stack.difference_update(component)
                    if len(component) > 1:
                        found.append(sorted(component))
            elif following not in index:
                index[following] = low[following] = len(index)
                stack.append(following)
                on_stack.add(following)
                work.append((following, iter(edges[following])))
            elif following in on_stack:
                low[node] = min(low[node], index[following])
    return found


def shortest_cycle(component: list[int], edges: list[list[int]]) -> list[int]:
    """Returns a shortest cycle through the component's first node."""
    inside = set(component)
    start = component[0]
    before = {start: start}
    queue = [start]
    for node in queue:
        for following in edges[node]:
            if following == start:
                path = [node]
                while path[-1] != start:
                    path.append(before[path[-1]])
                return path[::-1]
            if following in inside and following not in before:
                before[following] = node
                queue.append(following)
    raise AssertionError("a component without a cycle")
