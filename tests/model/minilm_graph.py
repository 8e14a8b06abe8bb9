"""How `service/model/minilm/graph.onnx` was made: `python -m tests.model.minilm_graph` writes it anew.

The graph of all-MiniLM-L6-v2 (six layers of BERT; Wang et al. 2020, "MiniLM"; Reimers and Gurevych 2019,
"Sentence-BERT"): token ids and mask in, for each text the mean of its tokens' vectors out, of length one. It has the
names of the weights, which stay in the file that they are published in.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FILE = Path(__file__).parents[2] / "service" / "model" / "minilm" / "graph.onnx"
_LAYERS, _HEADS, _WIDTH, _INNER, _VOCABULARY, _POSITIONS = 6, 12, 384, 1536, 30_522, 512
_HEAD = _WIDTH // _HEADS


class _Graph:
    """A graph that grows node by node; each gives the name of what it puts out."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def constant(self, value: object, dtype: type = np.int64) -> str:
        name = f"constant_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.array(value, dtype), name))
        return name

    def weight(self, name: str, *shape: int) -> str:
        """A weight by its published name; it is given when the graph is loaded."""
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape, data_location=TensorProto.EXTERNAL)
        tensor.external_data.add(key="location", value="model.safetensors")
        self.initializers.append(tensor)
        return name

    def linear(self, of: str, name: str, wide: int, narrow: int) -> str:
        turned = self.node("Transpose", self.weight(f"{name}.weight", narrow, wide), perm=[1, 0])
        return self.node("Add", self.node("MatMul", of, turned), self.weight(f"{name}.bias", narrow))

    def normalized(self, of: str, name: str) -> str:
        weights = self.weight(f"{name}.weight", _WIDTH), self.weight(f"{name}.bias", _WIDTH)
        return self.node("LayerNormalization", of, *weights, axis=-1, epsilon=1e-12)


def built() -> bytes:
    """The graph as a file, the same bytes each time."""
    graph = _Graph()
    output = _pooled(graph, _layers(graph, _embedded(graph)))
    graph.nodes.append(helper.make_node("Identity", [output], ["vectors"]))
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "all-MiniLM-L6-v2",
            [
                helper.make_tensor_value_info("ids", TensorProto.INT64, ["texts", "tokens"]),
                helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["texts", "tokens"]),
            ],
            [helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["texts", _WIDTH])],
            graph.initializers,
        ),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=9,
        producer_name="labelstream",
    )
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _embedded(graph: _Graph) -> str:
    words = graph.node("Gather", graph.weight("embeddings.word_embeddings.weight", _VOCABULARY, _WIDTH), "ids")
    positions = graph.weight("embeddings.position_embeddings.weight", _POSITIONS, _WIDTH)
    tokens = graph.node("Gather", graph.node("Shape", "ids"), graph.constant([1]))
    first = graph.node("Slice", positions, graph.constant([0]), tokens, graph.constant([0]))
    kind = graph.node(
        "Gather", graph.weight("embeddings.token_type_embeddings.weight", 2, _WIDTH), graph.constant(0), axis=0
    )
    return graph.normalized(graph.node("Add", graph.node("Add", words, first), kind), "embeddings.LayerNorm")


def _layers(graph: _Graph, hidden: str) -> str:
    absent = graph.node("Sub", graph.constant(1.0, np.float32), "mask")
    unseen = graph.node("Mul", absent, graph.constant(-10_000.0, np.float32))
    unseen = graph.node("Unsqueeze", unseen, graph.constant([1, 2]))
    for number in range(_LAYERS):
        layer = f"encoder.layer.{number}"
        attended = graph.linear(
            _attended(graph, hidden, unseen, layer), f"{layer}.attention.output.dense", _WIDTH, _WIDTH
        )
        hidden = graph.normalized(graph.node("Add", attended, hidden), f"{layer}.attention.output.LayerNorm")
        inner = graph.node("Gelu", graph.linear(hidden, f"{layer}.intermediate.dense", _WIDTH, _INNER))
        outer = graph.linear(inner, f"{layer}.output.dense", _INNER, _WIDTH)
        hidden = graph.normalized(graph.node("Add", outer, hidden), f"{layer}.output.LayerNorm")
    return hidden


def _attended(graph: _Graph, hidden: str, unseen: str, layer: str) -> str:
    def heads() -> Iterator[str]:
        for kind, order in (("query", [0, 2, 1, 3]), ("key", [0, 2, 3, 1]), ("value", [0, 2, 1, 3])):
            seen = graph.linear(hidden, f"{layer}.attention.self.{kind}", _WIDTH, _WIDTH)
            split = graph.node("Reshape", seen, graph.constant([0, 0, _HEADS, _HEAD]))
            yield graph.node("Transpose", split, perm=order)

    query, key, value = heads()
    scaled = graph.node("Mul", graph.node("MatMul", query, key), graph.constant(_HEAD**-0.5, np.float32))
    shares = graph.node("Softmax", graph.node("Add", scaled, unseen), axis=-1)
    mixed = graph.node("Transpose", graph.node("MatMul", shares, value), perm=[0, 2, 1, 3])
    return graph.node("Reshape", mixed, graph.constant([0, 0, _WIDTH]))


def _pooled(graph: _Graph, hidden: str) -> str:
    weights = graph.node("Unsqueeze", "mask", graph.constant([2]))
    seen = graph.node("ReduceSum", graph.node("Mul", hidden, weights), graph.constant([1]), keepdims=0)
    return graph.node("LpNormalization", seen, axis=-1, p=2)


if __name__ == "__main__":
    FILE.write_bytes(built())
