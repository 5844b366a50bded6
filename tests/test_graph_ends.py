"""What the runtime puts before and behind a file's graph."""

import numpy as np
import onnx
import onnxruntime
import pytest
import toy_model
from earmark.runtime.graph_ends import with_ends
from earmark.runtime.posteriors import sigmoid, softmax


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("batch", ["batch", 1])
def test_the_graph_takes_int16_steps_and_gives_posteriors(
    activation: str, batch: str | int
) -> None:
    manifest = toy_model.manifest(activation=activation)
    model = toy_model.graph()
    for value in (*model.graph.input, *model.graph.output):
        if batch == 1:
            value.type.tensor_type.shape.dim[0].dim_value = 1
    file = model.SerializeToString()
    longer = onnx.load_from_string(with_ends(file, manifest))
    assert [value.name for value in longer.graph.input] == ["s16", "cache"]
    assert longer.graph.node[0].op_type == "Mul" and longer.graph.node[0].output == ["pcm"]

    rng = np.random.default_rng(0)
    pcm = rng.integers(-32768, 32768, (1, 1280)).astype(np.float32)
    cache = np.zeros((1, 3), np.float32)
    before, after = (
        onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
        for data in (file, longer.SerializeToString())
    )
    logits, state = before.run(["logits", "cache_out"], {"pcm": pcm / 32768, "cache": cache})
    names = ["logits", "cache_out", "posteriors"]
    found, found_state, posteriors = after.run(names, {"s16": pcm, "cache": cache})
    np.testing.assert_array_equal(found, logits)
    np.testing.assert_array_equal(found_state, state)
    expected = {"softmax": softmax, "sigmoid": sigmoid}[activation](np.asarray(logits)[0])
    np.testing.assert_allclose(np.asarray(posteriors)[0], expected, atol=1e-6)
