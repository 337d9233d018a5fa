#include "runtime/memory.h"

#include <gtest/gtest.h>

#include <cstring>
#include <numeric>

#include "runtime/compute.h"

namespace poseidon::runtime {
namespace {

// Bytes 0, 1, 2, ... as a 6 x 10 matrix.
struct Matrix {
  Matrix() : bytes(60) {
    for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i);
  }
  Strided columns(std::size_t begin, std::size_t end) {
    return {.region = {bytes.data(), bytes.size(), {}, 0}, .offset = begin, .row_bytes = end - begin, .rows = 6, .stride = 10};
  }
  std::vector<std::byte> bytes;
};

std::vector<int> gathered(const Layout& layout, std::size_t begin, std::size_t end) {
  std::vector<Slice> slices;
  layout.slices(begin, end, slices);
  std::vector<std::byte> packed(end - begin, std::byte{0xFF});
  gather(slices, packed.data());
  std::vector<int> numbers;
  for (const std::byte b : packed) numbers.push_back(static_cast<int>(b));
  return numbers;
}

TEST(Layout, PacksColumnsOfAMatrix) {
  Matrix matrix;
  const Layout layout = Layout::strided(matrix.columns(3, 5));
  EXPECT_EQ(layout.bytes(), 12u);
  EXPECT_EQ(gathered(layout, 0, 12), (std::vector<int>{3, 4, 13, 14, 23, 24, 33, 34, 43, 44, 53, 54}));
  EXPECT_EQ(gathered(layout, 3, 8), (std::vector<int>{14, 23, 24, 33, 34})) << "a range may begin and end within a row";
  EXPECT_TRUE(gathered(layout, 5, 5).empty());
}

TEST(Layout, PacksTwoBlocksOneAfterTheOther) {
  Matrix matrix;
  const Layout layout = Layout::pair(matrix.columns(0, 1), matrix.columns(8, 10));
  EXPECT_EQ(layout.bytes(), 18u);
  EXPECT_EQ(gathered(layout, 4, 9), (std::vector<int>{40, 50, 8, 9, 18}));
}

TEST(Layout, MakesOneSliceOfWhatIsContiguous) {
  Matrix matrix;
  std::vector<Slice> slices;
  Layout::strided(matrix.columns(0, 10)).slices(5, 45, slices);
  ASSERT_EQ(slices.size(), 1u);
  EXPECT_EQ(slices[0].bytes, 40u);
}

TEST(Layout, HasNoSlicesOfSizeOnlyMemory) {
  Matrix matrix;
  Strided nowhere = matrix.columns(0, 2);
  nowhere.region.data = nullptr;
  std::vector<Slice> slices;
  Layout::strided(nowhere).slices(0, 12, slices);
  EXPECT_TRUE(slices.empty());
  Layout::pair(nowhere, matrix.columns(0, 10)).slices(6, 32, slices);
  ASSERT_EQ(slices.size(), 1u);
  EXPECT_EQ(slices[0].data(), matrix.bytes.data()) << "the second block begins at 12";
  EXPECT_EQ(slices[0].bytes, 20u);
}

TEST(Layout, ScatterUndoesGather) {
  Matrix matrix;
  const Layout layout = Layout::strided(matrix.columns(2, 7));
  std::vector<Slice> slices;
  layout.slices(0, layout.bytes(), slices);
  std::vector<std::byte> packed(layout.bytes());
  gather(slices, packed.data());
  const std::vector<std::byte> before = matrix.bytes;
  for (std::size_t row = 0; row < 6; ++row) std::memset(matrix.bytes.data() + row * 10 + 2, 0, 5);
  ASSERT_NE(matrix.bytes, before);
  scatter(packed.data(), slices);
  EXPECT_EQ(matrix.bytes, before);
}

TEST(Sum, IsTakenFromLeftToRight) {
  // (1e8 + 1) + -1e8 loses the one in float32; in another order it does not.
  std::vector<std::vector<float>> addends = {{1e8f}, {1.0f}, {-1e8f}};
  float out = 7;
  float copy = 7;
  SumJob job{.dtype = DType::kFloat32, .out = reinterpret_cast<std::byte*>(&out), .copy = reinterpret_cast<std::byte*>(&copy), .elements = 1};
  for (auto& addend : addends) job.addends.push_back(reinterpret_cast<const std::byte*>(addend.data()));
  sum_now(job);
  EXPECT_EQ(out, 0.0f);
  EXPECT_EQ(copy, 0.0f);
  std::swap(job.addends[1], job.addends[2]);
  sum_now(job);
  EXPECT_EQ(out, 1.0f);
}

TEST(Sum, MayReplaceAnAddendAndTakesAnyLength) {
  for (const std::size_t elements : {1u, 7u, 1024u, 1025u, 5000u}) {
    std::vector<double> a(elements);
    std::vector<double> b(elements);
    std::iota(a.begin(), a.end(), 0.0);
    std::iota(b.begin(), b.end(), 100.0);
    SumJob job{.dtype = DType::kFloat64, .out = reinterpret_cast<std::byte*>(b.data()), .elements = elements};
    job.addends = {reinterpret_cast<const std::byte*>(a.data()), reinterpret_cast<const std::byte*>(b.data())};
    sum_now(job);
    for (std::size_t i = 0; i < elements; ++i) ASSERT_EQ(b[i], 100.0 + 2.0 * static_cast<double>(i));
  }
}

TEST(Product, IsTheSumOfOuterProducts) {
  // U = [[1, 2], [3, 4]], V = [[5, 6, 7], [8, 9, 10]]: Uᵀ V by hand.
  const float u[] = {1, 2, 3, 4};
  const float v[] = {5, 6, 7, 8, 9, 10};
  float out[2 * 4] = {-1, -1, -1, -1, -1, -1, -1, -1};
  float bias[1] = {0};
  float copy[6] = {0};
  product_now({.dtype = DType::kFloat32,
               .rows = 2,
               .m = 2,
               .n = 3,
               .u = reinterpret_cast<const std::byte*>(u),
               .v = reinterpret_cast<const std::byte*>(v),
               .out = reinterpret_cast<std::byte*>(out),
               .out_stride = 4,
               .bias = reinterpret_cast<std::byte*>(bias),
               .bias_begin = 1,
               .bias_end = 2,
               .copy = reinterpret_cast<std::byte*>(copy),
               .copy_stride = 3});
  EXPECT_EQ(std::vector<float>(out, out + 8), (std::vector<float>{29, 33, 37, -1, 42, 48, 54, -1}));
  EXPECT_EQ(std::vector<float>(copy, copy + 6), (std::vector<float>{29, 33, 37, 42, 48, 54}));
  EXPECT_EQ(bias[0], 6.0f);
}

}  // namespace
}  // namespace poseidon::runtime
