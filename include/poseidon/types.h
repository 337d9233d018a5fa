// The plain types that the engine and its callers share: ids, element types, views of memory.
//
// No third-party type appears here, and nothing is owned: a view borrows, and the function that takes it says until when.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "poseidon/export.h"

namespace poseidon {

// A process for its whole life; never used again after it has left the job.
enum class Member : std::uint32_t {};
// A member's dense number among the workers of the present epoch, 0 to P-1.
enum class Rank : std::int32_t {};
// A set of members that train together. A new one opens whenever somebody is lost or joins.
enum class Epoch : std::uint32_t {};
// One parameter's gradient or value: its index in Model::tensors.
enum class TensorId : std::uint32_t {};
// One layer: its index in Model::layers.
enum class LayerId : std::uint32_t {};
// How many iterations of training came before this one in the job.
using Iteration = std::uint64_t;

constexpr std::uint32_t index(Member id) { return static_cast<std::uint32_t>(id); }
constexpr std::int32_t index(Rank id) { return static_cast<std::int32_t>(id); }
constexpr std::uint32_t index(Epoch id) { return static_cast<std::uint32_t>(id); }
constexpr std::uint32_t index(TensorId id) { return static_cast<std::uint32_t>(id); }
constexpr std::uint32_t index(LayerId id) { return static_cast<std::uint32_t>(id); }

enum class DType : std::uint8_t { kFloat32 = 0, kFloat64 = 1, kBFloat16 = 2, kFloat16 = 3 };

constexpr std::size_t bytes_of(DType type) {
  switch (type) {
    case DType::kFloat32:
      return 4;
    case DType::kFloat64:
      return 8;
    case DType::kBFloat16:
    case DType::kFloat16:
      return 2;
  }
  return 0;
}
// "float32", "float64", "bfloat16", "float16".
POSEIDON_API std::string_view to_string(DType type);

struct Device {
  enum class Kind : std::uint8_t { kHost = 0, kCuda = 1 };
  Kind kind = Kind::kHost;
  int index = 0;
};

// Borrowed memory of one tensor. `data` null with bytes > 0 is size-only: the engine then moves no contents, which is how
// virtual time runs with models larger than memory.
struct TensorView {
  std::byte* data = nullptr;
  std::size_t bytes = 0;
  DType dtype = DType::kFloat32;
  Device device;
};

// A point in a device's stream of work: `handle` is the device runtime's own event, null when the work is already done
// (always so for host memory).
struct DeviceEvent {
  void* handle = nullptr;
};

// One trained array, as every worker must have it: compared when workers join.
struct TensorSpec {
  std::string name;                // "ip1.weight"
  std::vector<std::int64_t> shape;
  DType dtype = DType::kFloat32;

  std::size_t elements() const {
    std::size_t product = 1;
    for (const std::int64_t extent : shape) product *= static_cast<std::size_t>(extent);
    return product;
  }
  std::size_t bytes() const { return elements() * bytes_of(dtype); }
};

// A layer with trained arrays. Layers are listed in the order of the forward pass, so a layer's index is its priority: the
// next forward pass wants the lowest first.
struct LayerSpec {
  std::string name;
  std::vector<TensorId> tensors;  // all its arrays; for a factor layer the weight first, then the bias if it has one
  // The gradient of tensors[0], [outputs, inputs], is a sum of outer products Uᵀ V, of at most `factor_rows` rows a worker
  // and iteration. 0: the gradient has no such form, and the layer is synchronised densely.
  std::size_t factor_rows = 0;
};

// What is trained, without its values. Equal on all workers.
struct Model {
  std::vector<TensorSpec> tensors;
  std::vector<LayerSpec> layers;
};

}  // namespace poseidon
