"""The graph of a small scope: all of it in networkx, DOT and GraphML, and a picture that stays one."""

from collections.abc import Iterable
from io import BytesIO
from xml.etree import ElementTree

import networkx as nx
import pytest
from snapcheck.model.graph import dot, graphml, state_graph, svg
from snapcheck.model.scope import Scope, ScopeError
from snapcheck.model.space import Space

PAIR = Scope(devices=2, names=1, values=2)


def text(lines: Iterable[str]) -> str:
    return "\n".join(lines)


def test_the_graph_has_every_state_and_every_transition() -> None:
    graph = state_graph(Space(PAIR))
    assert (graph.number_of_nodes(), graph.number_of_edges()) == (36, 1_552)
    assert nx.is_strongly_connected(graph)  # from everywhere one can get back to the start
    assert graph.nodes["0 | 0"]["depth"] == 0
    assert graph.nodes["0 a=1 | 0 a=1"]["depth"] == 5
    labels = {(label, ended) for _, _, label, ended in edges_of(Space(PAIR))}
    assert ("all-goto a with goto refused at d1", "stopped at d1") in labels
    assert ("all-create a", "ok") in labels


def edges_of(space: Space) -> set[tuple[str, str, str, str]]:
    graph = state_graph(space)
    return {(one, other, str(data["label"]), str(data["ended"])) for one, other, data in graph.edges(data=True)}


def test_other_tools_read_the_same_graph() -> None:
    graph = state_graph(Space(PAIR))
    read = nx.read_graphml(BytesIO(text(graphml(graph)).encode()))
    assert (read.number_of_nodes(), read.number_of_edges()) == (36, 1_552)
    lines = text(dot(graph)).splitlines()
    assert lines[0] == "digraph states {"
    assert sum("->" not in line and "[label=" in line for line in lines) == 36
    assert sum("->" in line for line in lines) == len({(one, other) for one, other, _, _ in edges_of(Space(PAIR))})


def test_the_picture_has_a_box_for_each_state_and_no_line_for_what_changes_nothing() -> None:
    graph = state_graph(Space(PAIR))
    root = ElementTree.fromstring(text(svg(graph)))  # noqa: S314  # it is our own
    kinds = [each.tag.rpartition("}")[2] for each in root]
    assert kinds.count("rect") == 36
    assert kinds.count("path") == len({(one, other) for one, other, _, _ in edges_of(Space(PAIR)) if one != other})


def test_what_nobody_could_look_at_is_not_drawn() -> None:
    with pytest.raises(ScopeError, match="17,576 states are too many to be drawn"):
        state_graph(Space(Scope(devices=3, names=2)))
    with pytest.raises(ScopeError, match="676 states are too many for a picture"):
        text(svg(state_graph(Space(Scope(devices=2, names=2)))))
