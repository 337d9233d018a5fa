"""What the workers send is what the formulas say, to the byte, with real processes."""
import pytest

BATCH = 16

# docs/schemes.md; M rows, N columns, K samples per worker, b numbers of the bias. Numbers that all P workers send together.
IN_ALL = {
    "ps": lambda P, M, N, K, b, grid: 2 * (P - 1) * (M * N + b),
    "sfb": lambda P, M, N, K, b, grid: P * (P - 1) * K * (M + N),
    "adam": lambda P, M, N, K, b, grid: (P - 1) * (K * (M + N) + M * N + b),
    "block": lambda P, M, N, K, b, grid: (P - 1) * (K * (grid[1] * M + grid[0] * N) + M * N + b),
}
# Worked by hand from the prototxt: convolutions are always "ps", and have no grid.
CONVOLUTIONS = {"conv1": 20 * 1 * 5 * 5 + 20, "conv2": 50 * 20 * 5 * 5 + 50}


def sent(layer, direction="bytes_sent"):
    return [worker[direction] for worker in layer["by_worker"]]


@pytest.mark.parametrize("workers, dtype, width", [(2, "float32", 4), (4, "float32", 4), (2, "float64", 8)])
@pytest.mark.parametrize("scheme", IN_ALL)
def test_the_workers_send_what_the_formulas_say(lenet, scheme, workers, dtype, width):
    done = lenet.train(lenet.solver(lenet.net(BATCH), max_iter=5), workers, "--scheme", scheme, "--dtype", dtype)
    layers = {layer["name"]: layer for layer in done.report["layers"]}
    expected = {name: 2 * (workers - 1) * numbers for name, numbers in CONVOLUTIONS.items()}
    for name, M, N in [("ip1", 500, 50 * 4 * 4), ("ip2", 10, 500)]:
        assert layers[name]["scheme"] == scheme
        expected[name] = IN_ALL[scheme](workers, M, N, BATCH, M, layers[name].get("grid"))
    assert {name: sum(sent(layer)) for name, layer in layers.items()} == {name: n * width for name, n in expected.items()}
    for layer in layers.values():
        assert sum(sent(layer)) == sum(sent(layer, "bytes_received"))
        assert layer["bytes_sent"] == sum(sent(layer)) / workers


@pytest.mark.parametrize("scheme", ["ps", "sfb", "block"])
def test_large_layers_burden_all_workers_alike_and_framing_is_small(lenet, scheme):
    """ip1 of 2000 x 800 numbers, 6.1 MiB, is more than 1 MiB for each of four workers."""
    net = lenet.net(BATCH, edit=lambda text: text.replace("num_output: 500", "num_output: 2000"))
    done = lenet.train(lenet.solver(net, max_iter=10), 4, "--scheme", f"ps,ip1={scheme}")
    ip1 = next(layer for layer in done.report["layers"] if layer["name"] == "ip1")
    shares = sent(ip1)
    assert max(shares) <= 1.05 * sum(shares) / len(shares)
    payload = sum(sum(sent(layer)) for layer in done.report["layers"]) * 10
    framed = sum(done.report["bytes_sent"])
    assert payload < framed < (1.01 if scheme != "sfb" else 1.05) * payload  # sfb's factors are smaller than 1 MiB
