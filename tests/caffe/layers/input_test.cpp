#include "caffe/layers/layer_fixture.h"

namespace poseidon::caffe {
namespace {

using namespace testing;  // NOLINT: the fixture is made for these tests

TEST(Input, IsZeroUntilItIsFed) {
  Made made = make_layer(
      "name: 'in' type: 'Input' top: 'a' top: 'b' input_param { shape { dim: 2 dim: 1 } shape { dim: 3 } }", {});
  EXPECT_EQ(made.tops, (std::vector<Shape>{{2, 1}, {3}}));
  EXPECT_EQ(made.layer->records_per_batch(), 2u);
  made.layer->feed(1, tensor_of({1, 2, 3}, {3}));
  const std::vector<at::Tensor> tops = made.layer->forward({}, {});
  expect_near(tops[0], {0, 0}, 0);
  expect_near(tops[1], {1, 2, 3}, 0);
}

TEST(Input, HasOneShapeForAllTopsOrOneEach) {
  EXPECT_EQ(make_layer("name: 'in' type: 'Input' top: 'a' top: 'b' input_param { shape { dim: 4 } }", {}).tops,
            (std::vector<Shape>{{4}, {4}}));
  EXPECT_EQ(setup_error("name: 'in' type: 'Input' top: 'a'\ninput_param { shape { dim: 4 } shape { dim: 4 } }", {}),
            "net.prototxt:2:1: layer \"in\" (Input) needs one shape for all its tops or one each: it has 2 shapes and "
            "1 tops");
}

TEST(Input, TakesOtherNumbersOfRecordsButNoOtherShape) {
  Made made = make_layer("name: 'in' type: 'Input' top: 'a' input_param { shape { dim: 2 dim: 3 } }", {});
  made.layer->feed(0, tensor_of({1, 2, 3}, {1, 3}));
  EXPECT_EQ(made.layer->forward({}, {})[0].sizes().vec(), (Shape{1, 3}));
  EXPECT_EQ(error_of([&] {
              made.layer->feed(0, tensor_of({1, 2}, {1, 2}));
            }),
            "net.prototxt:1:1: layer \"in\" (Input) takes \"a\" as [2, 3], and was given [1, 2]");
}

TEST(Input, IsTheOnlyOneToTakeValuesFromTheProgram) {
  Made made = make_layer("name: 'r' type: 'ReLU' bottom: 'x' top: 'y'", {{1}});
  EXPECT_FALSE(made.layer->feed(0, tensor_of({1}, {1})));
}

}  // namespace
}  // namespace poseidon::caffe
