#include <ATen/ops/linear.h>

#include "base/text.h"
#include "caffe/layers/layer_fixture.h"
#include "engines/torch/gradient_exchange.h"

namespace poseidon::caffe {
namespace {

using namespace testing;  // NOLINT: the fixture is made for these tests

std::string text_of(std::string_view settings) {
  return base::concat("name: 'ip' type: 'InnerProduct' bottom: 'x' top: 'y' inner_product_param { ", settings,
                      " weight_filler { type: 'gaussian' } bias_filler { type: 'gaussian' } }");
}

// Notes what it is asked for, and answers with the product.
class NotingExchange final : public aten::GradientExchange {
 public:
  int rank() const override { return 0; }
  int workers() const override { return 1; }
  void begin(Iteration) override {}
  void accumulate(bool) override {}
  void settle(LayerId) override {}
  void settle_all() override {}
  at::Tensor linear(LayerId layer, const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) override {
    asked_for = layer;
    x_shape = x.sizes().vec();
    had_bias = bias.defined();
    return at::linear(x, weight, bias);
  }

  LayerId asked_for{99};
  Shape x_shape;
  bool had_bias = false;
};

TEST(InnerProduct, IsTheProductWorkedByHand) {
  Made made = make_layer(text_of("num_output: 2"), {{1, 3}});
  made.layer->parameters()[0].value = tensor_of({1, 2, 3, 4, 5, 6}, {2, 3});
  made.layer->parameters()[1].value = tensor_of({10, 20}, {2});
  // 1 - 2 + 6 + 10 and 4 - 5 + 12 + 20.
  expect_near(made.layer->forward({}, {tensor_of({1, -1, 2}, {1, 3})})[0], {15, 31}, 1e-12);
}

TEST(InnerProduct, TakesEverythingFromItsAxisOnAsOneVector) {
  const auto shapes = [](std::string_view settings) {
    const Made made = make_layer(text_of(settings), {{2, 3, 4, 5}});
    return std::pair{made.tops[0], made.layer->parameters()[0].shape};
  };
  EXPECT_EQ(shapes("num_output: 7"), (std::pair<Shape, Shape>{{2, 7}, {7, 60}}));
  EXPECT_EQ(shapes("num_output: 7 axis: 2"), (std::pair<Shape, Shape>{{2, 3, 7}, {7, 20}}));
  EXPECT_EQ(shapes("num_output: 7 axis: -1"), (std::pair<Shape, Shape>{{2, 3, 4, 7}, {7, 5}}));
  EXPECT_EQ(shapes("num_output: 7 axis: 0"), (std::pair<Shape, Shape>{{7}, {7, 120}}));
  EXPECT_EQ(shapes("num_output: 7 transpose: true"), (std::pair<Shape, Shape>{{2, 7}, {60, 7}}));
}

TEST(InnerProduct, TransposedIsTheSameProduct) {
  std::mt19937_64 random(1);
  Made plain = make_layer(text_of("num_output: 4"), {{3, 5}});
  Made transposed = make_layer(text_of("num_output: 4 transpose: true"), {{3, 5}});
  const at::Tensor weight = plain.layer->parameters()[0].value.detach();
  transposed.layer->parameters()[0].value = weight.t().contiguous();
  transposed.layer->parameters()[1].value = plain.layer->parameters()[1].value;
  const at::Tensor x = random_tensor({3, 5}, random);
  expect_near(transposed.layer->forward({}, {x})[0], values_of(plain.layer->forward({}, {x})[0]), 1e-12);
}

TEST(InnerProduct, HasTheGradientsOfFiniteDifferences) {
  std::mt19937_64 random(2);
  for (const std::string_view settings : {"num_output: 3", "num_output: 3 axis: 2", "num_output: 3 transpose: true",
                                          "num_output: 3 bias_term: false", "num_output: 2 axis: 0"}) {
    SCOPED_TRACE(settings);
    Made made = make_layer(text_of(settings), {{2, 3, 4}});
    expect_gradients(*made.layer, {random_tensor({2, 3, 4}, random)}, {0});
  }
}

TEST(InnerProduct, ToldOfAnExchangeHandsTheProductToIt) {
  std::mt19937_64 random(3);
  Made made = make_layer(text_of("num_output: 3 axis: 2"), {{2, 3, 4}});
  EXPECT_EQ(made.layer->factor_rows(), 6u);
  NotingExchange exchange;
  const at::Tensor x = random_tensor({2, 3, 4}, random);
  const at::Tensor top = made.layer->forward({.exchange = &exchange, .layer = LayerId{5}}, {x})[0];
  EXPECT_EQ(exchange.asked_for, LayerId{5});
  EXPECT_EQ(exchange.x_shape, (Shape{6, 4}));
  EXPECT_TRUE(exchange.had_bias);
  EXPECT_EQ(top.sizes().vec(), (Shape{2, 3, 3}));
  expect_near(top, values_of(made.layer->forward({}, {x})[0]), 1e-12);
}

TEST(InnerProduct, KeepsABiasThatIsNotTrainedOutOfTheExchange) {
  std::mt19937_64 random(4);
  Made made = make_layer(text_of("num_output: 3") + " param { } param { lr_mult: 0 }", {{2, 4}});
  NotingExchange exchange;
  const at::Tensor x = random_tensor({2, 4}, random);
  const at::Tensor top = made.layer->forward({.exchange = &exchange}, {x})[0];
  EXPECT_FALSE(exchange.had_bias);
  expect_near(top, values_of(made.layer->forward({}, {x})[0]), 1e-12);
}

TEST(InnerProduct, TransposedHasNoFactorsOfTheFormThatTravels) {
  EXPECT_EQ(make_layer(text_of("num_output: 3 transpose: true"), {{2, 4}}).layer->factor_rows(), 0u);
}

TEST(InnerProduct, ExplainsWhatIsWrong) {
  EXPECT_EQ(setup_error("name: 'ip' type: 'InnerProduct' bottom: 'x' top: 'y'", {{2, 3}}),
            "net.prototxt:1:1: layer \"ip\" (InnerProduct) needs num_output, at least 1");
  EXPECT_EQ(setup_error(text_of("num_output: 2 axis: 2"), {{2, 3}}),
            "net.prototxt:1:1: layer \"ip\" (InnerProduct) has axis 2, but its bottom \"x\" is [2, 3], which has axes "
            "-2 to 1");
  const Made made = make_layer(text_of("num_output: 2"), {{4, 3, 2}});
  EXPECT_EQ(
      error_of([&] {
        static_cast<void>(made.layer->top_shapes({{4, 5}}));
      }),
      "net.prototxt:1:1: layer \"ip\" (InnerProduct) has a weight of [2, 6] for vectors of 6; bottom \"x\" is [4, 5]");
}

}  // namespace
}  // namespace poseidon::caffe
