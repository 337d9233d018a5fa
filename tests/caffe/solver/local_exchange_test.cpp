#include "engines/torch/local_exchange.h"

#include <gtest/gtest.h>

#include <stdexcept>

#include "base/text.h"
#include "caffe/layers/layer_fixture.h"

namespace poseidon::aten {
namespace {

using caffe::testing::tensor_of;
using caffe::testing::values_of;

class LocalExchangeTest : public ::testing::Test {
 protected:
  static LayerParameters layer(const std::string& name) {
    LayerParameters made;
    made.name = name;
    made.parameter_names = {name + ".weight"};
    made.parameters = {tensor_of({1, 2}, {2}).requires_grad_()};
    return made;
  }

  void backward(std::size_t layer, double factor) { (layers_[layer].parameters[0] * factor).sum().backward(); }

  std::string updates_;
  std::vector<LayerParameters> layers_ = {layer("a"), layer("b")};
  LocalExchange exchange_{layers_, [this](const SummedGradient& gradient) {
                            updates_ += base::concat(
                                "layer ", index(gradient.layer), " iteration ", gradient.iteration, " by ",
                                gradient.sum.defined() ? base::concat(values_of(gradient.sum)[0]) : "nothing", " of ",
                                gradient.contributors, "; ");
                          }};
};

TEST_F(LocalExchangeTest, UpdatesALayerWhenTheNextForwardPassReachesIt) {
  exchange_.begin(5);
  exchange_.settle(LayerId{0});
  EXPECT_EQ(updates_, "") << "there are no gradients yet";
  backward(0, 3);
  backward(1, 4);
  exchange_.begin(6);
  exchange_.settle(LayerId{0});
  EXPECT_EQ(updates_, "layer 0 iteration 5 by 3 of 1; ");
  EXPECT_FALSE(layers_[0].parameters[0].grad().defined()) << "the next gradient begins anew";
  exchange_.settle(LayerId{0});
  exchange_.settle(LayerId{1});
  EXPECT_EQ(updates_, "layer 0 iteration 5 by 3 of 1; layer 1 iteration 5 by 4 of 1; ");
}

TEST_F(LocalExchangeTest, SettlesThePresentIterationWithAllOthers) {
  exchange_.begin(0);
  backward(0, 3);
  exchange_.settle_all();
  EXPECT_EQ(updates_, "layer 0 iteration 0 by 3 of 1; layer 1 iteration 0 by nothing of 0; ");
  exchange_.settle_all();
  exchange_.begin(1);
  exchange_.settle(LayerId{0});
  EXPECT_EQ(updates_, "layer 0 iteration 0 by 3 of 1; layer 1 iteration 0 by nothing of 0; ") << "once each";
}

TEST_F(LocalExchangeTest, NoticesALayerThatIsNeverSettled) {
  exchange_.begin(0);
  exchange_.begin(1);
  EXPECT_THROW(exchange_.begin(2), std::logic_error);
}

TEST_F(LocalExchangeTest, MultipliesAsAtenDoes) {
  const at::Tensor y =
      exchange_.linear(LayerId{0}, tensor_of({1, 2}, {1, 2}), tensor_of({3, 4}, {1, 2}), tensor_of({5}, {1}));
  EXPECT_EQ(values_of(y), std::vector<double>{16});
}

}  // namespace
}  // namespace poseidon::aten
