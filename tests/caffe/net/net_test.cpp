#include "engines/caffe/net/net.h"

#include <ATen/ops/ones.h>

#include <cmath>

#include "base/checksum.h"
#include "caffe/net/net_fixture.h"

namespace poseidon::caffe {
namespace {

using namespace testing;  // NOLINT: the fixture is made for these tests

constexpr std::string_view kInput =
    "layer { name: 'in' type: 'Input' top: 'data' top: 'label' input_param { shape { dim: 4 dim: 6 } shape { dim: 4 } "
    "} }\n";

// Two InnerProducts with a ReLU between and a loss.
constexpr std::string_view kClassifier = R"(name: 'classifier'
layer { name: 'in' type: 'Input' top: 'data' top: 'label' input_param { shape { dim: 4 dim: 6 } shape { dim: 4 } } }
layer { name: 'ip1' type: 'InnerProduct' bottom: 'data' top: 'ip1'
        inner_product_param { num_output: 5 weight_filler { type: 'gaussian' } } }
layer { name: 'relu1' type: 'ReLU' bottom: 'ip1' top: 'ip1' }
layer { name: 'ip2' type: 'InnerProduct' bottom: 'ip1' top: 'ip2' param { lr_mult: 1 } param { lr_mult: 2 decay_mult: 0 }
        inner_product_param { num_output: 3 weight_filler { type: 'gaussian' } } }
layer { name: 'loss' type: 'SoftmaxWithLoss' bottom: 'ip2' bottom: 'label' top: 'loss' }
layer { name: 'accuracy' type: 'Accuracy' bottom: 'ip2' bottom: 'label' top: 'accuracy' include { phase: TEST } }
)";

void feed_classifier(Net& net) {
  std::mt19937_64 random(5);
  net.feed("data", random_tensor({4, 6}, random));
  net.feed("label", tensor_of({0, 2, 1, 2}, {4}));
}

const NetArray& array_named(const Net& net, const std::string& name) {
  for (const NetArray& array : net.arrays()) {
    if (array.name == name) return array;
  }
  throw std::out_of_range(name);
}

// The mean loss in plain loops, from the arrays' values.
double naive_loss(const Net& net, const std::vector<double>& data, const std::vector<double>& labels) {
  const auto product = [&](const std::vector<double>& x, const std::string& layer, std::size_t inputs,
                           std::size_t outputs) {
    const std::vector<double> w = values_of(array_named(net, layer + ".weight").value);
    const std::vector<double> b = values_of(array_named(net, layer + ".bias").value);
    std::vector<double> y(outputs);
    for (std::size_t o = 0; o < outputs; ++o) {
      y[o] = b[o];
      for (std::size_t i = 0; i < inputs; ++i) y[o] += w[o * inputs + i] * x[i];
    }
    return y;
  };
  double sum = 0;
  for (std::size_t n = 0; n < 4; ++n) {
    std::vector<double> hidden = product(
        {data.begin() + static_cast<std::ptrdiff_t>(6 * n), data.begin() + static_cast<std::ptrdiff_t>(6 * n + 6)},
        "ip1", 6, 5);
    for (double& h : hidden) h = std::max(h, 0.0);
    const std::vector<double> scores = product(hidden, "ip2", 5, 3);
    double total = 0;
    for (const double s : scores) total += std::exp(s);
    sum += std::log(total) - scores[static_cast<std::size_t>(labels[n])];
  }
  return sum / 4;
}

TEST(Net, ComputesTheLossOfItsLayers) {
  Net net = make_net(kClassifier);
  feed_classifier(net);
  std::mt19937_64 random(5);
  const std::vector<double> data = values_of(random_tensor({4, 6}, random));
  EXPECT_NEAR(net.forward({}).item<double>(), naive_loss(net, data, {0, 2, 1, 2}), 1e-12);
}

TEST(Net, HasTheGradientOfTheLoss) {
  Net net = make_net(kClassifier);
  feed_classifier(net);
  net.forward({});
  net.backward();
  std::mt19937_64 random(5);
  const std::vector<double> data = values_of(random_tensor({4, 6}, random));
  for (const NetArray& array : net.arrays()) {
    const std::vector<double> gradient = values_of(array.value.grad());
    double* const elements = array.value.mutable_data_ptr<double>();
    for (std::size_t i = 0; i < gradient.size(); ++i) {
      const double before = std::exchange(elements[i], elements[i] + 1e-5);
      const double above = naive_loss(net, data, {0, 2, 1, 2});
      elements[i] = before - 1e-5;
      const double below = naive_loss(net, data, {0, 2, 1, 2});
      elements[i] = before;
      ASSERT_NEAR(gradient[i], (above - below) / 2e-5, 1e-7) << array.name << " element " << i;
    }
  }
}

TEST(Net, ListsItsTrainedArraysInTheOrderOfTheForwardPass) {
  const Net net = make_net(kClassifier);
  ASSERT_EQ(net.parameters().size(), 2u);
  EXPECT_EQ(net.parameters()[0].name, "ip1");
  EXPECT_EQ(net.parameters()[0].parameter_names, (std::vector<std::string>{"ip1.weight", "ip1.bias"}));
  EXPECT_EQ(net.parameters()[1].parameter_names, (std::vector<std::string>{"ip2.weight", "ip2.bias"}));
  EXPECT_EQ(net.parameters()[1].factor_rows, 4u);
  const NetArray& bias = net.arrays()[net.array_of(LayerId{1}, 1)];
  EXPECT_EQ(bias.name, "ip2.bias");
  EXPECT_EQ(bias.lr_mult, 2);
  EXPECT_EQ(bias.decay_mult, 0);
}

TEST(Net, LeavesUntrainedArraysOutOfTheExchange) {
  const Net net = make_net(base::concat(kInput, R"(
      layer { name: 'frozen' type: 'InnerProduct' bottom: 'data' top: 'x' param { lr_mult: 0 } param { lr_mult: 0 }
              inner_product_param { num_output: 5 } }
      layer { name: 'biased' type: 'InnerProduct' bottom: 'x' top: 'y' param { lr_mult: 0 } inner_product_param { num_output: 5 } }
      layer { name: 'weighed' type: 'InnerProduct' bottom: 'y' top: 'z' param { } param { lr_mult: 0 }
              inner_product_param { num_output: 5 } })"));
  ASSERT_EQ(net.parameters().size(), 2u);
  EXPECT_EQ(net.parameters()[0].parameter_names, std::vector<std::string>{"biased.bias"});
  EXPECT_EQ(net.parameters()[0].factor_rows, 0u);
  EXPECT_EQ(net.parameters()[1].parameter_names, std::vector<std::string>{"weighed.weight"});
  EXPECT_EQ(net.parameters()[1].factor_rows, 4u);
  EXPECT_EQ(net.arrays().size(), 6u);
}

TEST(Net, SharesArraysByNameAndSumsTheirGradients) {
  const std::string text = base::concat(kInput, R"(
      layer { name: 'a' type: 'InnerProduct' bottom: 'data' top: 'x' param { name: 'w' lr_mult: 3 } param { name: 'b' }
              inner_product_param { num_output: 6 weight_filler { type: 'gaussian' } } }
      layer { name: 'b' type: 'InnerProduct' bottom: 'x' top: 'y' param { name: 'w' } param { name: 'b' decay_mult: 0 }
              inner_product_param { num_output: 6 weight_filler { type: 'gaussian' } } loss_weight: 1 })");
  Net net = make_net(text);
  ASSERT_EQ(net.arrays().size(), 2u);
  ASSERT_EQ(net.parameters().size(), 1u);
  EXPECT_EQ(net.parameters()[0].name, "a");
  EXPECT_EQ(net.parameters()[0].factor_rows, 0u) << "two layers' factors would come together";
  EXPECT_EQ(net.arrays()[0].lr_mult, 3);
  EXPECT_EQ(net.arrays()[1].decay_mult, 0) << "stated by the second user alone";
  net.feed("data", at::ones({4, 6}, at::kDouble));
  net.forward({});
  net.backward();
  // The loss is the sum over 4 records of 1ᵀ(W(W1 + b) + b); its derivative by b is 4 (Wᵀ1 + 1).
  const std::vector<double> w = values_of(net.arrays()[0].value);
  std::vector<double> wanted;
  for (std::size_t i = 0; i < 6; ++i) {
    double column = 1;
    for (std::size_t o = 0; o < 6; ++o) column += w[o * 6 + i];
    wanted.push_back(4 * column);
  }
  expect_near(net.arrays()[1].value.grad(), wanted, 1e-10);
}

TEST(Net, ExplainsSharingThatDoesNotFit) {
  const auto error = [](std::string_view first, std::string_view second, std::string_view outputs) {
    return net_error(base::concat(kInput,
                                  "layer { name: 'a' type: 'InnerProduct' bottom: 'data' top: 'x'\nparam { name: 'w' ",
                                  first, "} inner_product_param { num_output: 2 } }\n",
                                  "layer { name: 'b' type: 'InnerProduct' bottom: 'data' top: 'y'\nparam { name: 'w' ",
                                  second, "} inner_product_param { num_output: ", outputs, " } }"));
  };
  EXPECT_EQ(error("", "", "2"), "(no error)");
  EXPECT_EQ(error("", "", "3"),
            "net.prototxt:5:1: layer \"b\" (InnerProduct) shares the array \"w\" as [3, 6], but layer \"a\" has it as "
            "[2, 6]; "
            "share_mode: PERMISSIVE asks only for as many elements");
  EXPECT_EQ(error("lr_mult: 2", "lr_mult: 1", "2"),
            "net.prototxt:5:1: layer \"b\" (InnerProduct) states lr_mult 1 for the array \"w\", which is shared with "
            "a.weight, "
            "where it is 2");
}

TEST(Net, SharesArraysOfOtherShapesPermissively) {
  Net net = make_net(R"(
      layer { name: 'in' type: 'Input' top: 'wide' top: 'narrow' input_param { shape { dim: 2 dim: 6 } shape { dim: 3 dim: 4 } } }
      layer { name: 'a' type: 'InnerProduct' bottom: 'wide' top: 'x' param { name: 'w' } loss_weight: 1
              inner_product_param { num_output: 2 bias_term: false weight_filler { type: 'gaussian' } } }
      layer { name: 'b' type: 'InnerProduct' bottom: 'narrow' top: 'y' param { name: 'w' share_mode: PERMISSIVE } loss_weight: 1
              inner_product_param { num_output: 3 bias_term: false } })");
  net.feed("wide", at::ones({2, 6}, at::kDouble));
  net.feed("narrow", at::ones({3, 4}, at::kDouble));
  for (int pass = 0; pass < 2; ++pass) {
    net.forward({});
    net.backward();
    // Each element meets a one in each of 2 and of 3 records.
    expect_near(net.arrays()[0].value.grad(), std::vector<double>(12, 5), 1e-12);
    net.arrays()[0].value.mutable_grad().reset();
  }
}

TEST(Net, ATestNetUsesTheTrainingNetsArrays) {
  Net train = make_net(kClassifier);
  Net test =
      make_net(kClassifier, {.state = {.phase = Phase::kTest}, .dtype = at::kDouble, .seed = 2, .share_with = &train});
  feed_classifier(train);
  feed_classifier(test);
  EXPECT_EQ(train.forward({}).item<double>(), test.forward({}).item<double>());
  ASSERT_EQ(test.outputs().size(), 2u);
  EXPECT_EQ(test.outputs()[0].name, "loss");
  EXPECT_EQ(test.outputs()[0].loss_weight, 1);
  EXPECT_EQ(test.outputs()[1].name, "accuracy");
  EXPECT_TRUE(test.parameters().empty()) << "it trains nothing";
  EXPECT_EQ(train.arrays()[0].value.const_data_ptr(), test.arrays()[0].value.const_data_ptr());
}

TEST(Net, ATestNetSeesTheAveragesThatTrainingHasMoved) {
  const std::string text = base::concat(kInput, R"(
      layer { name: 'bn' type: 'BatchNorm' bottom: 'data' top: 'bn' batch_norm_param { eps: 0 } }
      layer { name: 'loss' type: 'EuclideanLoss' bottom: 'bn' bottom: 'data' top: 'loss' })");
  Net train = make_net(text);
  Net test = make_net(text, {.state = {.phase = Phase::kTest}, .dtype = at::kDouble, .share_with = &train});
  EXPECT_TRUE(train.parameters().empty()) << "nothing is trained";
  std::vector<double> columns;  // 0 and 2 in turn: mean 1 and variance 1, or 4/3 with 3 below the line
  for (int i = 0; i < 24; ++i) columns.push_back(i / 6 % 2 == 0 ? 0 : 2);
  train.feed("data", tensor_of(columns, {4, 6}));
  train.forward({});
  const std::string before = train.digest();
  test.feed("data", at::ones({4, 6}, at::kDouble) * 3);
  // (3 - 1) / sqrt(4/3) everywhere, against 3.
  const double difference = 2 / std::sqrt(4.0 / 3) - 3;
  EXPECT_NEAR(test.forward({}).item<double>(), 24 * difference * difference / 2 / 4, 1e-12);
  EXPECT_EQ(train.digest(), before) << "testing moves nothing";
}

TEST(Net, RefusesATestNetOfOtherShapes) {
  const Net train = make_net(kClassifier);
  std::string other(kClassifier);
  other.replace(other.find("num_output: 5"), 13, "num_output: 7");
  EXPECT_EQ(
      net_error(other, {.state = {.phase = Phase::kTest}, .dtype = at::kDouble, .share_with = &train}),
      "net.prototxt:3:1: layer \"ip1\" (InnerProduct) has ip1.weight as [7, 6], but the training net has it as [5, 6]");
}

TEST(Net, WeighsItsLosses) {
  const auto losses = [](std::string_view weights) {
    Net net = make_net(base::concat(
        kInput, "layer { name: 's' type: 'SoftmaxWithLoss' bottom: 'data' bottom: 'label' top: 'l' top: 'p' ", weights,
        "} layer { name: 'r' type: 'ReLU' bottom: 'data' top: 'y' loss_weight: 0.5 }"));
    net.feed("data", at::ones({4, 6}, at::kDouble));
    return net.forward({}).item<double>();
  };
  // ln 6 for equal scores; 24 ones, half each; the probabilities of 4 records sum to 4.
  EXPECT_NEAR(losses(""), std::log(6) + 12, 1e-12);
  EXPECT_NEAR(losses("loss_weight: 2 loss_weight: 10"), 2 * std::log(6) + 40 + 12, 1e-12);
  EXPECT_NEAR(losses("loss_weight: 0 loss_weight: 0"), 12, 1e-12);
  EXPECT_EQ(net_error(base::concat(
                kInput, "layer { name: 'r' type: 'ReLU' bottom: 'data' top: 'y'\nloss_weight: 1 loss_weight: 2 }")),
            "net.prototxt:3:1: layer \"r\" (ReLU) has 2 loss_weight for 1 tops; give one each, or none");
}

TEST(Net, StopsGradientsOnRequest) {
  Net net = make_net(base::concat(kInput, R"(
      layer { name: 'a' type: 'InnerProduct' bottom: 'data' top: 'x' inner_product_param { num_output: 2 } }
      layer { name: 'b' type: 'InnerProduct' bottom: 'x' top: 'y' propagate_down: false loss_weight: 1
              inner_product_param { num_output: 2 } })"));
  net.feed("data", at::ones({4, 6}, at::kDouble));
  net.forward({});
  net.backward();
  EXPECT_FALSE(net.parameters()[0].parameters[0].grad().defined());
  EXPECT_TRUE(net.parameters()[1].parameters[0].grad().defined());
}

// Between a trained array and a loss, a layer with the given lines.
std::string between(std::string_view layer) {
  return base::concat(kInput, R"(
      layer { name: 'a' type: 'InnerProduct' bottom: 'data' top: 'x' inner_product_param { num_output: 2 } }
      )", layer, R"(
      layer { name: 'b' type: 'InnerProduct' bottom: 'y' top: 'z' loss_weight: 1 inner_product_param { num_output: 2 } })");
}

TEST(Net, RefusesALayerWithoutGradientBelowALossAndAboveATrainedArray) {
  EXPECT_EQ(net_error(between("layer { name: 't' type: 'Threshold' bottom: 'x' top: 'y' }")),
            "net.prototxt:4:43: layer \"t\" (Threshold) has no gradient for bottom \"x\", on which arrays are to be "
            "trained through it; propagate_down: false, one for each bottom, ends the gradient there");
  EXPECT_NE(net_error(between("layer { name: 'i' type: 'Slice' bottom: 'x' top: 'u' top: 'v' }"
                              "layer { name: 'f' type: 'Filter' bottom: 'data' bottom: 'u' top: 'y' }"
                              "layer { name: 's' type: 'Silence' bottom: 'v' }"))
                .find("layer \"f\" (Filter) has no gradient for bottom \"u\""),
            std::string::npos);
}

TEST(Net, TakesALayerWithoutGradientWhereNoneIsAskedFor) {
  // Told so; nothing trained below; no loss above; a test.
  make_net(between("layer { name: 't' type: 'Threshold' bottom: 'x' top: 'y' propagate_down: false }"));
  make_net(between("layer { name: 't' type: 'Threshold' bottom: 'data' top: 'y' }"
                   "layer { name: 's' type: 'Silence' bottom: 'x' }"));
  make_net(base::concat(between("layer { name: 'r' type: 'ReLU' bottom: 'x' top: 'y' }"),
                        "layer { name: 't' type: 'ArgMax' bottom: 'z' top: 'class' }"));
  make_net(between("layer { name: 't' type: 'Threshold' bottom: 'x' top: 'y' }"),
           {.state = {.phase = Phase::kTest}, .dtype = at::kDouble});
}

// Trained on the rows that the label marks, whose number differs from batch to batch.
TEST(Net, TrainsBehindAFilterOfAnyNumberOfRows) {
  Net net = make_net(base::concat(kInput, R"(
      layer { name: 'f' type: 'Filter' bottom: 'data' bottom: 'label' top: 'chosen' }
      layer { name: 'a' type: 'InnerProduct' bottom: 'chosen' top: 'x' inner_product_param { num_output: 1 } }
      layer { name: 'd' type: 'Dropout' bottom: 'x' top: 'x' dropout_param { dropout_ratio: 0 } }
      layer { name: 's' type: 'Reduction' bottom: 'x' top: 'sum' loss_weight: 1 })"));
  std::mt19937_64 random(5);
  const at::Tensor data = random_tensor({4, 6}, random);
  const std::vector<double> values = values_of(data);
  net.feed("data", data);
  for (const std::vector<double>& label : {std::vector<double>{0, 1, 0, 1}, {1, 1, 1, 1}, {0, 0, 0, 0}, {0, 0, 1, 0}}) {
    net.feed("label", tensor_of(label, {4}));
    net.forward({});
    net.backward();
    std::vector<double> wanted(6, 0);
    for (std::size_t row = 0; row < 4; ++row) {
      for (std::size_t i = 0; i < 6; ++i) wanted[i] += label[row] * values[row * 6 + i];
    }
    const at::Tensor weight = net.parameters()[0].parameters[0];
    expect_near(weight.grad(), wanted, 1e-12);
    weight.mutable_grad().reset();
  }
}

TEST(Net, ComputesInPlaceOnlyWhereNobodyMisses) {
  const auto overwrites = [](std::string_view layers) {
    const Net net = make_net(base::concat(
        kInput,
        "layer { name: 'ip' type: 'InnerProduct' bottom: 'data' top: 'x' inner_product_param { num_output: 2 } }",
        layers));
    return net.find_layer("r")->overwrites;
  };
  EXPECT_TRUE(overwrites("layer { name: 'r' type: 'ReLU' bottom: 'x' top: 'x' }"));
  EXPECT_FALSE(overwrites("layer { name: 'r' type: 'ReLU' bottom: 'x' top: 'y' }")) << "not asked for";
  EXPECT_FALSE(overwrites(
      "layer { name: 's' type: 'Softmax' bottom: 'x' top: 'y' } layer { name: 'r' type: 'ReLU' bottom: 'x' top: 'x' }"))
      << "another layer has read it";
  EXPECT_FALSE(overwrites(
      "layer { name: 's' type: 'Softmax' bottom: 'x' top: 'y' } layer { name: 'r' type: 'ReLU' bottom: 'y' top: 'y' }"))
      << "its maker needs it for the backward pass";
  EXPECT_FALSE(overwrites("layer { name: 'r' type: 'ReLU' bottom: 'data' top: 'data' }")) << "the program's own tensor";
}

TEST(Net, HasTheSameGradientsInPlaceAndNot) {
  // After each kind of layer whose top may be overwritten; the InnerProduct over axis 2 yields a view.
  const auto gradients = [](bool in_place) {
    const std::string_view suffix = in_place ? "" : "_after";
    const auto relu = [&](std::string_view blob) {
      return base::concat("layer { name: 'relu_", blob, "' type: 'ReLU' bottom: '", blob, "' top: '", blob, suffix,
                          "' }\n");
    };
    Net net = make_net(base::concat(
        "layer { name: 'in' type: 'Input' top: 'data' input_param { shape { dim: 2 dim: 2 dim: 8 dim: 8 } } }\n",
        "layer { name: 'c' type: 'Convolution' bottom: 'data' top: 'c' convolution_param { num_output: 3 kernel_size: "
        "3 "
        "weight_filler { type: 'gaussian' } } }\n",
        relu("c"), "layer { name: 'm' type: 'Pooling' bottom: 'c", suffix,
        "' top: 'm' pooling_param { kernel_size: 2 } }\n", relu("m"), "layer { name: 'a' type: 'Pooling' bottom: 'm",
        suffix, "' top: 'a' pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 2 } }\n", relu("a"),
        "layer { name: 'i' type: 'InnerProduct' bottom: 'a", suffix,
        "' top: 'i' inner_product_param { num_output: 4 axis: 2 "
        "weight_filler { type: 'gaussian' } } }\n",
        relu("i"), "layer { name: 'top' type: 'InnerProduct' bottom: 'i", suffix,
        "' top: 'top' loss_weight: 1 inner_product_param { "
        "num_output: 1 weight_filler { type: 'gaussian' } } }"));
    for (const char* const layer : {"relu_c", "relu_m", "relu_a", "relu_i"}) {
      EXPECT_EQ(net.find_layer(layer)->overwrites, in_place) << layer;
    }
    std::mt19937_64 random(8);
    net.feed("data", random_tensor({2, 2, 8, 8}, random));
    net.forward({});
    net.backward();
    std::vector<std::vector<double>> all;
    for (const NetArray& array : net.arrays()) all.push_back(values_of(array.value.grad()));
    return all;
  };
  EXPECT_EQ(gradients(true), gradients(false));
}

TEST(Net, KeepsOnlyOutputsUnlessAskedForAll) {
  Net sparing = make_net(kClassifier);
  feed_classifier(sparing);
  sparing.forward({});
  EXPECT_EQ(sparing.blob("loss").dim(), 0);
  EXPECT_EQ(error_of([&] { sparing.blob("ip2"); }), "blob \"ip2\" of net \"classifier\" is not kept: it is no output");
  EXPECT_EQ(error_of([&] { sparing.blob("lost"); }), "net \"classifier\" has no blob \"lost\"; did you mean loss?");
  Net keeping = make_net(kClassifier, {.dtype = at::kDouble, .keep_blobs = true});
  feed_classifier(keeping);
  keeping.forward({});
  EXPECT_EQ(keeping.blob("ip2").sizes().vec(), (Shape{4, 3}));
}

TEST(Net, FeedsOnlyInputs) {
  Net net = make_net(kClassifier);
  EXPECT_EQ(error_of([&] {
              net.feed("ip1", at::ones({4, 5}, at::kDouble));
            }),
            "net \"classifier\" has no Input layer with a top \"ip1\"");
}

TEST(Net, SaysWhyItCannotBeTrained) {
  Net without_loss =
      make_net(base::concat("name: 'n' ", kInput, "layer { name: 'r' type: 'ReLU' bottom: 'data' top: 'y' }"));
  without_loss.forward({});
  EXPECT_FALSE(without_loss.has_loss());
  EXPECT_EQ(error_of([&] { without_loss.backward(); }),
            "net \"n\" cannot be trained: no layer of phase TRAIN has a loss_weight");
  Net frozen = make_net(
      base::concat("name: 'n' ", kInput, "layer { name: 'r' type: 'ReLU' bottom: 'data' top: 'y' loss_weight: 1 }"));
  frozen.forward({});
  EXPECT_EQ(error_of([&] { frozen.backward(); }),
            "net \"n\" cannot be trained: its loss depends on no array with an lr_mult other than 0");
  EXPECT_EQ(net_error("name: 'n'"), "net.prototxt:1:1: the net has no layers in phase TRAIN");
}

TEST(Net, DigestsNamesShapesAndBytesOfItsArrays) {
  const Net net = make_net(
      "name: 'n' layer { name: 'in' type: 'Input' top: 'x' input_param { shape { dim: 1 dim: 2 } } } "
      "layer { name: 'ip' type: 'InnerProduct' bottom: 'x' top: 'y' inner_product_param { num_output: 1 "
      "bias_term: false weight_filler { value: 1.5 } } }");
  base::Sha256 sum;
  sum.update("ip.weight[1, 2]");
  const double values[] = {1.5, 1.5};
  sum.update(std::as_bytes(std::span(values)));
  EXPECT_EQ(net.digest(), base::to_hex(sum.finish()));
}

// What a net asks of its exchange, in order.
// Dropout before and behind an LSTM and a layer over its outputs, and on the words' vectors.
std::string sequences_net(int streams) {
  return base::concat("layer { name: 'in' type: 'Input' top: 'words' top: 'cont' input_param { shape { dim: 3 dim: ",
                      streams, " } shape { dim: 3 dim: ", streams, R"( } } }
layer { name: 'embed' type: 'Embed' bottom: 'words' top: 'vectors'
        embed_param { input_dim: 9 num_output: 4 weight_filler { type: 'gaussian' } } }
layer { name: 'drop1' type: 'Dropout' bottom: 'vectors' top: 'vectors' }
layer { name: 'lstm' type: 'LSTM' bottom: 'vectors' bottom: 'cont' top: 'hidden'
        recurrent_param { num_output: 5 weight_filler { type: 'gaussian' } } }
layer { name: 'drop2' type: 'Dropout' bottom: 'hidden' top: 'dropped' }
layer { name: 'ip' type: 'InnerProduct' bottom: 'dropped' top: 'scores'
        inner_product_param { num_output: 6 axis: 2 weight_filler { type: 'gaussian' } } }
layer { name: 'drop3' type: 'Dropout' bottom: 'scores' top: 'out' })");
}

TEST(Net, DrawsInSequencesByStreamsSoThatWorkersDropWhatOneDrops) {
  std::mt19937_64 random(3);
  std::vector<double> words(24);
  for (double& word : words) word = static_cast<double>(pick(random, 0, 8));
  const at::Tensor all_words = tensor_of(words, {3, 8});
  const at::Tensor goes_on = at::ones({3, 8}, at::kDouble);
  const auto run = [&](std::int64_t first, std::int64_t streams) {
    Net net = make_net(sequences_net(static_cast<int>(streams)));
    net.feed("words", all_words.slice(1, first, first + streams));
    net.feed("cont", goes_on.slice(1, first, first + streams));
    // Records are what the first blob has along its first axis, whatever they are: what counts is which batch it is.
    const std::uint64_t batch = net.records_per_batch();
    net.forward({.iteration = 2,
                 .first_record = batch * static_cast<std::uint64_t>(first / streams),
                 .record_stride = batch});
    return net.blob("out");
  };
  const at::Tensor whole = run(0, 8);
  for (std::int64_t worker = 0; worker < 4; ++worker) {
    expect_near(run(2 * worker, 2), values_of(whole.slice(1, 2 * worker, 2 * worker + 2).contiguous()), 1e-14);
  }
}

class NotingExchange final : public aten::GradientExchange {
 public:
  int rank() const override { return 0; }
  int workers() const override { return 1; }
  void begin(Iteration) override {}
  void accumulate(bool) override {}
  void settle(LayerId layer) override { notes += base::concat("settle ", index(layer), "; "); }
  void settle_all() override {}
  at::Tensor linear(LayerId layer, const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) override {
    notes += base::concat("linear ", index(layer), "; ");
    return x.matmul(weight.t()) + bias;
  }
  std::string notes;
};

TEST(Net, AsksForEachLayersArraysJustBeforeItNeedsThem) {
  Net net = make_net(kClassifier);
  feed_classifier(net);
  NotingExchange exchange;
  net.forward({.exchange = &exchange});
  EXPECT_EQ(exchange.notes, "settle 0; linear 0; settle 1; linear 1; ");
}

TEST(Net, AsksTheOwnerOfASharedArrayBeforeEachUse) {
  Net net = make_net(base::concat(kInput, R"(
      layer { name: 'a' type: 'InnerProduct' bottom: 'data' top: 'x' param { name: 'w' } inner_product_param { num_output: 2 } }
      layer { name: 'b' type: 'InnerProduct' bottom: 'data' top: 'y' param { name: 'w' } inner_product_param { num_output: 2 } })"));
  NotingExchange exchange;
  net.forward({.exchange = &exchange});
  EXPECT_EQ(exchange.notes, "settle 0; settle 0; settle 1; ") << "b has its own bias, and neither hands out factors";
}

class NotingListener final : public base::EventListener {
 public:
  void record(const base::Event& event) override {
    notes += base::concat(event.kind == base::EventKind::kSpanBegin ? "begin " : "end ", event.name, " ",
                          event.iteration, "; ");
    EXPECT_GE(event.time, last);
    last = event.time;
  }
  std::string notes;
  base::Time last{};
};

TEST(Net, TellsOfTheSpansOfItsForwardPass) {
  NotingListener listener;
  Net net = make_net(base::concat(kInput, "layer { name: 'r' type: 'ReLU' bottom: 'data' top: 'y' }"),
                     {.dtype = at::kDouble, .events = &listener});
  net.forward({.iteration = 7});
  EXPECT_EQ(listener.notes, "begin forward in 7; end forward in 7; begin forward r 7; end forward r 7; ");
}

// Notes which records each layer is told of.
class Teller final : public Layer {
 public:
  Teller(const LayerConfig& config, std::size_t records, std::string& notes)
      : Layer(config, {.bottoms_min = 0, .bottoms_max = 1}), records_(records), notes_(notes) {}
  std::vector<Shape> top_shapes(const std::vector<Shape>&) const override { return {{1}}; }
  std::size_t records_per_batch() const override { return records_; }
  std::vector<at::Tensor> forward(const ForwardContext& context, const std::vector<at::Tensor>&) override {
    notes_ +=
        base::concat(name(), " ", context.first_record, "+", context.records, " step ", context.record_stride, "; ");
    return {at::ones({1}, at::kDouble)};
  }

 private:
  std::size_t records_;
  std::string& notes_;
};

TEST(Net, TellsASecondSourceItsOwnRecords) {
  std::string notes;
  LayerRegistry registry;
  registry.add("Two", [&](const LayerConfig& config) { return std::make_unique<Teller>(config, 2, notes); });
  registry.add("Five", [&](const LayerConfig& config) { return std::make_unique<Teller>(config, 5, notes); });
  registry.add("None", [&](const LayerConfig& config) { return std::make_unique<Teller>(config, 0, notes); });
  Net net(net_message("layer { name: 'a' type: 'Two' top: 'a' } layer { name: 'b' type: 'Five' top: 'b' } "
                      "layer { name: 'c' type: 'None' bottom: 'b' top: 'c' }"),
          registry, {.dtype = at::kDouble});
  EXPECT_EQ(net.records_per_batch(), 2u);
  net.forward({.first_record = 6, .record_stride = 4});
  EXPECT_EQ(notes, "a 6+2 step 4; b 15+5 step 10; c 6+2 step 4; ");
}

}  // namespace
}  // namespace poseidon::caffe
