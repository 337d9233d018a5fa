#include "engines/caffe/python/trainer.h"

#include <c10/core/GradMode.h>

#include <utility>

#include "base/log.h"
#include "base/text.h"

namespace poseidon::caffe::python {

Trainer::Trainer(const std::filesystem::path& file, const LayerRegistry& layers, const TrainerOptions& options,
                 TrainerEvents events)
    : events_(std::move(events)),
      solver_(proto::read_text(file, "SolverParameter"), layers, solver_options(options)),
      net_(std::make_unique<KeptNet>(solver_.net())) {
  for (const std::unique_ptr<Net>& net : solver_.test_nets()) test_nets_.push_back(std::make_unique<KeptNet>(*net));
}

SolverOptions Trainer::solver_options(const TrainerOptions& options) {
  return {.dtype = options.dtype,
          .default_seed = options.seed,
          .type = options.type,
          .run_pass = [this](const Pass& pass) { return run_pass(pass); }};
}

double Trainer::run_pass(const Pass& pass) {
  if (std::exchange(begins_, false)) {
    net_->clear_array_diffs();
    events_.on_start();
  }
  const std::size_t last = solver_.net().steps().size() - 1;
  const double loss = net_->forward(pass, 0, last);
  net_->backward(0, last);
  return loss;
}

aten::LocalExchange& Trainer::new_exchange() {
  begins_ = true;
  return exchange_.emplace(solver_.parameters(), solver_.update_function());
}

void Trainer::step(Iteration iterations) {
  solver_.advance(new_exchange(), *this, iteration() + iterations);
}

void Trainer::solve() {
  solver_.train(new_exchange(), *this);
}

void Trainer::apply_update() {
  new_exchange().begin(iteration());
  update();
}

void Trainer::update() {
  const c10::NoGradGuard no_graph;
  std::vector<at::Tensor> before;
  for (std::size_t i = 0; i < net_->arrays().size(); ++i) {
    const NetArray& array = solver_.net().arrays()[i];
    before.push_back(array.trained() ? array.value.detach().clone() : at::Tensor());
    if (!array.trained()) continue;
    at::Tensor value = array.value;
    value.mutable_grad() = net_->arrays()[i]->diff().view(value.sizes());
  }
  exchange_->settle_all();
  for (std::size_t i = 0; i < before.size(); ++i) {
    if (!before[i].defined()) continue;
    net_->arrays()[i]->assign_diff(before[i].sub(solver_.net().arrays()[i].value.detach()));
  }
}

std::filesystem::path Trainer::snapshot() {
  return solver_.snapshot(new_exchange()).state;
}

void Trainer::on_iteration(const IterationReport& report) {
  events_.on_gradients_ready();
  update();
  begins_ = true;
  if (report.display) {
    base::log::info(base::concat("Iteration ", report.iteration, ", loss = ", report.smoothed_loss,
                                 ", lr = ", report.rate));
  }
  events_.on_done();
}

void Trainer::on_test(const TestReport& report) {
  for (std::size_t i = 0; i < report.scores.size(); ++i) {
    base::log::info(base::concat("Iteration ", report.iteration, ", test net #", report.net, " output #", i, ": ",
                                 report.scores[i].name, " = ", report.scores[i].value));
  }
}

void Trainer::on_snapshot(const SnapshotReport& report) {
  base::log::info(base::concat("Snapshotting solver state to ", report.files.state.string()));
}

}  // namespace poseidon::caffe::python
