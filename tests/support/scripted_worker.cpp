#include "support/scripted_worker.h"

#include <algorithm>
#include <memory>
#include <numeric>
#include <utility>

#include "base/aligned.h"
#include "base/philox.h"

namespace poseidon::test {
namespace {

constexpr float kRate = 0.05f;

// `count` numbers in [-1, 1), a function of the arguments only.
std::vector<float> draws(std::uint64_t problem, std::uint64_t what, std::uint64_t rank, std::uint64_t iteration, std::size_t count) {
  std::vector<float> numbers(count);
  for (std::size_t i = 0; i < count; i += 4) {
    const base::PhiloxCounter words = base::philox({static_cast<std::uint32_t>(i), static_cast<std::uint32_t>(what),
                                                    static_cast<std::uint32_t>(rank), static_cast<std::uint32_t>(iteration)},
                                                   {{static_cast<std::uint32_t>(problem), 0x5EED}});
    for (std::size_t j = i; j < std::min(count, i + 4); ++j) numbers[j] = static_cast<float>(2 * base::uniform01(words[j - i]) - 1);
  }
  return numbers;
}

float draw(std::uint64_t problem, std::uint64_t what, std::uint64_t rank, std::uint64_t iteration) {
  return draws(problem, what, rank, iteration, 1)[0];
}

// Which numbers of a tensor are drawn: initial values, dense gradients, the two factors.
enum What : std::uint64_t { kValue = 0, kGradient = 100, kOutputs = 200, kInputs = 300, kShortBatch = 500, kRows = 700, kAbsent = 1000 };

bool chance(double probability, std::uint64_t problem, std::uint64_t what, std::uint64_t rank, std::uint64_t iteration) {
  return probability > 0 && (draw(problem, what, rank, iteration) + 1) / 2 < probability;
}

bool is_absent(const TrainingScript& job, std::size_t tensor, std::size_t rank, Iteration iteration) {
  return chance(job.absent_probability, job.problem, kAbsent + tensor, rank, iteration);
}

std::size_t batch_of(const TrainingScript& job, std::size_t layer, std::size_t rank, Iteration iteration) {
  const std::size_t most = job.model.layers[layer].factor_rows;
  if (!chance(job.short_batch_probability, job.problem, kShortBatch + layer, rank, iteration)) return most;
  return static_cast<std::size_t>(static_cast<double>(most) * (draw(job.problem, kRows + layer, rank, iteration) + 1) / 2);
}

bool is_factored(const TrainingScript& job, std::size_t layer, Iteration iteration) {
  const plan::Plan* plan = &job.plan;
  for (const plan::PlanVersion& version : job.later) {
    if (version.from <= iteration) plan = &version.plan;
  }
  return job.plan.workers > 1 && plan->layers[layer].scheme != Scheme::kPs;
}

TensorView view(std::span<float> data) {
  return {reinterpret_cast<std::byte*>(data.data()), data.size() * sizeof(float), DType::kFloat32, {}};
}

}  // namespace

std::vector<std::vector<float>> initial_values(const TrainingScript& script, std::size_t rank) {
  std::vector<std::vector<float>> values;
  for (std::size_t t = 0; t < script.model.tensors.size(); ++t) {
    const std::size_t elements = script.model.tensors[t].elements();
    values.push_back(rank == 0 ? draws(script.problem, kValue + t, 0, 0, elements) : std::vector<float>(elements, -7.0f));
  }
  return values;
}

std::vector<TensorView> views_of(std::vector<std::vector<float>>& values) {
  std::vector<TensorView> views;
  for (std::vector<float>& value : values) views.push_back(view(value));
  return views;
}

ScriptedWorker::ScriptedWorker(const TrainingScript& script, std::size_t rank, runtime::Runtime& runtime, Session& session,
                               std::vector<std::vector<float>>& values, std::uint64_t time_seed)
    : script_(script), rank_(rank), runtime_(runtime), session_(session), values_(values), random_(time_seed),
      ready_(values.size(), true), iteration_(script.first), go_on_(values.size()) {
  for (std::size_t t = 0; t < values.size(); ++t) {
    const std::size_t bytes = values[t].size() * sizeof(float);
    memory_.push_back(script.allocate && t % 2 == 0 ? session.allocate(bytes, {}).value() : std::shared_ptr<std::byte>(base::make_aligned(bytes)));
    gradients_.emplace_back(reinterpret_cast<float*>(memory_[t].get()), values[t].size());
    std::fill(gradients_[t].begin(), gradients_[t].end(), 0.0f);
  }
}

void ScriptedWorker::start(std::function<void(std::optional<Error>)> on_end) {
  on_end_ = std::move(on_end);
  if (script_.order != SubmitOrder::kFree) return next_iteration();
  for (std::size_t layer = 0; layer < script_.model.layers.size(); ++layer) {
    std::vector<std::optional<TensorId>> parts = {std::nullopt};
    if (!travels_as_factors(layer)) {
      parts.assign(script_.model.layers[layer].tensors.begin(), script_.model.layers[layer].tensors.end());
    }
    alone_ += parts.size();
    for (const std::optional<TensorId> one : parts) go_alone(layer, one, script_.first);
  }
}

void ScriptedWorker::go_alone(std::size_t layer, std::optional<TensorId> one, Iteration iteration) {
  if (iteration == static_cast<Iteration>(script_.iterations)) {
    if (--alone_ == 0) std::exchange(on_end_, nullptr)(std::nullopt);
    return;
  }
  runtime_.after(compute_time(layer, 1), [this, layer, one, iteration] {
    go_on_[index(one.value_or(script_.model.layers[layer].tensors[0]))] = [this, layer, one, iteration] {
      go_alone(layer, one, iteration + 1);
    };
    submit(layer, iteration, one);
  });
}

void ScriptedWorker::next_iteration() {
  if (!gate_ || iteration_ == static_cast<Iteration>(script_.iterations)) return forward(0);
  gate_(iteration_, [this](bool go) {
    if (go) return forward(0);
    settle([this] {
      if (on_end_) std::exchange(on_end_, nullptr)(std::nullopt);
    });
  });
}

bool ScriptedWorker::all_ready() const {
  return std::all_of(ready_.begin(), ready_.end(), [](bool ready) { return ready; });
}

void ScriptedWorker::settle(std::function<void()> done) {
  if (all_ready()) return done();
  settled_ = std::move(done);
}

bool ScriptedWorker::travels_as_factors(std::size_t layer) const {
  return script_.plan.workers > 1 && session_.scheme(LayerId{static_cast<std::uint32_t>(layer)}) != Scheme::kPs;
}

runtime::Duration ScriptedWorker::compute_time(std::size_t layer, int passes) {
  if (!script_.forward_times.empty()) return passes * script_.forward_times[layer];
  const auto time = 1 + static_cast<std::int64_t>(random_() % static_cast<std::uint64_t>(script_.layer_time_max.count()));
  return runtime::Duration(script_.slow_rank == rank_ ? 20 * time : time);
}

bool ScriptedWorker::layer_ready(std::size_t layer) const {
  const auto& tensors = script_.model.layers[layer].tensors;
  return std::all_of(tensors.begin(), tensors.end(), [&](TensorId t) { return ready_[index(t)]; });
}

// The forward pass waits for each layer by itself.
void ScriptedWorker::forward(std::size_t layer) {
  if (layer == script_.model.layers.size()) {
    if (iteration_ == static_cast<Iteration>(script_.iterations)) {
      return std::exchange(on_end_, nullptr)(std::nullopt);
    }
    order_.resize(script_.model.layers.size());
    std::iota(order_.begin(), order_.end(), std::size_t{0});
    if (script_.order == SubmitOrder::kShuffled) std::shuffle(order_.begin(), order_.end(), random_);
    return backward(script_.model.layers.size());
  }
  if (!layer_ready(layer)) {
    waiting_for_ = layer;
    waiting_since_ = runtime_.now();
    return;
  }
  runtime_.after(compute_time(layer, 1), [this, layer] { forward(layer + 1); });
}

void ScriptedWorker::backward(std::size_t layers_left) {
  if (layers_left == 0) {
    ++iteration_;
    return next_iteration();
  }
  runtime_.after(compute_time(order_[layers_left - 1], 2), [this, left = layers_left - 1] {
    submit(order_[left], iteration_);
    backward(left);
  });
}

void ScriptedWorker::submit(std::size_t layer, Iteration iteration, std::optional<TensorId> one) {
  const LayerSpec& spec = script_.model.layers[layer];
  if (travels_as_factors(layer)) return submit_factors(layer, iteration);
  for (const TensorId tensor : spec.tensors) {
    if (one && tensor != *one) continue;
    const std::size_t t = index(tensor);
    ready_[t] = false;
    const auto on_synced = [this, t](const Synced& synced) { update({t}, synced); };
    if (is_absent(script_, t, rank_, iteration)) {
      session_.submit_absent(tensor, iteration, view(gradients_[t]), on_synced);
      continue;
    }
    const std::vector<float> drawn = draws(script_.problem, kGradient + t, rank_, iteration, values_[t].size());
    for (std::size_t i = 0; i < drawn.size(); ++i) gradients_[t][i] = drawn[i] + 0.1f * values_[t][i];
    session_.submit(tensor, iteration, {.gradient = view(gradients_[t]), .ready = {}, .samples = 3}, on_synced);
  }
}

void ScriptedWorker::submit_factors(std::size_t layer, Iteration iteration) {
  const LayerSpec& spec = script_.model.layers[layer];
  const std::size_t w = index(spec.tensors[0]);
  const std::size_t m = static_cast<std::size_t>(script_.model.tensors[w].shape[0]);
  const std::size_t n = static_cast<std::size_t>(script_.model.tensors[w].shape[1]);
  const std::size_t k = batch_of(script_, layer, rank_, iteration);
  auto factors = std::make_shared<std::pair<std::vector<float>, std::vector<float>>>();
  factors->first = draws(script_.problem, kOutputs + w, rank_, iteration, k * m);
  factors->second = draws(script_.problem, kInputs + w, rank_, iteration, k * n);
  for (std::size_t i = 0; i < k * m; ++i) factors->first[i] += 0.01f * values_[w][i % (m * n)];
  FactorGradient gradient{.outputs = view(factors->first),
                          .inputs = view(factors->second),
                          .rows = k,
                          .hold = nullptr,
                          .weight = view(gradients_[w]),
                          .bias = {},
                          .ready = {},
                          .samples = 3};
  std::vector<std::size_t> tensors = {w};
  ready_[w] = false;
  if (spec.tensors.size() > 1) {
    const std::size_t b = index(spec.tensors[1]);
    gradient.bias = view(gradients_[b]);
    tensors.push_back(b);
    ready_[b] = false;
  }
  // Poisoned when released: whoever still reads it then gets wrong sums.
  gradient.hold = std::shared_ptr<void>(factors.get(), [factors](void*) {
    std::fill(factors->first.begin(), factors->first.end(), 1e30f);
    std::fill(factors->second.begin(), factors->second.end(), 1e30f);
  });
  session_.submit_factors(LayerId{static_cast<std::uint32_t>(layer)}, iteration, gradient,
                           [this, tensors](const Synced& synced) { update(tensors, synced); });
}

void ScriptedWorker::update(const std::vector<std::size_t>& tensors, const Synced& synced) {
  if (!on_end_) return;
  if (synced.error) return std::exchange(on_end_, nullptr)(synced.error);
  for (const std::size_t t : tensors) {
    for (std::size_t i = 0; i < values_[t].size() && synced.contributors > 0; ++i) {
      values_[t][i] -= kRate * gradients_[t][i] / static_cast<float>(synced.contributors);
      gradients_[t][i] = -3.0e20f;  // nobody may need it any more
    }
    ready_[t] = true;
  }
  if (const auto go_on = std::exchange(go_on_[tensors[0]], nullptr)) return go_on();
  if (waiting_for_ && layer_ready(*waiting_for_)) {
    waited_ += runtime_.now() - waiting_since_;
    return forward(*std::exchange(waiting_for_, std::nullopt));
  }
  if (settled_ && all_ready()) std::exchange(settled_, nullptr)();
}

std::vector<std::vector<double>> train_alone(const TrainingScript& job) {
  const std::size_t workers = static_cast<std::size_t>(job.plan.workers);
  std::vector<std::vector<double>> values;
  for (std::size_t t = 0; t < job.model.tensors.size(); ++t) {
    const std::vector<float> drawn = draws(job.problem, kValue + t, 0, 0, job.model.tensors[t].elements());
    values.emplace_back(drawn.begin(), drawn.end());
  }
  for (Iteration iteration = job.first; iteration < static_cast<Iteration>(job.iterations); ++iteration) {
    for (std::size_t layer = 0; layer < job.model.layers.size(); ++layer) {
      const LayerSpec& spec = job.model.layers[layer];
      if (is_factored(job, layer, iteration)) {
        const std::size_t w = index(spec.tensors[0]);
        const std::size_t m = static_cast<std::size_t>(job.model.tensors[w].shape[0]);
        const std::size_t n = static_cast<std::size_t>(job.model.tensors[w].shape[1]);
        std::vector<double> gradient(m * n, 0);
        std::vector<double> bias(m, 0);
        for (std::size_t rank = 0; rank < workers; ++rank) {
          const std::size_t batch = batch_of(job, layer, rank, iteration);
          const std::vector<float> outputs = draws(job.problem, kOutputs + w, rank, iteration, batch * m);
          const std::vector<float> inputs = draws(job.problem, kInputs + w, rank, iteration, batch * n);
          for (std::size_t k = 0; k < batch; ++k) {
            for (std::size_t i = 0; i < m; ++i) {
              const std::size_t at = k * m + i;
              const double u = outputs[at] + 0.01 * values[w][at % (m * n)];
              bias[i] += u;
              for (std::size_t j = 0; j < n; ++j) gradient[i * n + j] += u * inputs[k * n + j];
            }
          }
        }
        for (std::size_t i = 0; i < m * n; ++i) values[w][i] -= kRate * gradient[i] / static_cast<double>(workers);
        for (std::size_t i = 0; i < m && spec.tensors.size() > 1; ++i) {
          values[index(spec.tensors[1])][i] -= kRate * bias[i] / static_cast<double>(workers);
        }
        continue;
      }
      for (const TensorId tensor : spec.tensors) {
        const std::size_t t = index(tensor);
        std::vector<double> sum(values[t].size(), 0);
        int contributors = 0;
        for (std::size_t rank = 0; rank < workers; ++rank) {
          if (is_absent(job, t, rank, iteration)) continue;
          ++contributors;
          const std::vector<float> drawn = draws(job.problem, kGradient + t, rank, iteration, sum.size());
          for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += drawn[i] + 0.1 * values[t][i];
        }
        for (std::size_t i = 0; i < sum.size() && contributors > 0; ++i) values[t][i] -= kRate * sum[i] / contributors;
      }
    }
  }
  return values;
}

Model random_model(std::uint64_t seed, std::size_t large_tensor_bytes_max) {
  std::mt19937_64 random(seed);
  const auto between = [&](std::int64_t least, std::int64_t most) {
    return least + static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(most - least + 1));
  };
  Model model;
  const auto add = [&](const std::string& name, std::vector<std::vector<std::int64_t>> shapes, std::size_t factor_rows) {
    LayerSpec layer{name, {}, factor_rows};
    const char* const parts[] = {".weight", ".bias"};
    for (std::size_t i = 0; i < shapes.size(); ++i) {
      layer.tensors.push_back(TensorId{static_cast<std::uint32_t>(model.tensors.size())});
      model.tensors.push_back({name + parts[i], shapes[i], DType::kFloat32});
    }
    model.layers.push_back(layer);
  };
  const std::int64_t channels = between(1, 20);
  add("conv1", {{channels, between(1, 3), 3, 3}, {channels}}, 0);
  add("large", {{between(1, static_cast<std::int64_t>(large_tensor_bytes_max / 4))}}, 0);
  const std::int64_t hidden = between(8, 40);
  add("fc1", {{hidden, between(8, 60)}, {hidden}}, static_cast<std::size_t>(between(1, 6)));
  add("fc2", {{between(8, 30), hidden}}, static_cast<std::size_t>(between(1, 6)));  // without a bias
  const std::int64_t classes = between(8, 12);
  add("fc3", {{classes, between(8, 200)}, {classes}}, static_cast<std::size_t>(between(1, 6)));
  return model;
}

plan::Plan uniform_plan(const Model& model, int workers, Scheme scheme) {
  plan::Plan plan{workers, {}};
  int owner = 0;
  for (const LayerSpec& layer : model.layers) {
    plan::LayerPlan entry{layer.name, layer.factor_rows > 0 ? scheme : Scheme::kPs, {}, Rank{0}};
    if (entry.scheme == Scheme::kBlock) {
      const plan::LayerSize size = *plan::factor_size(model, layer);
      entry.grid = plan::best_grid(static_cast<double>(size.rows), static_cast<double>(size.cols), workers);
    }
    if (entry.scheme == Scheme::kAdam) entry.owner = Rank{owner++ % workers};
    plan.layers.push_back(entry);
  }
  return plan;
}

plan::Plan random_plan(const Model& model, int workers, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  plan::Plan plan{workers, {}};
  for (const LayerSpec& layer : model.layers) {
    const auto scheme = static_cast<Scheme>(random() % 4);
    const Model one{model.tensors, {layer}};
    plan::LayerPlan entry = uniform_plan(one, workers, scheme).layers[0];
    // A small matrix has no blocks for many workers.
    if (entry.scheme == Scheme::kBlock && entry.grid.rows == 0) entry = uniform_plan(one, workers, Scheme::kSfb).layers[0];
    plan.layers.push_back(entry);
  }
  return plan;
}

}  // namespace poseidon::test
