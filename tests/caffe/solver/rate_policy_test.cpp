#include "engines/caffe/solver/rate_policy.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/text.h"
#include "caffe/layers/layer_fixture.h"

namespace poseidon::caffe {
namespace {

using Kind = RatePolicy::Kind;

TEST(RatePolicy, FixedStays) {
  const RatePolicy policy{.kind = Kind::kFixed, .base = 0.01};
  EXPECT_EQ(rate_at(policy, 0), 0.01);
  EXPECT_EQ(rate_at(policy, 100000), 0.01);
}

TEST(RatePolicy, StepFallsAfterEveryStep) {
  const RatePolicy policy{.kind = Kind::kStep, .base = 0.8, .gamma = 0.5, .step_iterations = 10};
  EXPECT_DOUBLE_EQ(rate_at(policy, 0), 0.8);
  EXPECT_DOUBLE_EQ(rate_at(policy, 9), 0.8);
  EXPECT_DOUBLE_EQ(rate_at(policy, 10), 0.4);
  EXPECT_DOUBLE_EQ(rate_at(policy, 19), 0.4);
  EXPECT_DOUBLE_EQ(rate_at(policy, 35), 0.1);
}

TEST(RatePolicy, ExpFallsAtEveryIteration) {
  const RatePolicy policy{.kind = Kind::kExp, .base = 3, .gamma = 0.5};
  EXPECT_DOUBLE_EQ(rate_at(policy, 0), 3);
  EXPECT_DOUBLE_EQ(rate_at(policy, 3), 0.375);
}

TEST(RatePolicy, InvFallsAsInLeNet) {
  // 0.01 (1 + 0.0001 · 10000)^(-0.75) = 0.01 / 2^0.75 = 0.01 / 1.681792830507429.
  const RatePolicy policy{.kind = Kind::kInv, .base = 0.01, .gamma = 0.0001, .power = 0.75};
  EXPECT_DOUBLE_EQ(rate_at(policy, 0), 0.01);
  EXPECT_NEAR(rate_at(policy, 10000), 0.005946035575013605, 1e-15);
}

TEST(RatePolicy, MultistepFallsAtEachOfItsSteps) {
  const RatePolicy policy{.kind = Kind::kMultistep, .base = 1, .gamma = 0.1, .steps = {5, 8}};
  EXPECT_DOUBLE_EQ(rate_at(policy, 4), 1);
  EXPECT_DOUBLE_EQ(rate_at(policy, 5), 0.1);
  EXPECT_DOUBLE_EQ(rate_at(policy, 7), 0.1);
  EXPECT_DOUBLE_EQ(rate_at(policy, 8), 0.01);
  EXPECT_EQ(steps_reached(policy, 4), 0u);
  EXPECT_EQ(steps_reached(policy, 100), 2u);
}

TEST(RatePolicy, PolyReachesZeroAtTheLastIteration) {
  const RatePolicy policy{.kind = Kind::kPoly, .base = 4, .power = 2, .max_iterations = 100};
  EXPECT_DOUBLE_EQ(rate_at(policy, 0), 4);
  EXPECT_DOUBLE_EQ(rate_at(policy, 50), 1);
  EXPECT_DOUBLE_EQ(rate_at(policy, 90), 0.04);
  EXPECT_DOUBLE_EQ(rate_at(policy, 100), 0);
}

TEST(RatePolicy, SigmoidIsHalfwayAtItsStep) {
  const RatePolicy policy{.kind = Kind::kSigmoid, .base = 2, .gamma = -std::log(3) / 10, .step_iterations = 30};
  EXPECT_DOUBLE_EQ(rate_at(policy, 30), 1);
  // 2 / (1 + 3) and 2 / (1 + 1/3).
  EXPECT_NEAR(rate_at(policy, 40), 0.5, 1e-12);
  EXPECT_NEAR(rate_at(policy, 20), 1.5, 1e-12);
}

RatePolicy read(std::string_view text) {
  return read_rate_policy(proto::parse_text(text, "SolverParameter", "solver.prototxt"));
}
std::string error(std::string_view text) {
  return testing::error_of([&] { read(text); });
}

TEST(RatePolicy, ReadsTheSolver) {
  const RatePolicy inv = read("base_lr: 0.01 lr_policy: 'inv' gamma: 0.0001 power: 0.75 max_iter: 7");
  EXPECT_EQ(inv.kind, Kind::kInv);
  EXPECT_EQ(inv.base, 0.01);
  EXPECT_EQ(inv.gamma, 0.0001);
  EXPECT_EQ(inv.power, 0.75);
  EXPECT_EQ(inv.max_iterations, 7u);
  const RatePolicy multistep = read("base_lr: 1 lr_policy: 'multistep' gamma: 0.1 stepvalue: 5 stepvalue: 8");
  EXPECT_EQ(multistep.kind, Kind::kMultistep);
  EXPECT_EQ(multistep.steps, (std::vector<Iteration>{5, 8}));
  EXPECT_EQ(read("base_lr: 1 lr_policy: 'step' gamma: 0.1 stepsize: 12").step_iterations, 12u);
  EXPECT_EQ(read("base_lr: 1 lr_policy: 'fixed'").kind, Kind::kFixed);
  EXPECT_EQ(read("base_lr: 1 lr_policy: 'exp' gamma: 0.1").kind, Kind::kExp);
  EXPECT_EQ(read("base_lr: 1 lr_policy: 'poly' power: 1 max_iter: 4").kind, Kind::kPoly);
  EXPECT_EQ(read("base_lr: 1 lr_policy: 'sigmoid' gamma: 1 stepsize: 4").kind, Kind::kSigmoid);
}

TEST(RatePolicy, ExplainsWhatIsWrong) {
  EXPECT_EQ(error("base_lr: 1\nlr_policy: 'multstep'").substr(0, 78),
            "solver.prototxt:2:1: there is no lr_policy \"multstep\"; did you mean multistep?");
  EXPECT_EQ(error("base_lr: 1\nlr_policy: 'step' gamma: 0.1"),
            "solver.prototxt:2:1: lr_policy \"step\" needs stepsize");
  EXPECT_EQ(error("lr_policy: 'fixed'"), "solver.prototxt:1:1: lr_policy \"fixed\" needs base_lr");
  EXPECT_EQ(error("base_lr: 1 lr_policy: 'step' gamma: 1\nstepsize: 0"),
            "solver.prototxt:2:1: a stepsize of 0 makes no step");
  EXPECT_EQ(error("base_lr: 1 lr_policy: 'multistep' gamma: 1\nstepvalue: 5\nstepvalue: 5"),
            "solver.prototxt:3:1: the stepvalues of a multistep policy must ascend, and 5 does not");
  EXPECT_NE(error("base_lr: 1").find("needs an lr_policy"), std::string::npos);
}

}  // namespace
}  // namespace poseidon::caffe
