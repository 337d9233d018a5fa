#include "engines/caffe/solver/update_rule.h"

#include <ATen/ops/sqrt.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>

#include <cmath>
#include <string>
#include <vector>

#include "base/text.h"
#include "engines/caffe/proto/config_error.h"

namespace poseidon::caffe {
namespace {

enum class Regularization : std::uint8_t { kL1, kL2 };

// What the rules read of a SolverParameter.
struct RuleSettings {
  Regularization regularization = Regularization::kL2;
  double momentum = 0;   // μ; Adam's β1
  double momentum2 = 0;  // Adam's β2
  double rms_decay = 0;  // ρ
  double delta = 0;      // δ
};

// λW or λ sign(W).
at::Tensor decay_of(const UpdateStep& step, Regularization regularization) {
  return regularization == Regularization::kL2 ? step.value.detach() : step.value.sign();
}

// g, in memory of its own.
at::Tensor gradient_of(const UpdateStep& step, Regularization regularization) {
  at::Tensor gradient =
      step.gradient_sum.defined() ? step.gradient_sum / step.divisor : at::zeros_like(step.value.detach());
  if (step.decay != 0) gradient.add_(decay_of(step, regularization), step.decay);
  return gradient;
}

class Rule : public UpdateRule {
 public:
  Rule(std::string_view type, std::size_t histories, const RuleSettings& settings)
      : settings_(settings), type_(type), histories_(histories) {}
  std::string_view type() const override { return type_; }
  std::size_t histories() const override { return histories_; }

 protected:
  RuleSettings settings_;

 private:
  std::string_view type_;
  std::size_t histories_;
};

// V ← μV + αg, W ← W − V.
class Sgd final : public Rule {
 public:
  explicit Sgd(const RuleSettings& settings) : Rule("SGD", 1, settings) {}

  // Without an array for g, since this is the rule of the largest nets.
  void update(const UpdateStep& step) const override {
    const c10::NoGradGuard no_graph;
    const at::Tensor& velocity = step.history[0];
    velocity.mul_(settings_.momentum);
    if (step.gradient_sum.defined()) velocity.add_(step.gradient_sum, step.rate / step.divisor);
    if (step.decay != 0) velocity.add_(decay_of(step, settings_.regularization), step.rate * step.decay);
    step.value.sub_(velocity);
  }
};

// V' ← μV + αg, W ← W − ((1 + μ) V' − μV): the step is corrected by what the momentum will do next.
class Nesterov final : public Rule {
 public:
  explicit Nesterov(const RuleSettings& settings) : Rule("Nesterov", 1, settings) {}

  void update(const UpdateStep& step) const override {
    const c10::NoGradGuard no_graph;
    const at::Tensor gradient = gradient_of(step, settings_.regularization);
    const at::Tensor& velocity = step.history[0];
    step.value.add_(velocity, settings_.momentum);
    velocity.mul_(settings_.momentum).add_(gradient, step.rate);
    step.value.sub_(velocity, 1 + settings_.momentum);
  }
};

// H ← H + g², W ← W − α g / (√H + δ) (Duchi et al., JMLR 2011).
class AdaGrad final : public Rule {
 public:
  explicit AdaGrad(const RuleSettings& settings) : Rule("AdaGrad", 1, settings) {}

  void update(const UpdateStep& step) const override {
    const c10::NoGradGuard no_graph;
    const at::Tensor gradient = gradient_of(step, settings_.regularization);
    const at::Tensor& squares = step.history[0];
    squares.addcmul_(gradient, gradient);
    step.value.addcdiv_(gradient, at::sqrt(squares).add_(settings_.delta), -step.rate);
  }
};

// H ← ρH + (1 − ρ) g², W ← W − α g / (√H + δ) (Tieleman and Hinton's lecture 6.5).
class RmsProp final : public Rule {
 public:
  explicit RmsProp(const RuleSettings& settings) : Rule("RMSProp", 1, settings) {}

  void update(const UpdateStep& step) const override {
    const c10::NoGradGuard no_graph;
    const at::Tensor gradient = gradient_of(step, settings_.regularization);
    const at::Tensor& squares = step.history[0];
    squares.mul_(settings_.rms_decay).addcmul_(gradient, gradient, 1 - settings_.rms_decay);
    step.value.addcdiv_(gradient, at::sqrt(squares).add_(settings_.delta), -step.rate);
  }
};

// H ← μH + (1 − μ) g², u = g √((S + δ) / (H + δ)), S ← μS + (1 − μ) u², W ← W − αu (Zeiler, 2012). Caffe's momentum is
// the paper's ρ, and its rate scales what the paper takes as it is. History: H, S.
class AdaDelta final : public Rule {
 public:
  explicit AdaDelta(const RuleSettings& settings) : Rule("AdaDelta", 2, settings) {}

  void update(const UpdateStep& step) const override {
    const c10::NoGradGuard no_graph;
    const double kept = settings_.momentum;
    at::Tensor gradient = gradient_of(step, settings_.regularization);
    const at::Tensor& squares = step.history[0];
    const at::Tensor& steps = step.history[1];
    squares.mul_(kept).addcmul_(gradient, gradient, 1 - kept);
    at::Tensor factor = steps + settings_.delta;
    factor.div_(squares + settings_.delta).sqrt_();
    const at::Tensor update = gradient.mul_(factor);
    steps.mul_(kept).addcmul_(update, update, 1 - kept);
    step.value.sub_(update, step.rate);
  }
};

// M ← β1 M + (1 − β1) g, V ← β2 V + (1 − β2) g², W ← W − α c M / (√V + δ) with c = √(1 − β2ᵗ) / (1 − β1ᵗ) for the t-th
// update, from 1 (Kingma and Ba, ICLR 2015; δ as at the end of their section 2, where it does not shrink with c).
// History: M, V.
class Adam final : public Rule {
 public:
  explicit Adam(const RuleSettings& settings) : Rule("Adam", 2, settings) {}

  void update(const UpdateStep& step) const override {
    const c10::NoGradGuard no_graph;
    const double beta1 = settings_.momentum;
    const double beta2 = settings_.momentum2;
    const at::Tensor gradient = gradient_of(step, settings_.regularization);
    const at::Tensor& mean = step.history[0];
    const at::Tensor& squares = step.history[1];
    mean.mul_(beta1).add_(gradient, 1 - beta1);
    squares.mul_(beta2).addcmul_(gradient, gradient, 1 - beta2);
    const auto t = static_cast<double>(step.iteration + 1);
    const double correction = std::sqrt(1 - std::pow(beta2, t)) / (1 - std::pow(beta1, t));
    step.value.addcdiv_(mean, at::sqrt(squares).add_(settings_.delta), -step.rate * correction);
  }
};

// --- Reading a SolverParameter

[[noreturn]] void fail(const proto::Message& solver, std::string_view field, const std::string& text) {
  throw ConfigError(base::concat(solver.position(field).text(), ": ", text));
}

Regularization read_regularization(const proto::Message& solver) {
  const std::string name = solver.text("regularization_type");
  if (name == "L1") return Regularization::kL1;
  if (name == "L2") return Regularization::kL2;
  fail(solver, "regularization_type",
       base::concat("there is no regularization_type \"", name, "\"; there are L1 and L2"));
}

RuleSettings read_settings(const proto::Message& solver) {
  return {.regularization = read_regularization(solver),
          .momentum = solver.real("momentum"),
          .momentum2 = solver.real("momentum2"),
          .rms_decay = solver.real("rms_decay"),
          .delta = solver.real("delta")};
}

// Caffe's AdaGrad and RMSProp refuse a momentum as well: they have none.
void refuse_momentum(const proto::Message& solver, const std::string& type) {
  if (solver.real("momentum") != 0) {
    fail(solver, "momentum", base::concat(type, " has no momentum; leave it out, or take Adam, which has both"));
  }
}

// Beyond these a mean is none, and the step is divided by zero or by the root of a negative number.
void require_share(const proto::Message& solver, const std::string& type, std::string_view field) {
  const double value = solver.real(field);
  if (value >= 0 && value < 1) return;
  fail(solver, field,
       base::concat(field, " is ", value, "; ", type, " needs at least 0 and less than 1, the share that it keeps"));
}

struct RuleType {
  std::string name;
  std::unique_ptr<UpdateRule> (*make)(const proto::Message& solver, const std::string& type);
};

const std::vector<RuleType>& rule_types() {
  using proto::Message;
  static const std::vector<RuleType> types = {
      {"AdaDelta",
       [](const Message& solver, const std::string& type) -> std::unique_ptr<UpdateRule> {
         require_share(solver, type, "momentum");
         return std::make_unique<AdaDelta>(read_settings(solver));
       }},
      {"AdaGrad",
       [](const Message& solver, const std::string& type) -> std::unique_ptr<UpdateRule> {
         refuse_momentum(solver, type);
         return std::make_unique<AdaGrad>(read_settings(solver));
       }},
      {"Adam",
       [](const Message& solver, const std::string& type) -> std::unique_ptr<UpdateRule> {
         require_share(solver, type, "momentum");
         require_share(solver, type, "momentum2");
         return std::make_unique<Adam>(read_settings(solver));
       }},
      {"Nesterov",
       [](const Message& solver, const std::string&) -> std::unique_ptr<UpdateRule> {
         return std::make_unique<Nesterov>(read_settings(solver));
       }},
      {"RMSProp",
       [](const Message& solver, const std::string& type) -> std::unique_ptr<UpdateRule> {
         refuse_momentum(solver, type);
         require_share(solver, type, "rms_decay");
         return std::make_unique<RmsProp>(read_settings(solver));
       }},
      {"SGD",
       [](const Message& solver, const std::string&) -> std::unique_ptr<UpdateRule> {
         return std::make_unique<Sgd>(read_settings(solver));
       }},
  };
  return types;
}

std::string upper(std::string text) {
  for (char& c : text) c = static_cast<char>(c >= 'a' && c <= 'z' ? c - 'a' + 'A' : c);
  return text;
}

}  // namespace

std::unique_ptr<UpdateRule> read_update_rule(const proto::Message& solver, std::string_view instead) {
  const std::string wanted = instead.empty() ? solver.text("type") : std::string(instead);
  std::vector<std::string> names;
  for (const RuleType& type : rule_types()) {
    // Regardless of case: "ADAM" can mean nothing else.
    if (upper(type.name) == upper(wanted)) return type.make(solver, type.name);
    names.push_back(type.name);
  }
  fail(solver, "type",
       base::concat("there is no solver type \"", wanted, "\"", base::did_you_mean(wanted, names), " (there are ",
                    base::join_words(names), ")"));
}

}  // namespace poseidon::caffe
