// ArgMax and Reduction.
#include <algorithm>
#include <cmath>
#include <functional>
#include <utility>

#include "base/text.h"
#include "caffe/layers/layer_fixture.h"

namespace poseidon::caffe {
namespace {

using namespace testing;  // NOLINT: the fixture is made for these tests

std::string arg_max(std::string_view settings) {
  return base::concat("name: 'a' type: 'ArgMax' bottom: 'x' top: 'y'\nargmax_param { ", settings, " }");
}
std::string reduction(std::string_view settings) {
  return base::concat("name: 'r' type: 'Reduction' bottom: 'x' top: 'y'\nreduction_param { ", settings, " }");
}

TEST(ArgMax, FindsTheGreatestOfEachRecord) {
  const at::Tensor x = tensor_of({3, 9, -1, 4, 8, 5, 7, 6}, {2, 2, 2});
  const at::Tensor best = tops_of(arg_max(""), {x})[0];
  EXPECT_EQ(best.sizes().vec(), (Shape{2, 1, 1}));
  expect_near(best, {1, 0}, 0);
  const at::Tensor two = tops_of(arg_max("top_k: 2"), {x})[0];
  EXPECT_EQ(two.sizes().vec(), (Shape{2, 1, 2}));
  expect_near(two, {1, 3, 0, 2}, 0);
  const at::Tensor with_values = tops_of(arg_max("top_k: 3 out_max_val: true"), {x})[0];
  EXPECT_EQ(with_values.sizes().vec(), (Shape{2, 2, 3}));
  expect_near(with_values, {1, 3, 0, 9, 4, 3, 0, 2, 3, 8, 7, 6}, 0);
}

TEST(ArgMax, HasAtLeastThreeAxesWithoutOneOfItsOwn) {
  EXPECT_EQ(make_layer(arg_max(""), {{5}}).tops[0], (Shape{5, 1, 1}));
  EXPECT_EQ(make_layer(arg_max("top_k: 2"), {{5, 3}}).tops[0], (Shape{5, 1, 2}));
  EXPECT_EQ(make_layer(arg_max("top_k: 2 out_max_val: true"), {{5, 3, 4, 6, 7}}).tops[0], (Shape{5, 2, 2, 1, 1}));
}

TEST(ArgMax, TakesTheLaterOfEqualOnes) {
  const at::Tensor x = tensor_of({2, 5, 5, 1, 5, 2}, {1, 6});
  expect_near(tops_of(arg_max("top_k: 5"), {x})[0], {4, 2, 1, 5, 0}, 0);
  expect_near(tops_of(arg_max("top_k: 5 axis: 1"), {x})[0], {4, 2, 1, 5, 0}, 0);
}

// By sorting pairs of value and index, greatest first.
TEST(ArgMax, AgreesWithSortedPairsAlongAnyAxis) {
  std::mt19937_64 random(1);
  for (int trial = 0; trial < 60; ++trial) {
    Shape shape;
    for (std::int64_t i = pick(random, 1, 4); i > 0; --i) shape.push_back(pick(random, 1, 5));
    const auto axes = static_cast<std::int64_t>(shape.size());
    const std::int64_t axis = pick(random, 0, axes - 1);
    const std::int64_t extent = shape[static_cast<std::size_t>(axis)];
    const std::int64_t top_k = pick(random, 1, extent);
    const bool with_values = pick(random, 0, 1) == 1;
    // Small whole numbers, so that many are equal.
    const at::Tensor x = (random_tensor(shape, random) * 1.5).round();
    const std::string text = arg_max(base::concat("axis: ", pick(random, 0, 1) == 0 ? axis : axis - axes,
                                                  " top_k: ", top_k, " out_max_val: ", with_values ? "true" : "false"));
    SCOPED_TRACE(text + " of " + base::readable_shape(shape));
    const at::Tensor top = tops_of(text, {x})[0];
    Shape wanted = shape;
    wanted[static_cast<std::size_t>(axis)] = top_k;
    ASSERT_EQ(top.sizes().vec(), wanted);

    const std::vector<double> from = values_of(x);
    const std::vector<double> got = values_of(top);
    const std::int64_t inner = elements_of(Shape(shape.begin() + axis + 1, shape.end()));
    const std::int64_t outer = elements_of(Shape(shape.begin(), shape.begin() + axis));
    for (std::int64_t o = 0; o < outer; ++o) {
      for (std::int64_t i = 0; i < inner; ++i) {
        std::vector<std::pair<double, std::int64_t>> pairs;
        for (std::int64_t e = 0; e < extent; ++e) {
          pairs.emplace_back(from[static_cast<std::size_t>((o * extent + e) * inner + i)], e);
        }
        std::sort(pairs.begin(), pairs.end(), std::greater<>());
        for (std::int64_t k = 0; k < top_k; ++k) {
          const auto& [value, index] = pairs[static_cast<std::size_t>(k)];
          EXPECT_EQ(got[static_cast<std::size_t>((o * top_k + k) * inner + i)],
                    with_values ? value : static_cast<double>(index));
        }
      }
    }
  }
}

TEST(ArgMax, ExplainsWhatIsWrong) {
  EXPECT_EQ(setup_error(arg_max("top_k: 0"), {{1}}),
            "net.prototxt:2:16: layer \"a\" (ArgMax) has top_k 0; it must be at least 1");
  EXPECT_EQ(setup_error(arg_max("top_k: 7"), {{9, 2, 3}}),
            "net.prototxt:2:16: layer \"a\" (ArgMax) has top_k 7 of 6; bottom \"x\" is [9, 2, 3]");
  EXPECT_EQ(setup_error(arg_max("top_k: 3 axis: 1"), {{9, 2, 3}}),
            "net.prototxt:2:16: layer \"a\" (ArgMax) has top_k 3 of 2; bottom \"x\" is [9, 2, 3]");
}

struct Operation {
  std::string_view name;
  std::function<double(double)> term;
  bool mean;
};
const std::vector<Operation>& operations() {
  static const std::vector<Operation> all = {{"SUM", [](double x) { return x; }, false},
                                             {"ASUM", [](double x) { return std::fabs(x); }, false},
                                             {"SUMSQ", [](double x) { return x * x; }, false},
                                             {"MEAN", [](double x) { return x; }, true}};
  return all;
}

TEST(Reduction, SumsEverythingFromAnAxisOn) {
  std::mt19937_64 random(2);
  const Shape shape = {2, 3, 4};
  const at::Tensor x = random_tensor(shape, random);
  const std::vector<double> values = values_of(x);
  for (const Operation& operation : operations()) {
    for (std::int64_t axis = -3; axis < 3; ++axis) {
      for (const double coefficient : {1.0, -0.5}) {
        const std::string text =
            reduction(base::concat("operation: ", operation.name, " axis: ", axis, " coeff: ", coefficient));
        const Shape kept(shape.begin(), shape.begin() + (axis + 3) % 3);
        const auto parts = static_cast<std::size_t>(elements_of(kept));
        std::vector<double> wanted(parts, 0);
        for (std::size_t i = 0; i < values.size(); ++i) wanted[i * parts / values.size()] += operation.term(values[i]);
        for (double& sum : wanted) {
          sum *= coefficient / (operation.mean ? static_cast<double>(values.size() / parts) : 1);
        }
        const at::Tensor top = tops_of(text, {x})[0];
        EXPECT_EQ(top.sizes().vec(), kept) << text;
        expect_near(top, wanted, 1e-12);
        expect_gradients_of(text, {x}, {0});
      }
    }
  }
}

TEST(Reduction, SumsTheWholeBlobUnlessToldOtherwise) {
  const at::Tensor sum = tops_of(reduction(""), {tensor_of({1, 2, 3, 4}, {2, 2})})[0];
  EXPECT_EQ(sum.sizes().vec(), Shape{});
  expect_near(sum, {10}, 0);
}

TEST(Reduction, HasNoSlopeOfAnAbsoluteValueAtZero) {
  const Made made = make_layer(reduction("operation: ASUM"), {{3}});
  const at::Tensor x = tensor_of({-2, 0, 5}, {3}).requires_grad_();
  made.layer->forward({}, {x})[0].backward();
  expect_near(x.grad(), {-1, 0, 1}, 0);
}

}  // namespace
}  // namespace poseidon::caffe
