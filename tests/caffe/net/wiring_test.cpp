// How layers find their blobs, through nets.
#include "caffe/net/net_fixture.h"

namespace poseidon::caffe {
namespace {

using namespace testing;  // NOLINT: the fixture is made for these tests

constexpr std::string_view kInput =
    "layer { name: 'in' type: 'Input' top: 'data' top: 'label' input_param { shape { dim: 2 dim: 3 } shape { dim: 2 } "
    "} }\n";

std::string wiring_error(std::string_view layers) {
  return net_error(base::concat(kInput, layers));
}

TEST(Wiring, NamesNearBlobsForOneThatNobodyMakes) {
  EXPECT_EQ(
      wiring_error("layer { name: 'r' type: 'ReLU'\nbottom: 'dta' top: 'y' }"),
      "net.prototxt:3:1: layer \"r\" (ReLU) reads blob \"dta\", which no layer before it makes; did you mean data?");
}

TEST(Wiring, SaysWhenABlobIsMadeLater) {
  EXPECT_EQ(
      wiring_error("layer { name: 'r' type: 'ReLU'\nbottom: 'z' top: 'y' }\n"
                   "layer { name: 's' type: 'ReLU' bottom: 'data' top: 'z' }"),
      "net.prototxt:3:1: layer \"r\" (ReLU) reads blob \"z\", which no layer before it makes; layer \"s\" makes it "
      "later, and layers run in the order of the file");
}

TEST(Wiring, RefusesToMakeABlobTwice) {
  EXPECT_EQ(wiring_error("layer { name: 'r' type: 'ReLU' bottom: 'data' top: 'y' }\n"
                         "layer { name: 's' type: 'ReLU' bottom: 'data'\ntop: 'y' }"),
            "net.prototxt:4:1: layer \"s\" (ReLU) makes blob \"y\", which layer \"r\" makes already; only a layer that "
            "works in "
            "place may, with the name in the same place among its bottoms");
}

TEST(Wiring, GivesLaterReadersWhatALayerInPlaceMade) {
  Net net = make_net(base::concat(kInput, R"(
      layer { name: 'r' type: 'ReLU' bottom: 'data' top: 'data' relu_param { negative_slope: 2 } }
      layer { name: 's' type: 'ReLU' bottom: 'data' top: 'y' relu_param { negative_slope: 3 } })"));
  net.feed("data", tensor_of({-1, 1, 0, -2, 2, 0}, {2, 3}));
  net.forward({});
  expect_near(net.blob("y"), {-6, 1, 0, -12, 2, 0}, 1e-12);
}

TEST(Wiring, TakesWhatNobodyReadsForOutputs) {
  const Net net = make_net(base::concat(kInput, "layer { name: 'r' type: 'ReLU' bottom: 'data' top: 'y' }"));
  ASSERT_EQ(net.outputs().size(), 2u);
  EXPECT_EQ(net.outputs()[0].name, "label");
  EXPECT_EQ(net.outputs()[1].name, "y");
}

TEST(Wiring, RefusesTwoLayersOfOneName) {
  EXPECT_EQ(wiring_error("layer {\nname: 'in' type: 'ReLU' bottom: 'data' top: 'y' }"),
            "net.prototxt:3:1: layer \"in\" (ReLU) has the name of another layer of this phase, at net.prototxt:1:9");
}

}  // namespace
}  // namespace poseidon::caffe
