// Sums that are on their way while Python goes on: what eager execution has instead of a graph's overlap.
//
// An operator that is run eagerly holds up its caller until it has ended. So one operator starts the sum of a gradient and returns at
// once with a ticket, and another one, later, gives the sum for the ticket.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <string>

#include "tensorflow/core/framework/tensor.h"

namespace poseidon::tensorflow {

// Any thread.
class Flights {
 public:
  // Those of this process.
  static Flights& instance();

  // Starts the sum of what is in `gradient`, which is nobody else's from now on; `present`: as in Link::sum.
  std::int64_t start(std::uint32_t tensor, ::tensorflow::Tensor gradient, bool present);

  using LandedFn = std::function<void(const ::tensorflow::Tensor& sum, const std::string& failure)>;
  // Calls `landed` once, when the sum is there: possibly before this returns, else from the library's lane. A ticket is good for one call.
  void land(std::int64_t ticket, LandedFn landed);

 private:
  struct Flight {
    ::tensorflow::Tensor sum;
    bool is_back = false;
    std::string failure;
    LandedFn landed;  // who has asked
  };
  void back(std::int64_t ticket, const std::string& failure);

  std::mutex mutex_;
  std::map<std::int64_t, Flight> flights_;  // guarded by mutex_, as is the next
  std::int64_t last_ticket_ = 0;
};

}  // namespace poseidon::tensorflow
