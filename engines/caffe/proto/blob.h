// An array of numbers as Caffe's files hold it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <variant>
#include <vector>

#include "poseidon/types.h"

namespace poseidon::caffe::proto {

struct Blob {
  std::vector<std::int64_t> shape;                               // empty for a single number
  std::variant<std::vector<float>, std::vector<double>> values;  // row-major, as many as the shape says

  DType dtype() const { return values.index() == 0 ? DType::kFloat32 : DType::kFloat64; }
  std::size_t count() const {
    return std::visit([](const auto& numbers) { return numbers.size(); }, values);
  }
};

}  // namespace poseidon::caffe::proto
