#include "base/text.h"
#include "caffe/layers/layer_fixture.h"

namespace poseidon::caffe {
namespace {

using namespace testing;  // NOLINT: the fixture is made for these tests

std::string eltwise(int bottoms, std::string_view settings) {
  std::string names;
  for (int i = 0; i < bottoms; ++i) names += base::concat("bottom: 'x", i, "' ");
  return base::concat("name: 'e' type: 'Eltwise' ", names, "top: 'y'\neltwise_param { ", settings, " }");
}

at::Tensor vector_of(const std::vector<double>& values) {
  return tensor_of(values, {static_cast<std::int64_t>(values.size())});
}

TEST(Eltwise, CombinesItsBottomsElementByElement) {
  const std::vector<at::Tensor> x = {vector_of({1, -2, 3}), vector_of({4, 5, -6}), vector_of({-7, 8, 0.5})};
  expect_near(tops_of(eltwise(3, ""), x)[0], {-2, 11, -2.5}, 0);
  expect_near(tops_of(eltwise(3, "operation: SUM coeff: 1 coeff: -1 coeff: 2"), x)[0], {-17, 9, 10}, 0);
  expect_near(tops_of(eltwise(3, "coeff: 0.5 coeff: 0 coeff: 0"), x)[0], {0.5, -1, 1.5}, 0);
  expect_near(tops_of(eltwise(3, "operation: PROD"), x)[0], {-28, -80, -9}, 0);
  expect_near(tops_of(eltwise(3, "operation: MAX"), x)[0], {4, 8, 3}, 0);
  // Caffe takes coefficients for a maximum, and does nothing with them.
  expect_near(tops_of(eltwise(2, "operation: MAX coeff: -1 coeff: 2"), {x[0], x[1]})[0], {4, 5, 3}, 0);
}

TEST(Eltwise, HasTheGradientsOfFiniteDifferences) {
  std::mt19937_64 random(1);
  for (const std::string_view settings :
       {"operation: SUM", "operation: SUM coeff: -1 coeff: 0.5 coeff: 3", "operation: PROD",
        "operation: PROD stable_prod_grad: false", "operation: MAX"}) {
    std::vector<at::Tensor> x;
    // Far enough from each other for a step not to change which is greatest.
    const at::Tensor distinct = distinct_tensor({3, 2, 4}, random);
    for (std::int64_t i = 0; i < 3; ++i) x.push_back(distinct.select(0, i).clone());
    expect_gradients_of(eltwise(3, settings), x, {0, 1, 2});
  }
}

TEST(Eltwise, HasTheGradientOfAProductAtZero) {
  for (const std::string_view settings : {"operation: PROD", "operation: PROD stable_prod_grad: false"}) {
    const Made made = make_layer(eltwise(2, settings), {{2}, {2}});
    const at::Tensor a = vector_of({0, 3}).requires_grad_();
    const at::Tensor b = vector_of({2, 0}).requires_grad_();
    made.layer->forward({}, {a, b})[0].sum().backward();
    expect_near(a.grad(), {2, 0}, 0);
    expect_near(b.grad(), {0, 3}, 0);
  }
}

// Caffe's loops: of the first two bottoms the second wins a tie, and a later one must be greater.
TEST(Eltwise, SendsTheGradientOfAMaximumToTheBottomThatCaffeDoes) {
  const Made made = make_layer(eltwise(3, "operation: MAX"), {{5}, {5}, {5}});
  const std::vector<at::Tensor> x = {vector_of({1, 2, 3, 0, 1}).requires_grad_(),
                                     vector_of({1, 1, 0, 3, 1}).requires_grad_(),
                                     vector_of({0, 2, 3, 3, 1}).requires_grad_()};
  made.layer->forward({}, x)[0].sum().backward();
  expect_near(x[0].grad(), {0, 1, 1, 0, 0}, 0);
  expect_near(x[1].grad(), {1, 0, 0, 1, 1}, 0);
  expect_near(x[2].grad(), {0, 0, 0, 0, 0}, 0);
}

TEST(Eltwise, ExplainsWhatIsWrong) {
  EXPECT_EQ(setup_error(eltwise(2, ""), {{2, 3}, {3, 2}}),
            "net.prototxt:1:1: layer \"e\" (Eltwise) wants bottoms of one shape; bottom \"x0\" is [2, 3], and bottom "
            "\"x1\" is [3, 2]");
  EXPECT_EQ(setup_error(eltwise(1, ""), {{1}}),
            "net.prototxt:1:1: layer \"e\" (Eltwise) wants at least 2 bottoms and has 1");
  EXPECT_EQ(setup_error(eltwise(2, "coeff: 1"), {{1}, {1}}),
            "net.prototxt:2:17: layer \"e\" (Eltwise) has 1 coeff for 2 bottoms; give one each, or none");
  EXPECT_EQ(setup_error(eltwise(2, "operation: PROD coeff: 1 coeff: 1"), {{1}, {1}}),
            "net.prototxt:2:33: layer \"e\" (Eltwise) has coeff, which only a SUM takes");
}

}  // namespace
}  // namespace poseidon::caffe
