#include "engines/torch/python/job.h"

#include "base/text.h"
#include "engines/torch/aten_compute.h"
#include "engines/torch/python/waited_device.h"
#include "engines/torch/tensor_view.h"
#include "launch/sentence.h"

namespace poseidon::python {
namespace {

[[noreturn]] void refuse(std::string message) { throw JobError({ErrorCode::kInvalid, std::move(message)}); }

void check(const Status& status) {
  if (!status) throw JobError(status.error());
}

// The bytes of a tensor whose elements fill its memory without a gap, whatever the order of its dimensions.
TensorView bytes_of_dense(const at::Tensor& tensor, std::string_view name) {
  if (!tensor.device().is_cpu()) refuse(base::concat(name, " is on ", tensor.device().str(), ": gradients travel from the host's memory"));
  if (!tensor.is_non_overlapping_and_dense()) refuse(base::concat(name, " has gaps in its memory"));
  return {static_cast<std::byte*>(tensor.data_ptr()), tensor.nbytes(), aten::dtype_of(tensor), {}};
}

Model model_from(const std::vector<TensorArgument>& tensors, const std::vector<LayerArgument>& layers) {
  Model model;
  for (const auto& [name, value] : tensors) model.tensors.push_back({name, value.sizes().vec(), aten::dtype_of(value)});
  for (const LayerArgument& layer : layers) {
    LayerSpec spec{layer.name, {}, layer.factor_rows};
    for (const std::uint32_t tensor : layer.tensors) {
      if (tensor >= tensors.size()) refuse(base::concat("layer ", layer.name, " has a tensor ", tensor, " of ", tensors.size()));
      spec.tensors.push_back(TensorId{tensor});
    }
    model.layers.push_back(std::move(spec));
  }
  return model;
}

// Of the first `known` empty ones: their values stay.
std::vector<TensorView> views_of(const std::vector<TensorArgument>& tensors, std::size_t known = 0) {
  std::vector<TensorView> views(tensors.size());
  for (std::size_t t = known; t < tensors.size(); ++t) views[t] = bytes_of_dense(tensors[t].second, tensors[t].first);
  return views;
}

std::vector<cluster::Letter> letters_of(const std::vector<Letter>& letters) {
  std::vector<cluster::Letter> all;
  for (const Letter& letter : letters) {
    all.push_back({Rank{letter.rank}, {static_cast<std::byte*>(letter.memory.data_ptr()), letter.memory.nbytes(), {}, 0}});
  }
  return all;
}

}  // namespace

// Factors that the engine still sends. They are let go on its lane, where no Python object may be destroyed.
struct Job::Hold {
  std::shared_ptr<State> state;
  std::vector<at::Tensor> factors;
  ~Hold() {
    const std::lock_guard lock(state->mutex);
    for (at::Tensor& factor : factors) state->released.push_back(std::move(factor));
  }
};

std::unique_ptr<Job> Job::join(const std::vector<TensorArgument>& tensors, const std::vector<LayerArgument>& layers, bool provisional,
                               int product_threads, const std::shared_ptr<WaitedDevice>& products_on) {
  Result<std::optional<cluster::JobAddress>> job = cluster::job_from_environment();
  if (!job) throw JobError(job.error());
  if (!*job) throw JobError({ErrorCode::kNotFound, "there is no job to join: start the script with `poseidon run`"});
  const int rank = static_cast<int>(index((*job)->rank));
  const int workers = (*job)->workers;
  const std::size_t lanes = (*job)->lanes;
  const std::size_t staging_bytes_max = (*job)->staging_bytes_max;
  Model model = model_from(tensors, layers);
  std::unique_ptr<trace::WorkerTimeline> timeline = trace::WorkerTimeline::from_environment(rank);
  Result<std::unique_ptr<cluster::Worker>> worker = cluster::Worker::join(
      {.job = std::move(**job),
       .model = model,
       .values = views_of(tensors),
       .make_compute = [=](runtime::Runtime& lane) -> std::unique_ptr<runtime::Compute> {
         if (products_on) return std::make_unique<WaitedProducts>(lane, products_on, workers);
         return std::make_unique<aten::AtenCompute>(lane, product_threads);
       },
       .events = timeline ? &timeline->events() : nullptr,
       .provisional = provisional,
       .lanes = lanes,
       .staging_bytes_max = staging_bytes_max});
  if (!worker) {
    launch::report_error(rank, worker.error());
    throw JobError(worker.error());
  }
  std::unique_ptr<Job> joined(new Job(std::move(*worker), std::move(model), std::move(timeline)));
  joined->set_names(layers);
  return joined;
}

Job::Job(std::unique_ptr<cluster::Worker> worker, Model model, std::unique_ptr<trace::WorkerTimeline> timeline)
    : timeline_(std::move(timeline)), model_(std::move(model)), worker_(std::move(worker)) {}

Job::~Job() {
  worker_.reset();
  let_go();
}

int Job::rank() const { return static_cast<int>(index(worker_->session().rank())); }
int Job::workers() const { return worker_->session().workers(); }
std::string Job::scheme(std::uint32_t layer) const { return std::string(to_string(worker_->session().scheme(LayerId{layer}))); }
std::string Job::plan() const { return plan::to_json(worker_->plan()); }

void Job::renew(const std::vector<TensorArgument>& tensors, const std::vector<LayerArgument>& layers, std::uint64_t first,
                std::size_t known) {
  let_go();
  Model model = model_from(tensors, layers);
  for (std::size_t t = 0; t < model_.tensors.size(); ++t) {
    const bool is_same = t < model.tensors.size() && model.tensors[t].name == model_.tensors[t].name && model.tensors[t].shape == model_.tensors[t].shape;
    if (!is_same) refuse(base::concat("the new model has no ", model_.tensors[t].name, " in its place"));
  }
  model_ = model;
  set_names(layers);
  check(worker_->renew(std::move(model), views_of(tensors, known), first));
}

// The script's names of its parameters, which are one a layer.
void Job::set_names(const std::vector<LayerArgument>& layers) {
  if (!timeline_) return;
  std::vector<std::string> names(model_.tensors.size());
  for (const LayerArgument& layer : layers) {
    for (const std::uint32_t tensor : layer.tensors) names[tensor] = layer.name;
  }
  timeline_->set_tensor_names(std::move(names));
}

void Job::span(const std::string& name, bool is_begin) {
  if (timeline_) timeline_->span(name, is_begin);
}

bool Job::begin(std::uint64_t iteration) {
  let_go();
  if (timeline_) timeline_->begin(iteration);
  const bool go = worker_->begin(iteration);
  if (const std::optional<Error> over = worker_->error()) throw JobError(*over);
  return go;
}

const TensorSpec& Job::spec(std::uint32_t tensor) const {
  if (tensor >= model_.tensors.size()) refuse(base::concat("the model has no tensor ", tensor));
  return model_.tensors[tensor];
}

SyncedFn Job::expect(std::uint32_t tensor, std::vector<at::Tensor> kept) {
  {
    const std::lock_guard lock(state_->mutex);
    const auto [entry, is_new] = state_->pending.try_emplace(tensor);
    if (!is_new) refuse(base::concat("the sum of ", spec(tensor).name, " has not been taken, and it is handed in again"));
    entry->second.kept = std::move(kept);
  }
  return [state = state_, tensor](const Synced& synced) {
    {
      const std::lock_guard lock(state->mutex);
      state->pending[tensor].synced = synced;
    }
    state->changed.notify_all();
  };
}

// What the lane has released is destroyed here, on the script's thread.
void Job::let_go() {
  std::vector<at::Tensor> released;
  const std::lock_guard lock(state_->mutex);
  released.swap(state_->released);
}

void Job::submit(std::uint32_t tensor, std::uint64_t iteration, at::Tensor gradient, std::uint32_t samples) {
  const TensorView view = bytes_of_dense(gradient, spec(tensor).name);
  worker_->session().submit(TensorId{tensor}, iteration, {.gradient = view, .ready = {}, .samples = samples}, expect(tensor, {std::move(gradient)}));
}

void Job::submit_absent(std::uint32_t tensor, std::uint64_t iteration, at::Tensor destination) {
  const TensorView view = bytes_of_dense(destination, spec(tensor).name);
  worker_->session().submit_absent(TensorId{tensor}, iteration, view, expect(tensor, {std::move(destination)}));
}

void Job::submit_factors(std::uint32_t layer, std::uint64_t iteration, at::Tensor outputs, at::Tensor inputs, at::Tensor weight,
                         std::optional<at::Tensor> bias, std::uint32_t samples) {
  if (layer >= model_.layers.size()) refuse(base::concat("the model has no layer ", layer));
  const LayerSpec& of = model_.layers[layer];
  const std::uint32_t key = static_cast<std::uint32_t>(index(of.tensors[0]));
  if (outputs.dim() != 2 || inputs.dim() != 2 || outputs.size(0) != inputs.size(0)) refuse(of.name + ": its factors are no two matrices of as many rows");
  const FactorGradient gradient{.outputs = aten::view_of(outputs),
                                .inputs = aten::view_of(inputs),
                                .rows = static_cast<std::size_t>(outputs.size(0)),
                                .hold = std::shared_ptr<void>(new Hold{state_, {outputs, inputs}}, [](void* hold) { delete static_cast<Hold*>(hold); }),
                                .weight = aten::view_of(weight),
                                .bias = bias ? aten::view_of(*bias) : TensorView{},
                                .ready = {},
                                .samples = samples};
  std::vector<at::Tensor> kept = {std::move(weight)};
  if (bias) kept.push_back(std::move(*bias));
  worker_->session().submit_factors(LayerId{layer}, iteration, gradient, expect(key, std::move(kept)));
}

std::vector<std::uint32_t> Job::arrived() const {
  std::vector<std::uint32_t> tensors;
  const std::lock_guard lock(state_->mutex);
  for (const auto& [tensor, pending] : state_->pending) {
    if (pending.synced) tensors.push_back(tensor);
  }
  return tensors;
}

Sum Job::wait(std::uint32_t tensor) {
  std::unique_lock lock(state_->mutex);
  const auto found = state_->pending.find(tensor);
  if (found == state_->pending.end()) refuse(base::concat("a wait for the sum of ", spec(tensor).name, ", which was not handed in"));
  if (!found->second.synced) {
    const auto begin = std::chrono::steady_clock::now();
    span("wait", true);
    state_->changed.wait(lock, [&] { return found->second.synced.has_value(); });
    span("wait", false);
    waited_seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  }
  // What failed stays, and its memory with it: a sum that was being computed may still be written there.
  if (found->second.synced->error) throw JobError(*found->second.synced->error);
  const Pending taken = std::move(found->second);
  state_->pending.erase(found);
  lock.unlock();
  return {taken.synced->contributors, taken.synced->samples};
}

void Job::exchange(std::uint32_t channel, std::uint64_t number, const std::vector<Letter>& out, const std::vector<Letter>& in) {
  check(worker_->exchange({channel, number}, letters_of(out), letters_of(in)));
}

std::vector<std::string> Job::gather(const std::string& own) {
  Result<std::vector<std::string>> all = worker_->gather(own);
  if (!all) throw JobError(all.error());
  return std::move(*all);
}

void Job::note(const std::string& text) { worker_->note(text); }
void Job::leave() {
  if (timeline_) {
    for (const std::string& note : timeline_->notes()) worker_->note(note);
  }
  check(worker_->leave());
}
void Job::fail(const std::string& message) { worker_->fail({ErrorCode::kAborted, message}); }

void Job::forsake() {
  cluster::Worker::forsake(std::move(worker_));
  // Its lock may be held by a thread of the other process.
  static_cast<void>(new std::shared_ptr<State>(std::move(state_)));
  state_ = std::make_shared<State>();
}

std::optional<std::string> Job::error() const {
  const std::optional<Error> over = worker_->error();
  return over ? std::optional(over->message) : std::nullopt;
}

std::uint64_t Job::bytes_sent() { return worker_->traffic().bytes_sent; }
std::uint64_t Job::bytes_received() { return worker_->traffic().bytes_received; }

}  // namespace poseidon::python
