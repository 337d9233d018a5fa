#include "engines/caffe/solver/update_rule.h"

#include <gtest/gtest.h>

#include "base/text.h"
#include "caffe/layers/layer_fixture.h"

namespace poseidon::caffe {
namespace {

using namespace testing;  // NOLINT: the fixture is made for these tests

std::unique_ptr<UpdateRule> rule_of(std::string_view text) {
  return read_update_rule(proto::parse_text(text, "SolverParameter", "solver.prototxt"));
}

struct Step {
  double rate;
  double contributors;
  bool has_gradient;
};

TEST(Sgd, FollowsAPlainLoopOverScalars) {
  constexpr double kMomentum = 0.9;
  constexpr double kDecay = 0.05;
  std::mt19937_64 random(1);
  for (const bool l1 : {false, true}) {
    const auto rule = rule_of(l1 ? "momentum: 0.9 regularization_type: 'L1'" : "momentum: 0.9");
    const at::Tensor value = random_tensor({7}, random);
    const std::vector<at::Tensor> history = {tensor_of(std::vector<double>(7, 0), {7})};
    std::vector<double> w = values_of(value);
    std::vector<double> v(7, 0);
    // The rate falls: torch.optim.SGD, which keeps the rate outside the history, goes elsewhere.
    for (const Step& step : {Step{0.5, 1, true}, Step{0.1, 4, true}, Step{0.01, 1, false}, Step{0.2, 3, true}}) {
      const at::Tensor sum = random_tensor({7}, random);
      const std::vector<double> g = values_of(sum);
      for (std::size_t i = 0; i < 7; ++i) {
        const double gradient = step.has_gradient ? g[i] / step.contributors : 0;
        const double decay = kDecay * (l1 ? (w[i] > 0 ? 1 : -1) : w[i]);
        v[i] = kMomentum * v[i] + step.rate * (gradient + decay);
        w[i] = w[i] - v[i];
      }
      rule->update({.value = value,
                    .gradient_sum = step.has_gradient ? sum : at::Tensor(),
                    .contributors = step.contributors,
                    .rate = step.rate,
                    .decay = kDecay,
                    .history = history});
      expect_near(value, w, 1e-14);
      expect_near(history[0], v, 1e-14);
    }
  }
}

TEST(Sgd, WorksOnAnArrayThatAutogradWatches) {
  const at::Tensor value = tensor_of({1, 2}, {2}).requires_grad_();
  const std::vector<at::Tensor> history = {tensor_of({0, 0}, {2})};
  rule_of("momentum: 0")
      ->update({.value = value, .gradient_sum = tensor_of({1, 1}, {2}), .rate = 0.5, .history = history});
  expect_near(value, {0.5, 1.5}, 0);
  EXPECT_TRUE(value.is_leaf());
  EXPECT_TRUE(value.requires_grad());
}

TEST(UpdateRule, IsChosenByTheSolversType) {
  EXPECT_EQ(rule_of("type: 'SGD'")->type(), "SGD");
  EXPECT_EQ(rule_of("solver_type: SGD")->type(), "SGD");
  EXPECT_EQ(rule_of("momentum: 0")->histories(), 1u);
  const auto error = [](std::string_view text) { return error_of([&] { rule_of(text); }); };
  EXPECT_EQ(error("base_lr: 1\ntype: 'Adam'"),
            "solver.prototxt:2:1: solver type \"Adam\" is not supported yet; there is SGD");
  EXPECT_EQ(error("base_lr: 1\nsolver_type: ADAGRAD"),
            "solver.prototxt:2:1: solver type \"ADAGRAD\" is not supported yet; there is SGD");
  EXPECT_EQ(error("type: 'SGD'\nsolver_type: SGD"),
            "solver.prototxt:2:1: solver_type is the older form of type; give one of them");
  EXPECT_EQ(error("regularization_type: 'L3'"),
            "solver.prototxt:1:1: there is no regularization_type \"L3\"; there are L1 and L2");
}

}  // namespace
}  // namespace poseidon::caffe
