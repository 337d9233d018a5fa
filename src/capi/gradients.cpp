// The C ABI of gradients and sums: submit, wait, allocate.
#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "base/text.h"
#include "capi/failure.h"
#include "capi/handle.h"
#include "capi/structs.h"

namespace poseidon::capi {
namespace {

TensorView view_of(const void* data, std::size_t elements, DType dtype) {
  return {static_cast<std::byte*>(const_cast<void*>(data)), elements * bytes_of(dtype), dtype, {}};
}

// The tensor's memory as it must be; an id that is not there has none, and is refused by the session.
TensorView view_of(poseidon_cluster& cluster, std::uint32_t tensor, void* data) {
  const std::lock_guard lock(cluster.mutex);
  if (tensor >= cluster.model.tensors.size()) return {};
  return view_of(data, cluster.model.tensors[tensor].elements(), cluster.model.tensors[tensor].dtype);
}

poseidon_synced synced_of(const Synced& synced, const char* message) {
  poseidon_synced answer = POSEIDON_INIT(poseidon_synced);
  answer.code = synced.error ? code_of(synced.error->code) : POSEIDON_OK;
  answer.contributors = synced.contributors;
  answer.iteration = synced.iteration;
  answer.samples = synced.samples;
  answer.message = message;
  return answer;
}

// What the session calls back: the program's function, or the place where poseidon_wait looks.
SyncedFn callback_of(poseidon_cluster& cluster, std::uint32_t tensor, poseidon_synced_fn on_synced, void* user) {
  if (on_synced != nullptr) {
    return [on_synced, user](const Synced& synced) {
      const poseidon_synced answer = synced_of(synced, synced.error ? synced.error->message.c_str() : "");
      on_synced(user, &answer);
    };
  }
  return [&cluster, tensor](const Synced& synced) {
    {
      const std::lock_guard lock(cluster.mutex);
      cluster.waiting[tensor].synced = synced;
    }
    cluster.changed.notify_all();
  };
}

// A submission whose sum poseidon_wait shall take. The one before must have been taken, or its sum would be lost. A tensor that is
// not there is refused by the session.
Status open_wait(poseidon_cluster& cluster, std::uint32_t tensor, bool released) {
  const std::lock_guard lock(cluster.mutex);
  if (tensor >= cluster.waiting.size()) return {};
  poseidon_cluster::Waiting& waiting = cluster.waiting[tensor];
  if (waiting.submitted) {
    return Error{ErrorCode::kInvalid,
                 base::concat(cluster.model.tensors[tensor].name, " was submitted again before poseidon_wait took its last sum")};
  }
  waiting = {.submitted = true, .released = released, .synced = std::nullopt};
  return {};
}

void cancel_wait(poseidon_cluster& cluster, std::uint32_t tensor) {
  const std::lock_guard lock(cluster.mutex);
  if (tensor < cluster.waiting.size()) cluster.waiting[tensor] = {};
}

// Submits by `submit`, which takes the callback, with the bookkeeping of poseidon_wait around it.
template <typename Submit>
int submit_tensor(poseidon_cluster& cluster, std::uint32_t tensor, bool released, poseidon_synced_fn on_synced, void* user,
                  Submit submit) {
  const bool waits = on_synced == nullptr;
  if (waits) {
    if (const Status status = open_wait(cluster, tensor, released); !status) return fail(status);
  }
  const Status status = submit(callback_of(cluster, tensor, on_synced, user));
  if (!status && waits) cancel_wait(cluster, tensor);
  return fail(status);
}

// Its end tells whoever wants to know that U and V are free again.
class Release {
 public:
  explicit Release(std::function<void()> tell) : tell_(std::move(tell)) {}
  ~Release() {
    if (tell_) tell_();
  }
  Release(const Release&) = delete;
  Release& operator=(const Release&) = delete;
  // Nothing was submitted: nobody is told.
  void forget() { tell_ = nullptr; }

 private:
  std::function<void()> tell_;
};

int submit_factor_layer(poseidon_cluster& cluster, std::uint32_t layer, Iteration iteration, const poseidon_factors& factors,
                        poseidon_synced_fn on_synced, void* user) {
  const Result<LayerSpec> found = cluster.layer(layer);
  if (!found) return fail(found.error());
  const LayerSpec& spec = *found;
  if (on_synced != nullptr && factors.released == nullptr) {
    return fail(Error{ErrorCode::kInvalid, "factors with a callback for the sum need one for their release too"});
  }
  const std::uint32_t tensor = index(spec.tensors[0]);
  const Result<TensorSpec> matrix = cluster.tensor(tensor);
  if (!matrix) return fail(matrix.error());
  const TensorSpec& weight = *matrix;
  if (spec.factor_rows == 0) {
    return fail(
        Error{ErrorCode::kInvalid, base::concat("layer ", spec.name, " offers no factors: submit the gradients of its tensors")});
  }
  if (factors.rows > spec.factor_rows) {
    return fail(Error{ErrorCode::kInvalid, base::concat("layer ", spec.name, ": ", factors.rows, " rows of factors, ",
                                                        spec.factor_rows, " were announced")});
  }
  const std::size_t outputs = static_cast<std::size_t>(weight.shape[0]);
  const std::size_t inputs = static_cast<std::size_t>(weight.shape[1]);
  const bool waits = on_synced == nullptr;
  const auto release =
      std::make_shared<Release>([&cluster, tensor, waits, tell = factors.released, told = factors.released_user] {
        if (tell != nullptr) return tell(told);
        if (!waits) return;
        {
          const std::lock_guard lock(cluster.mutex);
          cluster.waiting[tensor].released = true;
        }
        cluster.changed.notify_all();
      });
  FactorGradient gradient{.outputs = view_of(factors.outputs, factors.rows * outputs, weight.dtype),
                          .inputs = view_of(factors.inputs, factors.rows * inputs, weight.dtype),
                          .rows = factors.rows,
                          .hold = release,
                          .weight = view_of(factors.weight, outputs * inputs, weight.dtype),
                          .bias = factors.bias == nullptr ? TensorView{} : view_of(factors.bias, outputs, weight.dtype),
                          .ready = {},
                          .samples = factors.samples};
  gradient.bias.dtype = weight.dtype;  // also of a bias that is missing, so that the sentence is about that
  const int code = submit_tensor(cluster, tensor, factors.released != nullptr, on_synced, user, [&](SyncedFn callback) {
    return cluster.session().try_submit_factors(LayerId{layer}, iteration, gradient, std::move(callback));
  });
  if (code != POSEIDON_OK) release->forget();
  return code;
}

}  // namespace
}  // namespace poseidon::capi

using namespace poseidon;
using namespace poseidon::capi;

extern "C" {

int poseidon_submit(poseidon_cluster* cluster, uint32_t tensor, uint64_t iteration, const poseidon_gradient* gradient,
                    poseidon_synced_fn on_synced, void* user) {
  return guarded([&]() -> int {
    if (cluster == nullptr) return fail(null_pointer("a cluster"));
    const Result<poseidon_gradient> given = read(gradient, "poseidon_gradient");
    if (!given) return fail(given.error());
    return submit_tensor(*cluster, tensor, true, on_synced, user, [&](SyncedFn callback) {
      return cluster->session().try_submit(
          TensorId{tensor}, iteration,
          {.gradient = view_of(*cluster, tensor, given->gradient), .ready = {}, .samples = given->samples}, std::move(callback));
    });
  });
}

int poseidon_submit_absent(poseidon_cluster* cluster, uint32_t tensor, uint64_t iteration, void* destination,
                           poseidon_synced_fn on_synced, void* user) {
  return guarded([&]() -> int {
    if (cluster == nullptr) return fail(null_pointer("a cluster"));
    return submit_tensor(*cluster, tensor, true, on_synced, user, [&](SyncedFn callback) {
      return cluster->session().try_submit_absent(TensorId{tensor}, iteration, view_of(*cluster, tensor, destination),
                                                  std::move(callback));
    });
  });
}

int poseidon_submit_factors(poseidon_cluster* cluster, uint32_t layer, uint64_t iteration, const poseidon_factors* factors,
                            poseidon_synced_fn on_synced, void* user) {
  return guarded([&]() -> int {
    if (cluster == nullptr) return fail(null_pointer("a cluster"));
    const Result<poseidon_factors> given = read(factors, "poseidon_factors");
    if (!given) return fail(given.error());
    return submit_factor_layer(*cluster, layer, iteration, *given, on_synced, user);
  });
}

int poseidon_wait(poseidon_cluster* cluster, uint32_t tensor, poseidon_synced* synced) {
  return guarded([&]() -> int {
    if (cluster == nullptr) return fail(null_pointer("a cluster"));
    if (synced != nullptr) {
      if (const Result<poseidon_synced> place = read(synced, "poseidon_synced"); !place) return fail(place.error());
    }
    Synced done;
    {
      std::unique_lock lock(cluster->mutex);
      if (tensor >= cluster->waiting.size() || !cluster->waiting[tensor].submitted) {
        return fail(Error{ErrorCode::kInvalid,
                          base::concat("a wait for tensor ", tensor, ", which was not submitted without a callback")});
      }
      poseidon_cluster::Waiting& waiting = cluster->waiting[tensor];
      // After an error nobody promises that the factors leave; they must stay until the cluster is closed anyway.
      const auto may_end = [&] { return waiting.synced && (waiting.released || waiting.synced->error); };
      if (!may_end()) {
        cluster->cluster->span("wait", true);
        cluster->changed.wait(lock, may_end);
        cluster->cluster->span("wait", false);
      }
      done = *std::exchange(waiting.synced, std::nullopt);
      waiting = {};
    }
    const int code = done.error ? fail(*done.error) : POSEIDON_OK;
    if (synced != nullptr) write(synced_of(done, done.error ? last_error() : ""), synced);
    return code;
  });
}

int poseidon_allocate(poseidon_cluster* cluster, size_t bytes, void** memory) {
  return guarded([&]() -> int {
    if (cluster == nullptr) return fail(null_pointer("a cluster"));
    if (memory == nullptr) return fail(null_pointer("the place for memory"));
    *memory = nullptr;
    // Of nothing, too, there is an address that belongs to the caller alone.
    Result<std::shared_ptr<std::byte>> made = cluster->session().allocate(std::max<std::size_t>(bytes, 1), {});
    if (!made) return fail(made.error());
    void* const address = made->get();
    const std::lock_guard lock(cluster->mutex);
    cluster->memory.emplace(address, std::move(*made));
    *memory = address;
    return POSEIDON_OK;
  });
}

int poseidon_free(poseidon_cluster* cluster, void* memory) {
  return guarded([&]() -> int {
    if (cluster == nullptr) return fail(null_pointer("a cluster"));
    if (memory == nullptr) return POSEIDON_OK;
    const std::lock_guard lock(cluster->mutex);
    if (cluster->memory.erase(memory) == 1) return POSEIDON_OK;
    return fail(Error{ErrorCode::kInvalid, "memory that poseidon_allocate has not given for this cluster cannot be freed"});
  });
}

}  // extern "C"
