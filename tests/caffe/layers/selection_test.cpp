// BatchReindex, Embed and Filter.
#include "base/text.h"
#include "caffe/layers/layer_fixture.h"
#include "engines/torch/session_exchange.h"

namespace poseidon::caffe {
namespace {

using namespace testing;  // NOLINT: the fixture is made for these tests

constexpr std::string_view kReindex = "name: 'b' type: 'BatchReindex' bottom: 'x' bottom: 'i' top: 'y'";

TEST(BatchReindex, TakesRowsByTheirNumbers) {
  const at::Tensor x = tensor_of({1, 2, 3, 4, 5, 6}, {3, 2});
  expect_near(tops_of(kReindex, {x, tensor_of({2, 0, 2, 1}, {4})})[0], {5, 6, 1, 2, 5, 6, 3, 4}, 0);
  expect_near(tops_of(kReindex, {x, tensor_of({1}, {1})})[0], {3, 4}, 0);
}

TEST(BatchReindex, SumsTheGradientsOfRowsThatCameSeveralTimes) {
  const Made made = make_layer(kReindex, {{3, 2}, {4}});
  const at::Tensor x = tensor_of({1, 2, 3, 4, 5, 6}, {3, 2}).requires_grad_();
  const at::Tensor y = made.layer->forward({}, {x, tensor_of({2, 0, 2, 2}, {4})})[0];
  (y * tensor_of({1, 2, 10, 20, 100, 200, 1000, 2000}, {4, 2})).sum().backward();
  expect_near(x.grad(), {10, 20, 0, 0, 1101, 2202}, 0);
  std::mt19937_64 random(1);
  expect_gradients_of(kReindex, {random_tensor({3, 2, 2}, random), tensor_of({1, 1, 0, 2, 1}, {5})}, {0});
}

TEST(BatchReindex, ExplainsWhatIsWrong) {
  EXPECT_EQ(
      setup_error(kReindex, {{3, 2}, {4, 1}}),
      "net.prototxt:1:1: layer \"b\" (BatchReindex) wants the numbers of rows along 1 axis; bottom \"i\" is [4, 1]");
  const Made made = make_layer(kReindex, {{3, 2}, {2}});
  const auto error = [&](double bad) {
    return error_of(
        [&] { made.layer->forward({}, {tensor_of({1, 2, 3, 4, 5, 6}, {3, 2}), tensor_of({1, bad}, {2})}); });
  };
  EXPECT_EQ(error(3),
            "net.prototxt:1:1: layer \"b\" (BatchReindex) met the number 3 as element 1 of \"i\", but has 3 rows: they "
            "are numbered from 0 to 2");
  EXPECT_NE(error(-1).find("met the number -1 as element 1"), std::string::npos);
}

constexpr std::string_view kEmbed =
    "name: 'e' type: 'Embed' bottom: 'x' top: 'y' embed_param { num_output: 2 input_dim: 4 "
    "weight_filler { type: 'gaussian' } bias_filler { type: 'uniform' } }";
constexpr std::string_view kEmbedWithoutBias =
    "name: 'e' type: 'Embed' bottom: 'x' top: 'y' embed_param { num_output: 2 input_dim: 4 bias_term: false }";

TEST(Embed, TakesAVectorOfItsWeightForEachNumber) {
  Made made = make_layer(kEmbed, {{2, 3}});
  EXPECT_EQ(made.tops[0], (Shape{2, 3, 2}));
  ASSERT_EQ(made.layer->parameters().size(), 2u);
  EXPECT_EQ(made.layer->parameters()[0].shape, (Shape{4, 2}));
  EXPECT_EQ(made.layer->parameters()[1].shape, Shape{2});
  made.layer->parameters()[0].value = tensor_of({1, 2, 3, 4, 5, 6, 7, 8}, {4, 2});
  made.layer->parameters()[1].value = tensor_of({100, -100}, {2});
  expect_near(made.layer->forward({}, {tensor_of({3, 0, 0, 1, 2, 3}, {2, 3})})[0],
              {107, -92, 101, -98, 101, -98, 103, -96, 105, -94, 107, -92}, 0);
  Made plain = make_layer(kEmbedWithoutBias, {{1}});
  ASSERT_EQ(plain.layer->parameters().size(), 1u);
  plain.layer->parameters()[0].value = tensor_of({1, 2, 3, 4, 5, 6, 7, 8}, {4, 2});
  expect_near(plain.layer->forward({}, {tensor_of({2}, {1})})[0], {5, 6}, 0);
}

TEST(Embed, GivesTheRowsThatItTouchesWhereToldSo) {
  const Made made = make_layer(kEmbed, {{2, 3}});
  EXPECT_EQ(made.layer->touched_rows(), 4u) << "six numbers, but only four rows";
  EXPECT_EQ(make_layer(kEmbed, {{3}}).layer->touched_rows(), 3u);
  const at::Tensor numbers = tensor_of({3, 0, 0, 1, 3, 3}, {2, 3});
  const at::Tensor outer = tensor_of({1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, {2, 3, 2});
  at::Tensor& weight = made.layer->parameters()[0].value;
  (made.layer->forward({.sparse_gradient = true}, {numbers})[0] * outer).sum().backward();
  ASSERT_TRUE(weight.grad().is_sparse());
  const at::Tensor rows = weight.grad().coalesce();
  // Row 0 came second and third, row 1 fourth, row 3 first, fifth and last.
  expect_near(rows.indices().to(at::kDouble), {0, 1, 3}, 0);
  expect_near(rows.values(), {3 + 5, 4 + 6, 7, 8, 1 + 9 + 11, 2 + 10 + 12}, 0);
  weight.mutable_grad().reset();
  (made.layer->forward({}, {numbers})[0] * outer).sum().backward();
  expect_near(weight.grad(), {8, 10, 7, 8, 0, 0, 21, 24}, 0);
}

TEST(RowsOfTables, TravelWhereTheyAreHalfOfTheTableAtMost) {
  // Four workers, ten rows of 16 floats: 12 (8 + 10 (8 + 64)) bytes; of a table of M rows ps sends 2 * 3 * 64 M.
  EXPECT_EQ(aten::bytes_of_rows(4, 10, 16, 4), 8736u);
  EXPECT_TRUE(aten::rows_pay(4, 10, 46, 16, 4)) << "17,664 bytes by ps";
  EXPECT_FALSE(aten::rows_pay(4, 10, 45, 16, 4)) << "17,280";
  EXPECT_FALSE(aten::rows_pay(1, 10, 1000, 16, 4)) << "nothing travels";
}

TEST(Embed, HasTheGradientsOfFiniteDifferences) {
  expect_gradients_of(kEmbed, {tensor_of({3, 0, 0, 1, 3, 3}, {2, 3})}, {});
  expect_gradients_of(kEmbedWithoutBias, {tensor_of({3, 0, 0}, {3})}, {});
}

TEST(Embed, ExplainsWhatIsWrong) {
  const Made made = make_layer(kEmbed, {{2}});
  for (const double bad : {4.0, -1.0}) {
    EXPECT_EQ(error_of([&] { made.layer->forward({}, {tensor_of({0, bad}, {2})}); }),
              base::concat("net.prototxt:1:1: layer \"e\" (Embed) met the number ", bad,
                           " as element 1 of \"x\", but has 4 inputs: they are numbered from 0 to 3"));
  }
  EXPECT_EQ(setup_error("name: 'e' type: 'Embed' bottom: 'x' top: 'y'", {{1}}),
            "net.prototxt:1:1: layer \"e\" (Embed) needs num_output, at least 1");
  EXPECT_EQ(setup_error("name: 'e' type: 'Embed' bottom: 'x' top: 'y' embed_param { num_output: 1 }", {{1}}),
            "net.prototxt:1:46: layer \"e\" (Embed) needs input_dim, at least 1");
}

constexpr std::string_view kFilter = "name: 'f' type: 'Filter' bottom: 'x' bottom: 'z' bottom: 's' top: 'y' top: 'w'";

TEST(Filter, TakesTheRowsThatTheSelectorMarks) {
  const Made made = make_layer(kFilter, {{3, 2}, {3}, {3, 1, 1}});
  EXPECT_EQ(made.tops, (std::vector<Shape>{{3, 2}, {3}}));
  const at::Tensor x = tensor_of({1, 2, 3, 4, 5, 6}, {3, 2});
  const at::Tensor z = tensor_of({7, 8, 9}, {3});
  const auto filtered = [&](const std::vector<double>& selector) {
    return made.layer->forward({}, {x, z, tensor_of(selector, {3, 1, 1})});
  };
  expect_near(filtered({1, 0, -0.5})[0], {1, 2, 5, 6}, 0);
  expect_near(filtered({1, 0, -0.5})[1], {7, 9}, 0);
  expect_near(filtered({1, 1, 1})[0], {1, 2, 3, 4, 5, 6}, 0);
  EXPECT_EQ(filtered({0, 0, 0})[0].sizes().vec(), (Shape{0, 2}));
  EXPECT_EQ(filtered({0, 0, 0})[1].sizes().vec(), (Shape{0}));
}

TEST(Filter, HasTheGradientsOfFiniteDifferences) {
  std::mt19937_64 random(1);
  expect_gradients_of(
      kFilter, {random_tensor({4, 2}, random), random_tensor({4, 1, 3}, random), tensor_of({0, 1, 0, 1}, {4})}, {0, 1});
  expect_gradients_of(kFilter, {random_tensor({2, 2}, random), random_tensor({2}, random), tensor_of({0, 0}, {2})},
                      {0, 1});
}

TEST(Filter, ExplainsWhatIsWrong) {
  EXPECT_EQ(setup_error("name: 'f' type: 'Filter' bottom: 'x' bottom: 's' top: 'y' top: 'z'", {{1}, {1}}),
            "net.prototxt:1:1: layer \"f\" (Filter) wants a top for each bottom but the last, which selects; it has 2 "
            "bottoms and 2 tops");
  EXPECT_EQ(
      setup_error(kFilter, {{3, 2}, {3}, {3, 2}}),
      "net.prototxt:1:1: layer \"f\" (Filter) wants one number for each row to select by; bottom \"s\" is [3, 2]");
  EXPECT_EQ(setup_error(kFilter, {{3, 2}, {4}, {3}}),
            "net.prototxt:1:1: layer \"f\" (Filter) wants as many rows in each bottom as it selects from; bottom \"z\" "
            "is [4], and bottom \"s\" is [3]");
}

}  // namespace
}  // namespace poseidon::caffe
