"""The states of a small scope as a graph: in networkx, as DOT and GraphML for other tools, and as a picture.

The picture is an SVG with one column for each distance from the start. What leads from one state to another is one
line, however many transitions that is; transitions that change nothing are left out of it, and are in the graph.
"""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Final

import networkx as nx
from snapcheck.model.scope import ScopeError
from snapcheck.model.space import Space

if TYPE_CHECKING:  # at run time the class takes no parameters
    Graph = nx.MultiDiGraph[str]
else:
    Graph = nx.MultiDiGraph

STATES_MAX: Final = 1_000  # a larger graph is of no use to anybody who looks at it
PICTURE_MAX: Final = 100


def state_graph(space: Space) -> Graph:
    """Return the graph of a space; a node's name is its state in words, and `depth` how far it is from the start.

    An edge has `label` (the move in words), `ended` (ok, failed or stopped at which device) and `refused`. Raises
    `ScopeError` for more than `STATES_MAX` states.
    """
    if space.states_max > STATES_MAX:
        raise ScopeError(f"{space.states_max:,} states are too many to be drawn, {STATES_MAX:,} at most")
    graph, depths, queue = Graph(), {space.start: 0}, [space.start]
    for state in queue:  # it grows meanwhile
        graph.add_node(space.words_of(state), depth=depths[state])
        for move, after, bad, _ in space.transitions(state):
            if after is None:
                continue
            if after not in depths:
                depths[after] = depths[state] + 1
                queue.append(after)
            graph.add_edge(
                space.words_of(state), space.words_of(after), label=move.words, refused=bool(move.refused),
                ended="ok" if bad is None else f"stopped at d{bad}",
            )  # fmt: skip
    return graph


# --- for other tools ------------------------------------------------------------------------------
def graphml(graph: Graph) -> Iterator[str]:
    """Yield the lines of a GraphML file."""
    yield from nx.generate_graphml(graph)


def dot(graph: Graph) -> Iterator[str]:
    """Yield the lines of a DOT file, with all transitions between two states on one arrow."""
    yield "digraph states {"
    yield "  rankdir=LR; node [shape=box];"
    names = {node: f"s{number}" for number, node in enumerate(graph)}
    for node, name in names.items():
        yield f"  {name} [label={_quoted(node)}];"
    for (one, other), labels in _arrows(graph).items():
        yield f"  {names[one]} -> {names[other]} [label={_quoted(_several(labels))}];"
    yield "}"


def _arrows(graph: Graph) -> Mapping[tuple[str, str], Sequence[str]]:
    """Return what leads from one state to another, by the two."""
    arrows: dict[tuple[str, str], list[str]] = {}
    for one, other, about in graph.edges(data=True):
        arrows.setdefault((one, other), []).append(str(about["label"]))
    return arrows


def _several(labels: Sequence[str]) -> str:
    return labels[0] if len(labels) == 1 else f"{labels[0]} and {len(labels) - 1} more"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


# --- a picture ------------------------------------------------------------------------------------
_COLUMN: Final = 190
_ROW: Final = 34
_BOX: Final = (150, 22)
_MARGIN: Final = 20


def svg(graph: Graph) -> Iterator[str]:
    """Yield the lines of an SVG picture. Raises `ScopeError` for more than `PICTURE_MAX` states."""
    if len(graph) > PICTURE_MAX:
        raise ScopeError(f"{len(graph):,} states are too many for a picture, {PICTURE_MAX} at most")
    places = _places(graph)
    width = max(x for x, _ in places.values()) + _BOX[0] + _MARGIN
    height = max(y for _, y in places.values()) + _BOX[1] + _MARGIN
    yield f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="monospace">'
    yield "<style>path{fill:none;stroke:#8aa;stroke-opacity:.5}.back{stroke:#c96}rect{fill:#fff;stroke:#345}</style>"
    for (one, other), labels in _arrows(graph).items():
        if one != other:
            yield _line(places[one], places[other], f"{one} to {other}: {', '.join(labels)}")
    for node, (x, y) in places.items():
        yield f'<rect x="{x}" y="{y}" width="{_BOX[0]}" height="{_BOX[1]}" rx="4"/>'
        yield f'<text x="{x + 6}" y="{y + 15}" font-size="11">{escape(node)}</text>'
    yield "</svg>"


def _places(graph: Graph) -> Mapping[str, tuple[int, int]]:
    """Return where each state is drawn: in the column of its depth, in the order in which they were found."""
    rows: dict[int, int] = {}
    places: dict[str, tuple[int, int]] = {}
    for node in graph:
        depth = int(graph.nodes[node]["depth"])
        row = rows[depth] = rows.get(depth, -1) + 1
        places[node] = (_MARGIN + depth * _COLUMN, _MARGIN + row * _ROW)
    return places


def _line(one: tuple[int, int], other: tuple[int, int], title: str) -> str:
    """Return a curve: to the right of a box and on to the next column, or back in another colour."""
    (x0, y0), (x1, y1) = one, other
    ahead = x1 > x0
    x0, x1 = (x0 + _BOX[0], x1) if ahead else (x0, x1 + (_BOX[0] if x1 < x0 else 0))
    y0, y1, bend = y0 + _BOX[1] // 2, y1 + _BOX[1] // 2, 30 if ahead else -30
    kind = "" if ahead else ' class="back"'
    end = x1 - bend if x0 != x1 else x1 + bend
    return f'<path{kind} d="M{x0} {y0} C{x0 + bend} {y0} {end} {y1} {x1} {y1}"><title>{escape(title)}</title></path>'
