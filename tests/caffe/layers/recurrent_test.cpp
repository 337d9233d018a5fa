// RNN, LSTM and LSTMUnit, against the equations in plain loops.
#include <cmath>

#include "base/text.h"
#include "caffe/layers/layer_fixture.h"

namespace poseidon::caffe {
namespace {

using namespace testing;  // NOLINT: the fixture is made for these tests

using Numbers = std::vector<double>;

constexpr std::string_view kFillers =
    "weight_filler { type: 'uniform' min: -1 max: 1 } bias_filler { type: 'uniform' min: -1 max: 1 }";

std::string text_of(std::string_view type, std::string_view settings = "", std::string_view more_bottoms = "",
                    std::string_view more_tops = "") {
  return base::concat("name: 'r' type: '", type, "' bottom: 'x' bottom: 'cont' ", more_bottoms, " top: 'y' ", more_tops,
                      " recurrent_param { num_output: 3 ", kFillers, " ", settings, " }");
}

double sigmoid(double x) {
  return 1 / (1 + std::exp(-x));
}

// W x + b, with W [rows, x.size()] and b of `rows` elements or none.
Numbers affine(const Numbers& weight, const Numbers& x, const Numbers& bias, std::size_t rows) {
  Numbers y(rows);
  for (std::size_t row = 0; row < rows; ++row) {
    y[row] = bias.empty() ? 0 : bias[row];
    for (std::size_t i = 0; i < x.size(); ++i) y[row] += weight[row * x.size() + i] * x[i];
  }
  return y;
}

Numbers part(const Numbers& values, std::size_t nth, std::size_t size) {
  const auto begin = values.begin() + static_cast<std::ptrdiff_t>(nth * size);
  return {begin, begin + static_cast<std::ptrdiff_t>(size)};
}

// The hidden state and, for an LSTM, the cell of one stream.
struct State {
  Numbers hidden = Numbers(3, 0);
  Numbers cell = Numbers(3, 0);
};

// One step of one stream. The arrays are the layer's, in their order, with or without the one of the static input.
Numbers rnn_step(const std::vector<Numbers>& arrays, const Numbers& x, const Numbers& fixed, double cont,
                 State& state) {
  const std::size_t own = fixed.empty() ? 2 : 3;
  for (double& h : state.hidden) h *= cont;
  const Numbers from_state = affine(arrays[own], state.hidden, {}, 3);
  Numbers sum = affine(arrays[0], x, arrays[1], 3);
  const Numbers from_fixed = fixed.empty() ? Numbers(3, 0) : affine(arrays[2], fixed, {}, 3);
  for (std::size_t i = 0; i < 3; ++i) state.hidden[i] = std::tanh(sum[i] + from_state[i] + from_fixed[i]);
  Numbers y = affine(arrays[own + 1], state.hidden, arrays[own + 2], 3);
  for (double& value : y) value = std::tanh(value);
  return y;
}

Numbers lstm_step(const std::vector<Numbers>& arrays, const Numbers& x, const Numbers& fixed, double cont,
                  State& state) {
  const std::size_t own = fixed.empty() ? 2 : 3;
  for (double& h : state.hidden) h *= cont;
  const Numbers from_state = affine(arrays[own], state.hidden, {}, 12);
  Numbers gates = affine(arrays[0], x, arrays[1], 12);
  const Numbers from_fixed = fixed.empty() ? Numbers(12, 0) : affine(arrays[2], fixed, {}, 12);
  for (std::size_t i = 0; i < 12; ++i) gates[i] += from_state[i] + from_fixed[i];
  for (std::size_t i = 0; i < 3; ++i) {
    const double input = sigmoid(gates[i]);
    const double forget = cont * sigmoid(gates[3 + i]);
    const double output = sigmoid(gates[6 + i]);
    const double candidate = std::tanh(gates[9 + i]);
    state.cell[i] = forget * state.cell[i] + input * candidate;
    state.hidden[i] = output * std::tanh(state.cell[i]);
  }
  return state.hidden;
}

// Four steps of two streams with two inputs each, and the static input of three numbers.
class Recurrent : public ::testing::TestWithParam<std::string_view> {
 protected:
  static constexpr std::size_t kSteps = 4;
  static constexpr std::size_t kStreams = 2;

  bool is_lstm() const { return GetParam() == "LSTM"; }
  std::string text(std::string_view settings = "", std::string_view more_bottoms = "",
                   std::string_view more_tops = "") const {
    return text_of(GetParam(), settings, more_bottoms, more_tops);
  }
  std::string exposed_text() const {
    return is_lstm() ? text("expose_hidden: true", "bottom: 'h' bottom: 'c'", "top: 'h_last' top: 'c_last'")
                     : text("expose_hidden: true", "bottom: 'h'", "top: 'h_last'");
  }

  // All steps of all streams, going on from `states` and leaving the last ones there: [T, N, 3].
  Numbers run(const Layer& layer, const Numbers& x, const Numbers& cont, const Numbers& fixed,
              std::vector<State>& states) const {
    std::vector<Numbers> arrays;
    for (const Parameter& array : layer.parameters()) arrays.push_back(values_of(array.value));
    Numbers all;
    for (std::size_t i = 0; i < cont.size(); ++i) {
      const std::size_t stream = i % kStreams;
      const Numbers own = fixed.empty() ? Numbers() : part(fixed, stream, 3);
      const Numbers y = (is_lstm() ? lstm_step : rnn_step)(arrays, part(x, i, 2), own, cont[i], states[stream]);
      all.insert(all.end(), y.begin(), y.end());
    }
    return all;
  }

  std::mt19937_64 random_{7};
  at::Tensor x_ = random_tensor({kSteps, kStreams, 2}, random_);
  Numbers cont_ = {0, 0, 1, 1, 1, 0, 1, 1};  // the second stream begins anew in step 2
  at::Tensor marks_ = tensor_of(cont_, {kSteps, kStreams});
};

TEST_P(Recurrent, ComputesItsEquations) {
  Made made = make_layer(text(), {{4, 2, 2}, {4, 2}});
  EXPECT_EQ(made.tops, std::vector<Shape>({{4, 2, 3}}));
  std::vector<State> states(kStreams);
  expect_near(made.layer->forward({}, {x_, marks_})[0], run(*made.layer, values_of(x_), cont_, {}, states), 1e-12);
}

TEST_P(Recurrent, HasCaffesArrays) {
  const auto shapes = [&](std::string_view more_bottoms, const std::vector<Shape>& bottoms) {
    std::vector<std::pair<std::string, Shape>> arrays;
    const Made made = make_layer(text("", more_bottoms), bottoms);
    for (const Parameter& array : made.layer->parameters()) arrays.emplace_back(array.name, array.shape);
    return arrays;
  };
  using Arrays = std::vector<std::pair<std::string, Shape>>;
  const Arrays without = shapes("", {{4, 2, 5, 2}, {4, 2}});
  const Arrays with = shapes("bottom: 's'", {{4, 2, 5, 2}, {4, 2}, {2, 7}});
  if (is_lstm()) {
    EXPECT_EQ(without, (Arrays{{"r.W_xc", {12, 10}}, {"r.b_c", {12}}, {"r.W_hc", {12, 3}}}));
    EXPECT_EQ(with, (Arrays{{"r.W_xc", {12, 10}}, {"r.b_c", {12}}, {"r.W_xc_static", {12, 7}}, {"r.W_hc", {12, 3}}}));
  } else {
    EXPECT_EQ(without,
              (Arrays{{"r.W_xh", {3, 10}}, {"r.b_h", {3}}, {"r.W_hh", {3, 3}}, {"r.W_ho", {3, 3}}, {"r.b_o", {3}}}));
    EXPECT_EQ(with, (Arrays{{"r.W_xh", {3, 10}},
                            {"r.b_h", {3}},
                            {"r.W_xh_static", {3, 7}},
                            {"r.W_hh", {3, 3}},
                            {"r.W_ho", {3, 3}},
                            {"r.b_o", {3}}}));
  }
}

TEST_P(Recurrent, SeesTheStaticInputAtEveryStep) {
  Made made = make_layer(text("", "bottom: 's'"), {{4, 2, 2}, {4, 2}, {2, 3}});
  const at::Tensor fixed = random_tensor({2, 3}, random_);
  std::vector<State> states(kStreams);
  expect_near(made.layer->forward({}, {x_, marks_, fixed})[0],
              run(*made.layer, values_of(x_), cont_, values_of(fixed), states), 1e-12);
}

TEST_P(Recurrent, GoesOnWhereTheLastBatchEnded) {
  Made made = make_layer(text(), {{4, 2, 2}, {4, 2}});
  const Numbers goes_on = {1, 0, 1, 1, 1, 1, 1, 1};  // the second stream begins anew with the second batch
  std::vector<State> states(kStreams);
  // The state before the first batch is zero, whatever the marks say.
  for (int batch = 0; batch < 3; ++batch) {
    const at::Tensor x = random_tensor({4, 2, 2}, random_);
    expect_near(made.layer->forward({}, {x, tensor_of(goes_on, {4, 2})})[0],
                run(*made.layer, values_of(x), goes_on, {}, states), 1e-12);
  }
}

TEST_P(Recurrent, GoesOnWithTheStateThatItIsGiven) {
  const at::Tensor goes_on = tensor_of(Numbers(8, 1), {4, 2});
  Made first = make_layer(text(), {{4, 2, 2}, {4, 2}});
  Made second = make_layer(text(), {{4, 2, 2}, {4, 2}});
  ASSERT_EQ(first.layer->carried_state().size(), is_lstm() ? 2u : 1u);
  for (const at::Tensor& state : first.layer->carried_state()) expect_near(state, Numbers(6, 0), 0);
  first.layer->forward({}, {x_, marks_});
  second.layer->carry(first.layer->carried_state());
  EXPECT_TRUE(second.layer->forward({}, {x_, goes_on})[0].equal(first.layer->forward({}, {x_, goes_on})[0]));
  // Of another layer: dropped.
  second.layer->carry({random_tensor({2, 4}, random_), random_tensor({2, 4}, random_)});
  for (const at::Tensor& state : second.layer->carried_state()) expect_near(state, Numbers(6, 0), 0);
  second.layer->carry({});
  for (const at::Tensor& state : second.layer->carried_state()) expect_near(state, Numbers(6, 0), 0);
}

TEST_P(Recurrent, CarriesNothingWhereItsStateIsExposed) {
  std::vector<Shape> bottoms = {{4, 2, 2}, {4, 2}, {1, 2, 3}};
  if (is_lstm()) bottoms.push_back({1, 2, 3});
  EXPECT_TRUE(make_layer(exposed_text(), bottoms).layer->carried_state().empty());
}

TEST_P(Recurrent, EndsItsGradientWithTheBatch) {
  Made made = make_layer(text(), {{4, 2, 2}, {4, 2}});
  made.layer->forward({}, {x_.clone().requires_grad_(), marks_});
  // A second backward pass through the first batch's graph would throw.
  for (int batch = 0; batch < 2; ++batch) {
    const at::Tensor x = random_tensor({4, 2, 2}, random_).requires_grad_();
    made.layer->forward({}, {x, tensor_of(Numbers(8, 1), {4, 2})})[0].sum().backward();
  }
}

TEST_P(Recurrent, TakesAndYieldsItsStateWhereItIsExposed) {
  const std::size_t states_shown = is_lstm() ? 2 : 1;
  std::vector<at::Tensor> bottoms = {x_, tensor_of(Numbers(8, 1), {4, 2})};
  std::vector<Shape> shapes = {{4, 2, 2}, {4, 2}};
  for (std::size_t i = 0; i < states_shown; ++i) {
    bottoms.push_back(random_tensor({1, 2, 3}, random_));
    shapes.push_back({1, 2, 3});
  }
  Made made = make_layer(exposed_text(), shapes);
  ASSERT_EQ(made.tops.size(), 1 + states_shown);
  EXPECT_EQ(made.tops[1], (Shape{1, 2, 3}));
  // Twice: nothing is carried over.
  for (int pass = 0; pass < 2; ++pass) {
    std::vector<State> states(kStreams);
    for (std::size_t stream = 0; stream < kStreams; ++stream) {
      states[stream].hidden = part(values_of(bottoms[2]), stream, 3);
      if (is_lstm()) states[stream].cell = part(values_of(bottoms[3]), stream, 3);
    }
    const std::vector<at::Tensor> tops = made.layer->forward({}, bottoms);
    expect_near(tops[0], run(*made.layer, values_of(x_), Numbers(8, 1), {}, states), 1e-12);
    for (std::size_t stream = 0; stream < kStreams; ++stream) {
      expect_near(tops[1][0][static_cast<std::int64_t>(stream)], states[stream].hidden, 1e-12);
      if (is_lstm()) expect_near(tops[2][0][static_cast<std::int64_t>(stream)], states[stream].cell, 1e-12);
    }
  }
}

TEST_P(Recurrent, HasTheGradientsOfFiniteDifferences) {
  // All streams begin in the first step, so what is carried over does not matter.
  Made plain = make_layer(text("debug_info: true"), {{4, 2, 2}, {4, 2}});
  expect_gradients(*plain.layer, {x_.clone(), marks_}, {0});
  Made with_static = make_layer(text("", "bottom: 's'"), {{4, 2, 2}, {4, 2}, {2, 3}});
  expect_gradients(*with_static.layer, {x_.clone(), marks_, random_tensor({2, 3}, random_)}, {0, 2});
}

TEST_P(Recurrent, HasTheGradientsOfFiniteDifferencesByItsExposedState) {
  std::vector<at::Tensor> bottoms = {x_.clone(), tensor_of({1, 1, 1, 1, 1, 0, 1, 1}, {4, 2}),
                                     random_tensor({1, 2, 3}, random_)};
  std::vector<Shape> shapes = {{4, 2, 2}, {4, 2}, {1, 2, 3}};
  std::vector<std::size_t> differentiable = {0, 2};
  if (is_lstm()) {
    bottoms.push_back(random_tensor({1, 2, 3}, random_));
    shapes.push_back({1, 2, 3});
    differentiable.push_back(3);
  }
  Made made = make_layer(exposed_text(), shapes);
  expect_gradients(*made.layer, bottoms, differentiable);
}

TEST_P(Recurrent, ComputesForTwoHalvesOfItsStreamsWhatItComputesForAll) {
  Made all = make_layer(text(), {{4, 2, 2}, {4, 2}});
  Made first = make_layer(text(), {{4, 1, 2}, {4, 1}});
  Made second = make_layer(text(), {{4, 1, 2}, {4, 1}});
  for (int batch = 0; batch < 2; ++batch) {
    const at::Tensor x = random_tensor({4, 2, 2}, random_);
    const at::Tensor cont = tensor_of({0, 1, 1, 1, 1, 0, 1, 1}, {4, 2});
    const at::Tensor whole = all.layer->forward({}, {x, cont})[0];
    expect_near(first.layer->forward({}, {x.narrow(1, 0, 1), cont.narrow(1, 0, 1)})[0],
                values_of(whole.narrow(1, 0, 1)), 1e-12);
    expect_near(second.layer->forward({}, {x.narrow(1, 1, 1), cont.narrow(1, 1, 1)})[0],
                values_of(whole.narrow(1, 1, 1)), 1e-12);
  }
}

TEST_P(Recurrent, ExplainsWhatIsWrong) {
  const auto error = [&](const std::string& settings, const std::vector<Shape>& bottoms) {
    const std::string whole = setup_error(settings, bottoms);
    return whole.substr(whole.find(") ") + 2);
  };
  EXPECT_EQ(error(text(), {{4}, {4, 2}}),
            "wants sequences [steps, streams, ...] with at least one step; bottom \"x\" is [4]");
  EXPECT_EQ(error(text(), {{4, 2, 3}, {4, 3}}),
            "wants a mark for each step of each stream, [4, 2]; bottom \"cont\" is [4, 3]");
  EXPECT_EQ(error(text("", "bottom: 's'"), {{4, 2, 3}, {4, 2}, {3, 2}}),
            "wants what all steps see as [2, ...]; bottom \"s\" is [3, 2]");
  EXPECT_EQ(error(base::concat("name: 'r' type: '", GetParam(), "' bottom: 'x' bottom: 'cont' top: 'y'"),
                  {{4, 2, 3}, {4, 2}}),
            "needs num_output, at least 1");
  EXPECT_EQ(error(text("expose_hidden: true"), {{4, 2, 3}, {4, 2}}),
            is_lstm() ? "wants 4 to 5 bottoms and has 2" : "wants 3 to 4 bottoms and has 2");
  std::vector<Shape> shapes = {{4, 2, 3}, {4, 2}, {1, 2, 4}};
  if (is_lstm()) shapes.push_back({1, 2, 3});
  EXPECT_EQ(error(exposed_text(), shapes), "wants its state as [1, 2, 3]; bottom \"h\" is [1, 2, 4]");
}

INSTANTIATE_TEST_SUITE_P(Types, Recurrent, ::testing::Values("RNN", "LSTM"),
                         [](const auto& type) { return std::string(type.param); });

constexpr std::string_view kUnit =
    "name: 'u' type: 'LSTMUnit' bottom: 'c' bottom: 'gates' bottom: 'cont' top: 'c_next' top: 'h'";

TEST(LstmUnit, IsOneStepWorkedByHand) {
  Made made = make_layer(kUnit, {{1, 2, 1}, {1, 2, 4}, {1, 2}});
  EXPECT_EQ(made.tops, (std::vector<Shape>{{1, 2, 1}, {1, 2, 1}}));
  // Sigmoids of 0, log 3 and -log 3 are 1/2, 3/4 and 1/4; tanh(log 2) is 3/5. The second stream begins anew.
  const std::vector<double> gates = {0, std::log(3), -std::log(3), std::log(2)};
  std::vector<double> both = gates;
  both.insert(both.end(), gates.begin(), gates.end());
  const std::vector<at::Tensor> tops =
      made.layer->forward({}, {tensor_of({2, 2}, {1, 2, 1}), tensor_of(both, {1, 2, 4}), tensor_of({1, 0}, {1, 2})});
  expect_near(tops[0], {0.75 * 2 + 0.5 * 0.6, 0.5 * 0.6}, 1e-12);
  expect_near(tops[1], {0.25 * std::tanh(1.8), 0.25 * std::tanh(0.3)}, 1e-12);
}

TEST(LstmUnit, HasTheGradientsOfFiniteDifferences) {
  std::mt19937_64 random(8);
  Made made = make_layer(kUnit, {{1, 3, 2}, {1, 3, 8}, {1, 3}});
  expect_gradients(*made.layer,
                   {random_tensor({1, 3, 2}, random), random_tensor({1, 3, 8}, random), tensor_of({1, 0, 1}, {1, 3})},
                   {0, 1});
}

TEST(LstmUnit, ExplainsWhatIsWrong) {
  EXPECT_EQ(
      setup_error(kUnit, {{2, 3, 2}, {1, 3, 8}, {1, 3}}),
      "net.prototxt:1:1: layer \"u\" (LSTMUnit) wants a cell [1, streams, num_output]; bottom \"c\" is [2, 3, 2]");
  EXPECT_EQ(setup_error(kUnit, {{1, 3, 2}, {1, 3, 6}, {1, 3}}),
            "net.prototxt:1:1: layer \"u\" (LSTMUnit) wants the inputs of four gates, [1, 3, 8]; bottom \"gates\" is "
            "[1, 3, 6]");
  EXPECT_EQ(setup_error(kUnit, {{1, 3, 2}, {1, 3, 8}, {3}}),
            "net.prototxt:1:1: layer \"u\" (LSTMUnit) wants a mark for each stream, [1, 3]; bottom \"cont\" is [3]");
}

}  // namespace
}  // namespace poseidon::caffe
