// Arrays of random numbers from counter-based streams, on all of ATen's threads.
//
// Each number's place in the stream is given by its index, so the result does not depend on how the work is divided.
#pragma once

#include <cstdint>
#include <span>

#include "base/philox.h"
#include "poseidon/types.h"

namespace poseidon::caffe {

// Uniform in [0, 1), 32 random bits each.
void draw_uniform(const base::RandomStream& stream, std::span<double> values);
// Normal with mean 0 and variance 1 (Box and Muller's transform of uniform pairs).
void draw_normal(const base::RandomStream& stream, std::span<double> values);

// `rows` rows of `row_elements`, whose first one has the number `first_row` in the iteration's global batch.
struct RowDraw {
  Iteration iteration = 0;
  std::uint64_t first_row = 0;
  std::int64_t rows = 0;
  std::int64_t row_elements = 0;
};
// Uniform in (0, 1), without its ends. `values` holds the rows.
void draw_rows(const base::RandomStream& stream, const RowDraw& draw, std::span<double> values);

// What a dropout mask is drawn for.
struct MaskDraw {
  RowDraw rows;
  double drop_ratio = 0.5;
  double kept_value = 2;  // what a kept element's mask is; a dropped one's is 0
};
void draw_mask(const base::RandomStream& stream, const MaskDraw& draw, float* mask);
void draw_mask(const base::RandomStream& stream, const MaskDraw& draw, double* mask);

}  // namespace poseidon::caffe
