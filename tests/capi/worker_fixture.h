// What every scenario of a worker is made of: checks that say what is wrong, and a small layer that joins the job.
//
// The test program is its own workers: a test starts it again with the name of a scenario.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "poseidon/poseidon.h"

namespace capi_test {

// A scenario returns what went wrong; nothing where all was well.
using Wrong = std::string;

#define REQUIRE(condition)                                                                \
  do {                                                                                    \
    if (!(condition))                                                                     \
      return std::string(#condition " does not hold, line ") + std::to_string(__LINE__) + \
             "; last error: " + poseidon_last_error();                                    \
  } while (false)

// A call must be refused as the caller's mistake, with a sentence that says `text`.
#define REFUSES(call, text)                                                                               \
  do {                                                                                                    \
    if ((call) != POSEIDON_INVALID || std::string(poseidon_last_error()).find(text) == std::string::npos) \
      return std::string(#call " should be refused, line ") + std::to_string(__LINE__) +                  \
             "; last error: " + poseidon_last_error();                                                    \
  } while (false)

inline poseidon_place place() {
  poseidon_place found = POSEIDON_INIT(poseidon_place);
  poseidon_find_job(&found);
  return found;
}

// One matrix with a bias, and factors of at most so many rows; float64.
struct Layer {
  size_t outputs = 3;
  size_t inputs = 4;
  size_t rows_max = 2;
  std::vector<double> weight = std::vector<double>(outputs * inputs, place().rank == 0 ? 1.5 : -7);
  std::vector<double> bias = std::vector<double>(outputs, place().rank == 0 ? 2.5 : -7);
  std::vector<double> weight_sum = std::vector<double>(outputs * inputs);
  std::vector<double> bias_sum = std::vector<double>(outputs);
  poseidon_cluster* cluster = nullptr;

  Layer() = default;
  Layer(size_t m, size_t n, size_t k) : outputs(m), inputs(n), rows_max(k) {}
  ~Layer() { poseidon_close(cluster); }

  // What the options tell beside the layer itself.
  struct Told {
    poseidon_product_fn product = nullptr;
    void* user = nullptr;
    bool provisional = false;
    bool values = true;                   // of all tensors but the next
    std::vector<double>* late = nullptr;  // the values of one more tensor, "late", with a layer of its own; as long as the bias
    bool has_late = false;                // it is there, without values
  };
  template <typename Use>
  int with_options(const Told& told, Use use) {
    const int64_t weight_shape[] = {static_cast<int64_t>(outputs), static_cast<int64_t>(inputs)};
    const int64_t bias_shape[] = {static_cast<int64_t>(outputs)};
    poseidon_tensor tensors[] = {POSEIDON_INIT(poseidon_tensor), POSEIDON_INIT(poseidon_tensor), POSEIDON_INIT(poseidon_tensor)};
    tensors[0].name = "ip.weight";
    tensors[1].name = "ip.bias";
    tensors[2].name = "late";
    for (poseidon_tensor& tensor : tensors) {
      tensor.shape = bias_shape;
      tensor.dimensions = 1;
      tensor.dtype = POSEIDON_FLOAT64;
    }
    tensors[0].shape = weight_shape;
    tensors[0].dimensions = 2;
    if (told.values) tensors[0].values = weight.data();
    if (told.values) tensors[1].values = bias.data();
    if (told.late != nullptr) tensors[2].values = told.late->data();
    const uint32_t ids[] = {0, 1, 2};
    poseidon_layer layers[] = {POSEIDON_INIT(poseidon_layer), POSEIDON_INIT(poseidon_layer)};
    layers[0].name = "ip";
    layers[0].tensors = ids;
    layers[0].tensor_count = 2;
    layers[0].factor_rows = rows_max;
    layers[1].name = "late";
    layers[1].tensors = ids + 2;
    layers[1].tensor_count = 1;
    poseidon_join_options options = POSEIDON_INIT(poseidon_join_options);
    options.tensors = tensors;
    const bool has_late = told.has_late || told.late != nullptr;
    options.tensor_count = has_late ? 3 : 2;
    options.layers = layers;
    options.layer_count = has_late ? 2 : 1;
    options.product = told.product;
    options.product_user = told.user;
    options.provisional = told.provisional ? 1 : 0;
    return use(options, tensors, layers);
  }

  int join(const Told& told) {
    return with_options(told, [&](const poseidon_join_options& options, auto&, auto&) { return poseidon_join(&options, &cluster); });
  }
  int join(poseidon_product_fn product = nullptr, void* user = nullptr) { return join(Told{.product = product, .user = user}); }
  int renew(uint64_t first, const Told& told) {
    return with_options(told, [&](const poseidon_join_options& options, auto&, auto&) { return poseidon_renew(cluster, &options, first); });
  }

  int submit_factors(uint64_t iteration, const double* u, const double* v, size_t rows, poseidon_synced_fn on_synced = nullptr,
                     void (*released)(void*) = nullptr, void* user = nullptr) {
    poseidon_factors factors = POSEIDON_INIT(poseidon_factors);
    factors.outputs = u;
    factors.inputs = v;
    factors.rows = rows;
    factors.weight = weight_sum.data();
    factors.bias = bias_sum.data();
    factors.samples = static_cast<uint32_t>(rows);
    factors.released = released;
    factors.released_user = user;
    return poseidon_submit_factors(cluster, 0, iteration, &factors, on_synced, user);
  }
};

inline int submit(poseidon_cluster* cluster, uint32_t tensor, uint64_t iteration, std::vector<double>& numbers,
           poseidon_synced_fn on_synced = nullptr, void* user = nullptr) {
  poseidon_gradient gradient = POSEIDON_INIT(poseidon_gradient);
  gradient.gradient = numbers.data();
  gradient.samples = 5;
  return poseidon_submit(cluster, tensor, iteration, &gradient, on_synced, user);
}

// A product in plain loops.
template <typename Number>
void multiply(const poseidon_product& p) {
  const Number* const u = static_cast<const Number*>(p.u);
  const Number* const v = static_cast<const Number*>(p.v);
  Number* const out = static_cast<Number*>(p.out);
  for (size_t o = 0; o < p.outputs; ++o) {
    for (size_t i = 0; i < p.inputs; ++i) {
      Number sum = 0;
      for (size_t r = 0; r < p.rows; ++r) sum += u[r * p.outputs + o] * v[r * p.inputs + i];
      out[o * p.out_stride + i] = sum;
    }
  }
}

}  // namespace capi_test
