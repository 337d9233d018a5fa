// Changes of element type, made on the lane in steps, so that a large tensor keeps the lane from nothing else for long.
//
// A step takes some thirty microseconds, then whatever else the lane has to do comes first. Between steps the most urgent
// conversion is taken up: a layer near the input overtakes one that was begun before it.
//
// Lane only.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "poseidon/error.h"
#include "poseidon/types.h"
#include "runtime/runtime.h"

namespace poseidon::session {

// float32 to `narrow`, or back. Both null: size-only, nothing is done.
struct Conversion {
  bool narrows = true;
  DType narrow = DType::kBFloat16;
  const std::byte* from = nullptr;
  std::byte* to = nullptr;
  std::size_t elements = 0;
};

class Conversions {
 public:
  // Numbers of one step: 256 KiB of float32, a few pieces. Memory gives some 8 GB/s.
  static constexpr std::size_t kStepElements = 64 * 1024;

  // Smaller goes first; equal ones in the order in which they came.
  struct Urgency {
    Iteration iteration = 0;
    std::uint32_t layer = 0;
    friend std::strong_ordering operator<=>(const Urgency&, const Urgency&) = default;
  };
  // With an error when fail() came first.
  using DoneFn = std::function<void(const std::optional<Error>& error)>;

  explicit Conversions(runtime::Runtime& runtime) : runtime_(runtime) {}
  ~Conversions() { *alive_ = false; }

  // Memory is borrowed until `done`, which runs on the lane exactly once, for small ones before the call returns.
  void add(Urgency urgency, std::vector<Conversion> work, DoneFn done);
  // Ends all that are not finished.
  void fail(const Error& error);

 private:
  struct Task {
    std::vector<Conversion> work;
    DoneFn done;
  };
  // Converts up to kStepElements numbers, and goes on later where there are more.
  void step();

  runtime::Runtime& runtime_;
  std::multimap<Urgency, Task> tasks_;
  bool busy_ = false;  // a step is running or posted
  // Set to false by the destructor: a posted step looks here first.
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace poseidon::session
