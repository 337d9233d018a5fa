#include "engines/caffe/solver/update_rule.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "base/text.h"
#include "caffe/layers/layer_fixture.h"

namespace poseidon::caffe {
namespace {

using namespace testing;  // NOLINT: the fixture is made for these tests

std::unique_ptr<UpdateRule> rule_of(std::string_view text) {
  return read_update_rule(proto::parse_text(text, "SolverParameter", "solver.prototxt"));
}

// One element of an array, its gradient with the decay in it, and the two histories that a rule may have.
struct Scalar {
  double w = 0;
  double h = 0;
  double s = 0;
};
// A rule by its formula: changes the element by gradient g, rate a, at update t from 1.
using Formula = std::function<void(Scalar& x, double g, double a, double t)>;

// Runs the rule beside its formula over four updates, with L1 and with L2, where the rate falls and rises, several
// workers' gradients are averaged, and once nobody has one.
void expect_follows(const std::string& solver, std::size_t histories, const Formula& formula) {
  struct Step {
    double rate;
    double divisor;
    bool has_gradient;
  };
  constexpr double kDecay = 0.05;
  std::mt19937_64 random(1);
  for (const bool l1 : {false, true}) {
    const auto rule = rule_of(solver + (l1 ? " regularization_type: 'L1'" : ""));
    ASSERT_EQ(rule->histories(), histories);
    const at::Tensor value = random_tensor({7}, random).requires_grad_();
    std::vector<at::Tensor> history;
    for (std::size_t h = 0; h < histories; ++h) history.push_back(tensor_of(std::vector<double>(7, 0), {7}));
    std::vector<Scalar> expected(7);
    for (std::size_t i = 0; i < 7; ++i) expected[i].w = values_of(value.detach())[i];
    Iteration iteration = 0;
    for (const Step& step : {Step{0.5, 1, true}, Step{0.1, 4, true}, Step{0.01, 1, false}, Step{0.2, 3, true}}) {
      const at::Tensor sum = random_tensor({7}, random);
      const std::vector<double> sums = values_of(sum);
      for (std::size_t i = 0; i < 7; ++i) {
        const double w = expected[i].w;
        const double decay = kDecay * (l1 ? (w > 0 ? 1 : -1) : w);
        const double gradient = (step.has_gradient ? sums[i] / step.divisor : 0) + decay;
        formula(expected[i], gradient, step.rate, static_cast<double>(iteration + 1));
      }
      rule->update({.value = value,
                    .gradient_sum = step.has_gradient ? sum : at::Tensor(),
                    .divisor = step.divisor,
                    .rate = step.rate,
                    .decay = kDecay,
                    .iteration = iteration++,
                    .history = history});
      for (std::size_t i = 0; i < 7; ++i) {
        EXPECT_NEAR(values_of(value.detach())[i], expected[i].w, 1e-13) << "element " << i << " after " << iteration;
        EXPECT_NEAR(values_of(history[0])[i], expected[i].h, 1e-14);
        if (histories > 1) {
          EXPECT_NEAR(values_of(history[1])[i], expected[i].s, 1e-14);
        }
      }
      EXPECT_EQ(values_of(sum), sums) << "the sum is the exchange's";
      EXPECT_TRUE(value.is_leaf());
      EXPECT_TRUE(value.requires_grad());
    }
  }
}

// torch.optim.SGD, which keeps the rate outside the history, goes elsewhere when the rate changes.
TEST(UpdateRule, OfSgdFollowsItsFormula) {
  expect_follows("momentum: 0.9", 1, [](Scalar& x, double g, double a, double) {
    x.h = 0.9 * x.h + a * g;
    x.w -= x.h;
  });
  expect_follows("base_lr: 1", 1, [](Scalar& x, double g, double a, double) { x.w -= x.h = a * g; });
}

TEST(UpdateRule, OfNesterovFollowsItsFormula) {
  expect_follows("type: 'Nesterov' momentum: 0.9", 1, [](Scalar& x, double g, double a, double) {
    const double before = x.h;
    x.h = 0.9 * x.h + a * g;
    x.w -= 1.9 * x.h - 0.9 * before;
  });
}

TEST(UpdateRule, OfAdaGradFollowsItsFormula) {
  // A delta large enough to be seen: outside of the root.
  expect_follows("type: 'AdaGrad' delta: 0.25", 1, [](Scalar& x, double g, double a, double) {
    x.h += g * g;
    x.w -= a * g / (std::sqrt(x.h) + 0.25);
  });
}

TEST(UpdateRule, OfRmsPropFollowsItsFormula) {
  expect_follows("type: 'RMSProp' rms_decay: 0.75 delta: 0.25", 1, [](Scalar& x, double g, double a, double) {
    x.h = 0.75 * x.h + 0.25 * g * g;
    x.w -= a * g / (std::sqrt(x.h) + 0.25);
  });
}

TEST(UpdateRule, OfAdaDeltaFollowsItsFormula) {
  expect_follows("type: 'AdaDelta' momentum: 0.75 delta: 0.125", 2, [](Scalar& x, double g, double a, double) {
    x.h = 0.75 * x.h + 0.25 * g * g;
    const double step = g * std::sqrt((x.s + 0.125) / (x.h + 0.125));
    x.s = 0.75 * x.s + 0.25 * step * step;
    x.w -= a * step;
  });
}

TEST(UpdateRule, OfAdamFollowsItsFormula) {
  expect_follows("type: 'Adam' momentum: 0.75 momentum2: 0.5 delta: 0.125", 2,
                 [](Scalar& x, double g, double a, double t) {
                   x.h = 0.75 * x.h + 0.25 * g;
                   x.s = 0.5 * x.s + 0.5 * g * g;
                   const double correction = std::sqrt(1 - std::pow(0.5, t)) / (1 - std::pow(0.75, t));
                   x.w -= a * correction * x.h / (std::sqrt(x.s) + 0.125);
                 });
}

// Worked by hand: one element, W = 1, gradient 2, rate 1/2, no decay.
TEST(UpdateRule, MakesTheStepsThatAreWorkedByHand) {
  const auto after = [](std::string_view solver, int steps) {
    const auto rule = rule_of(solver);
    const at::Tensor value = tensor_of({1}, {1});
    std::vector<at::Tensor> history;
    for (std::size_t h = 0; h < rule->histories(); ++h) history.push_back(tensor_of({0}, {1}));
    for (int i = 0; i < steps; ++i) {
      rule->update({.value = value,
                    .gradient_sum = tensor_of({2}, {1}),
                    .rate = 0.5,
                    .iteration = static_cast<Iteration>(i),
                    .history = history});
    }
    return values_of(value)[0];
  };
  // V = 1, then 0.5 + 1.
  EXPECT_DOUBLE_EQ(after("momentum: 0.5", 2), 1 - 1 - 1.5);
  // V = 1, step 1.5; V = 1.5, step 1.5 · 1.5 − 0.5 · 1.
  EXPECT_DOUBLE_EQ(after("type: 'Nesterov' momentum: 0.5", 2), 1 - 1.5 - 1.75);
  // H = 4, step 0.5 · 2 / (2 + 2); H = 8.
  EXPECT_DOUBLE_EQ(after("type: 'AdaGrad' delta: 2", 1), 0.75);
  EXPECT_DOUBLE_EQ(after("type: 'AdaGrad' delta: 2", 2), 0.75 - 1 / (std::sqrt(8.0) + 2));
  // H = 0.75 · 4 = 3.
  EXPECT_DOUBLE_EQ(after("type: 'RMSProp' rms_decay: 0.25 delta: 1", 1), 1 - 1 / (std::sqrt(3.0) + 1));
  // H = 0.5 · 4 = 2, u = 2 √(2 / 4).
  EXPECT_DOUBLE_EQ(after("type: 'AdaDelta' momentum: 0.5 delta: 2", 1), 1 - 0.5 * std::sqrt(2.0));
  // M = 1, V = 1, correction √(1/4) / (1/2) = 1, step 0.5 · 1 / (1 + 1).
  EXPECT_DOUBLE_EQ(after("type: 'Adam' momentum: 0.5 momentum2: 0.75 delta: 1", 1), 0.75);
}

TEST(UpdateRule, IsChosenByTheSolversType) {
  for (const char* const type : {"SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam"}) {
    EXPECT_EQ(rule_of(base::concat("type: '", type, "'"))->type(), type);
  }
  EXPECT_EQ(rule_of("momentum: 0.5")->type(), "SGD");
  EXPECT_EQ(rule_of("type: 'ADAM'")->type(), "Adam");
  EXPECT_EQ(rule_of("solver_type: ADAGRAD")->type(), "AdaGrad");
}

TEST(UpdateRule, ExplainsWhatIsWrong) {
  const auto error = [](std::string_view text) { return error_of([&] { rule_of(text); }); };
  EXPECT_EQ(
      error("base_lr: 1\ntype: 'Adams'"),
      "solver.prototxt:2:1: there is no solver type \"Adams\"; did you mean Adam? (there are AdaDelta, AdaGrad, Adam, "
      "Nesterov, RMSProp and SGD)");
  EXPECT_EQ(error("type: 'AdaGrad'\nmomentum: 0.9"),
            "solver.prototxt:2:1: AdaGrad has no momentum; leave it out, or take Adam, which has both");
  EXPECT_EQ(error("solver_type: RMSPROP\nmomentum: 0.9"),
            "solver.prototxt:2:1: RMSProp has no momentum; leave it out, or take Adam, which has both");
  EXPECT_EQ(error("type: 'RMSProp'\nrms_decay: 1"),
            "solver.prototxt:2:1: rms_decay is 1; RMSProp needs at least 0 and less than 1, the share that it keeps");
  EXPECT_EQ(error("type: 'Adam'\nmomentum: 1"),
            "solver.prototxt:2:1: momentum is 1; Adam needs at least 0 and less than 1, the share that it keeps");
  EXPECT_EQ(error("type: 'Adam'\nmomentum2: -1"),
            "solver.prototxt:2:1: momentum2 is -1; Adam needs at least 0 and less than 1, the share that it keeps");
  EXPECT_EQ(error("regularization_type: 'L3'"),
            "solver.prototxt:1:1: there is no regularization_type \"L3\"; there are L1 and L2");
}

}  // namespace
}  // namespace poseidon::caffe
