#include "engines/caffe/net/trained_net.h"

#include "caffe/net/net_fixture.h"

namespace poseidon::caffe {
namespace {

using namespace testing;  // NOLINT: the fixture is made for these tests

constexpr std::string_view kNet = R"(name: 'n'
layer { name: 'in' type: 'Input' top: 'x' input_param { shape { dim: 1 dim: 2 } } }
layer { name: 'ip' type: 'InnerProduct' bottom: 'x' top: 'y' inner_product_param { num_output: 3 weight_filler { type: 'xavier' } } }
layer { name: 'relu' type: 'ReLU' bottom: 'y' top: 'y' }
layer { name: 'top' type: 'InnerProduct' bottom: 'y' top: 'z' inner_product_param { num_output: 1 weight_filler { type: 'xavier' } } }
)";

proto::Blob blob_of(const Shape& shape, std::vector<float> values) {
  return {.shape = shape, .values = std::move(values)};
}

TEST(TrainedNet, HoldsTheArraysOfEachLayer) {
  const Net net = make_net(kNet, {.dtype = at::kFloat});
  const proto::TrainedNet trained = trained_net(net);
  EXPECT_EQ(trained.name, "n");
  ASSERT_EQ(trained.layers.size(), 2u);
  EXPECT_EQ(trained.layers[0].name, "ip");
  EXPECT_EQ(trained.layers[0].type, "InnerProduct");
  ASSERT_EQ(trained.layers[0].blobs.size(), 2u);
  EXPECT_EQ(trained.layers[0].blobs[0].shape, (Shape{3, 2}));
  EXPECT_EQ(trained.layers[0].blobs[0].dtype(), DType::kFloat32);
  const std::vector<float>& weight = std::get<0>(trained.layers[0].blobs[0].values);
  EXPECT_EQ(std::vector<double>(weight.begin(), weight.end()), values_of(net.arrays()[0].value));
  EXPECT_EQ(trained_net(make_net(kNet, {.dtype = at::kDouble})).layers[0].blobs[0].dtype(), DType::kFloat64);
}

TEST(TrainedNet, ComesBackThroughAFile) {
  const Net from = make_net(kNet, {.dtype = at::kFloat, .seed = 1});
  Net to = make_net(kNet, {.dtype = at::kFloat, .seed = 2});
  EXPECT_NE(from.digest(), to.digest());
  const std::string bytes = proto::model_bytes(trained_net(from)).value();
  copy_trained(proto::parse_model(bytes, "n.caffemodel"), "n.caffemodel", to);
  EXPECT_EQ(from.digest(), to.digest());
}

TEST(TrainedNet, HasTheAveragesThatForwardMoves) {
  constexpr std::string_view kNormalized = R"(
      layer { name: 'in' type: 'Input' top: 'x' input_param { shape { dim: 2 dim: 1 } } }
      layer { name: 'bn' type: 'BatchNorm' bottom: 'x' top: 'y' batch_norm_param { moving_average_fraction: 0.5 } })";
  Net from = make_net(kNormalized);
  from.feed("x", tensor_of({1, 3}, {2, 1}));
  from.forward({});
  from.forward({});
  const proto::TrainedNet trained = trained_net(from);
  ASSERT_EQ(trained.layers.size(), 1u);
  ASSERT_EQ(trained.layers[0].blobs.size(), 3u) << "as in Caffe's models: mean, variance, weight";
  Net to = make_net(kNormalized);
  copy_trained(trained, "n.caffemodel", to);
  // Means 2, variances 1 + 1 over 2 - 1, and weights 1, of which the first ones count half.
  expect_near(to.arrays()[0].value, {1 + 2}, 1e-12);
  expect_near(to.arrays()[1].value, {1 + 2}, 1e-12);
  expect_near(to.arrays()[2].value, {0.5 + 1}, 1e-12);
}

TEST(TrainedNet, FindsLayersByNameAndPassesOverOthers) {
  Net net = make_net(kNet);
  const std::vector<double> before = values_of(net.arrays()[2].value);
  copy_trained({.name = "other",
                .layers = {{.name = "gone", .type = "InnerProduct", .blobs = {blob_of({1}, {1})}},
                           {.name = "relu", .type = "ReLU", .blobs = {}},
                           {.name = "ip",
                            .type = "InnerProduct",
                            .blobs = {blob_of({3, 2}, {1, 2, 3, 4, 5, 6}), blob_of({3}, {7, 8, 9})}}}},
               "m.caffemodel", net);
  expect_near(net.arrays()[0].value, {1, 2, 3, 4, 5, 6}, 0);
  expect_near(net.arrays()[1].value, {7, 8, 9}, 0);
  EXPECT_EQ(values_of(net.arrays()[2].value), before);
}

// HDF5 files hold what several layers share with the first of them.
TEST(TrainedNet, TakesASharedArrayFromTheLayerThatOwnsIt) {
  constexpr std::string_view kShared = R"(name: 'n'
layer { name: 'in' type: 'Input' top: 'x' input_param { shape { dim: 1 dim: 2 } } }
layer { name: 'a' type: 'InnerProduct' bottom: 'x' top: 'y' param { name: 'w' } inner_product_param { num_output: 2 } }
layer { name: 'b' type: 'InnerProduct' bottom: 'y' top: 'z' param { name: 'w' } inner_product_param { num_output: 2 } }
)";
  Net net = make_net(kShared);
  const proto::Blob weight = blob_of({2, 2}, {1, 2, 3, 4});
  copy_trained({.name = "m",
                .layers = {{.name = "a", .type = "", .blobs = {weight, blob_of({2}, {5, 6})}},
                           {.name = "b", .type = "", .blobs = {proto::with_another_layer(), blob_of({2}, {7, 8})}}}},
               "m.h5", net);
  expect_near(net.arrays()[0].value, {1, 2, 3, 4}, 0);
  expect_near(net.arrays()[2].value, {7, 8}, 0);
  EXPECT_EQ(trained_net(net).layers[1].share_names, (std::vector<std::string>{"w", ""}));
  // The owner must have its own.
  EXPECT_NE(error_of([&] {
              copy_trained(
                  {.name = "m",
                   .layers = {{.name = "a", .type = "", .blobs = {proto::with_another_layer(), blob_of({2}, {5, 6})}}}},
                  "m.h5", net);
            }).find("m.h5: layer \"a\" has 2 arrays"),
            std::string::npos);
}

TEST(TrainedNet, TakesTheFourAxesOfOlderFiles) {
  Net net = make_net(kNet);
  copy_trained({.name = "old",
                .layers = {{.name = "ip",
                            .type = "InnerProduct",
                            .blobs = {blob_of({1, 1, 3, 2}, {1, 2, 3, 4, 5, 6}), blob_of({1, 1, 1, 3}, {7, 8, 9})}}}},
               "m.caffemodel", net);
  expect_near(net.arrays()[0].value, {1, 2, 3, 4, 5, 6}, 0);
}

TEST(TrainedNet, RefusesOtherShapesBeforeItChangesAnything) {
  Net net = make_net(kNet);
  const std::string before = net.digest();
  const auto error = [&](std::vector<proto::Blob> blobs) {
    return error_of([&] {
      copy_trained(
          {.name = "m",
           .layers = {{.name = "top", .type = "InnerProduct", .blobs = {blob_of({1, 3}, {1, 2, 3}), blob_of({1}, {1})}},
                      {.name = "ip", .type = "InnerProduct", .blobs = std::move(blobs)}}},
          "m.caffemodel", net);
    });
  };
  EXPECT_EQ(error({blob_of({2, 2}, {1, 2, 3, 4}), blob_of({3}, {1, 2, 3})}),
            "m.caffemodel: layer \"ip\" has array 0 as [2, 2], and the net's layer of this name (net.prototxt:3:1) has "
            "it as [3, "
            "2]; rename the layer to leave it untouched");
  EXPECT_EQ(
      error({blob_of({3, 2}, {1, 2, 3, 4, 5, 6})}),
      "m.caffemodel: layer \"ip\" has 1 arrays, and the net's layer of this name (net.prototxt:3:1) has 2; rename the "
      "layer to leave it untouched");
  EXPECT_EQ(net.digest(), before);
}

}  // namespace
}  // namespace poseidon::caffe
