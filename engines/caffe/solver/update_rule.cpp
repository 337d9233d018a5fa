#include "engines/caffe/solver/update_rule.h"

#include <c10/core/GradMode.h>

#include <string>

#include "base/text.h"
#include "engines/caffe/proto/config_error.h"

namespace poseidon::caffe {
namespace {

enum class Regularization : std::uint8_t { kL1, kL2 };

// V ← μV + α(g + λW), W ← W − V; with L1, λ sign(W) in place of λW.
class Sgd final : public UpdateRule {
 public:
  Sgd(double momentum, Regularization regularization) : momentum_(momentum), regularization_(regularization) {}

  std::string_view type() const override { return "SGD"; }
  std::size_t histories() const override { return 1; }

  void update(const UpdateStep& step) const override {
    const c10::NoGradGuard no_graph;
    const at::Tensor& velocity = step.history[0];
    velocity.mul_(momentum_);
    if (step.gradient_sum.defined()) velocity.add_(step.gradient_sum, step.rate / step.contributors);
    if (step.decay != 0) {
      const bool l2 = regularization_ == Regularization::kL2;
      velocity.add_(l2 ? step.value.detach() : step.value.sign(), step.rate * step.decay);
    }
    step.value.sub_(velocity);
  }

 private:
  double momentum_;
  Regularization regularization_;
};

Regularization read_regularization(const proto::Message& solver) {
  const std::string name = solver.text("regularization_type");
  if (name == "L1") return Regularization::kL1;
  if (name == "L2") return Regularization::kL2;
  throw ConfigError(base::concat(solver.position("regularization_type").text(), ": there is no regularization_type \"",
                                 name, "\"; there are L1 and L2"));
}

// The older solver_type has the types' names in capitals, which is how they are compared.
std::string upper(std::string text) {
  for (char& c : text) c = static_cast<char>(c >= 'a' && c <= 'z' ? c - 'a' + 'A' : c);
  return text;
}

}  // namespace

std::unique_ptr<UpdateRule> read_update_rule(const proto::Message& solver) {
  const bool old_form = solver.has("solver_type");
  if (old_form && solver.has("type")) {
    throw ConfigError(base::concat(solver.position("solver_type").text(),
                                   ": solver_type is the older form of type; give one of them"));
  }
  const char* const field = old_form ? "solver_type" : "type";
  const std::string type = old_form ? solver.choice("solver_type") : solver.text("type");
  if (upper(type) != "SGD") {
    throw ConfigError(
        base::concat(solver.position(field).text(), ": solver type \"", type, "\" is not supported yet; there is SGD"));
  }
  return std::make_unique<Sgd>(solver.real("momentum"), read_regularization(solver));
}

}  // namespace poseidon::caffe
