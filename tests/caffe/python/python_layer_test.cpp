// Python: what the layer makes of a class, here one in C++ that stands in for Python's. Classes in Python are tested by
// tests/system/python_layer_test.py.
#include "engines/caffe/layers/python_layer.h"

#include <ATen/ops/tensor.h>
#include <gmock/gmock.h>

#include "base/text.h"
#include "caffe/layers/layer_fixture.h"
#include "engines/caffe/proto/message.h"

namespace poseidon::caffe {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr const char* kText = R"(
  name: "mixed" type: "Python" bottom: "a" bottom: "b" top: "y" top: "z"
  python_param { module: "mixtures" layer: "Mixed" param_str: "3" })";

// y = w a b and z = a + 3 b, with a trained number w.
class Mixed final : public PythonInstance {
 public:
  explicit Mixed(const PythonClass& which) : factor_(std::stod(which.param_str)) {}

  std::vector<Shape> reshape(const std::vector<Shape>& bottoms, std::size_t tops) override {
    if (bottoms[0] != bottoms[1]) throw PythonComplaint("failed at mixtures.py:7 in reshape: ValueError: unequal");
    return std::vector<Shape>(tops, bottoms[0]);
  }
  std::vector<at::Tensor> arrays() override { return {at::tensor({0.5}, at::kDouble)}; }
  std::vector<at::Tensor> forward(const PythonPass& pass, const std::vector<at::Tensor>& bottoms,
                                  const std::vector<at::Tensor>& arrays) override {
    pass_ = pass;
    a_ = bottoms[0];
    b_ = bottoms[1];
    w_ = arrays[0];
    return {w_ * a_ * b_, a_ + factor_ * b_};
  }
  std::vector<at::Tensor> backward(const std::vector<at::Tensor>& tops, const std::vector<bool>& wanted) override {
    if (fails_) throw PythonComplaint("failed at mixtures.py:12 in backward: ZeroDivisionError: none");
    wanted_ = wanted;
    return {wanted[0] ? tops[0] * w_ * b_ + tops[1] : at::Tensor(),
            wanted[1] ? tops[0] * w_ * a_ + tops[1] * factor_ : at::Tensor(), (tops[0] * a_ * b_).sum().view({1})};
  }

  bool fails_ = false;
  PythonPass pass_;
  std::vector<bool> wanted_;

 private:
  double factor_;
  at::Tensor a_, b_, w_;
};

class MixedClasses final : public PythonClasses {
 public:
  std::unique_ptr<PythonInstance> make(const PythonClass& which) override {
    if (which.name != "Mixed") throw PythonComplaint("cannot be made: AttributeError: no such class");
    made = which;
    auto instance = std::make_unique<Mixed>(which);
    last = instance.get();
    return instance;
  }
  PythonClass made;
  Mixed* last = nullptr;
};

class PythonLayerTest : public ::testing::Test {
 protected:
  std::unique_ptr<Layer> make(const std::string& text, const std::vector<Shape>& bottoms) {
    const proto::Message message = proto::parse_text(text, "LayerParameter", "nets/net.prototxt");
    auto layer = make_python_by(classes_, layer_config(message, Phase::kTrain, 1, at::kDouble));
    tops_ = layer->setup(bottoms);
    for (Parameter& parameter : layer->parameters()) layer->fill(parameter);
    return layer;
  }

  MixedClasses classes_;
  std::vector<Shape> tops_;
  std::mt19937_64 random_{7};
};

TEST_F(PythonLayerTest, TellsTheClassWhatThePrototxtSays) {
  make(kText, {{2, 3}, {2, 3}});
  EXPECT_EQ(classes_.made.module, "mixtures");
  EXPECT_EQ(classes_.made.layer, "mixed");
  EXPECT_EQ(classes_.made.folder, "nets");
  EXPECT_EQ(classes_.made.phase, Phase::kTrain);
  EXPECT_EQ(tops_, (std::vector<Shape>{{2, 3}, {2, 3}}));
}

TEST_F(PythonLayerTest, TellsTheClassWhichRecordsItComputes) {
  const auto layer = make(kText, {{2}, {2}});
  const at::Tensor a = testing::tensor_of({1, 2}, {2});
  const std::vector<at::Tensor> tops =
      layer->forward({.iteration = 5, .first_record = 40, .records = 2, .record_stride = 8}, {a, a});
  EXPECT_EQ(classes_.last->pass_.iteration, 5u);
  EXPECT_EQ(classes_.last->pass_.first_record, 40u);
  EXPECT_EQ(classes_.last->pass_.records, 2u);
  testing::expect_near(tops[0], {0.5, 2}, 0);
  testing::expect_near(tops[1], {4, 8}, 0);
}

TEST_F(PythonLayerTest, IsDifferentiatedByTheClass) {
  const auto layer = make(kText, {{2, 3}, {2, 3}});
  testing::expect_gradients(*layer, {testing::random_tensor({2, 3}, random_), testing::random_tensor({2, 3}, random_)},
                            {0, 1});
  EXPECT_EQ(classes_.last->wanted_, (std::vector<bool>{true, true}));
}

TEST_F(PythonLayerTest, AsksOnlyForTheGradientsThatAreWanted) {
  const auto layer = make(kText, {{2}, {2}});
  at::Tensor a = testing::tensor_of({1, 2}, {2}).requires_grad_();
  layer->forward({}, {a, testing::tensor_of({3, 4}, {2})})[0].sum().backward();
  EXPECT_EQ(classes_.last->wanted_, (std::vector<bool>{true, false}));
  testing::expect_near(a.grad(), {1.5, 2}, 0);
  testing::expect_near(layer->parameters()[0].value.grad(), {11}, 0);
}

TEST_F(PythonLayerTest, SaysWhatPythonComplainsOf) {
  const auto error_of_text = [&](const std::string& text, const std::vector<Shape>& bottoms) {
    return testing::error_of([&] { make(text, bottoms); });
  };
  EXPECT_THAT(error_of_text(kText, {{2}, {3}}),
              AllOf(HasSubstr("nets/net.prototxt"), HasSubstr("layer \"mixed\" (Python) failed at mixtures.py:7")));
  EXPECT_THAT(error_of_text(R"(name: "x" type: "Python" top: "y" python_param { module: "m" })", {}),
              HasSubstr("needs layer in its python_param"));
  EXPECT_THAT(error_of_text(R"(name: "x" type: "Python" top: "y" python_param { module: "m" layer: "Other" })", {}),
              HasSubstr("no such class"));
}

TEST_F(PythonLayerTest, SaysWhatPythonComplainsOfInABackwardPass) {
  const auto layer = make(kText, {{2}, {2}});
  classes_.last->fails_ = true;
  at::Tensor a = testing::tensor_of({1, 2}, {2}).requires_grad_();
  const at::Tensor sum = layer->forward({}, {a, a})[0].sum();
  EXPECT_THAT(testing::error_of([&] { sum.backward(); }),
              HasSubstr("layer \"mixed\" (Python) failed at mixtures.py:12 in backward: ZeroDivisionError"));
}

}  // namespace
}  // namespace poseidon::caffe
