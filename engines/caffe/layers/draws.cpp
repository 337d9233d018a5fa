// Compiled with OpenMP and without the precompiled header: at::parallel_for is a loop on one thread in any file that is
// compiled without.
#include "engines/caffe/layers/draws.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <numbers>

namespace poseidon::caffe {
namespace {

constexpr std::int64_t kWordsPerBlock = 4;
// A block takes some 10 ns; a share below about 40 us is not worth waking a thread.
constexpr std::int64_t kBlocksPerTask = 4096;

// In (0, 1): half a step off zero, so that its logarithm exists.
double open_uniform(std::uint32_t word) {
  return (word + 0.5) * 0x1p-32;
}

// Calls fill(words, first, count) for each block of four numbers, the last one perhaps shorter.
template <typename Fill>
void for_each_block(const base::RandomStream& stream, std::int64_t count, const Fill& fill) {
  const std::int64_t blocks = (count + kWordsPerBlock - 1) / kWordsPerBlock;
  at::parallel_for(0, blocks, kBlocksPerTask, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t block = begin; block < end; ++block) {
      const std::int64_t first = block * kWordsPerBlock;
      fill(stream.words(0, 0, static_cast<std::uint32_t>(block)), first, std::min(kWordsPerBlock, count - first));
    }
  });
}

template <typename Scalar>
void draw_mask_row(const base::RandomStream& stream, const MaskDraw& draw, std::uint64_t row, Scalar* mask) {
  // Dropped when word < ratio·2^32; a ratio of exactly 1 does not occur, since nothing would be left to scale.
  const auto threshold = static_cast<std::uint64_t>(draw.drop_ratio * 0x1p32);
  const auto kept = static_cast<Scalar>(draw.kept_value);
  const std::int64_t whole_blocks = draw.rows.row_elements / kWordsPerBlock;
  for (std::int64_t block = 0; block < whole_blocks; ++block) {
    const base::PhiloxCounter words = stream.words(draw.rows.iteration, row, static_cast<std::uint32_t>(block));
    Scalar* const out = mask + block * kWordsPerBlock;
    for (std::size_t i = 0; i < 4; ++i) out[i] = words[i] < threshold ? Scalar{0} : kept;
  }
  if (const std::int64_t done = whole_blocks * kWordsPerBlock; done < draw.rows.row_elements) {
    const base::PhiloxCounter words = stream.words(draw.rows.iteration, row, static_cast<std::uint32_t>(whole_blocks));
    for (std::int64_t i = done; i < draw.rows.row_elements; ++i) {
      mask[i] = words[static_cast<std::size_t>(i - done)] < threshold ? Scalar{0} : kept;
    }
  }
}

// Calls fill(number of the row, index of its first element) for each row.
template <typename Fill>
void for_each_row(const RowDraw& draw, const Fill& fill) {
  const std::int64_t blocks_per_row = std::max<std::int64_t>(1, draw.row_elements / kWordsPerBlock);
  const std::int64_t rows_per_task = std::max<std::int64_t>(1, kBlocksPerTask / blocks_per_row);
  at::parallel_for(0, draw.rows, rows_per_task, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      fill(draw.first_row + static_cast<std::uint64_t>(row), row * draw.row_elements);
    }
  });
}

template <typename Scalar>
void draw_mask_rows(const base::RandomStream& stream, const MaskDraw& draw, Scalar* mask) {
  for_each_row(draw.rows,
               [&](std::uint64_t row, std::int64_t first) { draw_mask_row(stream, draw, row, mask + first); });
}

}  // namespace

void draw_uniform(const base::RandomStream& stream, std::span<double> values) {
  for_each_block(stream, static_cast<std::int64_t>(values.size()),
                 [&](const base::PhiloxCounter& words, std::int64_t first, std::int64_t count) {
                   for (std::int64_t i = 0; i < count; ++i) {
                     values[static_cast<std::size_t>(first + i)] = words[static_cast<std::size_t>(i)] * 0x1p-32;
                   }
                 });
}

void draw_normal(const base::RandomStream& stream, std::span<double> values) {
  for_each_block(stream, static_cast<std::int64_t>(values.size()),
                 [&](const base::PhiloxCounter& words, std::int64_t first, std::int64_t count) {
                   double normal[kWordsPerBlock];
                   for (std::size_t pair = 0; pair < 2; ++pair) {
                     const double radius = std::sqrt(-2 * std::log(open_uniform(words[2 * pair])));
                     const double angle = 2 * std::numbers::pi * open_uniform(words[2 * pair + 1]);
                     normal[2 * pair] = radius * std::cos(angle);
                     normal[2 * pair + 1] = radius * std::sin(angle);
                   }
                   std::copy_n(normal, count, values.begin() + first);
                 });
}

void draw_rows(const base::RandomStream& stream, const RowDraw& draw, std::span<double> values) {
  for_each_row(draw, [&](std::uint64_t row, std::int64_t first) {
    for (std::int64_t i = 0; i < draw.row_elements; i += kWordsPerBlock) {
      const base::PhiloxCounter words =
          stream.words(draw.iteration, row, static_cast<std::uint32_t>(i / kWordsPerBlock));
      const std::int64_t count = std::min(kWordsPerBlock, draw.row_elements - i);
      std::transform(words.begin(), words.begin() + count, values.begin() + first + i, open_uniform);
    }
  });
}

void draw_mask(const base::RandomStream& stream, const MaskDraw& draw, float* mask) {
  draw_mask_rows(stream, draw, mask);
}
void draw_mask(const base::RandomStream& stream, const MaskDraw& draw, double* mask) {
  draw_mask_rows(stream, draw, mask);
}

}  // namespace poseidon::caffe
