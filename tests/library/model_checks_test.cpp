#include "library/model_checks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace poseidon::library {
namespace {

using ::testing::HasSubstr;

Model small() {
  return {.tensors = {{"w", {2, 3}, DType::kFloat64}, {"b", {2}, DType::kFloat64}},
          .layers = {{"ip", {TensorId{0}, TensorId{1}}, 4}}};
}

std::string mistake(const Status& status) { return status.ok() ? "" : status.error().message; }

template <typename Change>
std::string mistake_of(Change change) {
  Model model = small();
  change(model);
  const Status status = check_model(model);
  EXPECT_TRUE(status.ok() || status.error().code == ErrorCode::kInvalid);
  return mistake(status);
}

TEST(CheckModel, TakesWhatTheEngineCanSynchronise) { EXPECT_EQ(mistake(check_model(small())), ""); }

TEST(CheckModel, NamesWhatIsWrong) {
  EXPECT_THAT(mistake_of([](Model& m) { m = {}; }), HasSubstr("no tensors"));
  EXPECT_THAT(mistake_of([](Model& m) { m.tensors[1].dtype = DType::kFloat16; }), HasSubstr("b is float16"));
  EXPECT_THAT(mistake_of([](Model& m) { m.tensors[1].name = "w"; }), HasSubstr("two tensors of the model are called w"));
  EXPECT_THAT(mistake_of([](Model& m) { m.tensors[1].name = ""; }), HasSubstr("no name"));
  EXPECT_THAT(mistake_of([](Model& m) { m.tensors[1].shape = {0}; }), HasSubstr("b cannot have the shape [0]"));
  EXPECT_THAT(mistake_of([](Model& m) { m.tensors[1].shape = {-2}; }), HasSubstr("[-2]"));
  EXPECT_THAT(mistake_of([](Model& m) { m.tensors[1].shape = {1LL << 40, 1LL << 40}; }), HasSubstr("cannot have the shape"));
  EXPECT_THAT(mistake_of([](Model& m) { m.tensors[1].shape.assign(17, 1); }), HasSubstr("17 dimensions"));
  EXPECT_THAT(mistake_of([](Model& m) { m.layers[0].tensors.pop_back(); }), HasSubstr("b is in no layer"));
  EXPECT_THAT(mistake_of([](Model& m) { m.layers[0].tensors[1] = TensorId{7}; }), HasSubstr("names tensor 7"));
  EXPECT_THAT(mistake_of([](Model& m) { m.layers[0].tensors[1] = TensorId{0}; }), HasSubstr("w is in layer ip and in layer ip"));
  EXPECT_THAT(mistake_of([](Model& m) {
                m.layers.push_back({"ip", {TensorId{1}}, 0});
              }),
              HasSubstr("two layers of the model are called ip"));
  EXPECT_THAT(mistake_of([](Model& m) { m.tensors[0].shape = {6}; }), HasSubstr("is no matrix"));
  EXPECT_THAT(mistake_of([](Model& m) { m.tensors[1].shape = {3}; }), HasSubstr("b must have 2 numbers of float64"));
}

TEST(CheckValues, WantsOneFittingViewForEachTensor) {
  std::vector<double> w(6);
  std::vector<double> b(2);
  const auto view = [](std::vector<double>& numbers) {
    return TensorView{reinterpret_cast<std::byte*>(numbers.data()), numbers.size() * sizeof(double), DType::kFloat64, {}};
  };
  std::vector<TensorView> values = {view(w), view(b)};
  EXPECT_EQ(mistake(check_values(small(), values)), "");
  values[1].bytes = 8;
  EXPECT_THAT(mistake(check_values(small(), values)), HasSubstr("the value of b has 8 bytes, 16 are wanted"));
  values[1] = view(b);
  values[1].data += 4;
  EXPECT_THAT(mistake(check_values(small(), values)), HasSubstr("not aligned to 8 bytes"));
  values[1].data = nullptr;
  EXPECT_THAT(mistake(check_values(small(), values)), HasSubstr("has no memory"));
  values[1] = view(b);
  values[1].dtype = DType::kFloat32;
  EXPECT_THAT(mistake(check_values(small(), values)), HasSubstr("is float32, float64 is wanted"));
  values.pop_back();
  EXPECT_THAT(mistake(check_values(small(), values)), HasSubstr("values for 1 tensors, the model has 2"));
}

TEST(CheckRenewal, WantsTheTensorsOfBeforeAndPerhapsMoreBehindThem) {
  std::vector<double> late(3);
  Model next = small();
  next.tensors.push_back({"late", {3}, DType::kFloat64});
  next.layers.push_back({"late", {TensorId{2}}});
  std::vector<TensorView> values(3);
  EXPECT_EQ(mistake(check_renewal(small(), next, values)), "");
  values[2] = {reinterpret_cast<std::byte*>(late.data()), 16, DType::kFloat64, {}};
  EXPECT_THAT(mistake(check_renewal(small(), next, values)), HasSubstr("the value of late has 16 bytes, 24 are wanted"));
  values[2].bytes = 24;
  EXPECT_EQ(mistake(check_renewal(small(), next, values)), "");
  EXPECT_THAT(mistake(check_renewal(next, small(), std::vector<TensorView>(2))), HasSubstr("it lacks late [3] float64"));
  EXPECT_THAT(mistake(check_renewal(small(), next, std::vector<TensorView>(2))), HasSubstr("values for 2 tensors, the model has 3"));
  std::swap(next.tensors[0], next.tensors[1]);
  EXPECT_THAT(mistake(check_renewal(small(), next, values)), HasSubstr("tensor 0 of the next model is b [2] float64, and of the present one w [2, 3]"));
}

TEST(CheckFactors, WantsRowsAsAnnouncedAndMemoryForBothSums) {
  std::vector<double> u(8);
  std::vector<double> v(12);
  std::vector<double> w(6);
  std::vector<double> b(2);
  const auto view = [](std::vector<double>& numbers, std::size_t count) {
    return TensorView{reinterpret_cast<std::byte*>(numbers.data()), count * sizeof(double), DType::kFloat64, {}};
  };
  FactorGradient gradient{
      .outputs = view(u, 4), .inputs = view(v, 6), .rows = 2, .hold = {}, .weight = view(w, 6), .bias = view(b, 2), .ready = {}};
  EXPECT_EQ(mistake(check_factors(small(), LayerId{0}, gradient)), "");
  gradient.rows = 5;
  EXPECT_THAT(mistake(check_factors(small(), LayerId{0}, gradient)), HasSubstr("5 rows of factors, 4 were announced"));
  gradient.rows = 1;
  EXPECT_THAT(mistake(check_factors(small(), LayerId{0}, gradient)), HasSubstr("U of layer ip has 32 bytes, 16 are wanted"));
  gradient.rows = 2;
  gradient.bias = {};
  gradient.bias.dtype = DType::kFloat64;
  EXPECT_THAT(mistake(check_factors(small(), LayerId{0}, gradient)), HasSubstr("the sum of b has 0 bytes"));
}

}  // namespace
}  // namespace poseidon::library
